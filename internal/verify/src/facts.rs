//! The stored JSON of facts, commands and outcomes, in shapes of this crate's own.
//!
//! The rule this module protects: what is stored has exactly the shape that was promised, in every version that was ever
//! written. A field too many is as much an error as one that is missing.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::money::{Amount, Currency, Money};

/// Why a bid lost, or a command was refused: the codes that matter to a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Rejection {
    InvoiceNotAvailable,
    BidBelowAskingPrice,
    CurrencyMismatch,
    SelfFinancing,
    /// (A ProcessBid is refused for it: no bid is rejected by an invoice that there is not.)
    #[serde(skip)]
    InvoiceNotFound,
    /// Something that no bid may be refused for.
    #[serde(skip)]
    Other,
}

impl Rejection {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::InvoiceNotAvailable => "INVOICE_NOT_AVAILABLE",
            Self::BidBelowAskingPrice => "BID_BELOW_ASKING_PRICE",
            Self::CurrencyMismatch => "CURRENCY_MISMATCH",
            Self::SelfFinancing => "SELF_FINANCING",
            Self::InvoiceNotFound => "INVOICE_NOT_FOUND",
            Self::Other => "?",
        }
    }
}

/// How reserved money moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Move {
    Release,
    Excess,
    Return,
    #[serde(skip)]
    Commit,
}

impl Move {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Release => "RELEASE",
            Self::Excess => "EXCESS",
            Self::Return => "RETURN",
            Self::Commit => "COMMIT",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerCreated<'a> {
    pub(crate) issuer_id: Uuid,
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InvestorCreated<'a> {
    pub(crate) investor_id: Uuid,
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    pub(crate) currency_code: Currency,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FundsAdded {
    pub(crate) investor_id: Uuid,
    pub(crate) amount: Amount,
}

/// A bid on its way: BidOnInvoicePlaced, BidOnInvoice and ProcessBid have the same fields.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Offer {
    pub(crate) investor_id: Uuid,
    pub(crate) bid_id: Uuid,
    pub(crate) invoice_id: Uuid,
    pub(crate) amount: Amount,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Released {
    pub(crate) investor_id: Uuid,
    pub(crate) bid_id: Uuid,
    pub(crate) invoice_id: Uuid,
    pub(crate) kind: Move,
    pub(crate) amount: Amount,
    pub(crate) remainder: Money,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Committed {
    pub(crate) investor_id: Uuid,
    pub(crate) bid_id: Uuid,
    pub(crate) invoice_id: Uuid,
    pub(crate) amount: Amount,
    pub(crate) remainder: Money,
}

/// InvoiceCreated and SellInvoice.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sale {
    pub(crate) invoice_id: Uuid,
    pub(crate) issuer_id: Uuid,
    pub(crate) asking_price: Amount,
}

/// InvoiceFinanced, InvoiceApproved and InvoiceReversed.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Financing {
    pub(crate) invoice_id: Uuid,
    pub(crate) issuer_id: Uuid,
    pub(crate) bid_id: Uuid,
    pub(crate) investor_id: Uuid,
    pub(crate) amount: Amount,
    pub(crate) asking_price: Amount,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BidRejected {
    pub(crate) invoice_id: Uuid,
    pub(crate) bid_id: Uuid,
    pub(crate) investor_id: Uuid,
    pub(crate) amount: Amount,
    pub(crate) reason: Rejection,
}

#[derive(Debug)]
pub(crate) enum Fact<'a> {
    IssuerCreated(IssuerCreated<'a>),
    InvestorCreated(InvestorCreated<'a>),
    FundsAdded(FundsAdded),
    BidPlaced(Offer),
    Released(Released),
    Committed(Committed),
    InvoiceCreated(Sale),
    Financed(Financing),
    BidRejected(BidRejected),
    Approved(Financing),
    Reversed(Financing),
}

fn json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("its data cannot be read: {error}"))
}

