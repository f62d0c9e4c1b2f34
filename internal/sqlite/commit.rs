//! Appending: facts, outcomes and the progress in the queue, together or not at all.
//!
//! The rule this module protects: the partition's row is moved first, by compare-and-set on all of it. Nothing is
//! written for a part whose row was not what its owner remembers.

use std::collections::BTreeSet;
use std::sync::Arc;

use eventsourcing::environment::Doorbells;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{
    Commit, InboxEntry, PartitionCommit, PartitionRow, PortError, PortResult, QueuePosition, Snapshot,
};
use eventsourcing::record::Record;
use sqlx::sqlite::SqliteConnection;

use super::log::partition;
use super::memory::Memory;
use super::sql::{Many, Values, rounds};
use super::writer::Job;

static MOVE: Many = Many::new(
    "UPDATE OR FAIL partitions SET head = v.column8, queue_created_at = v.column9, queue_message = v.column10, \
     queue_first = v.column11, queue_index = v.column12 FROM (VALUES ",
    12,
    ") AS v WHERE partitions.partition = v.column1 AND partitions.epoch = v.column2 AND partitions.head = v.column3 \
     AND partitions.queue_created_at IS v.column4 AND partitions.queue_message IS v.column5 \
     AND partitions.queue_first IS v.column6 AND partitions.queue_index IS v.column7 RETURNING partition",
);

pub(super) static RECORDS: Many = Many::new(
    "INSERT OR FAIL INTO records (partition, sequence, record_id, recorded_at, aggregate_type, aggregate_id, version, \
     event_type, schema, data, command_id, correlation_id, causation_id, actor, traceparent, last_of_command) \
     SELECT * FROM (VALUES ",
    16,
    ") WHERE column1 IS NOT NULL",
);

pub(super) static INBOX: Many = Many::new(
    "INSERT OR FAIL INTO inbox (command_id, fingerprint, partition, sequence, verdict) SELECT * FROM (VALUES ",
    5,
    ") WHERE column1 IS NOT NULL",
);

static SNAPSHOTS: Many = Many::new(
    "INSERT INTO snapshots (aggregate_type, aggregate_id, version, schema, data) SELECT * FROM (VALUES ",
    5,
    ") WHERE column1 IS NOT NULL ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET \
     version = excluded.version, schema = excluded.schema, data = excluded.data",
);

struct Part {
    partition: Partition,
    expected: PartitionRow,
    after: PartitionRow,
    position: QueuePosition,
    records: Vec<Arc<Record>>,
    inbox: Vec<(InboxEntry, String)>,
    snapshots: Vec<Snapshot>,
}

/// The parts of one worker's transaction.
pub(super) struct Append {
    parts: Vec<Part>,
    memory: Arc<Memory>,
    bell: Doorbells,
}

impl Append {
    /// Checks what is to be appended.
    ///
    /// # Errors
    ///
    /// When the sequences do not follow the head that is expected.
    pub(super) fn new(parts: Vec<PartitionCommit>, memory: Arc<Memory>, bell: Doorbells) -> PortResult<Self> {
        let parts = parts.into_iter().map(Part::new).collect::<PortResult<_>>()?;
        Ok(Self { parts, memory, bell })
    }
}

impl Part {
    fn new(part: PartitionCommit) -> PortResult<Self> {
        let mut next = part.expected.head;
        for record in &part.records {
            next = next.next();
            if record.sequence != next || record.partition != part.partition {
                return Err(PortError::Broken(format!(
                    "record {} does not follow {}-{}: nothing was written",
                    record.position(),
                    part.partition,
                    part.expected.head
                )));
            }
        }
        let after = part.row_after();
        Ok(Self {
            partition: part.partition,
            expected: part.expected,
            after,
            position: part.position,
            records: part.records.into_iter().map(Arc::new).collect(),
            inbox: part.inbox.into_iter().map(with_verdict).collect::<PortResult<_>>()?,
            snapshots: part.snapshots,
        })
    }
}

/// An entry of the inbox, with its verdict as it is stored.
pub(super) fn with_verdict(entry: InboxEntry) -> PortResult<(InboxEntry, String)> {
    let verdict = serde_json::to_string(&entry.outcome.verdict);
    Ok((entry, verdict.map_err(|error| PortError::Content(error.to_string()))?))
}

