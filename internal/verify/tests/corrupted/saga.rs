//! I3: who wins, what moves, and that every bid ends, once.

use verify::Invariant::{Causality, Form, I1, I2, I3};

use super::{
    ACME, APPROVED, BOB, EVE, LATE, LOST, LOW, ON_SALE, OWN, Stored, WAITS, WINS, changed, clean, found,
    found_at, id, rich,
};
use crate::history::stored::Owned;
use crate::history::world::{World, euros};

/// Adds one more command behind everything; answers with its record.
fn add(stored: &mut Stored, like: usize, change: impl Fn(&mut Owned)) -> Owned {
    let mut record = stored.log[like].clone();
    record.record_id = id(0x99, 0);
    record.command_id = id(0x98, 0);
    (record.causation_id, record.correlation_id) = (record.command_id, record.command_id);
    "client".clone_into(&mut record.actor);
    record.sequence = stored.rows[usize::from(record.partition)].head + 1;
    record.recorded_at = u64::MAX / 2;
    let of_aggregate = stored.log.iter().filter(|other| {
        other.aggregate_id == record.aggregate_id
            && other.aggregate_type == record.aggregate_type
            && other.version.is_some()
    });
    record.version = record.version.map(|_| of_aggregate.count() as u64 + 1);
    change(&mut record);
    let mut log = stored.log.clone();
    log.push(record.clone());
    *stored = Stored { settled: stored.settled, ..Stored::of(stored.partitions, log) };
    record
}

/// The history without what follows from this record, and without all that follows from that.
fn without_what_follows(stored: &Stored, index: usize) -> Stored {
    let mut gone = stored.following(index);
    let mut next = 0;
    while let Some(index) = gone.get(next).copied() {
        gone.extend(stored.following(index));
        next += 1;
    }
    let mut log = Vec::new();
    let (mut heads, mut versions) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    for (_, record) in stored.log.iter().enumerate().filter(|(index, _)| !gone.contains(index)) {
        let mut record = record.clone();
        let head: &mut u64 = heads.entry(record.partition).or_default();
        *head += 1;
        record.sequence = *head;
        if record.version.is_some() {
            let key = (record.aggregate_type.clone(), record.aggregate_id);
            let version: &mut u64 = versions.entry(key).or_default();
            *version += 1;
            record.version = Some(*version);
        }
        log.push(record);
    }
    Stored { settled: true, ..Stored::of(stored.partitions, log) }
}

#[track_caller]
fn ends_in_nothing(index: impl Fn(&Stored) -> usize) {
    let stored = clean();
    let cause = stored.log[index(&stored)].record_id;
    let mut stored = without_what_follows(&stored, index(&stored));
    let record = stored.log.iter().find(|record| record.record_id == cause).unwrap().clone();
    found_at(&stored, I3, &record);
    // While the platform runs, the same may be on its way: but not where the policies have seen it and queued nothing.
    stored.settled = false;
    found_at(&stored, I2, &record);
    for (partition, reacted) in (0..).zip(&mut stored.policies) {
        if partition == record.partition {
            *reacted = record.sequence - 1;
        }
    }
    let report = stored.audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    assert_eq!(report.open.iter().map(|saga| saga.position).collect::<Vec<_>>(), [record.position()]);
}

#[test]
fn a_placed_bid_is_never_answered() {
    ends_in_nothing(|stored| stored.saying("BidOnInvoicePlaced", &LOW.to_string()));
}

#[test]
fn a_rejected_bid_is_never_released() {
    ends_in_nothing(|stored| stored.saying("BidOnInvoiceRejected", &LATE.to_string()));
}

#[test]
fn a_bid_on_nothing_is_never_released() {
    ends_in_nothing(|stored| stored.saying("CommandRefused", &LOST.to_string()));
}

#[test]
fn an_excess_is_never_released() {
    ends_in_nothing(|stored| stored.saying("InvoiceFinanced", &WAITS.to_string()));
}

#[test]
fn an_approved_invoice_is_never_paid() {
    ends_in_nothing(|stored| stored.find("InvoiceApproved", 0));
}

#[test]
fn a_reversed_invoice_never_goes_back() {
    ends_in_nothing(|stored| stored.find("InvoiceReversed", 0));
}

#[test]
fn a_dead_letter_excuses_its_saga() {
    let mut world = rich();
    world.bid(id(0x2b, 0), super::ADA, super::ON_SALE, 1_00);
    world.kill(0);
    let mut stored = Stored::of(world.partitions, world.log);
    stored.settled = true;
    let report = stored.audit();
    assert!(report.is_clean(), "{:#?}", report.breaches);
    assert_eq!(report.dead_letters, 2);
    assert!(report.dead.iter().any(|letter| letter.bid_id == Some(id(0x2b, 0))));
}

