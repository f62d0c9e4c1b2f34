//! A record of the log, as it is stored.
//!
//! The rule this module protects: nothing is interpreted here. These are the columns.

use std::fmt;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::hash::digest;

/// A record of the log (or of the bus), as it is stored. Borrowed, because there are many.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The partition.
    pub partition: u16,
    /// Its place there, from 1.
    pub sequence: u64,
    /// The record's own id.
    pub record_id: Uuid,
    /// When it was written, in microseconds since the Unix epoch.
    pub recorded_at: u64,
    /// `issuer`, `investor` or `invoice`.
    pub aggregate_type: &'a str,
    /// Whom it is about.
    pub aggregate_id: Uuid,
    /// The aggregate's version after it; `None` for an outcome that is no fact.
    pub version: Option<u64>,
    /// The event's name.
    pub event_type: &'a str,
    /// The version of the shape of `payload`.
    pub schema: u16,
    /// JSON.
    pub payload: &'a str,
    /// The command that brought it about.
    pub command_id: Uuid,
    /// The first command of the whole saga.
    pub correlation_id: Uuid,
    /// The record that a policy reacted to, or the command itself.
    pub causation_id: Uuid,
    /// Who sent the command.
    pub actor: &'a str,
    /// The trace context that the command came with.
    pub traceparent: Option<&'a str>,
    /// Whether it is the last record of its command.
    pub command_last: bool,
}

impl Record<'_> {
    /// A digest of all that is said beside the record's id and place.
    pub(crate) fn digest(&self) -> u64 {
        let version = self.version.map_or([0; 8], u64::to_le_bytes);
        digest([
            self.aggregate_type.as_bytes(),
            self.aggregate_id.as_bytes(),
            &version[..usize::from(self.version.is_some()) * 8],
            self.event_type.as_bytes(),
            &self.schema.to_le_bytes(),
            self.payload.as_bytes(),
            self.command_id.as_bytes(),
            self.correlation_id.as_bytes(),
            self.causation_id.as_bytes(),
            self.actor.as_bytes(),
            // No trace context and an empty one are two things.
            self.traceparent.map_or(b"\0".as_slice(), str::as_bytes),
            &[u8::from(self.command_last)],
            &self.recorded_at.to_le_bytes(),
        ])
    }
}

/// A place in the log: `<partition>-<sequence>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: u16,
    /// The sequence in it.
    pub sequence: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.sequence)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An aggregate of one of the known types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An issuer.
    Issuer,
    /// An investor.
    Investor,
    /// An invoice.
    Invoice,
    /// Nothing that is known.
    Unknown,
}

impl Kind {
    /// Of a stored name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "issuer" => Self::Issuer,
            "investor" => Self::Investor,
            "invoice" => Self::Invoice,
            _ => Self::Unknown,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Investor => "investor",
            Self::Invoice => "invoice",
            Self::Unknown => "unknown",
        }
    }
}

/// A record as a breach names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) record_id: Uuid,
    pub(crate) recorded_at: u64,
    pub(crate) kind: Kind,
    pub(crate) aggregate: Uuid,
}

impl Place {
    pub(crate) fn of(record: &Record<'_>) -> Self {
        Self {
            position: Position { partition: record.partition, sequence: record.sequence },
            record_id: record.record_id,
            recorded_at: record.recorded_at,
            kind: Kind::of(record.aggregate_type),
            aggregate: record.aggregate_id,
        }
    }
}
