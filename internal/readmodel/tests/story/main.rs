//! Stories over records: won, lost, refused, reversed, stuck, dead, and told in whatever order the records are seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how one says that something is wrong"
)]
#![allow(clippy::inconsistent_digit_grouping, reason = "cents stand behind the last underscore")]

mod tale;

use std::sync::Arc;

use domain::currency::Currency;
use domain::events::Event;
use domain::financing::Command;
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::investor::{
    BidOnInvoice, BidOnInvoicePlaced, InvestorCommand, InvestorEvent, InvestorFundsCommitted,
    InvestorFundsReleased,
};
use domain::invoice::{
    ApproveFinancing, BidOnInvoiceRejected, InvoiceApproved, InvoiceCommand, InvoiceCreated, InvoiceEvent,
    InvoiceFinanced, InvoiceReversed, ReverseFinancing, SellInvoice,
};
use domain::money::{Amount, Money};
use domain::refusal::{BidRejection, Refusal};
use domain::reservation::ReleaseKind;
use domain::saga::Saga;
use domain::story::{CommandStory, Ending, StoryView, Turn};
use domain::views::{InvoiceStatus, Queries as _, QueryError};
use eventsourcing::model::Policies as _;
use eventsourcing::partition::{LogPosition, Partition, Sequence};
use eventsourcing::ports::{CheckpointMove, ProjectionStep, ReadModels as _, RowChange, Value};
use eventsourcing::record::{DeathReason, Record};
use readmodel::MOST_COMMANDS;
use tale::{Came, Tale, at_once};
use uuid::Uuid;

const ACME: IssuerId = IssuerId::new(Uuid::from_u128(0x15));
const ADA: InvestorId = InvestorId::new(Uuid::from_u128(0x1));
const BOB: InvestorId = InvestorId::new(Uuid::from_u128(0x2));
const INVOICE: InvoiceId = InvoiceId::new(Uuid::from_u128(0xF));
const ASKED: i64 = 50_00;

fn cents(cents: i64) -> Amount {
    Amount::from_minor(cents, Currency::EUR).unwrap()
}

const fn bid_id(number: u128) -> BidId {
    BidId::new(Uuid::from_u128(0xB00 + number))
}

fn sell(tale: &mut Tale) -> Arc<Record> {
    let asking_price = cents(ASKED);
    let command = SellInvoice { invoice_id: INVOICE, issuer_id: ACME, asking_price };
    let fact = InvoiceCreated { invoice_id: INVOICE, issuer_id: ACME, asking_price };
    let came = Came::To(vec![InvoiceEvent::InvoiceCreated(fact).into()]);
    tale.client(&InvoiceCommand::SellInvoice(command).into(), came).remove(0)
}

fn bid(investor_id: InvestorId, number: u128, amount: i64) -> (Command, Event) {
    let (bid_id, invoice_id, amount) = (bid_id(number), INVOICE, cents(amount));
    let command = BidOnInvoice { investor_id, bid_id, invoice_id, amount };
    let fact = BidOnInvoicePlaced { investor_id, bid_id, invoice_id, amount };
    (InvestorCommand::BidOnInvoice(command).into(), InvestorEvent::BidOnInvoicePlaced(fact).into())
}

fn place(tale: &mut Tale, investor_id: InvestorId, number: u128, amount: i64) -> Arc<Record> {
    let (command, fact) = bid(investor_id, number, amount);
    tale.client(&command, Came::To(vec![fact])).remove(0)
}

fn financed(investor_id: InvestorId, number: u128, amount: i64) -> Came {
    Came::To(vec![
        InvoiceEvent::InvoiceFinanced(InvoiceFinanced {
            invoice_id: INVOICE,
            issuer_id: ACME,
            bid_id: bid_id(number),
            investor_id,
            amount: cents(amount),
            asking_price: cents(ASKED),
        })
        .into(),
    ])
}

fn released(investor_id: InvestorId, number: u128, kind: ReleaseKind, amount: i64) -> Came {
    Came::To(vec![
        InvestorEvent::InvestorFundsReleased(InvestorFundsReleased {
            investor_id,
            bid_id: bid_id(number),
            invoice_id: INVOICE,
            kind,
            amount: cents(amount),
            remainder: Money::zero(Currency::EUR),
        })
        .into(),
    ])
}

