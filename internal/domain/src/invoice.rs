//! An invoice on sale.
//!
//! The rule this module protects: one bid wins, and the invoice remembers which. The first bid of at least the asking
//! price on an available invoice is it; delivered again it is still it; every other bid is rejected with a reason.
//! Approved and reversed are final.

use eventsourcing::model::{Aggregate, AggregateRef, Known};
use eventsourcing::mutants::{Mutant, planted};
use serde::{Deserialize, Serialize};

use crate::coded::coded;
use crate::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use crate::money::Amount;
use crate::refusal::{BidRejection, Refusal};

/// What an invoice can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvoiceCommand {
    /// See [`SellInvoice`].
    SellInvoice(SellInvoice),
    /// See [`ProcessBid`].
    ProcessBid(ProcessBid),
    /// See [`ApproveFinancing`].
    ApproveFinancing(ApproveFinancing),
    /// See [`ReverseFinancing`].
    ReverseFinancing(ReverseFinancing),
}

/// Puts an invoice on sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SellInvoice {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// Who sells it.
    pub issuer_id: IssuerId,
    /// What a bid must reach.
    pub asking_price: Amount,
}

/// Answers a bid that was placed and whose money is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessBid {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// The bid.
    pub bid_id: BidId,
    /// Who bids.
    pub investor_id: InvestorId,
    /// How much.
    pub amount: Amount,
}

/// The issuer accepts the financing: the asking price is paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveFinancing {
    /// The invoice.
    pub invoice_id: InvoiceId,
}

/// The issuer calls the financing off: the asking price goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReverseFinancing {
    /// The invoice.
    pub invoice_id: InvoiceId,
}

/// What has happened to an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvoiceEvent {
    /// See [`InvoiceCreated`].
    InvoiceCreated(InvoiceCreated),
    /// See [`InvoiceFinanced`].
    InvoiceFinanced(InvoiceFinanced),
    /// See [`BidOnInvoiceRejected`].
    BidOnInvoiceRejected(BidOnInvoiceRejected),
    /// See [`InvoiceApproved`].
    InvoiceApproved(InvoiceApproved),
    /// See [`InvoiceReversed`].
    InvoiceReversed(InvoiceReversed),
}

/// An invoice is on sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceCreated {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// Who sells it.
    pub issuer_id: IssuerId,
    /// What a bid must reach.
    pub asking_price: Amount,
}

/// A bid won.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceFinanced {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// Who sells it.
    pub issuer_id: IssuerId,
    /// The bid that won.
    pub bid_id: BidId,
    /// Who bid.
    pub investor_id: InvestorId,
    /// How much was bid.
    pub amount: Amount,
    /// What is to be paid.
    pub asking_price: Amount,
}

/// A bid lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BidOnInvoiceRejected {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// The bid that lost.
    pub bid_id: BidId,
    /// Who bid.
    pub investor_id: InvestorId,
    /// How much was bid.
    pub amount: Amount,
    /// Why it lost.
    pub reason: BidRejection,
}

/// The financing was approved; it is final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceApproved {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// Who sells it.
    pub issuer_id: IssuerId,
    /// The bid that won.
    pub bid_id: BidId,
    /// Who bid.
    pub investor_id: InvestorId,
    /// How much was bid.
    pub amount: Amount,
    /// What is to be paid.
    pub asking_price: Amount,
}

/// The financing was called off; it is final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceReversed {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// Who sells it.
    pub issuer_id: IssuerId,
    /// The bid that won.
    pub bid_id: BidId,
    /// Who bid.
    pub investor_id: InvestorId,
    /// How much was bid.
    pub amount: Amount,
    /// What goes back.
    pub asking_price: Amount,
}

coded! {
    /// Where an invoice stands.
    pub enum InvoiceStatus {
        /// On sale.
        Available = "AVAILABLE",
        /// A bid won, and waits for the issuer's word.
        Financed = "FINANCED",
        /// Accepted; final.
        Approved = "APPROVED",
        /// Called off; final.
        Reversed = "REVERSED",
    }
}

