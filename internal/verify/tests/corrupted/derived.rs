//! I5 and I6: the bus is a prefix of the log, and the read models are the fold of one.

use serde_json::Value;
use verify::Invariant::{I5, I6};

use super::{ADA, APPROVED, LATE, Stored, WINS, clean, found, found_at, id};

fn line<'s>(
    stored: &'s mut Stored,
    table: &str,
    key: uuid::Uuid,
) -> &'s mut crate::history::projection::Line {
    stored.lines.iter_mut().find(|line| line.table == table && line.key == key).unwrap()
}

#[track_caller]
fn column(table: &str, key: uuid::Uuid, column: &'static str, value: Value) {
    let mut stored = clean();
    line(&mut stored, table, key).columns.insert(column, value);
    found(&stored, I6, |breach| {
        breach.what.contains(column) && breach.what.contains(&key.to_string()) && breach.position.is_some()
    });
}

#[test]
fn a_message_of_the_bus_has_other_content() {
    let mut stored = clean();
    let index = stored.find("InvoiceFinanced", 0);
    stored.bus[index].say("120", "121");
    let record = stored.log[index].clone();
    found_at(&stored, I5, &record);
}

#[test]
fn a_message_of_the_bus_has_another_record_id() {
    let mut stored = clean();
    let index = stored.find("InvoiceFinanced", 0);
    stored.bus[index].record_id = id(0x44, 0);
    let record = stored.log[index].clone();
    found_at(&stored, I5, &record);
}

#[test]
fn a_message_of_the_bus_comes_from_somebody_else() {
    let mut stored = clean();
    let index = stored.find("InvoiceFinanced", 0);
    stored.bus[index].actor = "nobody".to_owned();
    let record = stored.log[index].clone();
    found_at(&stored, I5, &record);
}

#[test]
fn the_bus_skips_a_record() {
    let mut stored = clean();
    let index = stored.find("InvoiceFinanced", 0);
    let gone = stored.bus.remove(index);
    found(&stored, I5, |breach| breach.position.unwrap().partition == gone.partition);
}

#[test]
fn the_bus_has_a_record_twice() {
    let mut stored = clean();
    let index = stored.find("InvoiceFinanced", 0);
    stored.bus.insert(index, stored.bus[index].clone());
    found(&stored, I5, |breach| breach.position.unwrap().partition == stored.bus[index].partition);
}

#[test]
fn the_bus_is_ahead_of_the_log() {
    let mut stored = clean();
    let mut more = stored.bus.last().unwrap().clone();
    more.sequence += 1;
    more.record_id = id(0x45, 0);
    stored.relayed[usize::from(more.partition)] = (more.sequence, Some(more.record_id));
    stored.bus.push(more.clone());
    found(&stored, I5, |breach| breach.position.unwrap().partition == more.partition);
}

#[test]
fn the_bus_ends_with_another_record_than_the_log_has_there() {
    let mut stored = clean();
    stored.bus.clear();
    stored.relayed[3].1 = Some(id(0x46, 0));
    found(&stored, I5, |breach| breach.position.unwrap().partition == 3);
}

#[test]
fn the_policies_are_ahead_of_the_bus() {
    let mut stored = clean();
    stored.policies[2] += 1;
    found(&stored, I5, |breach| breach.position.unwrap().partition == 2);
}

#[test]
fn the_read_models_are_ahead_of_the_log() {
    let mut stored = clean();
    stored.projected[2].0 += 1;
    found(&stored, I6, |breach| breach.position.unwrap().partition == 2);
}

#[test]
fn the_read_models_are_those_of_another_log() {
    let mut stored = clean();
    stored.projected[2].1 = Some(id(0x47, 0));
    found(&stored, I6, |breach| breach.position.unwrap().partition == 2);
}

#[test]
fn a_row_is_missing_from_each_table() {
    for table in ["issuers", "investors", "invoices", "bids", "commands"] {
        let mut stored = clean();
        let index = stored.lines.iter().position(|line| line.table == table).unwrap();
        let gone = stored.lines.remove(index);
        found(&stored, I6, |breach| breach.what == format!("{table} has no row {}", gone.key));
    }
}

#[test]
fn a_row_is_too_many_in_each_table() {
    for table in ["issuers", "investors", "invoices", "bids", "commands"] {
        let mut stored = clean();
        let mut more = stored.lines.iter().find(|line| line.table == table).unwrap().clone();
        more.key = id(0x48, 0);
        stored.lines.push(more);
        found(&stored, I6, |breach| breach.what.contains(&id(0x48, 0).to_string()));
    }
}

#[test]
fn a_row_is_there_twice() {
    let mut stored = clean();
    let again = line(&mut stored, "invoices", APPROVED).clone();
    stored.lines.push(again);
    found(&stored, I6, |breach| breach.what.contains("twice"));
}

#[test]
fn a_balance_is_a_cent_off() {
    let mut stored = clean();
    let available = line(&mut stored, "investors", ADA).columns["available"].as_i64().unwrap();
    column("investors", ADA, "available", Value::from(available - 1));
    column("investors", ADA, "reserved", Value::from(0));
    column("investors", ADA, "committed", Value::from(1));
}