#[test]
fn a_bid_wins_below_the_asking_price() {
    changed(
        |stored| stored.saying("InvoiceFinanced", &WAITS.to_string()),
        |record| record.say(&euros(99_99), &euros(79_99)),
        I3,
    );
}

#[test]
fn an_invoice_is_financed_twice() {
    let mut stored = clean();
    let index = stored.saying("InvoiceFinanced", &WINS.to_string());
    let record = add(&mut stored, index, |record| record.say(&WINS.to_string(), &LATE.to_string()));
    found_at(&stored, I3, &record);
}

#[test]
fn a_bid_that_had_to_win_is_rejected() {
    let mut stored = clean();
    let index = stored.saying("BidOnInvoiceRejected", &LOW.to_string());
    stored.log[index].say(&euros(1_00), &euros(70_00));
    let record = stored.log[index].clone();
    found_at(&stored, I3, &record);
}

#[test]
fn a_bid_is_rejected_for_the_wrong_reason() {
    changed(
        |stored| stored.saying("BidOnInvoiceRejected", &OWN.to_string()),
        |record| record.say("SELF_FINANCING", "BID_BELOW_ASKING_PRICE"),
        I3,
    );
}

#[test]
fn an_investor_finances_its_own_invoice() {
    changed(
        |stored| stored.saying("InvoiceFinanced", &WAITS.to_string()),
        |record| record.say(&super::ADA.to_string(), &super::BOTH.to_string()),
        I3,
    );
}

#[test]
fn a_bid_is_both_won_and_rejected() {
    let mut stored = clean();
    let index = stored.saying("BidOnInvoiceRejected", &LATE.to_string());
    let record = add(&mut stored, index, |record| {
        record.say(&LATE.to_string(), &WINS.to_string());
    });
    found_at(&stored, I3, &record);
}

#[test]
fn a_bid_is_placed_twice() {
    let mut stored = clean();
    let index = stored.saying("BidOnInvoicePlaced", &LATE.to_string());
    let record = add(&mut stored, index, |_| {});
    found_at(&stored, I3, &record);
}

#[test]
fn a_reservation_is_released_twice() {
    let mut stored = clean();
    let index = stored.saying("InvestorFundsReleased", &LATE.to_string());
    let record = add(&mut stored, index, |_| {});
    found(&stored, I3, |breach| breach.position == Some(record.position()));
}

#[test]
fn the_money_of_a_winning_bid_is_released_as_if_it_had_lost() {
    let mut stored = clean();
    let index = stored.saying("InvestorFundsReleased", "EXCESS");
    stored.log[index].say("EXCESS", "RELEASE");
    let record = stored.log[index].clone();
    // All of it was to come back, so the amount is wrong first.
    found_at(&stored, I1, &record);
    let report = stored.audit();
    let due = |breach: &&verify::Breach| breach.invariant == I3 && breach.position == Some(record.position());
    assert!(report.breaches.iter().any(|breach| due(&breach) && breach.what.contains("EXCESS")));
}

#[test]
fn money_moves_for_a_bid_that_nobody_placed() {
    changed(
        |stored| stored.saying("InvestorFundsReleased", &LATE.to_string()),
        |record| record.say(&LATE.to_string(), &id(0x77, 0).to_string()),
        I3,
    );
}

#[test]
fn money_moves_for_somebody_elses_bid() {
    changed(
        |stored| stored.saying("InvestorFundsReleased", &LATE.to_string()),
        |record| record.say(&LATE.to_string(), &WAITS.to_string()),
        I3,
    );
}

#[test]
fn an_invoice_is_approved_that_nobody_financed() {
    let mut stored = clean();
    let index = stored.find("InvoiceApproved", 0);
    let record = add(&mut stored, index, |record| {
        record.say(&APPROVED.to_string(), &super::ON_SALE.to_string());
        record.aggregate_id = super::ON_SALE;
        record.partition = 2;
        record.sequence = 1 + 1_000;
    });
    let report = stored.audit();
    let rule = report.breaches.iter().find(|breach| breach.invariant == I3).unwrap();
    assert_eq!(rule.position, Some(record.position()), "{:#?}", report.breaches);
}

#[test]
fn an_invoice_is_reversed_after_it_was_approved() {
    let mut stored = clean();
    let index = stored.find("InvoiceApproved", 0);
    let record = add(&mut stored, index, |record| record.event_type = "InvoiceReversed".to_owned());
    found_at(&stored, I3, &record);
}

#[test]
fn another_bid_is_approved_than_the_one_that_won() {
    changed(
        |stored| stored.find("InvoiceApproved", 0),
        |record| record.say(&WINS.to_string(), &LATE.to_string()),
        I3,
    );
}

#[test]
fn an_invoice_is_approved_for_another_price() {
    changed(
        |stored| stored.find("InvoiceApproved", 0),
        |record| record.say(&euros(100_00), &euros(90_00)),
        I3,
    );
}