impl Job for Append {
    type Answer = Vec<Commit>;

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<Self::Answer> {
        let mut commits = vec![Commit::Fenced; self.parts.len()];
        for round in rounds(&self.parts, |part| part.partition) {
            let parts: Vec<(usize, &Part)> =
                round.iter().filter_map(|index| Some((*index, self.parts.get(*index)?))).collect();
            let rows = MOVE.fetch(connection, &parts, |values, (_, part)| bind_move(values, part)).await?;
            let moved: BTreeSet<Partition> =
                rows.iter().map(|row| partition(row, 0)).collect::<PortResult<_>>()?;
            for (index, _) in parts.iter().filter(|(_, part)| moved.contains(&part.partition)) {
                if let Some(commit) = commits.get_mut(*index) {
                    *commit = Commit::Done;
                }
            }
        }
        let done: Vec<&Part> = self.done(&commits).collect();
        let records: Vec<&Record> = done.iter().flat_map(|part| &part.records).map(AsRef::as_ref).collect();
        RECORDS.execute(connection, &records, |values, record| bind_record(values, record)).await?;
        let inbox: Vec<&(InboxEntry, String)> = done.iter().flat_map(|part| &part.inbox).collect();
        INBOX.execute(connection, &inbox, |values, entry| bind_inbox(values, entry)).await?;
        let snapshots: Vec<&Snapshot> = done.iter().flat_map(|part| &part.snapshots).collect();
        SNAPSHOTS.execute(connection, &snapshots, |values, snapshot| bind_snapshot(values, snapshot)).await?;
        Ok(commits)
    }

    fn committed(&self, answer: &Self::Answer) {
        let mut any = false;
        for part in self.done(answer) {
            self.memory.appended(part.partition, &part.records, part.position.message);
            any |= !part.records.is_empty();
        }
        if any {
            self.bell.ring();
        }
    }
}

impl Append {
    fn done<'a>(&'a self, commits: &'a [Commit]) -> impl Iterator<Item = &'a Part> {
        self.parts.iter().zip(commits).filter(|(_, commit)| **commit == Commit::Done).map(|(part, _)| part)
    }
}

fn bind_position(values: &mut Values, position: Option<&QueuePosition>) -> PortResult<()> {
    let Some(position) = position else {
        return (0..4).try_for_each(|_| values.null());
    };
    values.count(position.created_at)?;
    values.count(position.message)?;
    values.uuid(position.mark)?;
    values.count(u64::from(position.index))
}

fn bind_move(values: &mut Values, part: &Part) -> PortResult<()> {
    values.count(u64::from(part.partition.index()))?;
    values.count(part.expected.epoch.get())?;
    values.count(part.expected.head.get())?;
    bind_position(values, part.expected.position.as_ref())?;
    values.count(part.after.head.get())?;
    bind_position(values, part.after.position.as_ref())
}

pub(super) fn bind_record(values: &mut Values, record: &Record) -> PortResult<()> {
    values.count(u64::from(record.partition.index()))?;
    values.count(record.sequence.get())?;
    values.uuid(record.record_id)?;
    values.count(record.recorded_at.as_micros())?;
    values.text(&record.aggregate.kind)?;
    values.uuid(record.aggregate.id)?;
    match record.version {
        Some(version) => values.count(version.get())?,
        None => values.null()?,
    }
    values.text(&record.event_type)?;
    values.count(u64::from(record.schema))?;
    values.text(&record.data)?;
    values.uuid(record.command_id)?;
    values.uuid(record.correlation_id)?;
    values.uuid(record.causation_id)?;
    values.text(&record.actor)?;
    match &record.traceparent {
        Some(traceparent) => values.text(traceparent)?,
        None => values.null()?,
    }
    values.int(i64::from(record.last_of_command))
}

pub(super) fn bind_inbox(values: &mut Values, (entry, verdict): &(InboxEntry, String)) -> PortResult<()> {
    values.uuid(entry.outcome.command_id)?;
    values.blob(&entry.fingerprint.0)?;
    values.count(u64::from(entry.outcome.position.partition.index()))?;
    values.count(entry.outcome.position.sequence.get())?;
    values.text(verdict)
}

fn bind_snapshot(values: &mut Values, snapshot: &Snapshot) -> PortResult<()> {
    values.text(&snapshot.aggregate.kind)?;
    values.uuid(snapshot.aggregate.id)?;
    values.count(snapshot.version.get())?;
    values.count(u64::from(snapshot.state.schema))?;
    values.text(&snapshot.state.data)
}
