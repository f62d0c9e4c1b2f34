//! The whole saga under chance: whatever is sent, in whatever order it is delivered, no cent is lost.

use std::collections::BTreeMap;

use domain::currency::Currency;
use domain::events::Event;
use domain::financing::{Command, Financing, State};
use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::investor::{InvestorCommand, InvestorEvent};
use domain::invoice::{InvoiceEvent, InvoiceStatus};
use domain::money::{Amount, Money};
use eventsourcing::model::{AggregateRef, Model};
use proptest::prelude::*;
use uuid::Uuid;

use crate::world::{Answer, World, balance};

/// One thing that can happen.
#[derive(Debug, Clone)]
enum Step {
    Sell {
        invoice: u128,
        issuer: u128,
        asking_price: i64,
    },
    Bid {
        investor: u128,
        invoice: u128,
        amount: i64,
    },
    Approve {
        invoice: u128,
    },
    Reverse {
        invoice: u128,
    },
    /// One of the commands that follow arrives.
    Deliver {
        choice: usize,
    },
    /// One that arrived and did something arrives again.
    Repeat {
        choice: usize,
    },
}

/// More invoices than are likely to be sold, so that some bids are on none.
const INVOICES: u128 = 5;
/// The last of them is the same legal party as the first issuer; the one before has dollars.
const INVESTORS: u128 = 4;
const ISSUERS: u128 = 2;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..INVOICES, 0..ISSUERS, 1_i64..300)
            .prop_map(|(invoice, issuer, asking_price)| Step::Sell { invoice, issuer, asking_price }),
        5 => (0..INVESTORS, 0..INVOICES, 1_i64..400)
            .prop_map(|(investor, invoice, amount)| Step::Bid { investor, invoice, amount }),
        1 => (0..INVOICES).prop_map(|invoice| Step::Approve { invoice }),
        1 => (0..INVOICES).prop_map(|invoice| Step::Reverse { invoice }),
        6 => any::<usize>().prop_map(|choice| Step::Deliver { choice }),
        2 => any::<usize>().prop_map(|choice| Step::Repeat { choice }),
    ];
    prop::collection::vec(step, 1..80)
}

fn issuer(number: u128) -> IssuerId {
    Uuid::from_u128(0x100 + number).into()
}

fn investor(number: u128) -> InvestorId {
    let is_the_issuer = number == INVESTORS - 1;
    Uuid::from_u128(if is_the_issuer { 0x100 } else { 0x200 + number }).into()
}

fn currency(number: u128) -> Currency {
    if number == INVESTORS - 2 { Currency::USD } else { Currency::EUR }
}

fn invoice(number: u128) -> InvoiceId {
    Uuid::from_u128(0x300 + number).into()
}

fn world() -> World {
    let mut world = World::default();
    for number in 0..ISSUERS {
        world.register_issuer(issuer(number));
    }
    for number in 0..INVESTORS {
        world.register_investor(investor(number), balance(1_000, currency(number)));
    }
    world
}

fn take(world: &mut World, step: &Step, bid_number: u128) {
    match *step {
        Step::Sell { invoice: number, issuer: seller, asking_price } => {
            let asking_price = Amount::from_minor(asking_price, Currency::EUR).unwrap();
            world.sell(invoice(number), issuer(seller), asking_price);
        }
        Step::Bid { investor: bidder, invoice: number, amount } => {
            let amount = Amount::from_minor(amount, currency(bidder)).unwrap();
            let bid_id = Uuid::from_u128(0x1_0000 + bid_number).into();
            world.bid(bid_id, investor(bidder), invoice(number), amount);
        }
        Step::Approve { invoice: number } => drop(world.approve(invoice(number))),
        Step::Reverse { invoice: number } => drop(world.reverse(invoice(number))),
        Step::Deliver { choice } => world.deliver(choice),
        Step::Repeat { choice } => repeat(world, choice),
    }
}

/// Repeats a move, or the bid that won. (A bid that lost is answered once, because its command id is known by then.)
fn repeat(world: &mut World, choice: usize) {
    let repeatable = |(command, answer): &(Command, Answer)| {
        let is_a_move = matches!(
            command,
            Command::Investor(InvestorCommand::ReleaseFunds(_) | InvestorCommand::CommitFunds(_))
        );
        let has_won = matches!(answer, Answer::Applied(events)
            if matches!(events.first(), Some(Event::Invoice(InvoiceEvent::InvoiceFinanced(_)))));
        (is_a_move || has_won).then(|| command.clone())
    };
    let commands: Vec<Command> = world.delivered.iter().filter_map(repeatable).collect();
    if !commands.is_empty() {
        let (before, pending) = (world.states().clone(), world.pending.len());
        let again = world.send(commands[choice % commands.len()].clone());
        assert!(!matches!(again, Answer::Applied(_)), "a repeat did something: {again:?}");
        assert_eq!(*world.states(), before, "a repeat changed something");
        assert_eq!(world.pending.len(), pending, "something follows from a repeat");
    }
}

/// I1: available + reserved + committed = funds added, none negative.
fn no_cent_is_lost(world: &World) {
    for account in world.accounts() {
        let parts = [account.available(), account.reserved().unwrap(), account.committed()].map(Money::minor);
        assert!(parts.iter().all(|part| *part >= 0));
        assert_eq!(parts.iter().sum::<i64>(), account.added().minor());
        assert_eq!(account.added().minor(), 1_000);
    }
}

#[derive(Default)]
struct Ending {
    reserved: i64,
    released: i64,
    committed: i64,
    won: Option<InvoiceId>,
    lost: usize,
}

