//! Why the business says no.
//!
//! The rule this module protects: a reason is a promise. Clients branch on its code, facts carry it for ever, so
//! every code is in one published catalogue, and a test fails when one is missing from it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::coded::coded;
use crate::currency::Currency;
use crate::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use crate::invoice::InvoiceStatus;
use crate::money::{Amount, Money};
use crate::reservation::Move;

/// A business refusal: nothing happened, and repeating the command as it is would not help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Refusal {
    /// There is no such issuer.
    #[error("there is no issuer {issuer_id}")]
    IssuerNotFound {
        /// The issuer that was named.
        issuer_id: IssuerId,
    },
    /// There is no such investor.
    #[error("there is no investor {investor_id}")]
    InvestorNotFound {
        /// The investor that was named.
        investor_id: InvestorId,
    },
    /// There is no such invoice.
    #[error("there is no invoice {invoice_id}")]
    InvoiceNotFound {
        /// The invoice that was named.
        invoice_id: InvoiceId,
    },
    /// The party is registered, with other content.
    #[error("{id} is already registered, with other content")]
    AlreadyRegistered {
        /// The issuer's or investor's id.
        id: Uuid,
    },
    /// The invoice is on sale, on other terms.
    #[error("invoice {invoice_id} is already on sale, on other terms")]
    InvoiceAlreadySold {
        /// The invoice.
        invoice_id: InvoiceId,
    },
    /// The investor has less than the bid to dispose of.
    #[error("{requested} were requested and {available} are available")]
    InsufficientFunds {
        /// What can be disposed of.
        available: Money,
        /// What was asked for.
        requested: Amount,
    },
    /// The amount is in another currency than the account.
    #[error("the amount is in {actual}, the account in {expected}")]
    CurrencyMismatch {
        /// The account's currency.
        expected: Currency,
        /// The amount's currency.
        actual: Currency,
    },
    /// The invoice is not in the state in which it can be approved or reversed.
    #[error("the invoice is {status}, not FINANCED")]
    InvoiceNotFinanced {
        /// Its state.
        status: InvoiceStatus,
    },
    /// A bid with this id has an open reservation.
    #[error("bid {bid_id} is already placed")]
    BidAlreadyPlaced {
        /// The bid.
        bid_id: BidId,
    },
    /// The investor has as many open bids as an account can hold.
    #[error("an investor has at most {limit} open bids")]
    TooManyOpenBids {
        /// The limit.
        limit: u32,
    },
    /// Nothing is reserved for the bid: it was never placed, or all of it has moved.
    #[error("nothing is reserved for bid {bid_id}")]
    ReservationNotOpen {
        /// The bid.
        bid_id: BidId,
    },
    /// The part of the reservation that the move is about has moved already.
    #[error("{kind} is not possible any more: that part of bid {bid_id} has moved already")]
    MoveAlreadyDone {
        /// The bid.
        bid_id: BidId,
        /// The move that was asked for.
        kind: Move,
    },
    /// The amount is not one that this move may take from what is left of the reservation.
    #[error("{kind} of {requested} does not fit the {reserved} that are reserved")]
    AmountExceedsReservation {
        /// The move that was asked for.
        kind: Move,
        /// What is left of the reservation.
        reserved: Amount,
        /// What was to be moved.
        requested: Amount,
    },
}

impl Refusal {
    /// The machine-readable reason, one of [`CATALOGUE`].
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::IssuerNotFound { .. } => "ISSUER_NOT_FOUND",
            Self::InvestorNotFound { .. } => "INVESTOR_NOT_FOUND",
            Self::InvoiceNotFound { .. } => "INVOICE_NOT_FOUND",
            Self::AlreadyRegistered { .. } => "ALREADY_REGISTERED",
            Self::InvoiceAlreadySold { .. } => "INVOICE_ALREADY_SOLD",
            Self::InsufficientFunds { .. } => "INSUFFICIENT_FUNDS",
            Self::CurrencyMismatch { .. } => "CURRENCY_MISMATCH",
            Self::InvoiceNotFinanced { .. } => "INVOICE_NOT_FINANCED",
            Self::BidAlreadyPlaced { .. } => "BID_ALREADY_PLACED",
            Self::TooManyOpenBids { .. } => "TOO_MANY_OPEN_BIDS",
            Self::ReservationNotOpen { .. } => "RESERVATION_NOT_OPEN",
            Self::MoveAlreadyDone { .. } => "MOVE_ALREADY_DONE",
            Self::AmountExceedsReservation { .. } => "AMOUNT_EXCEEDS_RESERVATION",
        }
    }
}

coded! {
    /// Why a bid lost. Not a refusal: the invoice answered the bid, and the answer is a fact.
    pub enum BidRejection {
        /// Another bid won before.
        InvoiceNotAvailable = "INVOICE_NOT_AVAILABLE",
        /// The bid is less than the asking price.
        BidBelowAskingPrice = "BID_BELOW_ASKING_PRICE",
        /// The bid is in another currency than the asking price.
        CurrencyMismatch = "CURRENCY_MISMATCH",
        /// The investor is the same legal party as the issuer.
        SelfFinancing = "SELF_FINANCING",
    }
}

/// One line of the published catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The code, in `UPPER_SNAKE_CASE`.
    pub code: &'static str,
    /// What it means, in one line.
    pub meaning: &'static str,
}

const fn reason(code: &'static str, meaning: &'static str) -> Reason {
    Reason { code, meaning }
}

/// Every reason that a command can be refused for, and that a bid can lose for. Codes are added, never changed.
pub const CATALOGUE: &[Reason] = &[
    reason("ALREADY_REGISTERED", "the party is registered, with other content"),
    reason("AMOUNT_EXCEEDS_RESERVATION", "the amount does not fit what is reserved for the bid"),
    reason("BID_ALREADY_PLACED", "a bid with this id is open"),
    reason("BID_BELOW_ASKING_PRICE", "the bid lost: it is less than the asking price"),
    reason("CURRENCY_MISMATCH", "the amount is in another currency than the account or the asking price"),
    reason("INSUFFICIENT_FUNDS", "the investor has less available than the bid"),
    reason("INVESTOR_NOT_FOUND", "there is no such investor"),
    reason("INVOICE_ALREADY_SOLD", "the invoice is on sale, on other terms"),
    reason("INVOICE_NOT_AVAILABLE", "the bid lost: another bid won before"),
    reason("INVOICE_NOT_FINANCED", "only a financed invoice can be approved or reversed"),
    reason("INVOICE_NOT_FOUND", "there is no such invoice"),
    reason("ISSUER_NOT_FOUND", "there is no such issuer"),
    reason("MOVE_ALREADY_DONE", "that part of the bid's reservation has moved already"),
    reason("RESERVATION_NOT_OPEN", "nothing is reserved for the bid"),
    reason("SELF_FINANCING", "the bid lost: the investor is the issuer"),
    reason("TOO_MANY_OPEN_BIDS", "the investor has as many open bids as an account can hold"),
];
