//! The state that the facts so far come to, folded without the platform's own aggregates.
//!
//! The rule this module protects: a fact is checked against what came before it, and then taken as it is, so that one
//! that is wrong is reported once and the fold goes on.
//!
//! # Layout
//!
//! - [`investor`]: accounts and reservations
//! - [`invoice`]: issuers, invoices and who wins
//! - [`refusal`]: whether a command that brought about no fact had to end so

pub(crate) mod investor;
pub(crate) mod invoice;
pub(crate) mod refusal;

use serde::Deserialize;
use uuid::Uuid;

use crate::breach::{Breaches, Invariant, Tier};
use crate::facts::{Fact, Rejection};
use crate::hash::Map;
use crate::money::Money;
use crate::record::{Kind, Place};
use crate::saga::Links;

use investor::{Investor, Settlement};
use invoice::{Invoice, Issuer};

/// Which part of a bid is still reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Part {
    #[default]
    #[serde(skip)]
    Nothing,
    Everything,
    AskingPrice,
    Excess,
    #[serde(skip)]
    Closed,
}

/// What an invoice said to a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Answer {
    #[default]
    None,
    Won,
    Rejected(Rejection),
}

/// A bid, from both of its sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bid {
    pub(crate) investor: Uuid,
    pub(crate) invoice: Uuid,
    pub(crate) amount: Money,
    pub(crate) placed: bool,
    pub(crate) part: Part,
    /// What is still reserved.
    pub(crate) left: i64,
    pub(crate) committed: i64,
    pub(crate) settlement: Option<Settlement>,
    pub(crate) answer: Answer,
    /// As the read models show it: each half up to the checkpoint of its partition.
    pub(crate) shown_placed: bool,
    pub(crate) shown_settlement: Option<Settlement>,
    pub(crate) shown_answer: Answer,
    pub(crate) row_seen: bool,
    /// The last record about it: partition and sequence.
    pub(crate) at: (u16, u64),
}

impl Bid {
    fn new(investor: Uuid, invoice: Uuid, amount: Money) -> Self {
        Self {
            investor,
            invoice,
            amount,
            placed: false,
            part: Part::Nothing,
            left: 0,
            committed: 0,
            settlement: None,
            answer: Answer::None,
            shown_placed: false,
            shown_settlement: None,
            shown_answer: Answer::None,
            row_seen: false,
            at: (0, 0),
        }
    }

    pub(crate) fn is_shown(&self) -> bool {
        self.shown_placed || self.shown_settlement.is_some() || self.shown_answer != Answer::None
    }
}

/// Where a record stands, and whether the read models have seen it.
pub(crate) struct At<'b> {
    pub(crate) place: Place,
    pub(crate) version: u64,
    pub(crate) shown: bool,
    pub(crate) breaches: &'b mut Breaches,
}

impl At<'_> {
    pub(crate) fn breach(&mut self, invariant: Invariant, what: String) {
        self.breaches.rule(invariant, self.place, what);
    }

    /// Versions are 1, 2, 3.
    fn version(&mut self, version: &mut u64) {
        let expected = version.saturating_add(1);
        if self.version != expected {
            let what = format!("the aggregate's version is {}, after {version}", self.version);
            self.breaches.add(Tier::Log, Invariant::I4, self.place, what);
        }
        *version = self.version;
    }

    fn at(&self) -> (u16, u64) {
        (self.place.position.partition, self.place.position.sequence)
    }

    /// A fact is about the aggregate that its record names.
    fn is_about(&mut self, kind: Kind, id: Uuid) {
        if self.place.kind != kind || self.place.aggregate != id {
            let what = format!("it says that it is about {} {id}", kind.name());
            self.breaches.add(Tier::Log, Invariant::Form, self.place, what);
        }
    }
}

/// All aggregates.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    pub(crate) issuers: Map<Uuid, Issuer>,
    pub(crate) investors: Map<Uuid, Investor>,
    pub(crate) invoices: Map<Uuid, Invoice>,
    pub(crate) bids: Map<Uuid, Bid>,
    pub(crate) partitions: u16,
}

impl Fold {
    pub(crate) fn clear(&mut self) {
        self.issuers.clear();
        self.investors.clear();
        self.invoices.clear();
        self.bids.clear();
    }

    /// Takes a fact in; answers with what it follows from, and with what must follow from it.
    pub(crate) fn apply(&mut self, at: &mut At<'_>, fact: &Fact<'_>) -> Links {
        match fact {
            Fact::IssuerCreated(fact) => self.issuer_created(at, fact),
            Fact::InvestorCreated(fact) => self.investor_created(at, fact),
            Fact::FundsAdded(fact) => self.funds_added(at, fact),
            Fact::BidPlaced(bid) => self.bid_placed(at, bid),
            Fact::Released(fact) => self.released(at, fact),
            Fact::Committed(fact) => self.committed(at, fact),
            Fact::InvoiceCreated(sale) => self.invoice_created(at, sale),
            Fact::Financed(fact) => self.financed(at, fact),
            Fact::BidRejected(fact) => self.bid_rejected(at, fact),
            Fact::Approved(fact) => self.approved(at, fact),
            Fact::Reversed(fact) => self.reversed(at, fact),
        }
    }

    /// The id as a 128-bit number, modulo the number of partitions. (In halves, because a division of 128 bits is slow.)
    pub(crate) fn partition_of(&self, id: Uuid) -> u16 {
        let count = u64::from(self.partitions.max(1));
        let (high, low) = id.as_u64_pair();
        let two_to_64 = (u64::MAX % count + 1) % count;
        let index = ((high % count) * two_to_64 + low % count) % count;
        u16::try_from(index).unwrap_or_default()
    }
}
