//! Issuers and invoices: who sells, who wins, and what the issuer says.
//!
//! The rule this module protects: the first bid of at least the asking price on an available invoice wins, every other
//! loses for the right reason, and approved and reversed are final.

use uuid::Uuid;

use crate::breach::Invariant;
use crate::facts::{BidRejected, Financing, IssuerCreated, Move, Rejection, Sale};
use crate::hash::digest_of;
use crate::money::Money;
use crate::record::Kind;
use crate::saga::{Links, Policy, Step, Wanted};

use super::{Answer, At, Bid, Fold};

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Issuer {
    pub(crate) version: u64,
    /// A digest of the name.
    pub(crate) name: u64,
    pub(crate) shown: bool,
    pub(crate) row_seen: bool,
    pub(crate) at: (u16, u64),
    /// When it was created.
    pub(crate) since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Available,
    Financed,
    Approved,
    Reversed,
}

impl Status {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::Financed => "FINANCED",
            Self::Approved => "APPROVED",
            Self::Reversed => "REVERSED",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Winner {
    pub(crate) bid: Uuid,
    pub(crate) investor: Uuid,
    pub(crate) amount: Money,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Invoice {
    pub(crate) version: u64,
    pub(crate) issuer: Uuid,
    pub(crate) asking: Money,
    /// `None`: something is said of an invoice that was never created.
    pub(crate) status: Option<Status>,
    pub(crate) winner: Option<Winner>,
    pub(crate) shown: Option<Status>,
    pub(crate) row_seen: bool,
    pub(crate) at: (u16, u64),
}

impl Invoice {
    fn missing(issuer: Uuid, asking: Money) -> Self {
        Self {
            version: 0,
            issuer,
            asking,
            status: None,
            winner: None,
            shown: None,
            row_seen: false,
            at: (0, 0),
        }
    }

    fn becomes(&mut self, at: &At<'_>, status: Status) {
        self.status = Some(status);
        self.at = at.at();
        if at.shown {
            self.shown = Some(status);
        }
    }

    /// Why this bid cannot win while the invoice is available; `None`: it must.
    fn shortcoming(&self, investor: Uuid, amount: Money) -> Option<Rejection> {
        if self.issuer == investor {
            Some(Rejection::SelfFinancing)
        } else if amount.currency != self.asking.currency {
            Some(Rejection::CurrencyMismatch)
        } else if amount.minor < self.asking.minor {
            Some(Rejection::BidBelowAskingPrice)
        } else {
            None
        }
    }

    /// A financing repeats the terms of the sale.
    fn has_terms_of(&self, at: &mut At<'_>, fact: &Financing) {
        if self.status.is_some() && (self.issuer != fact.issuer_id || self.asking != fact.asking_price.0) {
            let (asking, said) = (self.asking, fact.asking_price.0);
            let what = format!(
                "invoice {}: {said} by issuer {}, and it was offered for {asking} by {}",
                fact.invoice_id, fact.issuer_id, self.issuer
            );
            at.breach(Invariant::I3, what);
        }
    }
}

impl Bid {
    /// Every bid is answered once.
    pub(super) fn answered(&mut self, at: &mut At<'_>, bid: Uuid, answer: Answer) {
        if self.answer != Answer::None {
            let what = format!("bid {bid} is answered a second time: {:?} after {:?}", answer, self.answer);
            at.breach(Invariant::I3, what);
        }
        self.answer = answer;
        if at.shown {
            self.shown_answer = answer;
        }
        if !self.placed {
            self.at = at.at();
        }
    }
}

impl Fold {
    pub(super) fn issuer_created(&mut self, at: &mut At<'_>, fact: &IssuerCreated<'_>) -> Links {
        at.is_about(Kind::Issuer, fact.issuer_id);
        let issuer = self.issuers.entry(fact.issuer_id).or_default();
        if issuer.version > 0 {
            at.breach(Invariant::I3, format!("issuer {} is created a second time", fact.issuer_id));
        }
        at.version(&mut issuer.version);
        issuer.name = digest_of(&fact.name);
        issuer.shown |= at.shown;
        (issuer.at, issuer.since) = (at.at(), at.place.recorded_at);
        Links::FIRST
    }

    pub(super) fn invoice_created(&mut self, at: &mut At<'_>, sale: &Sale) -> Links {
        let Sale { invoice_id, issuer_id, asking_price } = *sale;
        at.is_about(Kind::Invoice, invoice_id);
        let here = at.place.position.partition;
        if self.partition_of(issuer_id) == here && !self.issuers.contains_key(&issuer_id) {
            at.breach(
                Invariant::I3,
                format!("invoice {invoice_id} is sold by {issuer_id}, and there is no such issuer yet"),
            );
        }
        let invoice =
            self.invoices.entry(invoice_id).or_insert_with(|| Invoice::missing(issuer_id, asking_price.0));
        at.version(&mut invoice.version);
        if invoice.status.is_some() {
            at.breach(Invariant::I3, format!("invoice {invoice_id} is sold a second time"));
        }
        (invoice.issuer, invoice.asking) = (issuer_id, asking_price.0);
        invoice.becomes(at, Status::Available);
        Links::FIRST
    }

    pub(super) fn financed(&mut self, at: &mut At<'_>, fact: &Financing) -> Links {
        let Financing { invoice_id, issuer_id, bid_id, investor_id, .. } = *fact;
        let (amount, asking) = (fact.amount.0, fact.asking_price.0);
        at.is_about(Kind::Invoice, invoice_id);
        let invoice = self.invoices.entry(invoice_id).or_insert_with(|| Invoice::missing(issuer_id, asking));
        at.version(&mut invoice.version);
        match invoice.status {
            Some(Status::Available) => {}
            None => at.breach(Invariant::I3, format!("invoice {invoice_id} was never sold, and is financed")),
            Some(status @ (Status::Financed | Status::Approved | Status::Reversed)) => {
                let what =
                    format!("invoice {invoice_id} is {}, and bid {bid_id} wins it again", status.code());
                at.breach(Invariant::I3, what);
            }
        }
        invoice.has_terms_of(at, fact);
        if let Some(reason) = invoice.shortcoming(investor_id, amount) {
            let what = format!(
                "bid {bid_id} of {amount} wins an invoice of {}: it has to lose ({})",
                invoice.asking,
                reason.code()
            );
            at.breach(Invariant::I3, what);
        }
        invoice.winner = Some(Winner { bid: bid_id, investor: investor_id, amount });
        let asking = invoice.asking;
        invoice.becomes(at, Status::Financed);
        let bid = self.bids.entry(bid_id).or_insert_with(|| Bid::new(investor_id, invoice_id, amount));
        bid.answered(at, bid_id, Answer::Won);
        let step =
            |wanted, money| Step { wanted, investor: investor_id, bid: bid_id, invoice: invoice_id, money };
        let excess = Money { minor: amount.minor.saturating_sub(asking.minor), ..amount };
        let due = excess.minor > 0 && amount.currency == asking.currency;
        Links {
            effect: Some(step(Wanted::Answer, amount)),
            reaction: due.then(|| (Policy::ReleaseExcess, step(Wanted::Move(Move::Excess), excess))),
        }
    }

    pub(super) fn bid_rejected(&mut self, at: &mut At<'_>, fact: &BidRejected) -> Links {
        let BidRejected { invoice_id, bid_id, investor_id, reason, .. } = *fact;
        let amount = fact.amount.0;
        at.is_about(Kind::Invoice, invoice_id);
        let invoice =
            self.invoices.entry(invoice_id).or_insert_with(|| Invoice::missing(Uuid::nil(), amount));
        at.version(&mut invoice.version);
        invoice.at = at.at();
        let due = match invoice.status {
            Some(Status::Available) => invoice.shortcoming(investor_id, amount),
            Some(Status::Financed | Status::Approved | Status::Reversed) => {
                let winner = invoice.winner.is_some_and(|winner| winner.bid == bid_id);
                (!winner).then_some(Rejection::InvoiceNotAvailable)
            }
            None => Some(Rejection::InvoiceNotFound),
        };
        // (Which no fact can say: a command that finds no invoice is refused.)
        if due != Some(reason) {
            let due = due.map_or("it has to win, or has won", Rejection::code);
            at.breach(
                Invariant::I3,
                format!("bid {bid_id} of {amount} is rejected ({}): {due}", reason.code()),
            );
        }
        let bid = self.bids.entry(bid_id).or_insert_with(|| Bid::new(investor_id, invoice_id, amount));
        bid.answered(at, bid_id, Answer::Rejected(reason));
        let step =
            |wanted| Step { wanted, investor: investor_id, bid: bid_id, invoice: invoice_id, money: amount };
        Links {
            effect: Some(step(Wanted::Answer)),
            reaction: Some((Policy::ReleaseRejectedBid, step(Wanted::Move(Move::Release)))),
        }
    }

    pub(super) fn approved(&mut self, at: &mut At<'_>, fact: &Financing) -> Links {
        let step = self.final_word(at, fact, Status::Approved, Move::Commit);
        Links { effect: None, reaction: Some((Policy::CommitApproved, step)) }
    }

    pub(super) fn reversed(&mut self, at: &mut At<'_>, fact: &Financing) -> Links {
        let step = self.final_word(at, fact, Status::Reversed, Move::Return);
        Links { effect: None, reaction: Some((Policy::ReturnReversed, step)) }
    }

    fn final_word(&mut self, at: &mut At<'_>, fact: &Financing, status: Status, kind: Move) -> Step {
        let Financing { invoice_id, issuer_id, bid_id, investor_id, .. } = *fact;
        let (amount, asking) = (fact.amount.0, fact.asking_price.0);
        at.is_about(Kind::Invoice, invoice_id);
        let invoice = self.invoices.entry(invoice_id).or_insert_with(|| Invoice::missing(issuer_id, asking));
        at.version(&mut invoice.version);
        if invoice.status != Some(Status::Financed) {
            let before = invoice.status.map_or("not on sale", Status::code);
            let what = format!("invoice {invoice_id} becomes {}, and it is {before}", status.code());
            at.breach(Invariant::I3, what);
        }
        invoice.has_terms_of(at, fact);
        let winner = Winner { bid: bid_id, investor: investor_id, amount };
        if invoice.winner != Some(winner) {
            let what = format!("invoice {invoice_id}: bid {bid_id} of {amount} is not the one that won");
            at.breach(Invariant::I3, what);
        }
        let money = invoice.asking;
        invoice.becomes(at, status);
        Step { wanted: Wanted::Move(kind), investor: investor_id, bid: bid_id, invoice: invoice_id, money }
    }
}
