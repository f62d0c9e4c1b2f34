//! The small traits behind which stores, queues and buses live.
//!
//! The rule this module protects: what has to happen together is one call, so that an adapter can make it one
//! transaction; and a call takes work for many partitions at once, so that an adapter can make it one round trip.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::Bundle;
use crate::environment::Timestamp;
use crate::model::{AggregateRef, EncodedSnapshot};
use crate::outcome::{Fingerprint, Outcome, Reply};
use crate::partition::{Epoch, LogPosition, Partition, PartitionCount, Sequence, Version};
use crate::record::Record;
use crate::turn::Trouble;

/// Why a port could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The infrastructure failed, or its answer was lost: it may or may not have happened.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Something in the request cannot be stored, however often it is tried.
    #[error("the store refuses the content: {0}")]
    Content(String),
    /// Another writer was first with something that must be unique. Nothing happened; look again.
    #[error("another writer was first: {0}")]
    Conflict(String),
    /// It has no room. Nothing happened.
    #[error("full: {0}")]
    Full(String),
    /// What is stored is not what must be there: a person has to look.
    #[error("{0}")]
    Broken(String),
}

impl PortError {
    /// What a loop does about it where it has no better idea: the one place that says whether to retry.
    #[must_use]
    pub fn trouble(self) -> Trouble {
        match self {
            Self::Unavailable(_) | Self::Conflict(_) | Self::Full(_) => Trouble::Retry(self.to_string()),
            Self::Content(_) | Self::Broken(_) => Trouble::Halt(self.to_string()),
        }
    }
}

/// The answer of a port.
pub type PortResult<T> = Result<T, PortError>;

// ---------------------------------------------------------------------------------------------- queue

/// Where a worker stands in the command queue: the last command whose outcome is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QueuePosition {
    /// When the queue's stream was created, in microseconds since the Unix epoch: another stream is another queue.
    pub created_at: u64,
    /// The message.
    pub message: u64,
    /// See [`QueuedMessage::mark`]: the same number with another message is another queue, too.
    pub mark: Uuid,
    /// The command's index in the message.
    pub index: u32,
}

impl fmt::Display for QueuePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} command {} ({})", self.message, self.index, self.mark)
    }
}

/// A message of the queue.
#[derive(Debug, Clone)]
pub struct QueuedMessage {
    /// The partition of its commands.
    pub partition: Partition,
    /// Its number: growing, not gap-free.
    pub message: u64,
    /// When the queue stored it, by the queue's clock: nanoseconds since the Unix epoch. 0 where the queue cannot be
    /// restored without the log, and so never be another one.
    pub stored_at: u64,
    /// The bundle.
    pub payload: Arc<[u8]>,
}

impl QueuedMessage {
    /// What tells the message from any other that may ever stand under its number: its first command, and when it was stored. The
    /// command alone would not do: after a restore a client may send again what was lost, and its message may get the number
    /// that the lost one had, in front of other messages than then.
    #[must_use]
    pub fn mark(&self, first_command: Uuid) -> Uuid {
        match self.stored_at {
            0 => first_command,
            stored_at => Uuid::new_v5(&first_command, &stored_at.to_be_bytes()),
        }
    }
}

