//! What every store of leases promises: everything has one holder, shares are even, and what the dead held is taken
//! over, by the store's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::partition::{Partition, PartitionCount};
use crate::ports::{Leases, Role};

use super::PARTITIONS;
use super::sample::id;

/// The suite of [`Leases`]. `pause` lets some of the store's time pass: less than a second, and more than nothing.
pub async fn leases<L, F, P>(make: F, pause: P)
where
    L: Leases + Clone,
    F: AsyncFn() -> L,
    P: AsyncFn(),
{
    the_first_member_gets_everything(make().await).await;
    a_second_member_takes_its_share_and_the_first_hears_of_it(make().await).await;
    a_renewal_with_nothing_to_do_changes_nothing(make().await).await;
    shares_are_even_whoever_comes_first(make().await).await;
    who_is_left_over_gets_nothing_until_somebody_leaves(make().await).await;
    who_leaves_is_not_waited_for(make().await).await;
    roles_do_not_know_of_each_other(make().await).await;
    members_that_renew_at_the_same_time_share(make().await).await;
    a_member_that_died_is_succeeded_when_its_term_is_over(make().await, &pause).await;
    a_member_that_was_thought_dead_takes_its_share_again(make().await, &pause).await;
}

/// Longer than any suite runs: such a member does not die.
const LONG: Duration = Duration::from_mins(10);

/// What a member asks for that is about to die.
const SHORT: Duration = Duration::from_millis(50);

/// More pauses than any term of [`SHORT`] takes.
const TURNS: u32 = 1000;

/// The members of a role, as they see themselves.
struct Members<L> {
    leases: L,
    partitions: PartitionCount,
    seen: BTreeMap<Uuid, Vec<Partition>>,
}

impl<L: Leases> Members<L> {
    fn of(leases: L) -> Self {
        Self { leases, partitions: PARTITIONS, seen: BTreeMap::new() }
    }

    async fn renew_for(&mut self, name: &str, term: Duration) -> usize {
        let held = renew(&self.leases, Role::Worker, name, self.partitions, term).await;
        let share = held.len();
        self.seen.insert(id(name), held);
        share
    }

    async fn renew(&mut self, name: &str) -> usize {
        self.renew_for(name, LONG).await
    }

    async fn leave(&mut self, name: &str) {
        assert_eq!(self.leases.leave(Role::Worker, id(name)).await, Ok(()), "a member may leave");
        self.seen.remove(&id(name));
    }

    /// Everything is held, by one member each, in shares that differ by one at most.
    fn are_even(&self) {
        let held: Vec<Partition> = self.seen.values().flatten().copied().collect();
        let once: BTreeSet<Partition> = held.iter().copied().collect();
        assert_eq!(held.len(), once.len(), "a partition has two holders: {:?}", self.seen);
        assert_eq!(once, self.partitions.all().collect(), "a partition has no holder");
        let shares = || self.seen.values().map(Vec::len);
        assert!(shares().max() <= shares().min().map(|least| least + 1), "uneven: {:?}", self.seen);
    }
}

async fn renew<L: Leases>(
    leases: &L,
    role: Role,
    name: &str,
    partitions: PartitionCount,
    term: Duration,
) -> Vec<Partition> {
    let held = leases.renew(role, id(name), partitions, term).await.expect("a lease can be renewed");
    assert!(held.is_sorted_by(|a, b| a < b), "in order, and each once: {held:?}");
    assert!(held.iter().all(|partition| partition.index() < partitions.get()));
    held
}

async fn the_first_member_gets_everything<L: Leases>(leases: L) {
    let mut members = Members::of(leases);
    assert_eq!(members.renew("a").await, 16);
    members.are_even();
}

async fn a_second_member_takes_its_share_and_the_first_hears_of_it<L: Leases + Clone>(leases: L) {
    let mut members = Members::of(leases.clone());
    members.renew("a").await;
    let taken = renew(&leases, Role::Worker, "b", PARTITIONS, LONG).await;
    assert_eq!(taken.len(), 8, "its share, and not more");
    assert_eq!(members.renew("a").await, 8);
    assert_eq!(members.renew("b").await, 8);
    assert_eq!(members.seen[&id("b")], taken);
    members.are_even();
}

async fn a_renewal_with_nothing_to_do_changes_nothing<L: Leases>(leases: L) {
    let mut members = Members::of(leases);
    for name in ["a", "b", "c", "a", "b"] {
        members.renew(name).await;
    }
    members.are_even();
    let before = members.seen.clone();
    for name in ["c", "b", "a", "a", "c"] {
        members.renew(name).await;
        assert_eq!(members.seen, before);
    }
}

