//! What comes from other contexts, and what is kept for people.
//!
//! The rule this module protects: nothing that came in and could not be used is lost without a trace.

use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use super::PortResult;
use crate::environment::Timestamp;
use crate::model::AggregateRef;
use crate::outcome::Fingerprint;
use crate::partition::LogPosition;
use crate::record::Record;

/// A message of another context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignMessage {
    /// Its number: growing, not gap-free.
    pub message: u64,
    /// What it was published under.
    pub subject: String,
    /// What it says: whatever somebody has sent.
    pub payload: Arc<[u8]>,
}

/// Where an importer stands in another context's stream: the last message that was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignPosition {
    /// When the stream was created, in microseconds since the Unix epoch: another stream is another context.
    pub created_at: u64,
    /// The message.
    pub message: u64,
    /// Of the message's payload: the same number with another content is another stream, too.
    pub fingerprint: Fingerprint,
}

/// Another context's events: ordered, and read from a position that the reader stores itself.
pub trait ForeignEvents: Send + Sync + 'static {
    /// When the stream was created, in microseconds since the Unix epoch.
    fn created_at(&self) -> impl Future<Output = PortResult<u64>> + Send;

    /// The message with this number, where the stream (still) has it.
    fn message(&self, message: u64) -> impl Future<Output = PortResult<Option<ForeignMessage>>> + Send;

    /// Messages after the given number (0: from the beginning), at most `limit`, in order.
    ///
    /// Behind a connection that was made anew may be another stream: the first read of this handle after it is a
    /// [`PortError::Unavailable`](super::PortError::Unavailable), so that its reader proves where it stands.
    fn read(&self, after: u64, limit: usize) -> impl Future<Output = PortResult<Vec<ForeignMessage>>> + Send;
}

/// How far other contexts' streams are imported: it lives with the event log.
pub trait ForeignPositions: Send + Sync + 'static {
    /// How far a reader has come; `None` where it has not begun.
    fn position(&self, reader: &str) -> impl Future<Output = PortResult<Option<ForeignPosition>>> + Send;

    /// Moves a reader by compare-and-set; to `None`, it begins anew. `false`: it was not where it is remembered.
    fn advance(
        &self,
        reader: &str,
        from: Option<ForeignPosition>,
        to: Option<ForeignPosition>,
    ) -> impl Future<Output = PortResult<bool>> + Send;
}

/// What nobody could do anything with, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetter {
    /// A command that can never succeed: its CommandDead record.
    Command(Arc<Record>),
    /// A message of another context that is malformed.
    Foreign {
        /// Where it stands.
        position: ForeignPosition,
        /// The message.
        message: ForeignMessage,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where dead letters are kept. Keeping the same one again, by its record id or its position in the other context's
/// stream and whatever the reason says, is keeping it once.
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps them durably: they are on disk when the answer is `Ok`.
    fn keep(&self, letters: Vec<DeadLetter>) -> impl Future<Output = PortResult<()>> + Send;
}

/// Which CommandDead records are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadQuery {
    /// Those that stand behind this.
    pub after: Option<LogPosition>,
    /// Only those of this aggregate.
    pub aggregate: Option<AggregateRef>,
    /// Only the one with this record id.
    pub record_id: Option<Uuid>,
    /// At most this many.
    pub limit: usize,
}

/// The dead letters in the event log: its CommandDead records.
pub trait DeadCommands: Send + Sync + 'static {
    /// The committed CommandDead records that are asked for, in the order of partitions, and of sequences within each.
    fn dead(&self, query: &DeadQuery) -> impl Future<Output = PortResult<Vec<Arc<Record>>>> + Send;
}

/// A message of another context among the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignLetter {
    /// Its number among the dead letters: growing, not gap-free.
    pub number: u64,
    /// When it was kept.
    pub kept_at: Timestamp,
    /// Where it stood.
    pub position: ForeignPosition,
    /// The message.
    pub message: ForeignMessage,
    /// Whether that is all of it: one that would not have fitted was shortened, and where it came from it may be gone.
    pub whole: bool,
    /// What was wrong with it.
    pub reason: String,
}

/// The dead letters that are messages of other contexts.
pub trait ForeignLetters: Send + Sync + 'static {
    /// Those with greater numbers (0: from the first), at most so many, in the order of their numbers. Where they are large
    /// there may be fewer: none only where there are no more. One that cannot be read is among them, with what can be: it hides no
    /// other.
    fn foreign(
        &self,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = PortResult<Vec<ForeignLetter>>> + Send;
}
