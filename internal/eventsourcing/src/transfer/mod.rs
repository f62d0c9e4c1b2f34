//! A whole event log on its way to another store.
//!
//! The rule this module protects: what arrives is all of what left, record by record, or nothing is there at all. The text
//! says at its beginning what has to come and at its end what has come, with a checksum over every byte; and what is written
//! becomes a log only when both are what was read.
//!
//! # Layout
//!
//! - this module: what is carried, and the two ports: a log to read, a place to write
//! - [`text`]: the lines of the text, written and read
//! - `check`: what must be so of what is read, before the end is known

use std::fmt;
use std::future::Future;

use crate::partition::{Deployment, Partition, Sequence};
use crate::ports::{InboxEntry, PortResult};
use crate::record::Record;

mod check;
#[cfg(test)]
mod tests;
pub mod text;

/// The format of the text. Whatever else is written or meant gets another number.
pub const FORMAT: u32 = 1;

/// A record and, where it is its command's last one, what the inbox has of the command. A command has exactly one last
/// record, so that is the whole inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The record.
    pub record: Record,
    /// What became of its command, with the record's position.
    pub outcome: Option<InboxEntry>,
}

/// How much there is of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which partition.
    pub partition: Partition,
    /// Its last record's sequence.
    pub head: Sequence,
    /// How far the policies have come. What follows from the records up to here is in the log too, because nothing was waiting in
    /// the queue when this was read.
    pub reacted: Sequence,
}

/// What a log has, as one moment saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Whose log it is. It stays the same deployment, wherever it is kept.
    pub deployment: Deployment,
    /// Each of its partitions, in order.
    pub shares: Vec<Share>,
    /// How many commands have an outcome.
    pub commands: u64,
}

impl Contents {
    /// How many records there are.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.shares.iter().fold(0, |sum, share| sum.saturating_add(share.head.get()))
    }
}

/// What was read of a text, to its last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// How many records.
    pub records: u64,
    /// How many commands with an outcome.
    pub commands: u64,
    /// SHA-256 of every line before the last one, in hexadecimal digits.
    pub sha256: String,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records, {} commands, sha256 {}", self.records, self.commands, self.sha256)
    }
}

/// A log that is carried away: as it was at one moment, whatever happens meanwhile.
pub trait LogSource: Send {
    /// The records of a partition behind a sequence, at most `limit`, in order.
    fn read(
        &mut self,
        partition: Partition,
        after: Sequence,
        limit: usize,
    ) -> impl Future<Output = PortResult<Vec<Carried>>> + Send;
}

/// A log that is being written, and that nobody sees before it is whole. Where whoever writes it is killed, nothing starts on what
/// there is before a person has said how to go on.
pub trait LogTarget: Send {
    /// Writes records, in the order of partitions and sequences.
    fn append(&mut self, carried: Vec<Carried>) -> impl Future<Output = PortResult<()>> + Send;

    /// All of it was written, and the text was what it says it is: checks what only the whole can show (versions without gaps, one
    /// record under each record id), and makes it the log.
    fn finish(self) -> impl Future<Output = PortResult<()>> + Send;

    /// Nothing will come of it: takes back what was written, so that the place is as empty as it was.
    fn abandon(self) -> impl Future<Output = PortResult<()>> + Send;
}