/// What an invoice is sold for, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Who sells it.
    pub issuer_id: IssuerId,
    /// What a bid must reach.
    pub asking_price: Amount,
}

/// The bid that won.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WinningBid {
    /// The bid.
    pub bid_id: BidId,
    /// Who bid.
    pub investor_id: InvestorId,
    /// How much was bid.
    pub amount: Amount,
}

/// An invoice's state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Invoice {
    /// There is none yet.
    #[default]
    Missing,
    /// On sale.
    Available(Terms),
    /// A bid won, and waits for the issuer's word.
    Financed(Terms, WinningBid),
    /// Accepted; final.
    Approved(Terms, WinningBid),
    /// Called off; final.
    Reversed(Terms, WinningBid),
}

impl Invoice {
    /// The version of the state's shape in snapshots.
    pub const SNAPSHOT_SCHEMA: u16 = 1;

    /// Where the invoice stands, where there is one.
    #[must_use]
    pub const fn status(&self) -> Option<InvoiceStatus> {
        match self {
            Self::Missing => None,
            Self::Available(_) => Some(InvoiceStatus::Available),
            Self::Financed(..) => Some(InvoiceStatus::Financed),
            Self::Approved(..) => Some(InvoiceStatus::Approved),
            Self::Reversed(..) => Some(InvoiceStatus::Reversed),
        }
    }

    /// The bid that won, once one has.
    #[must_use]
    pub const fn winning_bid(&self) -> Option<&WinningBid> {
        match self {
            Self::Missing | Self::Available(_) => None,
            Self::Financed(_, winner) | Self::Approved(_, winner) | Self::Reversed(_, winner) => Some(winner),
        }
    }

    /// Who sells the invoice and for what, where there is one.
    #[must_use]
    pub const fn terms(&self) -> Option<&Terms> {
        match self {
            Self::Missing => None,
            Self::Available(terms)
            | Self::Financed(terms, _)
            | Self::Approved(terms, _)
            | Self::Reversed(terms, _) => Some(terms),
        }
    }

    /// The terms and the winning bid of an invoice that waits for the issuer's word.
    fn financed(&self, invoice_id: InvoiceId) -> Result<(Terms, WinningBid), Refusal> {
        match self {
            Self::Financed(terms, winner) => Ok((*terms, *winner)),
            Self::Reversed(terms, winner) if planted(Mutant::ReversedCanBeApproved) => Ok((*terms, *winner)),
            Self::Missing => Err(Refusal::InvoiceNotFound { invoice_id }),
            Self::Available(_) => Err(Refusal::InvoiceNotFinanced { status: InvoiceStatus::Available }),
            Self::Approved(..) => Err(Refusal::InvoiceNotFinanced { status: InvoiceStatus::Approved }),
            Self::Reversed(..) => Err(Refusal::InvoiceNotFinanced { status: InvoiceStatus::Reversed }),
        }
    }
}

impl InvoiceEvent {
    /// The name of the command that brings it about.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::InvoiceCreated(_) => "SellInvoice",
            Self::InvoiceFinanced(_) | Self::BidOnInvoiceRejected(_) => "ProcessBid",
            Self::InvoiceApproved(_) => "ApproveFinancing",
            Self::InvoiceReversed(_) => "ReverseFinancing",
        }
    }

    /// The invoice that it is about.
    #[must_use]
    pub const fn invoice_id(&self) -> InvoiceId {
        match self {
            Self::InvoiceCreated(event) => event.invoice_id,
            Self::InvoiceFinanced(event) => event.invoice_id,
            Self::BidOnInvoiceRejected(event) => event.invoice_id,
            Self::InvoiceApproved(event) => event.invoice_id,
            Self::InvoiceReversed(event) => event.invoice_id,
        }
    }
}

