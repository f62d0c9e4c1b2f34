//! What an audit has counted and found.
//!
//! The rule this module protects: whoever reads that nothing is wrong also reads how much was looked at.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::breach::Breach;
use crate::money::Currency;
use crate::record::Position;

/// Commands by how they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Outcomes {
    /// They brought facts about.
    pub applied: u64,
    /// What they asked for was already so.
    pub unchanged: u64,
    /// The business said no.
    pub refused: u64,
    /// They can never succeed.
    pub dead: u64,
}

/// Bids by their state, as the platform shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Bids {
    /// Not answered yet.
    pub placed: u64,
    /// Won, and the issuer has not spoken.
    pub won: u64,
    /// Lost, and not released yet.
    pub rejected: u64,
    /// Won and paid.
    pub committed: u64,
    /// Lost, or called off, and released.
    pub released: u64,
}

/// Invoices by their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Invoices {
    /// On sale.
    pub available: u64,
    /// A bid won.
    pub financed: u64,
    /// Accepted.
    pub approved: u64,
    /// Called off.
    pub reversed: u64,
}

/// Money of one currency over all investors, in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// What was ever added.
    pub added: i128,
    /// What can be disposed of.
    pub available: i128,
    /// What is set aside for bids.
    pub reserved: i128,
    /// What was paid.
    pub committed: i128,
}

/// How much was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Records of the log.
    pub records: u64,
    /// Those of them that are facts.
    pub facts: u64,
    /// Commands that have an outcome.
    pub commands: u64,
    /// Their outcomes.
    pub outcomes: Outcomes,
    /// Entries of the inbox.
    pub inbox: u64,
    /// Commands that the queue still holds.
    pub queued: u64,
    /// Issuers.
    pub issuers: u64,
    /// Investors.
    pub investors: u64,
    /// Invoices.
    pub invoices: Invoices,
    /// Bids.
    pub bids: Bids,
    /// Money, by currency.
    pub money: BTreeMap<Currency, Totals>,
    /// Messages of the bus.
    pub messages: u64,
    /// Messages that the bus has lost after somebody read them: the relayer puts them back, from the log.
    pub behind: u64,
    /// Rows of the read models.
    pub rows: u64,
    /// Snapshots.
    pub snapshots: u64,
}

/// A saga that has not come to its end: something must follow, and has not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenSaga {
    /// The record from which it must follow.
    pub position: Position,
    /// The saga.
    pub correlation_id: Uuid,
    /// The bid.
    pub bid_id: Uuid,
    /// The command that must follow.
    pub command_id: Uuid,
    /// What it has to do.
    pub what: String,
}

/// What was done about a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LetterState {
    /// Nothing.
    Open,
    /// It was tried again.
    Retried,
    /// Somebody has decided that nothing is to be done about it.
    Discarded,
}

/// A command that can never succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its record.
    pub position: Position,
    /// The command.
    pub command_id: Uuid,
    /// The bid whose saga waits for it, where it is a step of one.
    pub bid_id: Option<Uuid>,
    /// What was done about it: [`LetterState::Open`] or [`LetterState::Discarded`] in a report.
    pub state: LetterState,
    /// Why it died, or what should have happened.
    pub what: String,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// How much was looked at.
    pub counts: Counts,
    /// How many sagas are open.
    pub open_sagas: u64,
    /// The first hundred of them, in the order of the log.
    pub open: Vec<OpenSaga>,
    /// How many dead letters are open, or were discarded.
    pub dead_letters: u64,
    /// How many were retried.
    pub retried_letters: u64,
    /// The first hundred of them, in the order of the log.
    pub dead: Vec<DeadLetter>,
    /// What is not as usual, and heals by itself.
    pub notes: Vec<String>,
    /// How many breaches were found.
    pub breached: u64,
    /// The first hundred of them; the first is the earliest cause that is known.
    pub breaches: Vec<Breach>,
}

impl Report {
    /// Whether everything is as it must be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.breached == 0
    }
}