/// The command queue: durable, ordered within a partition, read from a position that the reader stores itself.
pub trait CommandQueue: Send + Sync + 'static {
    /// When the stream was created, in microseconds since the Unix epoch.
    fn created_at(&self) -> impl Future<Output = PortResult<u64>> + Send;

    /// Stores bundles durably: each is on disk when its answer is `Ok`. One answer a bundle, in order; bundles of
    /// one partition keep their order, and where one fails, those of its partition behind it fail too.
    fn enqueue(&self, bundles: Vec<Bundle>) -> impl Future<Output = Vec<PortResult<()>>> + Send;

    /// The message with this number, where the queue (still) has it.
    fn message(
        &self,
        partition: Partition,
        message: u64,
    ) -> impl Future<Output = PortResult<Option<QueuedMessage>>> + Send;

    /// Messages after the given numbers (0: from the beginning), at most `limit` in all, in order within each
    /// partition. The partitions are served in the order of the request: a caller with a limit rotates it.
    ///
    /// Behind a connection that was made anew may be another queue: the first read of this handle after it is a
    /// [`PortError::Unavailable`], so that its reader proves where it stands.
    fn read(
        &self,
        after: &[(Partition, u64)],
        limit: usize,
    ) -> impl Future<Output = PortResult<Vec<QueuedMessage>>> + Send;

    /// Forgets the messages before the given numbers, which stay.
    ///
    /// Numbers go by the queue in which they were proven: over a connection that was made anew, and of which no read of this
    /// handle has told yet, this is a [`PortError::Unavailable`].
    fn purge(&self, before: &[(Partition, u64)]) -> impl Future<Output = PortResult<()>> + Send;
}

/// Where outcomes go that somebody waits for. Losing one is harmless: whoever waits asks again.
pub trait Replies: Send + Sync + 'static {
    /// Sends them, to the addresses that the commands came with.
    fn send(&self, replies: Vec<(String, Reply)>) -> impl Future<Output = ()> + Send;
}

// ------------------------------------------------------------------------------------------ event log

/// A partition's row: who may write, where the next record goes, and how far the queue has been worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRow {
    /// How often it was taken over.
    pub epoch: Epoch,
    /// The last record's sequence.
    pub head: Sequence,
    /// The last command that has an outcome; `None` before the first.
    pub position: Option<QueuePosition>,
}

/// What the inbox remembers of a command, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxEntry {
    /// What it asked for.
    pub fingerprint: Fingerprint,
    /// What became of it.
    pub outcome: Outcome,
}

/// A snapshot of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which aggregate.
    pub aggregate: AggregateRef,
    /// Its version.
    pub version: Version,
    /// Its state.
    pub state: EncodedSnapshot,
}

/// An event as it is read back to replay an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The aggregate's version after it.
    pub version: Version,
    /// The event's name.
    pub event_type: String,
    /// The version of its shape.
    pub schema: u16,
    /// JSON.
    pub data: String,
}

/// An aggregate's past: its latest snapshot, and the events after it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The latest snapshot, of whatever schema.
    pub snapshot: Option<Snapshot>,
    /// The events after the snapshot, in order.
    pub events: Vec<StoredEvent>,
}

/// What a batch needs to know before it decides.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// Commands that may have been seen before.
    pub commands: Vec<Uuid>,
    /// Aggregates to load.
    pub aggregates: Vec<AggregateRef>,
    /// Aggregates of whom only their existence is asked.
    pub references: Vec<AggregateRef>,
    /// Replay from the first event and leave the snapshots alone: the reader does not know their schema.
    pub full: bool,
}

/// The answer to a [`LoadRequest`].
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Those commands that have an outcome.
    pub inbox: Vec<InboxEntry>,
    /// One history for each aggregate, in the order of the request; empty where there is none.
    pub histories: Vec<History>,
    /// Those references that exist.
    pub existing: Vec<AggregateRef>,
}

/// One partition's part of a worker's transaction.
#[derive(Debug, Clone)]
pub struct PartitionCommit {
    /// Which partition.
    pub partition: Partition,
    /// The row as its owner remembers it: where it is not exactly this, nothing of this part happens.
    pub expected: PartitionRow,
    /// How far the queue is worked off afterwards.
    pub position: QueuePosition,
    /// The records, with sequences from `expected.head + 1`.
    pub records: Vec<Record>,
    /// The outcomes of the commands that got one.
    pub inbox: Vec<InboxEntry>,
    /// Snapshots to keep.
    pub snapshots: Vec<Snapshot>,
}

impl PartitionCommit {
    /// The row after the commit.
    #[must_use]
    pub fn row_after(&self) -> PartitionRow {
        let head = self.records.last().map_or(self.expected.head, |record| record.sequence);
        PartitionRow { epoch: self.expected.epoch, head, position: Some(self.position) }
    }
}