impl InvoiceCommand {
    /// The command's name.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::SellInvoice(_) => "SellInvoice",
            Self::ProcessBid(_) => "ProcessBid",
            Self::ApproveFinancing(_) => "ApproveFinancing",
            Self::ReverseFinancing(_) => "ReverseFinancing",
        }
    }

    /// The invoice that it changes.
    #[must_use]
    pub const fn invoice_id(&self) -> InvoiceId {
        match self {
            Self::SellInvoice(command) => command.invoice_id,
            Self::ProcessBid(command) => command.invoice_id,
            Self::ApproveFinancing(command) => command.invoice_id,
            Self::ReverseFinancing(command) => command.invoice_id,
        }
    }

    /// The same as an aggregate.
    #[must_use]
    pub const fn target(&self) -> AggregateRef {
        self.invoice_id().aggregate()
    }

    /// The other aggregates whose existence matters to it: nobody sells without being an issuer.
    #[must_use]
    pub fn references(&self) -> Vec<AggregateRef> {
        match self {
            Self::SellInvoice(command) => vec![command.issuer_id.aggregate()],
            Self::ProcessBid(_) | Self::ApproveFinancing(_) | Self::ReverseFinancing(_) => Vec::new(),
        }
    }

    /// The bid that the command carries. Its money is reserved, so whoever refuses the command must see to it
    /// that the money is released.
    #[must_use]
    pub const fn carried_bid(&self) -> Option<&ProcessBid> {
        match self {
            Self::ProcessBid(bid) => Some(bid),
            Self::SellInvoice(_) | Self::ApproveFinancing(_) | Self::ReverseFinancing(_) => None,
        }
    }
}

impl Aggregate for Invoice {
    const TYPE: &'static str = "invoice";
    type Command = InvoiceCommand;
    type Event = InvoiceEvent;
    type Refusal = Refusal;

    fn decide(&self, command: &InvoiceCommand, known: &Known) -> Result<Vec<InvoiceEvent>, Refusal> {
        match command {
            InvoiceCommand::SellInvoice(command) => command.decide(self, known),
            InvoiceCommand::ProcessBid(command) => command.decide(self),
            InvoiceCommand::ApproveFinancing(command) => command.decide(self),
            InvoiceCommand::ReverseFinancing(command) => command.decide(self),
        }
    }

    /// A fact that does not follow from the state cannot have been decided here; evolving is total, and a state that
    /// ignores such a fact keeps what it knows of the winning bid.
    fn evolve(self, event: &InvoiceEvent) -> Self {
        match event {
            InvoiceEvent::InvoiceCreated(event) => match self {
                Self::Missing => {
                    Self::Available(Terms { issuer_id: event.issuer_id, asking_price: event.asking_price })
                }
                Self::Available(_) | Self::Financed(..) | Self::Approved(..) | Self::Reversed(..) => self,
            },
            InvoiceEvent::InvoiceFinanced(event) => match self {
                Self::Available(terms) => {
                    let InvoiceFinanced { bid_id, investor_id, amount, .. } = *event;
                    Self::Financed(terms, WinningBid { bid_id, investor_id, amount })
                }
                Self::Missing | Self::Financed(..) | Self::Approved(..) | Self::Reversed(..) => self,
            },
            // Who lost is the investor's concern: an invoice that kept every lost bid would grow without limit.
            InvoiceEvent::BidOnInvoiceRejected(_) => self,
            InvoiceEvent::InvoiceApproved(_) => match self {
                Self::Financed(terms, winner) => Self::Approved(terms, winner),
                Self::Missing | Self::Available(_) | Self::Approved(..) | Self::Reversed(..) => self,
            },
            InvoiceEvent::InvoiceReversed(_) => match self {
                Self::Financed(terms, winner) => Self::Reversed(terms, winner),
                Self::Missing | Self::Available(_) | Self::Approved(..) | Self::Reversed(..) => self,
            },
        }
    }
}

