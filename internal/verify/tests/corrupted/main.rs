//! One rich history in which everything happens and nothing is wrong; and every way of corrupting it that was thought of. Each
//! must be found, under the invariant that it breaks and at the record where it shows.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test a panic is how one says that something is wrong"
)]
#![allow(clippy::inconsistent_digit_grouping, reason = "cents stand behind the last underscore")]

#[path = "../history/mod.rs"]
mod history;

mod causes;
mod derived;
mod forms;
mod letters;
mod money;
mod outcomes;
mod queue;
mod relayed;
mod saga;
mod sequences;

use history::stored::{Owned, Queue, Stored};
use history::world::World;
use uuid::Uuid;
use verify::{Breach, Invariant};

const PARTITIONS: u16 = 4;

/// Ids that stand in this partition.
const fn id(number: u128, partition: u128) -> Uuid {
    Uuid::from_u128(number * 0x1_0000 + partition)
}

const ACME: Uuid = id(1, 1);
const BOTH: Uuid = id(2, 2);
const ADA: Uuid = id(3, 0);
const BOB: Uuid = id(4, 1);
const EVE: Uuid = id(5, 3);
const USA: Uuid = id(6, 2);
const APPROVED: Uuid = id(0x11, 3);
const REVERSED: Uuid = id(0x12, 0);
const WAITING: Uuid = id(0x13, 1);
const ON_SALE: Uuid = id(0x14, 2);
const NOWHERE: Uuid = id(0x15, 0);
const WINS: Uuid = id(0x21, 0);
const LATE: Uuid = id(0x22, 0);
const EXACT: Uuid = id(0x23, 0);
const WAITS: Uuid = id(0x24, 0);
const LOW: Uuid = id(0x25, 0);
const LOST: Uuid = id(0x26, 0);
const OWN: Uuid = id(0x27, 0);
const FOREIGN: Uuid = id(0x28, 0);

/// Everything happens once at least, and everything is settled.
fn rich() -> World {
    let mut world = World::new(PARTITIONS);
    world.issuer(ACME, "Acme");
    world.issuer(BOTH, "Both");
    world.investor(ADA, "Ada", 1_000_00, "EUR");
    world.investor(BOB, "Bob", 500_00, "EUR");
    world.investor(BOTH, "Both", 300_00, "EUR");
    world.investor(EVE, "Eve", 0, "EUR");
    world.investor(USA, "Sam", 400_00, "USD");
    // Said again, and said otherwise.
    world.issuer(ACME, "Acme");
    world.issuer(ACME, "Acme & Co");
    world.investor(ADA, "Ada", 1_000_00, "EUR");

    world.sell(APPROVED, ACME, 100_00);
    world.sell(REVERSED, ACME, 50_00);
    world.sell(WAITING, BOTH, 80_00);
    world.sell(ON_SALE, BOTH, 70_00);
    world.sell(ON_SALE, BOTH, 70_00);
    world.sell(ON_SALE, BOTH, 71_00);
    world.sell(NOWHERE, EVE, 1_00);

    world.bid(WINS, ADA, APPROVED, 120_50);
    world.bid(LATE, BOB, APPROVED, 200_00);
    world.bid(EXACT, BOB, REVERSED, 50_00);
    world.bid(WAITS, ADA, WAITING, 99_99);
    world.bid(LOW, ADA, ON_SALE, 1_00);
    world.bid(LOST, ADA, NOWHERE, 10_00);
    world.bid(OWN, BOTH, ON_SALE, 70_00);
    world.bid(FOREIGN, USA, ON_SALE, 70_00);
    world.bid(id(0x29, 0), EVE, ON_SALE, 70_00);
    world.bid(id(0x2a, 0), ACME, ON_SALE, 70_00);
    world.approve(ON_SALE);
    world.settle();
    world.approve(APPROVED);
    world.reverse(REVERSED);
    world.settle();
    world.approve(REVERSED);
    world.reverse(NOWHERE);
    world.nonsense();
    world
}

/// What a platform has stored of it.
fn clean() -> Stored {
    let mut stored = Stored::of(PARTITIONS, rich().log);
    stored.settled = true;
    stored
}

#[test]
fn nothing_is_wrong_with_the_history_before_it_is_corrupted() {
    let report = clean().audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    assert_eq!(report.dead_letters, 1);
    assert_eq!(report.counts.outcomes.refused, 9, "{:?}", report.counts);
    assert_eq!(report.counts.bids.committed, 1);
    assert_eq!(report.counts.bids.won, 1);
    assert_eq!(report.counts.bids.released, 6);
}

/// Something is reported: first this invariant, and whatever the check of the breach says.
#[track_caller]
fn found(stored: &Stored, invariant: Invariant, check: impl Fn(&Breach) -> bool) {
    let report = stored.audit();
    let Some(first) = report.breaches.first() else { panic!("nothing was found") };
    assert_eq!(first.invariant, invariant, "{:#?}", report.breaches);
    assert!(check(first), "{:#?}", report.breaches);
}

/// Something is reported, first this invariant and at this record.
#[track_caller]
fn found_at(stored: &Stored, invariant: Invariant, record: &Owned) {
    found(stored, invariant, |breach| {
        breach.position == Some(record.position()) && breach.record_id.is_none_or(|id| id == record.record_id)
    });
}

/// The log with one record changed; all else is what it was.
#[track_caller]
fn changed(index: impl Fn(&Stored) -> usize, change: impl Fn(&mut Owned), invariant: Invariant) {
    let mut stored = clean();
    let index = index(&stored);
    change(&mut stored.log[index]);
    let record = stored.log[index].clone();
    found_at(&stored, invariant, &record);
}