/// What became of one partition's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Its facts, its inbox rows and its progress are on disk.
    Done,
    /// The row was not what its owner remembers: somebody else owns the partition. Nothing was written.
    Fenced,
}

/// The event log, with the inbox, the snapshots and the partition rows.
pub trait EventLog: Send + Sync + 'static {
    /// Takes partitions over: raises their epochs and answers with their rows.
    fn take_over(
        &self,
        partitions: &[Partition],
    ) -> impl Future<Output = PortResult<Vec<(Partition, PartitionRow)>>> + Send;

    /// The partitions' rows as they are.
    fn rows(
        &self,
        partitions: &[Partition],
    ) -> impl Future<Output = PortResult<Vec<(Partition, PartitionRow)>>> + Send;

    /// Loads what a batch needs.
    fn load(&self, request: &LoadRequest) -> impl Future<Output = PortResult<Loaded>> + Send;

    /// Appends, in one transaction that first moves every partition's row by compare-and-set. One answer a part,
    /// in order; a part that is fenced does not stop the others, and fenced it is before anything else is looked at:
    /// also where its successor has committed the same commands.
    ///
    /// An inbox entry that exists already is a [`PortError::Conflict`], content that cannot be stored a
    /// [`PortError::Content`]: then nothing happened. A sequence or a version that exists already is
    /// [`PortError::Broken`]. After [`PortError::Unavailable`] nothing is known.
    fn commit(&self, parts: Vec<PartitionCommit>) -> impl Future<Output = PortResult<Vec<Commit>>> + Send;

    /// Forgets how far the queue has been worked off, and raises the epochs, so that no owner goes on from what it
    /// remembers. The next owner begins with the queue's first message; the inbox knows what has an outcome already.
    fn forget_queue(&self, partitions: &[Partition]) -> impl Future<Output = PortResult<()>> + Send;

    /// Committed records after the given sequences, at most `limit` in all, in order within each partition. The
    /// partitions are served in the order of the request: a caller with a limit rotates it.
    fn read(
        &self,
        after: &[(Partition, Sequence)],
        limit: usize,
    ) -> impl Future<Output = PortResult<Vec<Arc<Record>>>> + Send;
}

/// The policies' checkpoints: they live with the event log, and move after what they stand for is queued.
pub trait Checkpoints: Send + Sync + 'static {
    /// How far a reader has come in each partition; zero where it has not begun.
    fn load(
        &self,
        reader: &str,
        partitions: &[Partition],
    ) -> impl Future<Output = PortResult<Vec<(Partition, Sequence)>>> + Send;

    /// Moves checkpoints by compare-and-set. `false`: it was not where the reader remembers it.
    fn advance(
        &self,
        reader: &str,
        moves: &[CheckpointMove],
    ) -> impl Future<Output = PortResult<Vec<bool>>> + Send;
}

/// One checkpoint's step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointMove {
    /// Which partition.
    pub partition: Partition,
    /// Where it is now.
    pub from: Sequence,
    /// Where it goes.
    pub to: Sequence,
}

// ------------------------------------------------------------------------------------------ ownership

/// What a partition has one owner of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Turns commands into facts.
    Worker,
    /// Carries the log to the bus.
    Relayer,
    /// Reacts to facts with commands.
    Policies,
    /// Folds facts into read models.
    Projector,
    /// Turns another context's events into commands. It knows no partitions: there is one to own, the first.
    Importer,
}

impl Role {
    /// Its name in stores, logs and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Relayer => "relayer",
            Self::Policies => "policies",
            Self::Projector => "projector",
            Self::Importer => "importer",
        }
    }
}

