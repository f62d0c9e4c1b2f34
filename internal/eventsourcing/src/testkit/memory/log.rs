//! The event log in memory, with the inbox, the snapshots, the partition rows, and how far others have read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::{Call, Interference, Way, lock};
use crate::environment::Doorbells;
use crate::model::AggregateRef;
use crate::partition::{Epoch, Partition, Sequence, Version};
use crate::ports::{
    CheckpointMove, Checkpoints, Commit, DeadCommands, DeadQuery, EventLog, ForeignPosition,
    ForeignPositions, History, InboxEntry, LoadRequest, Loaded, PartitionCommit, PartitionRow, PortError,
    PortResult, Snapshot, StoredEvent,
};
use crate::record::{COMMAND_DEAD, Record};

/// An [`EventLog`] in memory.
#[derive(Clone, Default)]
pub struct MemoryLog {
    state: Arc<Mutex<SavedLog>>,
    fenced: Arc<AtomicU64>,
    bells: Doorbells,
    way: Way,
}

/// What a log held at some time, its readers' checkpoints included.
#[derive(Debug, Clone, Default)]
pub struct SavedLog {
    pub(super) rows: BTreeMap<Partition, PartitionRow>,
    pub(super) records: BTreeMap<Partition, Vec<Arc<Record>>>,
    pub(super) inbox: BTreeMap<Uuid, InboxEntry>,
    pub(super) facts: BTreeMap<AggregateRef, Vec<Arc<Record>>>,
    pub(super) snapshots: BTreeMap<AggregateRef, Snapshot>,
    pub(super) checkpoints: BTreeMap<(String, Partition), Sequence>,
    pub(super) foreign: BTreeMap<String, ForeignPosition>,
    /// Text that no record may hold: what a store would refuse.
    pub(super) unstorable: Option<String>,
    /// An aggregate that nobody may ask for: what a store would refuse, too.
    pub(super) unloadable: Option<AggregateRef>,
}

/// The records after the given sequences, in order within each partition, from streams without gaps.
pub(super) fn page<'a>(
    after: &[(Partition, Sequence)],
    limit: usize,
    stream: impl Fn(Partition) -> &'a [Arc<Record>],
) -> Vec<Arc<Record>> {
    let mut records = Vec::new();
    for (partition, after) in after {
        let stream = stream(*partition);
        let from = stream.partition_point(|record| record.sequence <= *after);
        records.extend(stream.iter().skip(from).take(limit - records.len()).cloned());
    }
    records
}

impl SavedLog {
    pub(super) fn row(&self, partition: Partition) -> PartitionRow {
        let empty = PartitionRow { epoch: Epoch::ZERO, head: Sequence::ZERO, position: None };
        self.rows.get(&partition).copied().unwrap_or(empty)
    }

    pub(super) fn records(&self, partition: Partition) -> &[Arc<Record>] {
        self.records.get(&partition).map_or(&[], Vec::as_slice)
    }

    pub(super) fn version(&self, aggregate: &AggregateRef) -> Version {
        let last = self.facts.get(aggregate).and_then(|facts| facts.last());
        last.and_then(|record| record.version).unwrap_or(Version::ZERO)
    }

    fn history(&self, aggregate: &AggregateRef, full: bool) -> History {
        let snapshot = self.snapshots.get(aggregate).filter(|_| !full).cloned();
        let from = snapshot.as_ref().map_or(Version::ZERO, |snapshot| snapshot.version);
        let facts = self.facts.get(aggregate).map_or(&[][..], Vec::as_slice);
        let events = facts.iter().filter_map(|record| {
            let version = record.version.filter(|version| *version > from)?;
            Some(StoredEvent {
                version,
                event_type: record.event_type.to_string(),
                schema: record.schema,
                data: record.data.clone(),
            })
        });
        History { snapshot, events: events.collect() }
    }

    fn load(&self, request: &LoadRequest) -> PortResult<Loaded> {
        if let Some(refused) = self.unloadable.as_ref().filter(|one| request.aggregates.contains(one)) {
            return Err(PortError::Content(format!("{refused} cannot be asked for")));
        }
        let exists = |aggregate: &&AggregateRef| self.facts.contains_key(*aggregate);
        Ok(Loaded {
            inbox: request.commands.iter().filter_map(|command| self.inbox.get(command).cloned()).collect(),
            histories: request.aggregates.iter().map(|one| self.history(one, request.full)).collect(),
            existing: request.references.iter().filter(exists).cloned().collect(),
        })
    }
}