/// Ada has won with 60.00, and the excess is released.
fn won(tale: &mut Tale) {
    sell(tale);
    let placed = place(tale, ADA, 1, 60_00);
    let wins = tale.follows(&placed, financed(ADA, 1, 60_00)).remove(0);
    tale.follows(&wins, released(ADA, 1, ReleaseKind::Excess, 10_00));
}

fn approve(tale: &mut Tale) -> Arc<Record> {
    let fact = InvoiceApproved {
        invoice_id: INVOICE,
        issuer_id: ACME,
        bid_id: bid_id(1),
        investor_id: ADA,
        amount: cents(60_00),
        asking_price: cents(ASKED),
    };
    let command = InvoiceCommand::ApproveFinancing(ApproveFinancing { invoice_id: INVOICE });
    tale.client(&command.into(), Came::To(vec![InvoiceEvent::InvoiceApproved(fact).into()])).remove(0)
}

/// Each saga as the names of its commands.
fn told(story: &StoryView) -> Vec<Vec<&str>> {
    let name = |command: &CommandStory| -> &'static str {
        match command.method.as_deref() {
            Some("SellInvoice") => "sell",
            Some("BidOnInvoice") => "bid",
            Some("ProcessBid") => "process",
            Some("ReleaseFunds") => "release",
            Some("CommitFunds") => "commit",
            Some("ApproveFinancing") => "approve",
            Some("ReverseFinancing") => "reverse",
            Some(_) | None => "?",
        }
    };
    story.sagas.iter().map(|saga| saga.commands.iter().map(name).collect()).collect()
}

fn turns(story: &StoryView) -> Vec<Turn> {
    story.next.iter().map(|next| next.turn).collect()
}

#[test]
fn a_bid_that_wins_is_told_from_the_sale_to_the_last_cent() {
    let mut tale = Tale::new();
    won(&mut tale);
    let bids = vec![vec!["sell"], vec!["bid", "process", "release"]];
    let story = tale.story(INVOICE);
    assert_eq!(told(&story), bids);
    assert_eq!(
        (story.status, turns(&story)),
        (Some(InvoiceStatus::Financed), vec![Turn::Issuer { issuer_id: ACME }])
    );

    let approved = approve(&mut tale);
    let fact = InvestorFundsCommitted {
        investor_id: ADA,
        bid_id: bid_id(1),
        invoice_id: INVOICE,
        amount: cents(ASKED),
        remainder: Money::zero(Currency::EUR),
    };
    tale.follows(&approved, Came::To(vec![InvestorEvent::InvestorFundsCommitted(fact).into()]));
    let story = tale.story(INVOICE);
    assert_eq!(told(&story), [bids, vec![vec!["approve", "commit"]]].concat());
    assert_eq!((story.status, turns(&story)), (Some(InvoiceStatus::Approved), vec![Turn::Nobody]));
    assert!(story.sagas.iter().all(|saga| saga.settled) && !story.truncated);
    assert_eq!(tale.stuck(), []);
}

#[test]
fn who_caused_what_and_how_long_it_took_is_told() {
    let mut tale = Tale::new();
    won(&mut tale);
    let story = tale.story(INVOICE);
    let saga = &story.sagas[1];
    let [bid, process, release] = &saga.commands[..] else { panic!("{saga:?}") };
    assert_eq!((bid.actor.as_str(), bid.policy.as_deref()), ("tester", None));
    assert_eq!(bid.causation_id, bid.id);
    assert_eq!(
        (process.policy.as_deref(), process.causation_id),
        (Some("process-placed-bid"), bid.records[0].record_id)
    );
    assert_eq!(
        (release.policy.as_deref(), release.causation_id),
        (Some("release-excess"), process.records[0].record_id)
    );
    assert!(
        saga.commands
            .iter()
            .all(|command| command.correlation_id == bid.id && command.ending == Ending::Applied)
    );
    let step = i64::try_from(Tale::STEP).unwrap();
    assert_eq!(process.records[0].latency, Some(step), "after the bid");
    assert_eq!(release.records[0].latency, Some(step), "after the answer, not after the bid");
    // The client's id says when it was made, to the millisecond.
    let accepted = bid.accepted_at.expect("its id says so");
    assert_eq!(accepted.as_micros() % 1_000, 0);
    let waited = bid.records[0].latency.expect("it is known when it came");
    assert!((1_000..2_000).contains(&waited), "{waited}");
    assert_eq!((saga.began_at, saga.micros()), (accepted, waited + 2 * step));
    assert_eq!((process.accepted_at, release.accepted_at), (None, None));
    let said = &release.records[0];
    assert_eq!((said.amount, said.detail.as_str()), (Some(cents(10_00)), "EXCESS"));
}