impl SellInvoice {
    fn decide(&self, invoice: &Invoice, known: &Known) -> Result<Vec<InvoiceEvent>, Refusal> {
        let SellInvoice { invoice_id, issuer_id, asking_price } = *self;
        match invoice.terms() {
            Some(terms) if *terms == (Terms { issuer_id, asking_price }) => Ok(Vec::new()),
            Some(_) => Err(Refusal::InvoiceAlreadySold { invoice_id }),
            None if known.exists(&issuer_id.aggregate()) => {
                let created = InvoiceCreated { invoice_id, issuer_id, asking_price };
                Ok(vec![InvoiceEvent::InvoiceCreated(created)])
            }
            None => Err(Refusal::IssuerNotFound { issuer_id }),
        }
    }
}

impl ProcessBid {
    fn decide(&self, invoice: &Invoice) -> Result<Vec<InvoiceEvent>, Refusal> {
        match invoice {
            Invoice::Missing => Err(Refusal::InvoiceNotFound { invoice_id: self.invoice_id }),
            Invoice::Available(terms) => match self.shortcoming(terms) {
                Some(reason) => Ok(vec![self.rejected(reason)]),
                None => Ok(vec![self.won(terms)]),
            },
            Invoice::Financed(terms, winner)
                if planted(Mutant::TwoWinners) && winner.bid_id != self.bid_id =>
            {
                Ok(vec![self.won(terms)])
            }
            Invoice::Financed(_, winner) | Invoice::Approved(_, winner) | Invoice::Reversed(_, winner) => {
                // The bid that won, delivered again. To reject it would release what is to be paid.
                if winner.bid_id == self.bid_id {
                    return Ok(Vec::new());
                }
                Ok(vec![self.rejected(BidRejection::InvoiceNotAvailable)])
            }
        }
    }

    /// Why the bid cannot win an invoice that is available; `None`: it wins.
    fn shortcoming(&self, terms: &Terms) -> Option<BidRejection> {
        if terms.issuer_id.is_same_party_as(self.investor_id) && !planted(Mutant::SelfFinancing) {
            return Some(BidRejection::SelfFinancing);
        }
        match self.amount.money().compare(terms.asking_price.money()) {
            Err(_) => Some(BidRejection::CurrencyMismatch),
            Ok(order) if order.is_lt() => Some(BidRejection::BidBelowAskingPrice),
            Ok(_) => None,
        }
    }

    fn won(&self, terms: &Terms) -> InvoiceEvent {
        InvoiceEvent::InvoiceFinanced(InvoiceFinanced {
            invoice_id: self.invoice_id,
            issuer_id: terms.issuer_id,
            bid_id: self.bid_id,
            investor_id: self.investor_id,
            amount: self.amount,
            asking_price: terms.asking_price,
        })
    }

    fn rejected(&self, reason: BidRejection) -> InvoiceEvent {
        InvoiceEvent::BidOnInvoiceRejected(BidOnInvoiceRejected {
            invoice_id: self.invoice_id,
            bid_id: self.bid_id,
            investor_id: self.investor_id,
            amount: self.amount,
            reason,
        })
    }
}

impl ApproveFinancing {
    fn decide(&self, invoice: &Invoice) -> Result<Vec<InvoiceEvent>, Refusal> {
        let (Terms { issuer_id, asking_price }, WinningBid { bid_id, investor_id, amount }) =
            invoice.financed(self.invoice_id)?;
        let invoice_id = self.invoice_id;
        let approved = InvoiceApproved { invoice_id, issuer_id, bid_id, investor_id, amount, asking_price };
        Ok(vec![InvoiceEvent::InvoiceApproved(approved)])
    }
}

impl ReverseFinancing {
    fn decide(&self, invoice: &Invoice) -> Result<Vec<InvoiceEvent>, Refusal> {
        let (Terms { issuer_id, asking_price }, WinningBid { bid_id, investor_id, amount }) =
            invoice.financed(self.invoice_id)?;
        let invoice_id = self.invoice_id;
        let reversed = InvoiceReversed { invoice_id, issuer_id, bid_id, investor_id, amount, asking_price };
        Ok(vec![InvoiceEvent::InvoiceReversed(reversed)])
    }
}
