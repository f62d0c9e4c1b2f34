//! The event log: reading it, and taking partitions over.
//!
//! The rule this module protects: records are read in the order of their sequences, without gaps, and only what is
//! committed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use eventsourcing::environment::Timestamp;
use eventsourcing::model::AggregateRef;
use eventsourcing::partition::{Epoch, LogPosition, Partition, Sequence, Version};
use eventsourcing::ports::{
    Commit, EventLog, LoadRequest, Loaded, PartitionCommit, PartitionRow, PortResult, QueuePosition,
};
use eventsourcing::record::Record;
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};

use super::commit::Append;
use super::error::port_error;
use super::load;
use super::platform::Shared;
use super::sql::{Many, count, get, unsigned, uuid};
use super::writer::Job;

static READ: Many = Many::new(
    "SELECT r.partition, r.sequence, r.record_id, r.recorded_at, r.aggregate_type, r.aggregate_id, r.version, \
     r.event_type, r.schema, r.data, r.command_id, r.correlation_id, r.causation_id, r.actor, r.traceparent, \
     r.last_of_command FROM (VALUES ",
    3,
    ") AS v CROSS JOIN records AS r ON r.partition = v.column1 AND r.sequence > v.column2 AND r.sequence <= v.column3 \
     ORDER BY r.partition, r.sequence",
);

static READ_AT: Many = Many::new(
    "SELECT r.partition, r.sequence, r.record_id, r.recorded_at, r.aggregate_type, r.aggregate_id, r.version, \
     r.event_type, r.schema, r.data, r.command_id, r.correlation_id, r.causation_id, r.actor, r.traceparent, \
     r.last_of_command FROM (VALUES ",
    2,
    ") AS v CROSS JOIN records AS r ON r.partition = v.column1 AND r.sequence = v.column2",
);

static ROWS: Many = Many::new(
    "SELECT p.partition, p.epoch, p.head, p.queue_created_at, p.queue_message, p.queue_first, p.queue_index \
     FROM (VALUES ",
    1,
    ") AS v CROSS JOIN partitions AS p ON p.partition = v.column1",
);

static TAKE_OVER: Many = Many::new(
    "UPDATE partitions SET epoch = epoch + 1 FROM (VALUES ",
    1,
    ") AS v WHERE partitions.partition = v.column1 \
     RETURNING partition, epoch, head, queue_created_at, queue_message, queue_first, queue_index",
);

static FORGET_QUEUE: Many = Many::new(
    "UPDATE partitions SET epoch = epoch + 1, queue_created_at = NULL, queue_message = NULL, queue_first = NULL, \
     queue_index = NULL FROM (VALUES ",
    1,
    ") AS v WHERE partitions.partition = v.column1",
);

/// The event log, and the policies' checkpoints.
#[derive(Clone)]
pub struct SqliteLog(pub(super) Arc<Shared>);

impl EventLog for SqliteLog {
    async fn take_over(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, PartitionRow)>> {
        self.0.writer.submit(TakeOver(partitions.to_vec())).await
    }

    async fn rows(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, PartitionRow)>> {
        let mut reader = self.0.reader().await?;
        let found = ROWS
            .fetch(&mut reader, partitions, |values, partition| values.count(u64::from(partition.index())))
            .await?;
        in_order(partitions, &found)
    }

    async fn load(&self, request: &LoadRequest) -> PortResult<Loaded> {
        let mut reader = self.0.reader().await?;
        load::load(&mut reader, request).await
    }

    async fn commit(&self, parts: Vec<PartitionCommit>) -> PortResult<Vec<Commit>> {
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let append = Append::new(parts, Arc::clone(&self.0.memory), self.0.signals.records.clone())?;
        self.0.writer.submit(append).await
    }

    async fn read(&self, after: &[(Partition, Sequence)], limit: usize) -> PortResult<Vec<Arc<Record>>> {
        read(&self.0, &self.0.readers, after, limit, End::Head).await
    }

    async fn forget_queue(&self, partitions: &[Partition]) -> PortResult<()> {
        self.0.writer.submit(ForgetQueue(partitions.to_vec())).await
    }
}

/// How far a reader may see.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// Whatever is committed.
    Head,
    /// What is on the bus.
    Relayed,
}

