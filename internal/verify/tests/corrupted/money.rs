//! I1: money adds up, and none is negative.

use verify::Invariant::{Form, I1, I3};

use super::{ADA, APPROVED, REVERSED, Stored, WINS, changed, clean, found, found_at};
use crate::history::world::euros;

fn excess(stored: &Stored) -> usize {
    stored.saying("InvestorFundsReleased", "EXCESS")
}

#[test]
fn more_is_bid_than_there_is() {
    changed(
        |stored| stored.saying("BidOnInvoicePlaced", &WINS.to_string()),
        |record| record.say(&euros(120_50), &euros(1_200_50)),
        I1,
    );
}

#[test]
fn less_was_added_than_is_used() {
    changed(
        |stored| stored.saying("BidOnInvoicePlaced", &WINS.to_string()),
        |record| record.say(&euros(120_50), &euros(1_000_01)),
        I1,
    );
    let mut stored = clean();
    let index = stored.find("InvestorFundsAdded", 0);
    stored.log[index].say(&euros(1_000_00), &euros(120_00));
    let index = stored.saying("BidOnInvoicePlaced", &WINS.to_string());
    let record = stored.log[index].clone();
    let report = stored.audit();
    let negative = report.breaches.iter().find(|breach| breach.invariant == I1).unwrap();
    assert_eq!(negative.position, Some(record.position()));
    assert!(negative.what.contains("available would be -0.50 EUR"), "{}", negative.what);
}

#[test]
fn the_excess_that_comes_back_is_a_cent_too_much() {
    changed(excess, |record| record.say(&euros(20_50), &euros(20_51)), I1);
}

#[test]
fn a_lost_bid_comes_back_a_cent_short() {
    changed(
        |stored| stored.saying("InvestorFundsReleased", "RELEASE\""),
        |record| {
            let before = record.payload.clone();
            let (head, _) = before.split_once(r#""amount""#).unwrap();
            record.payload = format!(r#"{head}"amount":{},"remainder":{}}}"#, euros(1), euros(0));
        },
        I1,
    );
}

#[test]
fn a_remainder_is_stated_that_is_not_left() {
    changed(excess, |record| record.say(&euros(100_00), &euros(100_01)), I1);
}

#[test]
fn more_is_committed_than_was_asked() {
    changed(
        |stored| stored.find("InvestorFundsCommitted", 0),
        |record| record.say(&euros(100_00), &euros(101_00)),
        I1,
    );
}

#[test]
fn less_is_committed_than_was_asked() {
    let mut stored = clean();
    let index = stored.find("InvestorFundsCommitted", 0);
    stored.log[index].say(&euros(100_00), &euros(99_00));
    stored.log[index].say(&euros(0), &euros(1_00));
    let record = stored.log[index].clone();
    // The account still adds up: only the rule of the saga is broken.
    found(&stored, I1, |breach| breach.position == Some(record.position()));
    let report = stored.audit();
    assert!(report.breaches.iter().any(|breach| breach.invariant == I3 && breach.what.contains("due after")));
}

#[test]
fn the_currency_of_an_account_changes() {
    changed(excess, |record| record.say("EUR", "USD"), I1);
}

#[test]
fn an_amount_is_no_whole_number_of_cents() {
    changed(excess, |record| record.say("500000000", "500000001"), Form);
}

#[test]
fn an_amount_is_a_float() {
    changed(excess, |record| record.say(r#""units":20"#, r#""units":20.0"#), Form);
}

#[test]
fn an_amount_is_negative() {
    changed(excess, |record| record.say(r#""units":20"#, r#""units":-20"#), Form);
}

#[test]
fn an_amount_of_nothing_is_moved() {
    changed(excess, |record| record.say(&euros(20_50), &euros(0)), Form);
}

#[test]
fn funds_are_added_a_second_time() {
    let mut stored = clean();
    let added = stored.log[stored.find("InvestorFundsAdded", 0)].clone();
    let mut again = added.clone();
    again.sequence = stored.rows[usize::from(added.partition)].head + 1;
    again.record_id = super::id(0x99, 0);
    again.command_id = super::id(0x98, 0);
    (again.causation_id, again.correlation_id) = (again.command_id, again.command_id);
    let facts = stored.log.iter().filter(|record| record.aggregate_id == ADA && record.version.is_some());
    again.version = Some(facts.count() as u64 + 1);
    let mut log = stored.log.clone();
    log.push(again.clone());
    stored = Stored { settled: true, ..Stored::of(stored.partitions, log) };
    found_at(&stored, I3, &again);
}

#[test]
fn a_snapshot_has_another_balance_than_the_facts() {
    let mut stored = clean();
    let state = format!(
        r#"{{"Registered":{{"name":"Ada","added":{added},"available":{left},"committed":{none},"reservations":{{}}}}}}"#,
        added = euros(1_000_00),
        left = euros(1_000_00),
        none = euros(0),
    );
    stored.snapshots.push(("investor".to_owned(), ADA, 2, 1, state.clone()));
    assert!(stored.audit().is_clean());
    stored.snapshots[0].4 = state.replacen("1000", "1001", 1);
    let record = stored.log[stored.find("InvestorFundsAdded", 0)].clone();
    found_at(&stored, I1, &record);
    // Of a schema that nobody knows, it is ignored.
    stored.snapshots[0].3 = 2;
    assert!(stored.audit().is_clean());
}

#[test]
fn a_snapshot_has_another_reservation_than_the_facts() {
    let mut stored = clean();
    let bid = stored.log[stored.saying("BidOnInvoicePlaced", &WINS.to_string())].clone();
    let state = format!(
        r#"{{"Registered":{{"name":"Ada","added":{added},"available":{available},"committed":{none},"reservations":{{"{WINS}":{{"invoice_id":"{APPROVED}","left":{left},"part":"EVERYTHING"}}}}}}}}"#,
        added = euros(1_000_00),
        available = euros(879_50),
        left = euros(120_50),
        none = euros(0),
    );
    stored.snapshots.push(("investor".to_owned(), ADA, bid.version.unwrap(), 1, state.clone()));
    assert!(stored.audit().is_clean(), "{:#?}", stored.audit().breaches);
    for (before, now) in [
        (APPROVED.to_string(), REVERSED.to_string()),
        ("EVERYTHING".to_owned(), "ASKING_PRICE".to_owned()),
        ("EVERYTHING".to_owned(), "CLOSED".to_owned()),
    ] {
        stored.snapshots[0].4 = state.replacen(&before, &now, 1);
        found_at(&stored, I1, &bid);
    }
}
