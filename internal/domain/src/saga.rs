//! The saga: what follows from what.
//!
//! The rule this module protects: a policy is a pure function of one fact, and the fact carries all that it needs. A new
//! fact does not compile before somebody has said here what follows from it. Money that is reserved for a bid
//! has a way out of every ending: a bid that wins, loses, or cannot even be answered.

use eventsourcing::model::{Entry, Policies};
use eventsourcing::mutants::{Mutant, planted};

use crate::events::Event;
use crate::financing::{Command, Financing};
use crate::investor::{BidOnInvoicePlaced, CommitFunds, InvestorCommand, InvestorEvent, ReleaseFunds};
use crate::invoice::{
    BidOnInvoiceRejected, InvoiceApproved, InvoiceCommand, InvoiceEvent, InvoiceFinanced, InvoiceReversed,
    ProcessBid,
};
use crate::issuer::IssuerEvent;
use crate::money::Amount;
use crate::reservation::ReleaseKind;

/// The policies' declared names. They are part of the ids of the commands that follow: they never change.
pub mod names {
    /// A bid that was placed goes to the invoice.
    pub const PROCESS_PLACED_BID: &str = "process-placed-bid";
    /// The money of a bid that lost is released.
    pub const RELEASE_REJECTED_BID: &str = "release-rejected-bid";
    /// What a winning bid has more than the asking price is released.
    pub const RELEASE_EXCESS: &str = "release-excess";
    /// The asking price of an approved invoice is paid.
    pub const COMMIT_APPROVED: &str = "commit-approved";
    /// The asking price of a reversed invoice goes back.
    pub const RETURN_REVERSED: &str = "return-reversed";
    /// The money of a bid that could not be answered is released.
    pub const RELEASE_REFUSED_BID: &str = "release-refused-bid";
}

/// The whole saga of the Financing context.
#[derive(Debug, Clone, Copy, Default)]
pub struct Saga;

type Reaction = (&'static str, Command);

impl Policies<Financing> for Saga {
    fn react(&self, entry: &Entry<Financing>) -> Option<Reaction> {
        match entry {
            Entry::Fact(event) => on_fact(event),
            Entry::Refused { command, refusal: _ } => on_refusal(command),
            // What is already so needs no continuation: the fact that made it so had its own.
            // What is dead waits for a person, who may send it again.
            Entry::Unchanged { .. } | Entry::Dead | Entry::Discarded => None,
        }
    }
}

fn on_fact(event: &Event) -> Option<Reaction> {
    match event {
        Event::Issuer(event) => match event {
            IssuerEvent::IssuerCreated(_) => None,
        },
        Event::Investor(event) => match event {
            InvestorEvent::BidOnInvoicePlaced(bid) => Some(process_placed_bid(bid)),
            InvestorEvent::InvestorCreated(_)
            | InvestorEvent::InvestorFundsAdded(_)
            | InvestorEvent::InvestorFundsReleased(_)
            | InvestorEvent::InvestorFundsCommitted(_) => None,
        },
        Event::Invoice(event) => match event {
            InvoiceEvent::InvoiceCreated(_) => None,
            InvoiceEvent::InvoiceFinanced(winner) => release_excess(winner),
            InvoiceEvent::BidOnInvoiceRejected(bid) => Some(release_rejected_bid(bid)),
            InvoiceEvent::InvoiceApproved(invoice) => Some(commit_approved(invoice)),
            InvoiceEvent::InvoiceReversed(invoice) => Some(return_reversed(invoice)),
        },
    }
}

/// A refused command that carried a bid leaves that bid without an answer, whatever the reason was.
fn on_refusal(command: &Command) -> Option<Reaction> {
    match command {
        Command::Invoice(_) if planted(Mutant::RefusedBidKeepsItsMoney) => None,
        Command::Invoice(command) => command.carried_bid().map(release_refused_bid),
        Command::Issuer(_) | Command::Investor(_) => None,
    }
}

fn process_placed_bid(bid: &BidOnInvoicePlaced) -> Reaction {
    let BidOnInvoicePlaced { investor_id, bid_id, invoice_id, amount } = *bid;
    let command = InvoiceCommand::ProcessBid(ProcessBid { invoice_id, bid_id, investor_id, amount });
    (names::PROCESS_PLACED_BID, command.into())
}

fn release_excess(winner: &InvoiceFinanced) -> Option<Reaction> {
    let InvoiceFinanced { invoice_id, issuer_id: _, bid_id, investor_id, amount, asking_price } = *winner;
    let mut amount = amount.excess_over(asking_price)?;
    if planted(Mutant::ExcessNotExact) {
        amount = Amount::from_minor(amount.minor() ^ 1, amount.currency()).unwrap_or(amount);
    }
    let kind = ReleaseKind::Excess;
    Some((names::RELEASE_EXCESS, release(ReleaseFunds { investor_id, bid_id, invoice_id, kind, amount })))
}

fn release_rejected_bid(bid: &BidOnInvoiceRejected) -> Reaction {
    let BidOnInvoiceRejected { invoice_id, bid_id, investor_id, amount, reason: _ } = *bid;
    let kind = ReleaseKind::Release;
    (names::RELEASE_REJECTED_BID, release(ReleaseFunds { investor_id, bid_id, invoice_id, kind, amount }))
}

fn release_refused_bid(bid: &ProcessBid) -> Reaction {
    let ProcessBid { invoice_id, bid_id, investor_id, amount } = *bid;
    let kind = ReleaseKind::Release;
    (names::RELEASE_REFUSED_BID, release(ReleaseFunds { investor_id, bid_id, invoice_id, kind, amount }))
}

fn commit_approved(invoice: &InvoiceApproved) -> Reaction {
    let InvoiceApproved { invoice_id, issuer_id: _, bid_id, investor_id, amount, asking_price } = *invoice;
    let paid = if planted(Mutant::CommitsTheBid) { amount } else { asking_price };
    let command = CommitFunds { investor_id, bid_id, invoice_id, amount: paid };
    (names::COMMIT_APPROVED, InvestorCommand::CommitFunds(command).into())
}

fn return_reversed(invoice: &InvoiceReversed) -> Reaction {
    let InvoiceReversed { invoice_id, issuer_id: _, bid_id, investor_id, amount, asking_price } = *invoice;
    let amount = if planted(Mutant::ReturnsTheBid) { amount } else { asking_price };
    let kind = ReleaseKind::Return;
    (names::RETURN_REVERSED, release(ReleaseFunds { investor_id, bid_id, invoice_id, kind, amount }))
}

fn release(command: ReleaseFunds) -> Command {
    InvestorCommand::ReleaseFunds(command).into()
}