/// I3: every bid won or lost, never both; every reserved unit came free or was paid, once; the winner of an approved invoice paid
/// exactly the asking price.
fn every_bid_has_ended(world: &World) {
    let mut bids = BTreeMap::<BidId, Ending>::new();
    for (_, event) in &world.log {
        match event {
            Event::Investor(InvestorEvent::BidOnInvoicePlaced(fact)) => {
                bids.entry(fact.bid_id).or_default().reserved += fact.amount.minor();
            }
            Event::Investor(InvestorEvent::InvestorFundsReleased(fact)) => {
                bids.entry(fact.bid_id).or_default().released += fact.amount.minor();
            }
            Event::Investor(InvestorEvent::InvestorFundsCommitted(fact)) => {
                bids.entry(fact.bid_id).or_default().committed += fact.amount.minor();
            }
            Event::Invoice(InvoiceEvent::InvoiceFinanced(fact)) => {
                let ending = bids.entry(fact.bid_id).or_default();
                assert_eq!(ending.won.replace(fact.invoice_id), None, "won twice");
            }
            Event::Invoice(InvoiceEvent::BidOnInvoiceRejected(fact)) => {
                bids.entry(fact.bid_id).or_default().lost += 1;
            }
            Event::Issuer(_) | Event::Investor(_) | Event::Invoice(_) => {}
        }
    }
    for (command, _) in &world.refused {
        if let Command::Invoice(command) = command
            && let Some(bid) = command.carried_bid()
        {
            bids.entry(bid.bid_id).or_default().lost += 1;
        }
    }
    for (bid_id, ending) in bids {
        assert_eq!(ending.lost + usize::from(ending.won.is_some()), 1, "{bid_id}");
        let invoice = ending.won.map(|invoice_id| world.invoice(invoice_id));
        let asking_price = invoice.map_or(0, |invoice| invoice.terms().unwrap().asking_price.minor());
        let (free, paid) = match invoice.and_then(domain::invoice::Invoice::status) {
            None | Some(InvoiceStatus::Available | InvoiceStatus::Reversed) => (ending.reserved, 0),
            Some(InvoiceStatus::Financed) => (ending.reserved - asking_price, 0),
            Some(InvoiceStatus::Approved) => (ending.reserved - asking_price, asking_price),
        };
        assert_eq!((ending.released, ending.committed), (free, paid), "{bid_id}");
    }
}

/// The facts of each aggregate, written down and read again.
fn stored(world: &World) -> BTreeMap<&AggregateRef, Vec<Event>> {
    let mut facts = BTreeMap::<_, Vec<_>>::new();
    for (aggregate, event) in &world.log {
        let encoded = Financing::encode_event(event).unwrap();
        let decoded = Financing::decode_event(encoded.event_type, encoded.schema, &encoded.data).unwrap();
        facts.entry(aggregate).or_default().push(decoded);
    }
    facts
}

/// I6 of the command side: what is replayed is what is lived, from any snapshot too.
fn replay_is_the_live_state(world: &World, cut: usize) {
    for (aggregate, facts) in stored(world) {
        let initial = || Financing::initial(aggregate).unwrap();
        let replayed = facts.iter().fold(initial(), Financing::evolve);
        assert_eq!(Some(&replayed), world.states().get(aggregate));

        let (before, after) = facts.split_at(cut % (facts.len() + 1));
        let state: State = before.iter().fold(initial(), Financing::evolve);
        let snapshot = Financing::encode_snapshot(&state).unwrap();
        let restored = Financing::decode_snapshot(aggregate, &snapshot).unwrap();
        assert_eq!(after.iter().fold(restored, Financing::evolve), replayed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_cent_is_lost_and_every_bid_ends(steps in steps(), cut in any::<usize>()) {
        let mut world = world();
        for (number, step) in (0..).zip(&steps) {
            take(&mut world, step, number);
            no_cent_is_lost(&world);
        }
        world.settle();
        no_cent_is_lost(&world);
        every_bid_has_ended(&world);
        replay_is_the_live_state(&world, cut);
        for choice in 0..world.delivered.len() {
            repeat(&mut world, choice);
        }
    }

    /// The saga never asks an account for a move that the account must refuse.
    #[test]
    fn every_move_that_follows_is_accepted_in_whatever_order_it_arrives(steps in steps()) {
        let mut world = world();
        for (number, step) in (0..).zip(&steps).filter(|(_, step)| !matches!(step, Step::Repeat { .. })) {
            take(&mut world, step, number);
        }
        while !world.pending.is_empty() {
            let last = world.pending.len() - 1;
            world.deliver(last);
        }
        for (command, refusal) in &world.refused {
            let moves = matches!(
                command,
                Command::Investor(InvestorCommand::ReleaseFunds(_) | InvestorCommand::CommitFunds(_))
            );
            prop_assert!(!moves, "{command:?} was refused: {refusal}");
        }
    }
}

#[test]
fn a_snapshot_of_another_schema_or_shape_is_no_snapshot() {
    let world = world();
    let aggregate = investor(0).aggregate();
    let good = Financing::encode_snapshot(world.states().get(&aggregate).unwrap()).unwrap();
    assert!(Financing::decode_snapshot(&aggregate, &good).is_some());
    let newer = eventsourcing::model::EncodedSnapshot { schema: good.schema + 1, ..good.clone() };
    assert_eq!(Financing::decode_snapshot(&aggregate, &newer), None);
    let garbled = eventsourcing::model::EncodedSnapshot { data: "{}".to_owned(), ..good.clone() };
    assert_eq!(Financing::decode_snapshot(&aggregate, &garbled), None);
    let stranger = AggregateRef::new("stranger", aggregate.id);
    assert_eq!(Financing::decode_snapshot(&stranger, &good), None);
    assert_eq!(Financing::initial(&stranger), None);
}
