//! The event log, with the inbox, the snapshots, the partition rows and the policies' checkpoints.
//!
//! The rule this module protects: facts, outcomes and progress are one call, and so one transaction.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use super::PortResult;
use super::queue::QueuePosition;
use crate::model::{AggregateRef, EncodedSnapshot};
use crate::outcome::{Fingerprint, Outcome};
use crate::partition::{Epoch, Partition, Sequence, Version};
use crate::record::Record;

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

/// Where something ends that follows the log, a partition's stream on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follows {
    /// Which partition.
    pub partition: Partition,
    /// The last sequence that it has.
    pub last: Sequence,
    /// Whether the log is known to have the same record there.
    pub proven: bool,
}

/// What a log has where something ends that follows it, and behind that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beyond {
    /// The log's last sequence in each partition in which it ends elsewhere, or in which that end is not proven.
    pub heads: Vec<(Partition, Sequence)>,
    /// Of the same partitions the record at the end, and those behind it.
    pub records: Vec<Arc<Record>>,
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
    /// An inbox entry that exists already is a [`PortError::Conflict`](super::PortError::Conflict), content that cannot be stored a
    /// [`PortError::Content`](super::PortError::Content): then nothing happened. A sequence or a version that exists already is
    /// [`PortError::Broken`](super::PortError::Broken). After [`PortError::Unavailable`](super::PortError::Unavailable) nothing is known.
    fn commit(&self, parts: Vec<PartitionCommit>) -> impl Future<Output = PortResult<Vec<Commit>>> + Send;

    /// Forgets how far the queue has been worked off, and raises the epochs, so that no owner goes on from what it
    /// remembers. The next owner begins with the queue's first message; the inbox knows what has an outcome already.
    fn forget_queue(&self, partitions: &[Partition]) -> impl Future<Output = PortResult<()>> + Send;

    /// Committed records after the given sequences, at most `limit` in all, in order within each partition. The
    /// partitions are served in the order of the request, so a caller with a limit rotates it; or each gets its share.
    fn read(
        &self,
        after: &[(Partition, Sequence)],
        limit: usize,
    ) -> impl Future<Output = PortResult<Vec<Arc<Record>>>> + Send;

    /// What there is for those who follow: of each partition in which the log does not end where they do, or in which it is not
    /// proven that they do, where it ends, the record at their end, and those behind it. At most `limit` records in all, to whom as
    /// with [`read`](Self::read); the heads come in the order of the request.
    ///
    /// A store that can answer both questions at once does.
    fn beyond(&self, ends: &[Follows], limit: usize) -> impl Future<Output = PortResult<Beyond>> + Send {
        async move {
            let partitions: Vec<Partition> = ends.iter().map(|end| end.partition).collect();
            let rows: BTreeMap<Partition, PartitionRow> = self.rows(&partitions).await?.into_iter().collect();
            let (mut heads, mut after) = (Vec::new(), Vec::new());
            for Follows { partition, last, proven } in ends {
                let head = rows.get(partition).map_or(Sequence::ZERO, |row| row.head);
                if head != *last || !proven {
                    heads.push((*partition, head));
                    after.push((*partition, last.before()));
                }
            }
            let records = if after.is_empty() { Vec::new() } else { self.read(&after, limit).await? };
            Ok(Beyond { heads, records })
        }
    }
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