/// Who tries which partition. A lease is no right to write: that is what epochs and compare-and-set are for. It only
/// keeps two owners from getting in each other's way, by the store's clock and nobody else's.
pub trait Leases: Send + Sync + 'static {
    /// Says that the member lives, for `term` from now, whatever it said before; forgets members whose term is over; evens out with
    /// [`spread`](crate::membership::spread) and answers with what the member holds now, in order.
    fn renew(
        &self,
        role: Role,
        member: Uuid,
        partitions: PartitionCount,
        term: Duration,
    ) -> impl Future<Output = PortResult<Vec<Partition>>> + Send;

    /// Gives everything up at once, so that nobody has to wait for the term's end.
    fn leave(&self, role: Role, member: Uuid) -> impl Future<Output = PortResult<()>> + Send;
}

// ---------------------------------------------------------------------------------------- integration

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
    /// [`PortError::Unavailable`], so that its reader proves where it stands.
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

// ------------------------------------------------------------------------------------------------ bus

/// Records for one partition's stream.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Which partition.
    pub partition: Partition,
    /// The stream's last sequence as the relayer remembers it: where it is another, the bus refuses.
    pub expected: Sequence,
    /// The records, from `expected + 1`.
    pub records: Vec<Arc<Record>>,
}

/// The end of a partition's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusTail {
    /// Which partition.
    pub partition: Partition,
    /// The last sequence; zero for an empty stream.
    pub last: Sequence,
    /// The id of that record; `None` for an empty stream.
    pub record_id: Option<Uuid>,
}

/// The event bus: one stream a partition, whose n-th message is the n-th record of that partition of the log.
pub trait EventBus: Send + Sync + 'static {
    /// Where the streams end.
    fn tails(&self, partitions: &[Partition]) -> impl Future<Output = PortResult<Vec<BusTail>>> + Send;

    /// Publishes. One answer a publication, in order. An unexpected end of the stream is a [`PortError::Conflict`];
    /// after any error what happened is unknown: ask for the tail.
    fn publish(&self, publications: Vec<Publication>) -> impl Future<Output = Vec<PortResult<()>>> + Send;

    /// Published records after the given sequences, at most `limit` in all, in order within each partition. The
    /// partitions are served in the order of the request: a caller with a limit rotates it.
    ///
    /// Behind a connection that was made anew may be another bus: the first read of this handle after it is a
    /// [`PortError::Unavailable`], so that its reader compares where it stands.
    fn read(
        &self,
        after: &[(Partition, Sequence)],
        limit: usize,
    ) -> impl Future<Output = PortResult<Vec<Arc<Record>>>> + Send;

    /// The published records at these positions, one answer a position, in order; `None` where the stream has none there
    /// (yet). For whoever knows what to look for: nothing is proven by it.
    fn records(
        &self,
        positions: &[LogPosition],
    ) -> impl Future<Output = PortResult<Vec<Option<Arc<Record>>>>> + Send;
}

// ---------------------------------------------------------------------------------------- read models

/// The type of a read model's column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// A 64-bit integer.
    Integer,
    /// Text.
    Text,
    /// A UUID.
    Uuid,
}

/// A read model's column. Every column is written from the facts of one partition only, and may be absent.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnType,
    /// How rows are found by it.
    pub index: Index,
}

/// How a store finds rows by a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// By looking at every row: nobody asks.
    None,
    /// Lists are filtered by it.
    All,
    /// Rows are listed in its order while they have no value in this other column. The index holds only those, so it
    /// stays small where a row soon gets that value.
    WhileAbsent(&'static str),
}

/// A read model's table: rows under a UUID.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, beside the key.
    pub columns: &'static [Column],
}

/// The tables that a store of read models has.
#[derive(Debug, Clone, Copy)]
pub struct ReadModelSchema {
    /// Grows whenever the projection or a table changes: then the store is to be made anew.
    pub version: u32,
    /// The tables.
    pub tables: &'static [Table],
}

/// The value in a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A 64-bit integer.
    Integer(i64),
    /// Text.
    Text(String),
    /// A UUID.
    Uuid(Uuid),
}