impl MemoryLog {
    /// Another handle on the same log, on whose way somebody stands.
    #[must_use]
    pub fn interfered(&self, interference: Arc<dyn Interference>) -> Self {
        Self { way: Way(Some(interference)), ..self.clone() }
    }

    /// What rings when records are committed.
    #[must_use]
    pub fn bells(&self) -> &Doorbells {
        &self.bells
    }

    /// The checkpoints that live in this log, under the same interference.
    #[must_use]
    pub fn checkpoints(&self) -> MemoryCheckpoints {
        MemoryCheckpoints { state: Arc::clone(&self.state), way: self.way.clone() }
    }

    /// Every record of a partition, in order.
    #[must_use]
    pub fn records(&self, partition: Partition) -> Vec<Arc<Record>> {
        lock(&self.state).records(partition).to_vec()
    }

    /// Every record, in order within each partition.
    #[must_use]
    pub fn all_records(&self) -> Vec<Arc<Record>> {
        lock(&self.state).records.values().flatten().cloned().collect()
    }

    /// A partition's row.
    #[must_use]
    pub fn row(&self, partition: Partition) -> PartitionRow {
        lock(&self.state).row(partition)
    }

    /// Whether a command has an outcome.
    #[must_use]
    pub fn has_outcome(&self, command_id: Uuid) -> bool {
        lock(&self.state).inbox.contains_key(&command_id)
    }

    /// How many parts of commits were fenced, over all time.
    #[must_use]
    pub fn fenced(&self) -> u64 {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Every snapshot, in the order of the aggregates.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        lock(&self.state).snapshots.values().cloned().collect()
    }

    /// The whole inbox, in the order of the command ids.
    #[must_use]
    pub fn inbox(&self) -> Vec<InboxEntry> {
        lock(&self.state).inbox.values().cloned().collect()
    }

    /// An aggregate's latest snapshot.
    #[must_use]
    pub fn snapshot(&self, aggregate: &AggregateRef) -> Option<Snapshot> {
        lock(&self.state).snapshots.get(aggregate).cloned()
    }

    /// Replaces an aggregate's snapshot, whatever it says: one of another release, say.
    pub fn overwrite_snapshot(&self, snapshot: Snapshot) {
        lock(&self.state).snapshots.insert(snapshot.aggregate.clone(), snapshot);
    }

    /// Refuses from now on every record whose data holds this text, as a store refuses what it cannot write; all
    /// but those that say that a command is dead. `None` takes it back.
    pub fn refuse_content(&self, text: Option<&str>) {
        lock(&self.state).unstorable = text.map(str::to_owned);
    }

    /// Refuses from now on every question about this aggregate, as a store refuses what it cannot even look for. `None`
    /// takes it back.
    pub fn refuse_to_load(&self, aggregate: Option<AggregateRef>) {
        lock(&self.state).unloadable = aggregate;
    }

    /// The log as it is, to restore later.
    #[must_use]
    pub fn save(&self) -> SavedLog {
        lock(&self.state).clone()
    }

    /// Goes back to an earlier state: a restore, after which the log is behind the bus.
    pub fn restore(&self, saved: SavedLog) {
        *lock(&self.state) = saved;
    }
}

impl EventLog for MemoryLog {
    async fn take_over(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, PartitionRow)>> {
        let take_over = || {
            let mut state = lock(&self.state);
            let taken = partitions.iter().map(|partition| {
                let row = state.row(*partition);
                let row = PartitionRow { epoch: row.epoch.next(), ..row };
                state.rows.insert(*partition, row);
                (*partition, row)
            });
            Ok(taken.collect())
        };
        self.way.call(Call::LogTakeOver, take_over).await
    }

    async fn rows(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, PartitionRow)>> {
        let rows = || {
            let state = lock(&self.state);
            Ok(partitions.iter().map(|partition| (*partition, state.row(*partition))).collect())
        };
        self.way.call(Call::LogRows, rows).await
    }

    async fn load(&self, request: &LoadRequest) -> PortResult<Loaded> {
        self.way.call(Call::LogLoad, || lock(&self.state).load(request)).await
    }