#[test]
fn a_bid_that_loses_says_why_and_where_its_money_went() {
    let mut tale = Tale::new();
    won(&mut tale);
    let placed = place(&mut tale, BOB, 2, 70_00);
    let fact = BidOnInvoiceRejected {
        invoice_id: INVOICE,
        bid_id: bid_id(2),
        investor_id: BOB,
        amount: cents(70_00),
        reason: BidRejection::InvoiceNotAvailable,
    };
    let lost =
        tale.follows(&placed, Came::To(vec![InvoiceEvent::BidOnInvoiceRejected(fact).into()])).remove(0);
    tale.follows(&lost, released(BOB, 2, ReleaseKind::Release, 70_00));
    let story = tale.story(INVOICE);
    assert_eq!(told(&story)[2], ["bid", "process", "release"]);
    let saga = &story.sagas[2];
    assert_eq!(saga.commands[1].records[0].detail, "INVOICE_NOT_AVAILABLE");
    assert_eq!(saga.commands[2].policy.as_deref(), Some("release-rejected-bid"));
    assert!(saga.settled);
    assert_eq!(story.status, Some(InvoiceStatus::Financed), "a bid that lost changes nothing");
}

#[test]
fn a_refusal_is_told_in_the_words_that_the_client_was_told() {
    let mut tale = Tale::new();
    sell(&mut tale);
    let (command, _) = bid(ADA, 1, 600_00);
    let refusal = Refusal::InsufficientFunds { available: cents(50_00).money(), requested: cents(600_00) };
    let words = refusal.to_string();
    tale.client(&command, Came::Refused(refusal));
    tale.client(&command, Came::Unchanged);
    let story = tale.story(INVOICE);
    assert_eq!(told(&story), [vec!["sell"], vec!["bid"], vec!["bid"]]);
    let Ending::Refused(why) = &story.sagas[1].commands[0].ending else { panic!("{story:?}") };
    assert_eq!((why.reason.as_str(), &why.message), ("INSUFFICIENT_FUNDS", &words));
    assert_eq!(story.sagas[2].commands[0].ending, Ending::Unchanged);
    assert!(story.sagas[1].settled, "nothing follows from it");
    assert_eq!(turns(&story), [Turn::Investor { asking_price: cents(ASKED) }]);
}

#[test]
fn a_reversal_gives_the_asking_price_back() {
    let mut tale = Tale::new();
    won(&mut tale);
    let fact = InvoiceReversed {
        invoice_id: INVOICE,
        issuer_id: ACME,
        bid_id: bid_id(1),
        investor_id: ADA,
        amount: cents(60_00),
        asking_price: cents(ASKED),
    };
    let command = InvoiceCommand::ReverseFinancing(ReverseFinancing { invoice_id: INVOICE });
    let came = Came::To(vec![InvoiceEvent::InvoiceReversed(fact).into()]);
    let reversed = tale.client(&command.into(), came).remove(0);
    tale.follows(&reversed, released(ADA, 1, ReleaseKind::Return, ASKED));
    let story = tale.story(INVOICE);
    assert_eq!(told(&story)[2], ["reverse", "release"]);
    assert_eq!((story.status, turns(&story)), (Some(InvoiceStatus::Reversed), vec![Turn::Nobody]));
}