/// Records behind positions, from memory where they are there.
pub(super) async fn read(
    shared: &Shared,
    readers: &SqlitePool,
    after: &[(Partition, Sequence)],
    limit: usize,
    end: End,
) -> PortResult<Vec<Arc<Record>>> {
    let marks = shared.memory.marks(readers).await?;
    let wanted: Vec<(Partition, u64, u64)> = after
        .iter()
        .filter_map(|(partition, sequence)| {
            let marks = marks.get(usize::from(partition.index()))?;
            let last = match end {
                End::Head => marks.head,
                End::Relayed => marks.relayed,
            };
            (last > sequence.get()).then_some((*partition, sequence.get(), last))
        })
        .collect();
    if wanted.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let mut found = shared.memory.records(&wanted, limit);
    if !found.missing.is_empty() {
        let mut reader = readers.acquire().await.map_err(|error| port_error(&error))?;
        let rows = READ
            .fetch(&mut reader, &found.missing, |values, (partition, after, most)| {
                values.count(u64::from(partition.index()))?;
                values.count(*after)?;
                values.count(after.saturating_add(*most as u64))
            })
            .await?;
        for row in &rows {
            found.items.push(Arc::new(record(row)?));
        }
    }
    Ok(found.items)
}

/// The records at positions, one answer a position, in order.
pub(super) async fn read_at(
    shared: &Shared,
    readers: &SqlitePool,
    positions: &[LogPosition],
    end: End,
) -> PortResult<Vec<Option<Arc<Record>>>> {
    let marks = shared.memory.marks(readers).await?;
    let is_there = |position: &&LogPosition| {
        marks.get(usize::from(position.partition.index())).is_some_and(|marks| {
            let last = match end {
                End::Head => marks.head,
                End::Relayed => marks.relayed,
            };
            position.sequence.get() <= last
        })
    };
    let wanted: Vec<LogPosition> = positions.iter().filter(is_there).copied().collect();
    if wanted.is_empty() {
        return Ok(vec![None; positions.len()]);
    }
    let mut reader = readers.acquire().await.map_err(|error| port_error(&error))?;
    let rows = READ_AT
        .fetch(&mut reader, &wanted, |values, position| {
            values.count(u64::from(position.partition.index()))?;
            values.count(position.sequence.get())
        })
        .await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let record = record(row)?;
        found.insert(record.position(), Arc::new(record));
    }
    Ok(positions.iter().map(|position| found.get(position).cloned()).collect())
}

/// The columns of a record, in the order of [`READ`].
pub(super) fn record(row: &SqliteRow) -> PortResult<Record> {
    Ok(Record {
        partition: partition(row, 0)?,
        sequence: Sequence::new(count(row, 1)?),
        record_id: uuid(row, 2)?,
        recorded_at: Timestamp::from_micros(count(row, 3)?),
        aggregate: AggregateRef { kind: Cow::Owned(get(row, 4)?), id: uuid(row, 5)? },
        version: get::<Option<i64>>(row, 6)?.map(unsigned).transpose()?.map(Version::new),
        event_type: Cow::Owned(get(row, 7)?),
        schema: unsigned(get(row, 8)?)?,
        data: get(row, 9)?,
        command_id: uuid(row, 10)?,
        correlation_id: uuid(row, 11)?,
        causation_id: uuid(row, 12)?,
        actor: get(row, 13)?,
        traceparent: get(row, 14)?,
        last_of_command: get::<i64>(row, 15)? != 0,
    })
}

/// A column that holds a partition.
pub(super) fn partition(row: &SqliteRow, column: usize) -> PortResult<Partition> {
    Ok(Partition::from_index(unsigned(get(row, column)?)?))
}

struct TakeOver(Vec<Partition>);

impl Job for TakeOver {
    type Answer = Vec<(Partition, PartitionRow)>;

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<Self::Answer> {
        let rows = TAKE_OVER
            .fetch(connection, &self.0, |values, partition| values.count(u64::from(partition.index())))
            .await?;
        in_order(&self.0, &rows)
    }

    fn committed(&self, _answer: &Self::Answer) {}
}

struct ForgetQueue(Vec<Partition>);

impl Job for ForgetQueue {
    type Answer = ();

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<Self::Answer> {
        FORGET_QUEUE
            .execute(connection, &self.0, |values, partition| values.count(u64::from(partition.index())))
            .await?;
        Ok(())
    }

    fn committed(&self, _answer: &Self::Answer) {}
}

fn in_order(asked: &[Partition], rows: &[SqliteRow]) -> PortResult<Vec<(Partition, PartitionRow)>> {
    let mut found = BTreeMap::new();
    for row in rows {
        let position = match get::<Option<i64>>(row, 3)? {
            Some(created_at) => Some(QueuePosition {
                created_at: unsigned(created_at)?,
                message: count(row, 4)?,
                mark: uuid(row, 5)?,
                index: unsigned(get(row, 6)?)?,
            }),
            None => None,
        };
        let epoch = Epoch::new(count(row, 1)?);
        let head = Sequence::new(count(row, 2)?);
        found.insert(partition(row, 0)?, PartitionRow { epoch, head, position });
    }
    Ok(asked.iter().filter_map(|partition| Some((*partition, *found.get(partition)?))).collect())
}