async fn shares_are_even_whoever_comes_first<L: Leases>(leases: L) {
    let mut members = Members::of(leases);
    let names = ["a", "b", "c", "d", "e"];
    for joined in 1..=names.len() {
        for _ in 0..2 {
            for name in names[..joined].iter().rev() {
                members.renew(name).await;
            }
        }
        members.are_even();
    }
}

async fn who_is_left_over_gets_nothing_until_somebody_leaves<L: Leases>(leases: L) {
    let mut members = Members::of(leases);
    members.partitions = PartitionCount::ONE;
    assert_eq!(members.renew("a").await, 1);
    assert_eq!(members.renew("b").await, 0, "nobody takes from one who has no more than its share");
    assert_eq!(members.renew("a").await, 1);
    members.leave("a").await;
    assert_eq!(members.renew("b").await, 1);
    members.are_even();
}

async fn who_leaves_is_not_waited_for<L: Leases>(leases: L) {
    let mut members = Members::of(leases);
    members.leave("nobody").await;
    for name in ["a", "b", "c", "a", "b"] {
        members.renew(name).await;
    }
    members.leave("b").await;
    members.leave("b").await;
    members.renew("a").await;
    members.renew("c").await;
    members.are_even();
    members.leave("a").await;
    assert_eq!(members.renew("c").await, 16);
}

async fn roles_do_not_know_of_each_other<L: Leases>(leases: L) {
    let all: Vec<Partition> = PARTITIONS.all().collect();
    let roles = [Role::Worker, Role::Relayer, Role::Policies, Role::Projector];
    for role in roles {
        assert_eq!(renew(&leases, role, "a", PARTITIONS, LONG).await, all);
    }
    let first = renew(&leases, Role::Importer, "a", PartitionCount::ONE, LONG).await;
    assert_eq!(first, all[..1], "one to own, the first");
    assert_eq!(leases.leave(Role::Worker, id("a")).await, Ok(()));
    assert_eq!(renew(&leases, Role::Worker, "b", PARTITIONS, LONG).await, all);
    assert_eq!(renew(&leases, Role::Relayer, "a", PARTITIONS, LONG).await, all);
}

async fn members_that_renew_at_the_same_time_share<L: Leases + Clone>(leases: L) {
    let mut members = Members::of(leases.clone());
    let names = ["a", "b", "c", "d", "e", "f"];
    for _ in 0..3 {
        let renewals = names.iter().map(async |name| {
            let handle = leases.clone();
            renew(&handle, Role::Worker, name, PARTITIONS, LONG).await
        });
        join_all(renewals).await;
    }
    for name in names {
        members.renew(name).await;
    }
    members.are_even();
}

/// Renews one member until it holds everything; `others` of it are alive, and renew as well.
async fn until_all_is_held<L: Leases>(members: &mut Members<L>, names: &[&str], pause: &impl AsyncFn()) {
    for _ in 0..TURNS {
        let mut held = 0;
        for name in names {
            held += members.renew(name).await;
        }
        if held == usize::from(members.partitions.get()) {
            return;
        }
        pause().await;
    }
    panic!("what the dead held is never taken over");
}

async fn a_member_that_died_is_succeeded_when_its_term_is_over<L: Leases>(leases: L, pause: &impl AsyncFn()) {
    let mut members = Members::of(leases);
    for name in ["a", "b", "c", "a", "b"] {
        members.renew(name).await;
    }
    members.renew_for("b", SHORT).await;
    members.seen.remove(&id("b"));
    until_all_is_held(&mut members, &["a", "c"], pause).await;
    members.renew("a").await;
    members.are_even();
    // A term may be made shorter; a longer one that was said before does not count any more.
    members.renew_for("a", SHORT).await;
    members.seen.remove(&id("a"));
    until_all_is_held(&mut members, &["c"], pause).await;
    members.are_even();
}

async fn a_member_that_was_thought_dead_takes_its_share_again<L: Leases>(leases: L, pause: &impl AsyncFn()) {
    let mut members = Members::of(leases);
    members.renew("a").await;
    members.renew("b").await;
    members.renew_for("a", SHORT).await;
    members.seen.remove(&id("a"));
    until_all_is_held(&mut members, &["b"], pause).await;
    assert_eq!(members.renew("a").await, 8, "it is one like any other, and takes its share");
    assert_eq!(members.renew("b").await, 8);
    members.are_even();
}
