//! How partitions spread over members, whatever has happened to them before.
#![expect(clippy::expect_used, reason = "a test: what goes wrong panics")]

use std::collections::{BTreeMap, BTreeSet};

use eventsourcing::membership::spread;
use eventsourcing::partition::{Partition, PartitionCount};
use eventsourcing::testkit::world::Dice;
use uuid::Uuid;

/// What a store of leases remembers of one role; terms are over when a test says so.
#[derive(Clone)]
struct Role {
    partitions: PartitionCount,
    living: BTreeSet<Uuid>,
    held: BTreeMap<Partition, Uuid>,
}

impl Role {
    fn of(partitions: u16) -> Self {
        let partitions = PartitionCount::new(partitions).expect("a number of partitions");
        Self { partitions, living: BTreeSet::new(), held: BTreeMap::new() }
    }

    fn share(&self, member: Uuid) -> usize {
        self.held.values().filter(|holder| **holder == member).count()
    }

    fn shares(&self) -> Vec<usize> {
        let mut shares: Vec<usize> = self.living.iter().map(|member| self.share(*member)).collect();
        shares.sort_unstable();
        shares
    }

    /// A member says that it lives. Answers with how many partitions it took, and checks what it may take.
    fn renew(&mut self, member: Uuid) -> usize {
        self.living.insert(member);
        let taken = spread(&self.living, &self.held, member, self.partitions);
        assert!(taken.is_sorted_by(|a, b| a < b), "in order, and each once");
        for partition in &taken {
            assert!(*partition < Partition::from_index(self.partitions.get()));
            let before = self.held.insert(*partition, member);
            assert_ne!(before, Some(member), "nobody takes what it has");
            if let Some(before) = before.filter(|before| self.living.contains(before)) {
                let left = self.share(before);
                assert!(left + 1 > self.share(member) - 1, "nobody takes from who has no more than it");
            }
        }
        if !taken.is_empty() {
            let most = self.shares().last().copied();
            assert!(most >= Some(self.share(member)));
        }
        taken.len()
    }

    fn die(&mut self, member: Uuid) {
        self.living.remove(&member);
        let living = &self.living;
        self.held.retain(|_, holder| living.contains(holder));
    }

    fn is_even(&self) -> bool {
        let shares = self.shares();
        let all: usize = shares.iter().sum();
        let ends = shares.first().zip(shares.last());
        all == usize::from(self.partitions.get()) && ends.is_none_or(|(least, most)| most - least <= 1)
    }
}

fn member(number: usize) -> Uuid {
    Uuid::from_u128(u128::try_from(number).expect("a small number") * 7919 % 101)
}

/// Joins, deaths and renewals in any order, and then everybody who lives renews, in any order.
fn history(seed: u64) -> Role {
    let mut dice = Dice::new(seed);
    let count = [1, 2, 3, 7, 16, 17, 64][dice.below(7)];
    let mut role = Role::of(count);
    for _ in 0..dice.below(120) {
        let one = member(dice.below(9));
        if dice.percent(20) {
            role.die(one);
        } else {
            role.renew(one);
        }
    }
    role.renew(member(dice.below(9)));
    for _ in 0..2 {
        let mut order: Vec<Uuid> = role.living.iter().copied().collect();
        while !order.is_empty() {
            role.renew(order.swap_remove(dice.below(order.len())));
        }
    }
    role
}

#[test]
fn any_history_ends_with_every_partition_held_once_in_even_shares() {
    for seed in 0..3000 {
        let role = history(seed);
        assert!(role.is_even(), "seed {seed}: {:?}", role.shares());
        assert!(role.held.values().all(|holder| role.living.contains(holder)));
    }
}

#[test]
fn a_renewal_with_nothing_to_do_takes_nothing() {
    for seed in 0..500 {
        let mut role = history(seed);
        for member in role.living.clone() {
            assert_eq!(role.renew(member), 0, "seed {seed}");
        }
    }
}

#[test]
fn a_join_moves_no_more_than_its_share() {
    for seed in 0..500 {
        let mut role = history(seed);
        let before = role.held.clone();
        let newcomer = member(50);
        let taken = role.renew(newcomer);
        assert_eq!(taken, usize::from(role.partitions.get()) / role.living.len(), "seed {seed}");
        for member in role.living.clone() {
            assert_eq!(role.renew(member), 0, "seed {seed}: nobody else moves anything");
        }
        let moved = role.held.iter().filter(|(partition, holder)| before.get(partition) != Some(holder));
        assert_eq!(moved.count(), taken);
        assert!(role.is_even());
    }
}

#[test]
fn a_death_moves_only_what_the_dead_held() {
    for seed in 0..500 {
        let mut role = history(seed);
        if role.living.len() < 2 {
            continue;
        }
        let dead = *role.living.iter().next().expect("somebody lives");
        let held = role.share(dead);
        role.die(dead);
        let moved: usize = role.living.clone().into_iter().map(|member| role.renew(member)).sum();
        assert_eq!(moved, held, "seed {seed}");
        assert!(role.is_even(), "seed {seed}: {:?}", role.shares());
    }
}

#[test]
fn sixteen_partitions_and_three_members() {
    let mut role = Role::of(16);
    // One after the other.
    assert_eq!([1, 2, 3].map(|number| role.renew(member(number))), [16, 8, 5]);
    assert_eq!(role.shares(), [5, 5, 6]);
    // And all of them at once, known to each other before anybody holds anything.
    let mut role = Role::of(16);
    role.living = [1, 2, 3].map(member).into();
    assert_eq!([1, 2, 3].map(|number| role.renew(member(number))), [6, 5, 5], "nothing is taken twice");
}

#[test]
fn more_members_than_partitions() {
    let mut role = Role::of(2);
    assert_eq!([1, 2, 3, 4].map(|number| role.renew(member(number))), [2, 1, 0, 0]);
    assert_eq!(role.shares(), [0, 0, 1, 1]);
    let holder = *role.held.values().next().expect("a holder");
    role.die(holder);
    let waiting: Vec<Uuid> = role.living.iter().copied().filter(|one| role.share(*one) == 0).collect();
    assert_eq!(waiting.iter().map(|one| role.renew(*one)).collect::<Vec<_>>(), [1, 0]);
}