impl Value {
    /// The integer, where it is one.
    #[must_use]
    pub const fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Text(_) | Self::Uuid(_) => None,
        }
    }

    /// The text, where it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(value) => Some(value),
            Self::Integer(_) | Self::Uuid(_) => None,
        }
    }

    /// The UUID, where it is one.
    #[must_use]
    pub const fn uuid(&self) -> Option<Uuid> {
        match self {
            Self::Uuid(value) => Some(*value),
            Self::Integer(_) | Self::Text(_) => None,
        }
    }
}

/// What a record changes in one row. The row is made where there is none. A change sets a column or adds to it, never
/// both; a sum that leaves the type's range is a [`PortError::Content`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The table.
    pub table: &'static str,
    /// The row.
    pub key: Uuid,
    /// Columns that get a value.
    pub set: Vec<(&'static str, Value)>,
    /// Integer columns that something is added to; an absent one counts as zero.
    pub add: Vec<(&'static str, i64)>,
}

/// How far a projection has come in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Projected {
    /// The last record that it has seen.
    pub sequence: Sequence,
    /// That record's id: a log that was restored has another one there. `None` before the first.
    pub record_id: Option<Uuid>,
}

/// One partition's part of a projector's transaction.
#[derive(Debug, Clone)]
pub struct ProjectionStep {
    /// How the checkpoint moves: by compare-and-set, in the same transaction.
    pub checkpoint: CheckpointMove,
    /// The id of the record that it moves to.
    pub record_id: Uuid,
    /// The row changes, in order.
    pub changes: Vec<RowChange>,
}

/// What a column must be for a row to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// It has this value.
    Is(Value),
    /// It has a value.
    Present,
    /// It has none.
    Absent,
}

/// Rows of one table.
#[derive(Debug, Clone)]
pub struct RowQuery {
    /// The table.
    pub table: &'static str,
    /// All of these hold.
    pub conditions: Vec<(&'static str, Test)>,
    /// Only rows with one of these keys, of which there are a thousand at most; `None` where the key does not matter.
    pub keys: Option<Vec<Uuid>>,
    /// Only rows with a greater key, in the order of the UUIDs' bytes.
    pub after: Option<Uuid>,
    /// At most this many.
    pub limit: u32,
}

/// Rows of one table in the order of an integer column.
#[derive(Debug, Clone)]
pub struct RankedQuery {
    /// The table.
    pub table: &'static str,
    /// All of these hold.
    pub conditions: Vec<(&'static str, Test)>,
    /// The column: the least comes first, and where it is the same the order is that of the keys. Rows without a value are
    /// not listed.
    pub by: &'static str,
    /// Only rows where that column is at most this.
    pub up_to: i64,
    /// At most this many.
    pub limit: u32,
}

/// A row as it is read: the value of each of the table's columns, in the table's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The row's key.
    pub key: Uuid,
    /// The values.
    pub values: Vec<Option<Value>>,
}

/// The read models: tables and the projection's checkpoints, in one store.
pub trait ReadModels: Send + Sync + 'static {
    /// How far the projection has come in each partition.
    fn checkpoints(
        &self,
        partitions: &[Partition],
    ) -> impl Future<Output = PortResult<Vec<(Partition, Projected)>>> + Send;

    /// Applies steps in one transaction. One answer a step, in order; `false`: its checkpoint was not where the
    /// projector remembers it, and nothing of that step happened.
    fn apply(&self, steps: Vec<ProjectionStep>) -> impl Future<Output = PortResult<Vec<bool>>> + Send;

    /// The row under a key.
    fn row(&self, table: &'static str, key: Uuid) -> impl Future<Output = PortResult<Option<Row>>> + Send;

    /// The rows that a query asks for, in the order of their keys.
    fn rows(&self, query: &RowQuery) -> impl Future<Output = PortResult<Vec<Row>>> + Send;

    /// The rows that a query asks for, in the order of a column.
    fn ranked(&self, query: &RankedQuery) -> impl Future<Output = PortResult<Vec<Row>>> + Send;
}
