//! I2: every accepted command has exactly one outcome.

use verify::Invariant::{Causality, I2};

use super::{Stored, Uuid, WINS, World, clean, found, found_at, id};

#[test]
fn a_command_has_an_outcome_in_the_log_and_none_in_the_inbox() {
    let mut stored = clean();
    let gone = stored.inbox.remove(5);
    found(&stored, I2, |breach| breach.position == Some(gone.position));
}

#[test]
fn the_inbox_has_a_command_that_the_log_has_not() {
    let mut stored = clean();
    let mut entry = stored.inbox[5].clone();
    entry.command_id = id(0x55, 0);
    stored.inbox.push(entry);
    found(&stored, I2, |breach| breach.what.contains(&id(0x55, 0).to_string()));
}

#[test]
fn the_inbox_has_a_command_twice() {
    let mut stored = clean();
    stored.inbox.push(stored.inbox[5].clone());
    found(&stored, I2, |breach| breach.position == Some(stored.inbox[5].position));
}

#[test]
fn the_inbox_says_another_outcome() {
    let mut stored = clean();
    stored.inbox[5].verdict = r#"{"state":"UNCHANGED"}"#.to_owned();
    found(&stored, I2, |breach| breach.position == Some(stored.inbox[5].position));
}

#[test]
fn the_inbox_gives_another_reason() {
    let mut stored = clean();
    let entry = stored.inbox.iter_mut().find(|entry| entry.verdict.contains("INSUFFICIENT_FUNDS")).unwrap();
    entry.verdict = entry.verdict.replace("no: ", "perhaps: ");
    let position = entry.position;
    found(&stored, I2, |breach| breach.position == Some(position));
}

#[test]
fn the_inbox_points_to_another_place() {
    let mut stored = clean();
    stored.inbox[5].position.sequence += 1;
    found(&stored, I2, |breach| breach.position == Some(stored.inbox[5].position));
}

#[test]
fn the_inbox_holds_no_fingerprint() {
    let mut stored = clean();
    stored.inbox[5].fingerprint.truncate(3);
    found(&stored, I2, |breach| breach.position == Some(stored.inbox[5].position));
}

#[test]
fn a_commands_records_do_not_stand_side_by_side() {
    let mut stored = clean();
    let index = stored.find("InvestorFundsAdded", 0);
    let created = stored.log[index - 1].clone();
    stored.log[index].command_id = id(0x54, 0);
    (stored.log[index].causation_id, stored.log[index].correlation_id) = (id(0x54, 0), id(0x54, 0));
    found_at(&stored, I2, &created);
}

#[test]
fn a_command_never_ends() {
    let mut stored = clean();
    let index = stored.saying("BidOnInvoicePlaced", &WINS.to_string());
    stored.log[index].command_last = false;
    let record = stored.log[index].clone();
    found_at(&stored, I2, &record);
}

#[test]
fn a_command_is_done_twice() {
    let mut stored = clean();
    let (one, other) = (stored.find("IssuerCreated", 0), stored.find("IssuerCreated", 1));
    let first = stored.log[one].command_id;
    let again = &mut stored.log[other];
    (again.command_id, again.causation_id, again.correlation_id) = (first, first, first);
    let record = again.clone();
    found_at(&stored, I2, &record);
}

#[test]
fn the_records_of_a_command_name_different_sagas() {
    let mut stored = clean();
    let index = stored.find("InvestorFundsAdded", 0);
    stored.log[index].correlation_id = id(0x53, 0);
    let record = stored.log[index].clone();
    found_at(&stored, Causality, &record);
}

#[test]
fn a_queued_command_was_passed_by() {
    let mut stored = clean();
    let position = stored.rows[1].position.unwrap();
    stored.queued.push((id(0x52, 0), 1, position.0 + 1, 0));
    stored.settled = false;
    assert!(stored.audit().is_clean());
    stored.queued[0].2 = position.0;
    found(&stored, I2, |breach| breach.what.contains(&id(0x52, 0).to_string()));
}

#[test]
fn an_accepted_command_has_vanished() {
    let mut stored = clean();
    stored.accepted.push(id(0x51, 0));
    found(&stored, I2, |breach| breach.what.contains(&id(0x51, 0).to_string()));
    // It may still be in the queue.
    stored.queued.push((id(0x51, 0), 1, 1_000_000, 0));
    stored.settled = false;
    assert!(stored.audit().is_clean());
}

#[test]
fn of_too_many_breaches_the_earliest_are_kept_in_whatever_order_they_are_found() {
    // given: nothing can be read, and one partition is read behind the other
    let mut world = World::new(2);
    for number in 0..150 {
        world.issuer(id(number, 0), "Acme");
        world.issuer(Uuid::from_u128(number * 2 + 1), "Acme");
    }
    let mut stored = Stored::of(2, world.log);
    for record in &mut stored.log {
        record.event_type = "IssuerFired".to_owned();
    }
    let earliest: Vec<_> = stored.log.iter().take(100).map(|record| Some(record.record_id)).collect();

    // when
    stored.log.reverse();
    stored.log.sort_by_key(|record| (record.partition, record.sequence));
    stored.log.sort_by_key(|record| std::cmp::Reverse(record.partition));
    let report = stored.audit();

    // then
    let kept: Vec<_> = report.breaches.iter().map(|breach| breach.record_id).collect();
    assert_eq!(kept, earliest);
    assert!(report.breached >= 300);
}