impl Fact<'_> {
    /// The invoice that it is about, where it is about one.
    pub(crate) const fn invoice(&self) -> Option<Uuid> {
        match self {
            Self::IssuerCreated(_) | Self::InvestorCreated(_) | Self::FundsAdded(_) => None,
            Self::BidPlaced(fact) => Some(fact.invoice_id),
            Self::Released(fact) => Some(fact.invoice_id),
            Self::Committed(fact) => Some(fact.invoice_id),
            Self::InvoiceCreated(fact) => Some(fact.invoice_id),
            Self::BidRejected(fact) => Some(fact.invoice_id),
            Self::Financed(fact) | Self::Approved(fact) | Self::Reversed(fact) => Some(fact.invoice_id),
        }
    }
}

impl<'a> Fact<'a> {
    /// Every event in every version that was ever written.
    pub(crate) fn read(event_type: &str, schema: u16, data: &'a str) -> Result<Self, String> {
        match (event_type, schema) {
            ("BidOnInvoicePlaced", 1) => json(data).map(Self::BidPlaced),
            ("InvestorFundsReleased", 1) => json(data).map(Self::Released),
            ("InvestorFundsCommitted", 1) => json(data).map(Self::Committed),
            ("InvoiceCreated", 1) => json(data).map(Self::InvoiceCreated),
            ("InvoiceFinanced", 1) => json(data).map(Self::Financed),
            ("BidOnInvoiceRejected", 1) => json(data).map(Self::BidRejected),
            ("InvoiceApproved", 1) => json(data).map(Self::Approved),
            ("InvoiceReversed", 1) => json(data).map(Self::Reversed),
            ("IssuerCreated", 1) => json(data).map(Self::IssuerCreated),
            ("InvestorCreated", 1) => json(data).map(Self::InvestorCreated),
            ("InvestorFundsAdded", 1) => json(data).map(Self::FundsAdded),
            _ => Err(format!("there is no event {event_type} of schema {schema}")),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateInvestor<'a> {
    pub(crate) investor_id: Uuid,
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    pub(crate) balance: Money,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseFunds {
    pub(crate) investor_id: Uuid,
    pub(crate) bid_id: Uuid,
    pub(crate) invoice_id: Uuid,
    pub(crate) kind: Move,
    pub(crate) amount: Amount,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfInvoice {
    pub(crate) invoice_id: Uuid,
}

#[derive(Debug, Deserialize)]
pub(crate) enum IssuerCommand<'a> {
    CreateIssuer(#[serde(borrow)] IssuerCreated<'a>),
}

#[derive(Debug, Deserialize)]
pub(crate) enum InvestorCommand<'a> {
    CreateInvestor(#[serde(borrow)] CreateInvestor<'a>),
    BidOnInvoice(Offer),
    ReleaseFunds(ReleaseFunds),
    CommitFunds(Offer),
}

#[derive(Debug, Deserialize)]
pub(crate) enum InvoiceCommand {
    SellInvoice(Sale),
    ProcessBid(Offer),
    ApproveFinancing(OfInvoice),
    ReverseFinancing(OfInvoice),
}

/// A command inside the record of its outcome.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command<'a> {
    Issuer(#[serde(borrow)] IssuerCommand<'a>),
    Investor(#[serde(borrow)] InvestorCommand<'a>),
    Invoice(InvoiceCommand),
}

impl Command<'_> {
    /// The invoice that it is about, where it is about one.
    pub(crate) const fn invoice(&self) -> Option<Uuid> {
        match self {
            Self::Issuer(_) => None,
            Self::Investor(command) => match command {
                InvestorCommand::CreateInvestor(_) => None,
                InvestorCommand::BidOnInvoice(offer) | InvestorCommand::CommitFunds(offer) => {
                    Some(offer.invoice_id)
                }
                InvestorCommand::ReleaseFunds(command) => Some(command.invoice_id),
            },
            Self::Invoice(command) => match command {
                InvoiceCommand::SellInvoice(sale) => Some(sale.invoice_id),
                InvoiceCommand::ProcessBid(offer) => Some(offer.invoice_id),
                InvoiceCommand::ApproveFinancing(command) | InvoiceCommand::ReverseFinancing(command) => {
                    Some(command.invoice_id)
                }
            },
        }
    }

    /// Its name, and the aggregate that it is for.
    pub(crate) fn target(&self) -> (&'static str, Uuid) {
        match self {
            Self::Issuer(IssuerCommand::CreateIssuer(command)) => ("CreateIssuer", command.issuer_id),
            Self::Investor(command) => match command {
                InvestorCommand::CreateInvestor(command) => ("CreateInvestor", command.investor_id),
                InvestorCommand::BidOnInvoice(command) => ("BidOnInvoice", command.investor_id),
                InvestorCommand::ReleaseFunds(command) => ("ReleaseFunds", command.investor_id),
                InvestorCommand::CommitFunds(command) => ("CommitFunds", command.investor_id),
            },
            Self::Invoice(command) => match command {
                InvoiceCommand::SellInvoice(command) => ("SellInvoice", command.invoice_id),
                InvoiceCommand::ProcessBid(command) => ("ProcessBid", command.invoice_id),
                InvoiceCommand::ApproveFinancing(command) => ("ApproveFinancing", command.invoice_id),
                InvoiceCommand::ReverseFinancing(command) => ("ReverseFinancing", command.invoice_id),
            },
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct TypedReason<'a> {
    #[serde(borrow)]
    pub(crate) reason: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refused<'a> {
    #[serde(borrow)]
    pub(crate) reason: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) message: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) refusal: TypedReason<'a>,
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) command: Command<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unchanged<'a> {
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) command: Command<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dead<'a> {
    #[serde(borrow)]
    pub(crate) reason: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) message: Cow<'a, str>,
    #[serde(borrow, default)]
    command: Option<&'a RawValue>,
    #[serde(default, rename = "raw")]
    _raw: Option<IgnoredAny>,
    #[serde(borrow, default)]
    discards: Option<Discarded<'a>>,
}

/// What stands in the place of the command of a discard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Discards {
    discards: Uuid,
}

