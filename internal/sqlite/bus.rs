//! The event bus: the log up to a durable position.
//!
//! The rule this module protects: the n-th message of a partition's stream is the n-th record of its log, because it
//! is that record. The position moves by compare-and-set, to a record that is in the log, and it keeps that record's
//! id: a log that was restored to an earlier state does not have it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use eventsourcing::partition::{LogPosition, Partition, Sequence};
use eventsourcing::ports::{BusTail, EventBus, PortError, PortResult, Publication};
use eventsourcing::record::Record;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::log::{End, partition, read, read_at};
use super::platform::Shared;
use super::sql::{Many, count, get, rounds, uuid};
use super::writer::Job;

static TAILS: Many = Many::new(
    "SELECT r.partition, r.sequence, r.record_id FROM (VALUES ",
    1,
    ") AS v CROSS JOIN relayed AS r ON r.partition = v.column1",
);

static PUBLISH: Many = Many::new(
    "UPDATE OR FAIL relayed SET sequence = v.column3, record_id = v.column4 FROM (VALUES ",
    4,
    ") AS v WHERE relayed.partition = v.column1 AND relayed.sequence = v.column2 \
     AND EXISTS (SELECT 1 FROM records AS r WHERE r.partition = v.column1 AND r.sequence = v.column3 \
     AND r.record_id = v.column4) RETURNING partition",
);

/// The event bus.
#[derive(Clone)]
pub struct SqliteBus(pub(super) Arc<Shared>, pub(super) For);

/// Whom a handle of the bus is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// The platform's own loops: they are always running.
    Loops,
    /// Readers that may stop in the middle, as a stream does whose client does not read on. What they read is read by
    /// a task of its own, over connections of their own: however many of them stand still, they hold up nobody.
    Watchers,
}

impl EventBus for SqliteBus {
    async fn tails(&self, partitions: &[Partition]) -> PortResult<Vec<BusTail>> {
        let mut reader = self.0.reader().await?;
        let rows = TAILS
            .fetch(&mut reader, partitions, |values, partition| values.count(u64::from(partition.index())))
            .await?;
        let mut found = BTreeMap::new();
        for row in &rows {
            let record_id = get::<Option<&[u8]>>(row, 2)?.map(|_| uuid(row, 2)).transpose()?;
            let (partition, last) = (partition(row, 0)?, Sequence::new(count(row, 1)?));
            found.insert(partition, BusTail { partition, last, record_id });
        }
        Ok(partitions.iter().filter_map(|partition| found.get(partition).copied()).collect())
    }

    async fn publish(&self, publications: Vec<Publication>) -> Vec<PortResult<()>> {
        let mut answers = Vec::with_capacity(publications.len());
        let mut steps = Vec::new();
        for publication in &publications {
            answers.push(match Move::of(publication) {
                Ok(step) => {
                    steps.extend(step);
                    Ok(step.is_some())
                }
                Err(error) => Err(error),
            });
        }
        let moved = if steps.is_empty() {
            Ok(Vec::new())
        } else {
            self.0.writer.submit(Publish { steps, shared: Arc::clone(&self.0) }).await
        };
        let mut next = 0;
        let answer = |(publication, checked): (&Publication, PortResult<bool>)| {
            if !checked? {
                return Ok(());
            }
            let moved = moved.as_ref().map_err(Clone::clone)?.get(next).copied().unwrap_or_default();
            next += 1;
            if moved { Ok(()) } else { Err(refused(publication)) }
        };
        publications.iter().zip(answers).map(answer).collect()
    }

    async fn read(&self, after: &[(Partition, Sequence)], limit: usize) -> PortResult<Vec<Arc<Record>>> {
        match self.1 {
            For::Loops => read(&self.0, &self.0.readers, after, limit, End::Relayed).await,
            For::Watchers => {
                let (shared, after) = (Arc::clone(&self.0), after.to_vec());
                let reading = tokio::spawn(async move {
                    read(&shared, &shared.watchers, &after, limit, End::Relayed).await
                });
                reading.await.map_err(|error| PortError::Unavailable(error.to_string()))?
            }
        }
    }

    async fn records(&self, positions: &[LogPosition]) -> PortResult<Vec<Option<Arc<Record>>>> {
        match self.1 {
            For::Loops => read_at(&self.0, &self.0.readers, positions, End::Relayed).await,
            For::Watchers => {
                let (shared, positions) = (Arc::clone(&self.0), positions.to_vec());
                let reading = tokio::spawn(async move {
                    read_at(&shared, &shared.watchers, &positions, End::Relayed).await
                });
                reading.await.map_err(|error| PortError::Unavailable(error.to_string()))?
            }
        }
    }
}

fn refused(publication: &Publication) -> PortError {
    PortError::Conflict(format!(
        "the stream of partition {} does not end at {}, or the log does not have the records behind it",
        publication.partition, publication.expected
    ))
}

/// How a partition's stream grows.
#[derive(Debug, Clone, Copy)]
struct Move {
    partition: Partition,
    expected: Sequence,
    last: Sequence,
    record_id: Uuid,
}

impl Move {
    /// `None` where there is nothing to publish.
    fn of(publication: &Publication) -> PortResult<Option<Self>> {
        let Publication { partition, expected, ref records } = *publication;
        let mut next = expected;
        for record in records {
            next = next.next();
            if record.sequence != next || record.partition != partition {
                return Err(PortError::Conflict(format!(
                    "record {} does not follow {partition}-{expected} without a gap",
                    record.position()
                )));
            }
        }
        let last = |record: &Arc<Record>| Self {
            partition,
            expected,
            last: record.sequence,
            record_id: record.record_id,
        };
        Ok(records.last().map(last))
    }
}

struct Publish {
    steps: Vec<Move>,
    shared: Arc<Shared>,
}

impl Job for Publish {
    type Answer = Vec<bool>;

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<Self::Answer> {
        let mut answers = vec![false; self.steps.len()];
        for round in rounds(&self.steps, |step| step.partition) {
            let round: Vec<(usize, Move)> =
                round.iter().filter_map(|index| Some((*index, *self.steps.get(*index)?))).collect();
            let rows = PUBLISH
                .fetch(connection, &round, |values, (_, step)| {
                    values.count(u64::from(step.partition.index()))?;
                    values.count(step.expected.get())?;
                    values.count(step.last.get())?;
                    values.uuid(step.record_id)
                })
                .await?;
            let moved: BTreeSet<Partition> =
                rows.iter().map(|row| partition(row, 0)).collect::<PortResult<_>>()?;
            for (index, step) in round {
                if let Some(answer) = answers.get_mut(index) {
                    *answer = moved.contains(&step.partition);
                }
            }
        }
        Ok(answers)
    }

    fn committed(&self, answer: &Self::Answer) {
        let mut any = false;
        for (step, _) in self.steps.iter().zip(answer).filter(|(_, moved)| **moved) {
            self.shared.memory.relayed(step.partition, step.last.get());
            any = true;
        }
        if any {
            self.shared.signals.relayed.ring();
        }
    }
}