#[test]
fn a_bid_on_what_was_never_sold_has_a_story_too() {
    let mut tale = Tale::new();
    assert_eq!(tale.try_story(INVOICE), Ok(None));
    let placed = place(&mut tale, ADA, 1, 60_00);
    let refusal = Refusal::InvoiceNotFound { invoice_id: INVOICE };
    let refused = tale.follows(&placed, Came::Refused(refusal)).remove(0);
    tale.follows(&refused, released(ADA, 1, ReleaseKind::Release, 60_00));
    let story = tale.story(INVOICE);
    assert_eq!(told(&story), [["bid", "process", "release"]]);
    assert_eq!(story.sagas[0].commands[2].policy.as_deref(), Some("release-refused-bid"));
    assert_eq!((story.status, turns(&story)), (None, vec![Turn::NoInvoice]));
}

#[test]
fn a_step_that_is_missing_is_expected_since_its_cause() {
    let mut tale = Tale::new();
    sell(&mut tale);
    let placed = place(&mut tale, ADA, 1, 60_00);
    let story = tale.story(INVOICE);
    assert_eq!(told(&story)[1], ["bid", "process"]);
    let step = &story.sagas[1].commands[1];
    assert_eq!(step.ending, Ending::Expected { since: placed.recorded_at });
    assert_eq!((step.causation_id, step.target.clone()), (placed.record_id, INVOICE.aggregate()));
    assert!(!story.sagas[1].settled && step.records.is_empty());
    let asking_price = cents(ASKED);
    assert_eq!(turns(&story), [Turn::Platform { steps: 1 }, Turn::Investor { asking_price }]);
    assert_eq!(story.next[0].since, Some(placed.recorded_at));

    let stuck = tale.stuck();
    assert_eq!(stuck.len(), 1);
    assert_eq!((stuck[0].method.as_str(), stuck[0].policy.as_str()), ("ProcessBid", "process-placed-bid"));
    assert_eq!((stuck[0].command_id, stuck[0].invoice_id), (step.id, Some(INVOICE)));
    assert_eq!((stuck[0].cause, stuck[0].cause_record_id), (placed.position(), placed.record_id));
    assert_eq!((stuck[0].since, stuck[0].correlation_id), (placed.recorded_at, placed.command_id));
    assert_eq!(at_once(tale.queries().command(step.id)), Ok(None), "it has no outcome");

    let wins = tale.follows(&placed, financed(ADA, 1, 60_00)).remove(0);
    let stuck = tale.stuck();
    assert_eq!(stuck.len(), 1, "that one is taken, and the next is expected");
    assert_eq!((stuck[0].method.as_str(), stuck[0].cause), ("ReleaseFunds", wins.position()));
    assert!(at_once(tale.queries().command(step.id)).unwrap().is_some());
    tale.follows(&wins, released(ADA, 1, ReleaseKind::Excess, 10_00));
    assert_eq!(tale.stuck(), []);
}