#[test]
fn an_invoice_is_sold_by_nobody() {
    let mut stored = clean();
    let index = stored.saying("InvoiceCreated", &APPROVED.to_string());
    stored.log[index].say(&ACME.to_string(), &EVE.to_string());
    let report = stored.audit();
    let breach = report.breaches.first().unwrap();
    assert_eq!((breach.invariant, breach.aggregate.unwrap().1), (I3, APPROVED), "{:#?}", report.breaches);
}

#[test]
fn an_issuer_is_created_twice() {
    let mut stored = clean();
    let index = stored.find("IssuerCreated", 0);
    let record = add(&mut stored, index, |_| {});
    found_at(&stored, I3, &record);
}

#[test]
fn a_bid_is_refused_that_could_be_paid() {
    changed(
        |stored| stored.saying("CommandRefused", "INSUFFICIENT_FUNDS"),
        |record| {
            record.payload = record.payload.replace(&EVE.to_string(), &BOB.to_string());
            record.aggregate_id = EVE;
        },
        super::Invariant::Form,
    );
    changed(
        |stored| stored.saying("CommandRefused", "INSUFFICIENT_FUNDS"),
        |record| record.payload = record.payload.replace("INSUFFICIENT_FUNDS", "INVESTOR_NOT_FOUND"),
        I3,
    );
}

#[test]
fn an_approval_is_refused_that_was_due() {
    let mut stored = clean();
    let index = stored.saying("CommandRefused", "ApproveFinancing");
    let record = add(&mut stored, index, |record| {
        record.payload = record.payload.replace(&super::ON_SALE.to_string(), &super::WAITING.to_string());
        record.aggregate_id = super::WAITING;
        record.partition = 1;
        record.sequence = clean().rows[1].head + 1;
    });
    found_at(&stored, I3, &record);
}

#[test]
fn other_terms_leave_an_invoice_unchanged() {
    changed(
        |stored| stored.saying("CommandUnchanged", "SellInvoice"),
        |record| record.say(&euros(70_00), &euros(60_00)),
        I3,
    );
}

#[test]
fn a_move_of_the_saga_is_refused() {
    let mut stored = clean();
    let index = stored.saying("InvestorFundsReleased", &LATE.to_string());
    let record = &mut stored.log[index];
    record.version = None;
    record.event_type = "CommandRefused".to_owned();
    let command = record.payload.replace(&format!(r#","remainder":{}"#, euros(0)), "");
    record.payload = format!(
        r#"{{"reason":"RESERVATION_NOT_OPEN","message":"no","refusal":{{"reason":"RESERVATION_NOT_OPEN"}},"method":"ReleaseFunds","command":{{"investor":{{"ReleaseFunds":{command}}}}}}}"#
    );
    let record = record.clone();
    // (What follows in the account has one version too many now.)
    let report = stored.audit();
    let rule = report.breaches.iter().find(|breach| breach.invariant == I3).unwrap();
    assert_eq!(rule.position, Some(record.position()), "{:#?}", report.breaches);
}

#[test]
fn a_move_names_no_cause() {
    changed(
        |stored| stored.saying("InvestorFundsReleased", &LATE.to_string()),
        |record| (record.causation_id, record.correlation_id) = (record.command_id, record.command_id),
        Causality,
    );
}

#[test]
fn a_bid_is_rejected_for_a_reason_that_only_a_refusal_has() {
    // The invoice was never sold: that is said by refusing the command, and by no fact.
    changed(
        |stored| stored.saying("BidOnInvoiceRejected", "BID_BELOW_ASKING_PRICE"),
        |record| record.say("BID_BELOW_ASKING_PRICE", "INVOICE_NOT_FOUND"),
        Form,
    );
}

#[test]
fn a_sale_is_refused_though_the_issuer_was_there_in_a_batch_before() {
    // given
    let mut world = World::new(1);
    world.sell(ON_SALE, ACME, 1_00);
    world.issuer(ACME, "Acme");
    let mut stored = Stored::of(1, world.log);
    assert!(stored.audit().is_clean(), "{:#?}", stored.audit().breaches);
    let (refused, created) = (stored.find("CommandRefused", 0), stored.find("IssuerCreated", 0));
    let [first, second] = [refused, created].map(|index| stored.log[index].sequence);

    // when
    (stored.log[refused].sequence, stored.log[created].sequence) = (second, first);
    stored.log.swap(refused, created);
    let stored_of = |log| Stored::of(1, log);
    let record = stored.log[1].clone();

    // then
    found_at(&stored_of(stored.log.clone()), I3, &record);
    // In one batch it could not know yet.
    stored.log[0].recorded_at = stored.log[1].recorded_at;
    assert!(stored_of(stored.log).audit().is_clean());
}
