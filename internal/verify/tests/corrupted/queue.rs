//! The queue is the one that was worked off: every worker would halt at its next start if it is not.

use verify::Invariant::I2;

use super::{Queue, Stored, clean, found, id};

const CREATED: u64 = 1_000;

fn proven() -> Stored {
    let mut stored = clean();
    stored.settled = false;
    stored.prove(CREATED);
    assert!(stored.audit().is_clean(), "{:#?}", stored.audit().breaches);
    stored
}

/// The one breach says what to do.
#[track_caller]
fn only(stored: &Stored, says: &str) {
    found(stored, I2, |breach| breach.what.contains(says) && breach.what.contains("`financing queue adopt`"));
    assert_eq!(stored.audit().breached, 1, "{:#?}", stored.audit().breaches);
}

#[test]
fn a_queue_that_was_created_anew_is_named_once_and_its_commands_only_wait() {
    let mut stored = proven();
    stored.queue = Queue::CreatedAt(CREATED + 1);
    // Its numbers begin anew, far below those that are remembered.
    stored.queued = vec![(id(0x61, 0), 1, 1, 0), (id(0x62, 0), 2, 2, 0)];
    only(&stored, "created anew");
    assert!(stored.audit().breaches[0].what.contains("4 partitions"), "{:?}", stored.audit().breaches);
}

#[test]
fn a_command_that_waits_in_a_queue_that_was_created_anew_is_not_called_lost_by_its_policy() {
    let mut world = super::rich();
    world.bid(id(0x2b, 0), super::ADA, super::ON_SALE, 1_00);
    let mut stored = Stored::of(super::PARTITIONS, world.log);
    stored.prove(CREATED);
    stored.queue = Queue::CreatedAt(CREATED + 1);
    only(&stored, "created anew");
}

#[test]
fn a_queue_that_is_not_there_is_not_the_one_that_was_worked_off() {
    let mut stored = proven();
    stored.queue = Queue::Missing;
    stored.queued.clear();
    only(&stored, "missing");
}

#[test]
fn a_queue_that_nobody_has_worked_off_yet_may_be_any_or_none() {
    let mut stored = proven();
    stored.remembered.fill(None);
    for row in &mut stored.rows {
        row.position = None;
    }
    stored.queue = Queue::CreatedAt(CREATED + 1);
    assert!(stored.audit().is_clean());
    (stored.queue, stored.queued) = (Queue::Missing, Vec::new());
    assert!(stored.audit().is_clean());
}

#[test]
fn a_queue_that_was_emptied_lacks_the_message_at_the_position() {
    let mut stored = proven();
    let gone = stored.queued.remove(1);
    only(&stored, &format!("message {} of partition {} is missing", gone.2, gone.1));
}

#[test]
fn a_queue_that_was_restored_has_another_message_at_the_position() {
    let mut stored = proven();
    stored.remembered[2] = Some((CREATED, id(0x63, 0)));
    only(&stored, "partition 2 is another");
}

#[test]
fn a_message_may_have_come_and_gone_after_the_queue_was_read() {
    let mut stored = proven();
    let (first, partition, ..) = stored.queued.remove(1);
    stored.stands.push((partition, Some(first)));
    assert!(stored.audit().is_clean());
    stored.stands[0].1 = None;
    only(&stored, "is missing");
}