    async fn commit(&self, parts: Vec<PartitionCommit>) -> PortResult<Vec<Commit>> {
        let commit = || {
            let answers = lock(&self.state).commit(parts)?;
            let fenced = answers.iter().filter(|answer| **answer == Commit::Fenced).count();
            self.fenced.fetch_add(u64::try_from(fenced).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.bells.ring();
            Ok(answers)
        };
        self.way.call(Call::LogCommit, commit).await
    }

    async fn read(&self, after: &[(Partition, Sequence)], limit: usize) -> PortResult<Vec<Arc<Record>>> {
        let read = || {
            let state = lock(&self.state);
            Ok(page(after, limit, |partition| state.records(partition)))
        };
        self.way.call(Call::LogRead, read).await
    }

    async fn forget_queue(&self, partitions: &[Partition]) -> PortResult<()> {
        let forget = || {
            let mut state = lock(&self.state);
            for partition in partitions {
                let row = state.row(*partition);
                let row = PartitionRow { epoch: row.epoch.next(), position: None, ..row };
                state.rows.insert(*partition, row);
            }
            Ok(())
        };
        self.way.call(Call::LogForgetQueue, forget).await
    }
}

impl DeadCommands for MemoryLog {
    async fn dead(&self, query: &DeadQuery) -> PortResult<Vec<Arc<Record>>> {
        let dead = || {
            let state = lock(&self.state);
            let asked = |record: &&Arc<Record>| {
                record.event_type == COMMAND_DEAD
                    && record.version.is_none()
                    && query.after.is_none_or(|after| record.position() > after)
                    && query.aggregate.as_ref().is_none_or(|aggregate| record.aggregate == *aggregate)
                    && query.record_id.is_none_or(|id| record.record_id == id)
            };
            Ok(state.records.values().flatten().filter(asked).take(query.limit).cloned().collect())
        };
        self.way.call(Call::LogDead, dead).await
    }
}

/// [`Checkpoints`] and [`ForeignPositions`] in memory, in the store of a [`MemoryLog`].
#[derive(Clone, Default)]
pub struct MemoryCheckpoints {
    state: Arc<Mutex<SavedLog>>,
    way: Way,
}

impl MemoryCheckpoints {
    /// Another handle on the same checkpoints, on whose way somebody stands.
    #[must_use]
    pub fn interfered(&self, interference: Arc<dyn Interference>) -> Self {
        Self { way: Way(Some(interference)), ..self.clone() }
    }

    /// Where a reader is.
    #[must_use]
    pub fn at(&self, reader: &str, partition: Partition) -> Sequence {
        lock(&self.state).checkpoints.get(&(reader.to_owned(), partition)).copied().unwrap_or_default()
    }

    /// Where a reader of another context's stream is.
    #[must_use]
    pub fn imported(&self, reader: &str) -> Option<ForeignPosition> {
        lock(&self.state).foreign.get(reader).copied()
    }

    /// Puts a reader somewhere else, wherever it is: what a person does.
    pub fn put(&self, reader: &str, partition: Partition, sequence: Sequence) {
        lock(&self.state).checkpoints.insert((reader.to_owned(), partition), sequence);
    }
}

impl Checkpoints for MemoryCheckpoints {
    async fn load(&self, reader: &str, partitions: &[Partition]) -> PortResult<Vec<(Partition, Sequence)>> {
        let load =
            || Ok(partitions.iter().map(|partition| (*partition, self.at(reader, *partition))).collect());
        self.way.call(Call::CheckpointsLoad, load).await
    }

    async fn advance(&self, reader: &str, moves: &[CheckpointMove]) -> PortResult<Vec<bool>> {
        let advance = || {
            let mut state = lock(&self.state);
            let answers = moves.iter().map(|step| {
                let at = state.checkpoints.entry((reader.to_owned(), step.partition)).or_default();
                let here = *at == step.from;
                if here {
                    *at = step.to;
                }
                here
            });
            Ok(answers.collect())
        };
        self.way.call(Call::CheckpointsAdvance, advance).await
    }
}

impl ForeignPositions for MemoryCheckpoints {
    async fn position(&self, reader: &str) -> PortResult<Option<ForeignPosition>> {
        let find = || Ok(self.imported(reader));
        self.way.call(Call::ForeignPosition, find).await
    }

    async fn advance(
        &self,
        reader: &str,
        from: Option<ForeignPosition>,
        to: Option<ForeignPosition>,
    ) -> PortResult<bool> {
        let advance = || {
            let foreign = &mut lock(&self.state).foreign;
            if foreign.get(reader).copied() != from {
                return Ok(false);
            }
            match to {
                Some(to) => foreign.insert(reader.to_owned(), to),
                None => foreign.remove(reader),
            };
            Ok(true)
        };
        self.way.call(Call::ForeignAdvance, advance).await
    }
}