#[test]
fn a_step_that_cannot_be_read_is_said_to_be_beside_the_others() {
    let mut tale = Tale::new();
    sell(&mut tale);
    let placed = place(&mut tale, ADA, 1, 60_00);
    let good = tale.stuck();
    assert_eq!(good.len(), 1);
    // Rows that nothing but damage can have made.
    let row = |key, columns: &[(&'static str, i64)]| RowChange {
        table: "commands",
        key: Uuid::from_u128(key),
        set: columns.iter().map(|(name, value)| (*name, Value::Integer(*value))).collect(),
        add: Vec::new(),
    };
    let at = |position: LogPosition| {
        let sequence = i64::try_from(position.sequence.get()).unwrap();
        [("cause_partition", i64::from(position.partition.index())), ("cause_sequence", sequence)]
    };
    let [partition, sequence] = at(placed.position());
    let changes = vec![
        row(1, &[("since", 1), partition]),
        row(2, &[("since", 2), partition, ("cause_sequence", -1)]),
        row(3, &[("since", 3), ("cause_partition", 700), sequence]),
        row(4, &[("since", 4), partition, ("cause_sequence", 1_000_000)]),
        row(5, &[("since", 5), partition, sequence]),
    ];
    let elsewhere = Partition::from_index(9);
    let checkpoint = CheckpointMove { partition: elsewhere, from: Sequence::ZERO, to: Sequence::new(1) };
    let step = ProjectionStep { checkpoint, record_id: Uuid::from_u128(1), changes };
    assert_eq!(at_once(tale.models().apply(vec![step])), Ok(vec![true]));

    let steps = tale.steps();

    let (read, unread): (Vec<_>, Vec<_>) = steps.into_iter().partition(Result::is_ok);
    assert_eq!(read.into_iter().map(Result::unwrap).collect::<Vec<_>>(), good, "they hide no other");
    let unread: Vec<_> = unread.into_iter().map(Result::unwrap_err).collect();
    let wrongs = [
        "cause_sequence is missing or wrong",
        "cause_sequence is missing or wrong",
        "which was not projected",
        "which was not projected",
        "does not follow from it",
    ];
    assert_eq!(unread.len(), wrongs.len());
    for ((step, number), wrong) in unread.iter().zip(1..).zip(wrongs) {
        assert_eq!((step.command_id, step.since), (Uuid::from_u128(number), Some(tale::micros(number))));
        assert!(step.what.contains(wrong), "{step:?}");
    }
}

#[test]
fn a_step_that_died_waits_for_a_person_and_is_not_stuck() {
    for reason in [DeathReason::WrongPartition, DeathReason::Undecodable] {
        let mut tale = Tale::new();
        sell(&mut tale);
        let placed = place(&mut tale, ADA, 1, 60_00);
        let dead = tale.follows(&placed, Came::Dead(reason)).remove(0);
        let story = tale.story(INVOICE);
        let step = &story.sagas[1].commands[1];
        assert!(matches!(&step.ending, Ending::Dead(why) if why.reason == reason.code()), "{step:?}");
        let method = (reason == DeathReason::WrongPartition).then_some("ProcessBid");
        assert_eq!(step.method.as_deref(), method, "what could not be read has no name");
        assert_eq!(turns(&story)[0], Turn::Operator { dead: 1 });
        assert_eq!(story.next[0].since, Some(dead.recorded_at));
        assert!(!story.sagas[1].settled);
        assert_eq!(tale.stuck(), [], "it will never come by itself");
    }
}

#[test]
fn a_step_that_was_discarded_waits_for_nobody_and_is_not_settled() {
    for reason in [DeathReason::WrongPartition, DeathReason::Undecodable] {
        let mut tale = Tale::new();
        sell(&mut tale);
        let placed = place(&mut tale, ADA, 1, 60_00);
        let dead = tale.follows(&placed, Came::Dead(reason)).remove(0);
        let discarded = tale.discarded(&dead);
        let story = tale.story(INVOICE);
        let [_, step, discard] = &story.sagas[1].commands[..] else { panic!("{story:?}") };
        assert!(matches!(&step.ending, Ending::Dead(_)), "{step:?}");
        assert_eq!(
            (discard.method.as_deref(), &discard.ending),
            (Some("DiscardDeadLetter"), &Ending::Applied)
        );
        assert_eq!((discard.causation_id, discard.actor.as_str()), (dead.record_id, "operator"));
        assert_eq!(discard.records[0].position, discarded.position());
        assert!(!story.sagas[1].settled, "the bid was never processed");
        assert_eq!(turns(&story), [Turn::Investor { asking_price: cents(ASKED) }]);
    }
}

#[test]
fn a_step_that_was_retried_goes_on_and_one_whose_retry_died_unreadable_is_told() {
    let mut tale = Tale::new();
    sell(&mut tale);
    let placed = place(&mut tale, ADA, 1, 60_00);
    let dead = tale.follows(&placed, Came::Dead(DeathReason::Undecodable)).remove(0);
    let (_, process) = Saga.react(&placed.entry().unwrap()).unwrap();
    let again = tale.retried(&dead, &process, Came::Dead(DeathReason::Undecodable)).remove(0);
    let story = tale.story(INVOICE);
    assert_eq!(told(&story)[1], ["bid", "?", "?"]);
    assert_eq!(
        (turns(&story)[0], story.next[0].since),
        (Turn::Operator { dead: 1 }, Some(again.recorded_at))
    );

    let wins = tale.retried(&again, &process, financed(ADA, 1, 60_00)).remove(0);
    tale.follows(&wins, released(ADA, 1, ReleaseKind::Excess, 10_00));
    let story = tale.story(INVOICE);
    assert_eq!(told(&story)[1], ["bid", "?", "?", "process", "release"]);
    assert!(story.sagas[1].settled, "twice it died, and then it was done");
    assert_eq!(turns(&story), [Turn::Issuer { issuer_id: ACME }]);
}

#[test]
fn a_clients_command_that_died_belongs_to_its_invoice_where_it_could_be_read() {
    let mut tale = Tale::new();
    let (command, _) = bid(ADA, 1, 60_00);
    tale.client(&command, Came::Dead(DeathReason::Undecodable));
    assert_eq!(tale.try_story(INVOICE), Ok(None), "nobody knows what it was about");
    tale.client(&command, Came::Dead(DeathReason::Unstorable));
    assert_eq!(told(&tale.story(INVOICE)), [["bid"]]);
}

#[test]
fn in_which_order_the_partitions_are_seen_makes_no_difference() {
    let make = |effect_first: bool| {
        let mut tale = Tale::new();
        sell(&mut tale);
        let (command, fact) = bid(ADA, 1, 60_00);
        let cause = tale.sent(&command, Came::To(vec![fact]));
        let effect = tale.effect(&cause[0], financed(ADA, 1, 60_00));
        assert_ne!(cause[0].partition, effect[0].partition);
        let (first, second) = if effect_first { (&effect, &cause) } else { (&cause, &effect) };
        tale.project(first);
        if effect_first {
            // The effect alone is no story of this invoice yet: what it is about comes with its cause.
            assert_eq!(told(&tale.story(INVOICE)).len(), 2, "the sale, and the release that is expected");
        }
        tale.project(second);
        (tale.models().save(), tale.story(INVOICE))
    };
    assert_eq!(make(true), make(false));
}

#[test]
fn a_command_that_wrote_several_records_tells_all_of_them() {
    let mut tale = Tale::new();
    sell(&mut tale);
    let placed = place(&mut tale, ADA, 1, 60_00);
    let Came::To(mut facts) = financed(ADA, 1, 60_00) else { panic!("facts") };
    let Came::To(more) = financed(ADA, 1, 60_00) else { panic!("facts") };
    facts.extend(more);
    let records = tale.follows(&placed, Came::To(facts));
    let story = tale.story(INVOICE);
    let positions: Vec<_> = story.sagas[1].commands[1].records.iter().map(|record| record.position).collect();
    assert_eq!(positions, records.iter().map(|record| record.position()).collect::<Vec<_>>());
    assert_eq!(told(&story)[1], ["bid", "process", "release", "release"], "each is a cause");
}

#[test]
fn a_long_story_is_told_from_its_beginning() {
    let mut tale = Tale::new();
    sell(&mut tale);
    let refusal = || Refusal::InsufficientFunds { available: cents(1).money(), requested: cents(70_00) };
    for number in 0..u128::from(MOST_COMMANDS) {
        let (command, _) = bid(BOB, number, 70_00);
        tale.client(&command, Came::Refused(refusal()));
    }
    let story = tale.story(INVOICE);
    assert!(story.truncated);
    let most = usize::try_from(MOST_COMMANDS).unwrap();
    assert_eq!(story.sagas.len(), most);
    assert_eq!(told(&story)[0], ["sell"], "the oldest come first");
    assert!(story.sagas.is_sorted_by_key(|saga| saga.began_at));
    assert_eq!(
        story.sagas.last().unwrap().last_at.as_micros(),
        Tale::BEGIN + Tale::STEP * u64::from(MOST_COMMANDS)
    );
}

#[test]
fn a_record_that_the_bus_does_not_have_is_no_guess() {
    let mut tale = Tale::new();
    sell(&mut tale);
    let placed = place(&mut tale, ADA, 1, 60_00);
    tale.bus().truncate(placed.partition, Sequence::ZERO);
    assert!(
        matches!(tale.try_story(INVOICE), Err(QueryError::Unavailable(what)) if what.contains("0-1") || what.contains("1-1"))
    );
}
