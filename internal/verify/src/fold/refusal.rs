//! Whether a command that brought about no fact had to end so.
//!
//! The rule this module protects: no is only said where a rule says no, and nothing is left unchanged that should have
//! changed. What depends on another partition (whether an issuer exists) cannot be known here at that moment.

use std::borrow::Cow;

use crate::breach::Invariant;
use crate::facts::{
    self, Command, CreateInvestor, InvestorCommand, InvoiceCommand, IssuerCommand, IssuerCreated, Move,
    Refused, Rejection, Sale, Unchanged,
};
use crate::hash::digest_of;
use crate::money::Money;
use crate::record::Place;
use crate::saga::{Links, Policy, Step, Wanted};

use super::invoice::Status;
use super::{Answer, At, Bid, Fold, Part};

/// The most bids that an investor may have open.
const MAX_OPEN_BIDS: u32 = 10_000;

/// How a command has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Facts,
    Unchanged,
    Refused(&'static str),
    /// Facts, or this refusal: what decides is in another partition.
    Either(&'static str),
}

impl Due {
    fn allows_refusal(self, reason: &str) -> bool {
        match self {
            Self::Refused(due) | Self::Either(due) => due == reason,
            Self::Facts | Self::Unchanged => false,
        }
    }

    fn words(self) -> Cow<'static, str> {
        match self {
            Self::Facts => "it has to be done".into(),
            Self::Unchanged => "it is so already".into(),
            Self::Refused(reason) | Self::Either(reason) => format!("it has to be refused ({reason})").into(),
        }
    }
}

impl Fold {
    /// A command was refused.
    pub(crate) fn refused(&mut self, at: &mut At<'_>, refused: &Refused<'_>) -> Links {
        let (method, target) = refused.command.target();
        if refused.method != method
            || refused.reason != refused.refusal.reason
            || at.place.aggregate != target
        {
            at.breach(
                Invariant::Form,
                format!("the refusal of {method} for {target} says something else of itself"),
            );
        }
        let due = self.due(&at.place, &refused.command);
        if !due.allows_refusal(&refused.reason) {
            at.breach(
                Invariant::I3,
                format!("{method} is refused ({}), and {}", refused.reason, due.words()),
            );
        }
        let Command::Invoice(InvoiceCommand::ProcessBid(bid)) = &refused.command else {
            return self.carried(&refused.command);
        };
        let facts::Offer { investor_id: investor, bid_id, invoice_id: invoice, amount } = *bid;
        let reason =
            if refused.reason == "INVOICE_NOT_FOUND" { Rejection::InvoiceNotFound } else { Rejection::Other };
        let known = self.bids.entry(bid_id).or_insert_with(|| Bid::new(investor, invoice, amount.0));
        known.answered(at, bid_id, Answer::Rejected(reason));
        let step = |wanted| Step { wanted, investor, bid: bid_id, invoice, money: amount.0 };
        Links {
            effect: Some(step(Wanted::Answer)),
            reaction: Some((Policy::ReleaseRefusedBid, step(Wanted::Move(Move::Release)))),
        }
    }

    /// A command changed nothing.
    pub(crate) fn unchanged(&mut self, at: &mut At<'_>, unchanged: &Unchanged<'_>) -> Links {
        let (method, target) = unchanged.command.target();
        if unchanged.method != method || at.place.aggregate != target {
            at.breach(
                Invariant::Form,
                format!("what left {method} for {target} unchanged says something else of itself"),
            );
        }
        let due = self.due(&at.place, &unchanged.command);
        if due != Due::Unchanged {
            at.breach(Invariant::I3, format!("{method} changes nothing, and {}", due.words()));
        }
        self.carried(&unchanged.command)
    }

    /// What a policy's command asked for.
    #[expect(clippy::unused_self, reason = "called beside its siblings")]
    fn carried(&self, command: &Command<'_>) -> Links {
        let step = |wanted, bid: &facts::Offer| Step {
            wanted,
            investor: bid.investor_id,
            bid: bid.bid_id,
            invoice: bid.invoice_id,
            money: bid.amount.0,
        };
        let effect = match command {
            Command::Issuer(_) => None,
            Command::Investor(command) => match command {
                InvestorCommand::CreateInvestor(_) | InvestorCommand::BidOnInvoice(_) => None,
                InvestorCommand::ReleaseFunds(command) => Some(Step {
                    wanted: Wanted::Move(command.kind),
                    investor: command.investor_id,
                    bid: command.bid_id,
                    invoice: command.invoice_id,
                    money: command.amount.0,
                }),
                InvestorCommand::CommitFunds(bid) => Some(step(Wanted::Move(Move::Commit), bid)),
            },
            Command::Invoice(command) => match command {
                InvoiceCommand::SellInvoice(_)
                | InvoiceCommand::ApproveFinancing(_)
                | InvoiceCommand::ReverseFinancing(_) => None,
                InvoiceCommand::ProcessBid(bid) => Some(step(Wanted::Answer, bid)),
            },
        };
        Links { effect, reaction: None }
    }

