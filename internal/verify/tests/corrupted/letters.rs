//! Dead letters: resolved once, by what derives from them, and their retries do what died.

use uuid::Uuid;
use verify::Invariant::{Causality, I2, I3, I4};
use verify::LetterState;

use super::history::stored::{Owned, Stored};
use super::history::world::World;
use super::{ADA, ON_SALE, found_at, id, rich};

const BID: Uuid = id(0x2b, 0);

/// A bid whose saga stops at a dead letter: its ProcessBid died.
fn dead() -> World {
    let mut world = rich();
    world.bid(BID, ADA, ON_SALE, 1_00);
    world.kill(0);
    world
}

fn stored(world: World) -> Stored {
    let mut stored = Stored::of(world.partitions, world.log);
    stored.settled = true;
    stored
}

/// What was stored after somebody changed the log.
fn corrupted(mut world: World, change: impl Fn(&mut Vec<Owned>)) -> Stored {
    change(&mut world.log);
    stored(world)
}

fn last(stored: &Stored) -> Owned {
    stored.log.last().unwrap().clone()
}

#[test]
fn a_letter_that_was_retried_leaves_nothing_open() {
    let mut world = dead();
    world.retry(0);
    world.settle();
    let report = stored(world).audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    assert_eq!((report.dead_letters, report.retried_letters), (1, 1));
    assert!(report.dead.iter().all(|letter| letter.bid_id.is_none()), "only the nonsense is left");
}

#[test]
fn a_letter_that_died_again_is_open_and_excuses_its_saga() {
    let mut world = dead();
    world.retry_in_vain(0);
    let report = stored(world.clone()).audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    assert_eq!((report.dead_letters, report.retried_letters), (2, 1));
    assert!(report.dead.iter().any(|letter| letter.bid_id == Some(BID)));
    world.retry(0);
    world.settle();
    let report = stored(world).audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    assert_eq!((report.dead_letters, report.retried_letters), (1, 2));
}

#[test]
fn a_discarded_letter_is_listed_and_excuses_its_saga() {
    let mut world = dead();
    world.discard(0);
    let report = stored(world).audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    let letter = report.dead.iter().find(|letter| letter.bid_id == Some(BID)).unwrap();
    assert_eq!((letter.state, report.dead_letters), (LetterState::Discarded, 2));
}

#[test]
fn a_discard_that_died_is_no_breach_and_leaves_both_letters_on_the_list() {
    let mut world = dead();
    world.discard_in_vain(0);
    let report = stored(world.clone()).audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    let states = |report: &verify::Report| -> Vec<LetterState> {
        let of_bid = report.dead.iter().filter(|letter| letter.bid_id == Some(BID));
        of_bid.map(|letter| letter.state).collect()
    };
    assert_eq!(states(&report), [LetterState::Discarded, LetterState::Open]);
    // A newer worker discards what died.
    world.discard(0);
    let report = stored(world).audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    assert_eq!(states(&report), [LetterState::Discarded; 2]);
}

#[test]
fn somebody_else_retries_and_says_that_another_letter_was_to_be_discarded() {
    let mut world = dead();
    let (letter, _) = world.dead[0].clone();
    world.discard_in_vain(0);
    let stored = corrupted(world, |log| {
        log.last_mut().unwrap().say(&letter.to_string(), &id(0x77, 0).to_string());
    });
    found_at(&stored, Causality, &last(&stored));
}

#[test]
fn a_saga_is_not_excused_when_its_retry_did_nothing_more() {
    // The retry was refused the money's way back: the rejected bid keeps what it reserved.
    let mut world = dead();
    world.retry(0);
    world.pending.clear();
    let stored = stored(world);
    found_at(&stored, I3, &last(&stored));
}

#[test]
fn a_letter_is_discarded_that_is_not_in_the_log() {
    let mut world = dead();
    world.discard(0);
    let other = id(0x77, 0);
    let stored = corrupted(world, |log| {
        let record = log.last_mut().unwrap();
        let letter = record.causation_id;
        record.say(&letter.to_string(), &other.to_string());
        (record.causation_id, record.command_id) = (other, Uuid::new_v5(&other, b"resolution"));
    });
    found_at(&stored, Causality, &last(&stored));
}

#[test]
fn a_letter_is_retried_that_is_not_in_the_log() {
    let mut world = dead();
    world.retry_in_vain(0);
    let other = id(0x77, 0);
    let stored = corrupted(world, |log| {
        let record = log.last_mut().unwrap();
        (record.causation_id, record.command_id) = (other, Uuid::new_v5(&other, b"resolution"));
    });
    found_at(&stored, Causality, &last(&stored));
}

/// The last record once more, behind itself.
fn once_more(log: &mut Vec<Owned>) -> &mut Owned {
    let mut again = log.last().unwrap().clone();
    again.sequence += 1;
    again.record_id = id(0x78, 0);
    log.push(again);
    log.last_mut().unwrap()
}

#[test]
fn a_letter_is_discarded_twice() {
    let mut world = dead();
    world.discard(0);
    let stored = corrupted(world, |log| {
        once_more(log);
    });
    found_at(&stored, I2, &last(&stored));
}

#[test]
fn a_letter_is_both_retried_and_discarded() {
    let mut world = dead();
    let (letter, _) = world.dead[0].clone();
    world.retry_in_vain(0);
    let partition = world.log.last().unwrap().partition;
    let stored = corrupted(world, |log| {
        let again = once_more(log);
        again.event_type = "DeadLetterDiscarded".to_owned();
        again.payload = format!(r#"{{"letter_id":"{letter}","partition":{partition},"reason":"late"}}"#);
    });
    found_at(&stored, I2, &last(&stored));
    assert!(stored.audit().breaches.iter().any(|breach| breach.what.contains("both retried and discarded")));
}

#[test]
fn the_id_of_a_discard_is_made_up() {
    let mut world = dead();
    world.discard(0);
    let stored = corrupted(world, |log| log.last_mut().unwrap().command_id = id(0x79, 0));
    found_at(&stored, Causality, &last(&stored));
}

#[test]
fn a_letter_is_discarded_in_another_partition() {
    let mut world = dead();
    world.discard(0);
    let stored = corrupted(world, |log| {
        let (from, to) = (log.last().unwrap().partition, (log.last().unwrap().partition + 1) % 4);
        let sequence = log.iter().filter(|record| record.partition == to).count() as u64 + 1;
        let record = log.last_mut().unwrap();
        (record.partition, record.sequence) = (to, sequence);
        record.say(&format!(r#""partition":{from}"#), &format!(r#""partition":{to}"#));
    });
    found_at(&stored, I4, &last(&stored));
}

#[test]
fn a_retry_belongs_to_another_saga() {
    let mut world = dead();
    world.retry_in_vain(0);
    let stored = corrupted(world, |log| log.last_mut().unwrap().correlation_id = id(0x7a, 0));
    found_at(&stored, Causality, &last(&stored));
}

#[test]
fn a_retry_does_something_else_than_what_died() {
    let mut world = dead();
    world.retry(0);
    let index = world.log.len() - 1;
    world.settle();
    let stored = corrupted(world, |log| log[index].say(&super::ADA.to_string(), &super::BOB.to_string()));
    let record = stored.log[index].clone();
    let report = stored.audit();
    assert!(
        report.breaches.iter().any(|one| one.invariant == I3 && one.position == Some(record.position())),
        "{:#?}",
        report.breaches
    );
}
