//! Causality: an effect names its cause, there is that cause, and the command's id derives from it.

use uuid::Uuid;
use verify::Invariant::{Causality, I5};

use super::{LATE, Stored, changed, clean, found_at, id};

fn released(stored: &Stored) -> usize {
    stored.saying("InvestorFundsReleased", &LATE.to_string())
}

#[test]
fn a_cause_is_named_that_is_not_in_the_log() {
    changed(released, |record| record.causation_id = id(0x66, 0), Causality);
}

#[test]
fn another_cause_is_named_than_the_one_that_the_id_derives_from() {
    let mut stored = clean();
    let index = released(&stored);
    stored.log[index].causation_id = stored.log[0].record_id;
    let record = stored.log[index].clone();
    found_at(&stored, Causality, &record);
}

#[test]
fn the_id_of_a_policys_command_is_made_up() {
    changed(released, |record| record.command_id = id(0x67, 0), Causality);
}

#[test]
fn the_id_of_a_policys_command_derives_from_another_policys_name() {
    let mut stored = clean();
    let index = released(&stored);
    let cause = stored.log[index].causation_id;
    stored.log[index].command_id = Uuid::new_v5(&cause, b"release-refused-bid");
    let record = stored.log[index].clone();
    found_at(&stored, Causality, &record);
}

#[test]
fn an_effect_belongs_to_another_saga_than_its_cause() {
    changed(released, |record| record.correlation_id = id(0x68, 0), Causality);
}

#[test]
fn somebody_else_sends_a_policys_command() {
    changed(released, |record| record.actor = "client".to_owned(), Causality);
}

#[test]
fn a_clients_command_names_a_cause() {
    let mut stored = clean();
    let index = stored.find("BidOnInvoicePlaced", 0);
    stored.log[index].causation_id = stored.log[0].record_id;
    let record = stored.log[index].clone();
    found_at(&stored, Causality, &record);
}

#[test]
fn a_clients_command_belongs_to_another_saga() {
    changed(
        |stored| stored.find("IssuerCreated", 1),
        |record| record.correlation_id = id(0x69, 0),
        Causality,
    );
}

#[test]
fn an_effect_was_written_before_its_cause_was_on_the_bus() {
    let mut stored = clean();
    let index = stored.saying("InvestorFundsReleased", "EXCESS");
    let cause = stored.log[index].causation_id;
    let cause = stored.log.iter().find(|record| record.record_id == cause).unwrap().clone();
    let mut ends: Vec<u64> = stored.rows.iter().map(|row| row.head).collect();
    ends[usize::from(cause.partition)] = cause.sequence - 1;
    stored.relay(&ends);
    stored.project(&ends);
    stored.policies.clone_from(&ends);
    let report = stored.audit();
    let breach = report.breaches.iter().find(|breach| breach.invariant == I5);
    assert!(breach.is_some_and(|breach| breach.what.contains("follows from")), "{:#?}", report.breaches);
}