    /// How a command has to end, as things stand.
    fn due(&self, place: &Place, command: &Command<'_>) -> Due {
        match command {
            Command::Issuer(IssuerCommand::CreateIssuer(command)) => self.create_issuer(command),
            Command::Investor(command) => match command {
                InvestorCommand::CreateInvestor(command) => self.create_investor(command),
                InvestorCommand::BidOnInvoice(bid) => self.bid_on_invoice(bid),
                // Whatever a policy asks to be moved is there to be moved.
                InvestorCommand::ReleaseFunds(_) | InvestorCommand::CommitFunds(_) => Due::Facts,
            },
            Command::Invoice(command) => match command {
                InvoiceCommand::SellInvoice(sale) => self.sell_invoice(place, sale),
                InvoiceCommand::ProcessBid(bid) => self.process_bid(bid),
                InvoiceCommand::ApproveFinancing(command) | InvoiceCommand::ReverseFinancing(command) => {
                    let invoice = self.invoices.get(&command.invoice_id);
                    match invoice.and_then(|invoice| invoice.status) {
                        None => Due::Refused("INVOICE_NOT_FOUND"),
                        Some(Status::Financed) => Due::Facts,
                        Some(Status::Available | Status::Approved | Status::Reversed) => {
                            Due::Refused("INVOICE_NOT_FINANCED")
                        }
                    }
                }
            },
        }
    }

    fn create_issuer(&self, command: &IssuerCreated<'_>) -> Due {
        match self.issuers.get(&command.issuer_id) {
            None => Due::Facts,
            Some(issuer) if issuer.name == digest_of(&command.name) => Due::Unchanged,
            Some(_) => Due::Refused("ALREADY_REGISTERED"),
        }
    }

    fn create_investor(&self, command: &CreateInvestor<'_>) -> Due {
        let Some(investor) = self.investors.get(&command.investor_id) else { return Due::Facts };
        let added = Money { minor: investor.added, currency: investor.currency };
        if investor.name == digest_of(&command.name) && added == command.balance {
            Due::Unchanged
        } else {
            Due::Refused("ALREADY_REGISTERED")
        }
    }

    fn bid_on_invoice(&self, bid: &facts::Offer) -> Due {
        let Some(investor) = self.investors.get(&bid.investor_id) else {
            return Due::Refused("INVESTOR_NOT_FOUND");
        };
        let open =
            |known: &Bid| known.placed && known.investor == bid.investor_id && known.part != Part::Closed;
        if investor.currency != bid.amount.0.currency {
            Due::Refused("CURRENCY_MISMATCH")
        } else if self.bids.get(&bid.bid_id).is_some_and(open) {
            Due::Refused("BID_ALREADY_PLACED")
        } else if investor.open_bids >= MAX_OPEN_BIDS {
            Due::Refused("TOO_MANY_OPEN_BIDS")
        } else if investor.balances.available < bid.amount.0.minor {
            Due::Refused("INSUFFICIENT_FUNDS")
        } else {
            Due::Facts
        }
    }

    fn sell_invoice(&self, place: &Place, sale: &Sale) -> Due {
        let here = self.partition_of(sale.issuer_id) == place.position.partition;
        match self.invoices.get(&sale.invoice_id) {
            Some(invoice) if invoice.issuer == sale.issuer_id && invoice.asking == sale.asking_price.0 => {
                Due::Unchanged
            }
            Some(_) => Due::Refused("INVOICE_ALREADY_SOLD"),
            None if here => match self.issuers.get(&sale.issuer_id) {
                None => Due::Refused("ISSUER_NOT_FOUND"),
                // A batch is decided before any of it is in the log, and recorded at one moment.
                Some(issuer) if issuer.since == place.recorded_at => Due::Either("ISSUER_NOT_FOUND"),
                Some(_) => Due::Facts,
            },
            None => Due::Either("ISSUER_NOT_FOUND"),
        }
    }

    fn process_bid(&self, bid: &facts::Offer) -> Due {
        match self.invoices.get(&bid.invoice_id) {
            None => Due::Refused("INVOICE_NOT_FOUND"),
            Some(invoice) if invoice.winner.is_some_and(|winner| winner.bid == bid.bid_id) => Due::Unchanged,
            Some(_) => Due::Facts,
        }
    }
}