/// A place in another context's stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForeignPlace {
    pub(crate) created_at: u64,
    pub(crate) message: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Discarded<'a> {
    pub(crate) letter_id: Uuid,
    pub(crate) partition: u16,
    #[serde(borrow, rename = "reason")]
    _reason: Cow<'a, str>,
    #[serde(default)]
    pub(crate) foreign: Option<ForeignPlace>,
}

impl Dead<'_> {
    /// The invoice that the command was about: not of what was no command when it died.
    pub(crate) fn invoice(&self) -> Option<Uuid> {
        if self.reason == "UNDECODABLE" {
            return None;
        }
        serde_json::from_str::<Command<'_>>(self.command?.get()).ok()?.invoice()
    }

    /// The dead letter that it was to discard. A release that could not discard kept of it what stands in the command's place.
    pub(crate) fn discards(&self) -> Option<Uuid> {
        let named = |command: &RawValue| serde_json::from_str::<Discards>(command.get()).ok();
        let said = self.discards.as_ref().map(|said| said.letter_id);
        said.or_else(|| self.command.and_then(named).map(|said| said.discards))
    }
}

/// The record of an outcome that is no fact.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    Refused(Refused<'a>),
    Unchanged(Unchanged<'a>),
    Dead(Dead<'a>),
    Discarded(Discarded<'a>),
}

impl<'a> Outcome<'a> {
    pub(crate) fn read(event_type: &str, schema: u16, data: &'a str) -> Result<Self, String> {
        match (event_type, schema) {
            ("CommandRefused", 1) => json(data).map(Self::Refused),
            ("CommandUnchanged", 1) => json(data).map(Self::Unchanged),
            ("CommandDead", 1) => json(data).map(Self::Dead),
            ("DeadLetterDiscarded", 1) => json(data).map(Self::Discarded),
            _ => Err(format!("there is no outcome {event_type} of schema {schema}")),
        }
    }
}

/// What an inbox entry says.
#[derive(Debug, Deserialize)]
#[serde(tag = "state", rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub(crate) enum Verdict<'a> {
    Applied,
    Unchanged,
    Refused {
        #[serde(borrow)]
        reason: Cow<'a, str>,
        #[serde(borrow)]
        message: Cow<'a, str>,
    },
    Dead {
        #[serde(borrow)]
        reason: Cow<'a, str>,
        #[serde(borrow)]
        message: Cow<'a, str>,
    },
}

impl<'a> Verdict<'a> {
    pub(crate) fn read(text: &'a str) -> Result<Self, String> {
        // The same text for nearly all.
        if text == r#"{"state":"APPLIED"}"# { Ok(Self::Applied) } else { json(text) }
    }
}