#[test]
fn a_name_is_another() {
    column("investors", ADA, "name", Value::from("Bea"));
    column("issuers", super::ACME, "name", Value::from("Acme & Co"));
}

#[test]
fn an_invoice_is_shown_in_another_state() {
    column("invoices", APPROVED, "status", Value::from("FINANCED"));
    column("invoices", APPROVED, "winning_bid", Value::from(LATE.to_string()));
    column("invoices", APPROVED, "winning_amount", Value::from(1));
    column("invoices", APPROVED, "asking_price", Value::from(1));
}

#[test]
fn a_bid_is_shown_in_another_state() {
    column("bids", WINS, "settlement", Value::from("RELEASED"));
    column("bids", WINS, "verdict", Value::from("REJECTED"));
    column("bids", LATE, "reason", Value::from("SELF_FINANCING"));
    column("bids", LATE, "amount", Value::from(1));
    column("bids", LATE, "invoice_id", Value::Null);
}

#[test]
fn a_command_is_shown_in_another_state() {
    let stored = clean();
    let command = stored.log[stored.saying("CommandRefused", "INSUFFICIENT_FUNDS")].command_id;
    column("commands", command, "state", Value::from("APPLIED"));
    column("commands", command, "message", Value::from("perhaps"));
    column("commands", command, "log_sequence", Value::from(1_000));
}

#[test]
fn a_command_is_shown_as_that_of_another_invoice_or_time() {
    let stored = clean();
    // Of a client's command, with its outcome; of a policy's, with its cause.
    let sold = stored.log[stored.find("InvoiceCreated", 0)].command_id;
    let refused = stored.log[stored.saying("CommandRefused", "INSUFFICIENT_FUNDS")].command_id;
    let moved = stored.log[stored.find("InvestorFundsCommitted", 0)].command_id;
    for command in [sold, refused, moved] {
        column("commands", command, "invoice_id", Value::from(super::WAITING.to_string()));
        column("commands", command, "invoice_id", Value::Null);
        column("commands", command, "since", Value::from(1));
        column("commands", command, "since", Value::Null);
    }
    column("commands", moved, "cause_partition", Value::from(1_000));
    column("commands", moved, "cause_sequence", Value::Null);
    column("commands", sold, "cause_sequence", Value::from(1));
    let nobodys = stored.log[stored.find("IssuerCreated", 0)].command_id;
    column("commands", nobodys, "invoice_id", Value::from(APPROVED.to_string()));
}

/// The read models have seen the bid, and not what the invoice said to it.
fn expecting() -> (Stored, uuid::Uuid) {
    let mut stored = clean();
    let index = stored.find("InvoiceFinanced", 0);
    let answer = stored.log[index].clone();
    let mut ends: Vec<u64> = stored.rows.iter().map(|row| row.head).collect();
    ends[usize::from(answer.partition)] = answer.sequence - 1;
    stored.project(&ends);
    assert!(stored.audit().is_clean(), "{:#?}", stored.audit().breaches);
    (stored, answer.command_id)
}

#[test]
fn a_step_that_is_expected_is_not_shown() {
    let (mut stored, step) = expecting();
    assert_eq!(line(&mut stored, "commands", step).columns.get("state"), None, "it is only expected");
    stored.lines.retain(|line| line.key != step);
    found(&stored, I6, |breach| breach.what == format!("commands has no row {step}"));
}

#[test]
fn a_step_that_is_expected_is_shown_as_taken() {
    let (mut stored, step) = expecting();
    line(&mut stored, "commands", step).columns.insert("state", Value::from("APPLIED"));
    found(&stored, I6, |breach| breach.what.contains("state") && breach.what.contains(&step.to_string()));
}

#[test]
fn a_step_is_expected_of_what_nothing_follows_from() {
    let mut stored = clean();
    let sold = stored.log[stored.find("InvoiceCreated", 0)].record_id;
    let (_, step) = expecting();
    let mut more = line(&mut stored, "commands", step).clone();
    more.key = uuid::Uuid::new_v5(&sold, b"process-placed-bid");
    for column in ["state", "log_partition", "log_sequence"] {
        more.columns.remove(column);
    }
    let key = more.key;
    stored.lines.push(more);
    found(&stored, I6, |breach| breach.what.contains(&format!("row {key} that no fact brings about")));
}

#[test]
fn the_rows_are_of_a_later_moment_than_the_checkpoint() {
    let mut stored = clean();
    let index = stored.find("InvoiceApproved", 0);
    let (partition, sequence) = (stored.log[index].partition, stored.log[index].sequence);
    let rows = stored.lines.clone();
    let mut ends: Vec<u64> = stored.rows.iter().map(|row| row.head).collect();
    ends[usize::from(partition)] = sequence - 1;
    stored.project(&ends);
    assert!(stored.audit().is_clean());
    stored.lines = rows;
    found(&stored, I6, |breach| breach.what.contains("FINANCED") || breach.what.contains("no fact"));
}
