//! The command queue: a table beside the log.
//!
//! The rule this module protects: what was answered is on disk, numbers only grow, and the queue refuses more than it
//! may hold instead of growing without limit.

use std::collections::BTreeSet;
use std::sync::Arc;

use eventsourcing::command::Bundle;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{CommandQueue, PortError, PortResult, QueuedMessage};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::log::partition;
use super::platform::Shared;
use super::sql::{Many, Values, count, get};
use super::writer::Job;

static ENQUEUE: Many = Many::new(
    "INSERT OR FAIL INTO queue (partition, payload) SELECT * FROM (VALUES ",
    2,
    ") WHERE column1 IS NOT NULL",
);

/// A limit may not depend on the row, so it is the smallest of the shares, which are equal but for the remainder.
static READ: Many = Many::new(
    "WITH v AS (VALUES ",
    3,
    ") SELECT q.partition, q.message, q.payload FROM v CROSS JOIN queue AS q ON q.message IN (\
     SELECT n.message FROM queue AS n WHERE n.partition = v.column1 AND n.message > v.column2 \
     ORDER BY n.message LIMIT (SELECT MIN(column3) FROM v)) ORDER BY q.message",
);

static MESSAGE: Many = Many::new(
    "SELECT q.partition, q.message, q.payload FROM (VALUES ",
    2,
    ") AS v CROSS JOIN queue AS q ON q.message = v.column2 AND q.partition = v.column1",
);

static PURGE: Many = Many::new(
    "DELETE FROM queue WHERE message IN (SELECT q.message FROM (VALUES ",
    2,
    ") AS v CROSS JOIN queue AS q ON q.partition = v.column1 AND q.message < v.column2)",
);

/// The command queue, up to so many bytes of commands without an outcome.
#[derive(Clone)]
pub struct SqliteQueue(pub(super) Arc<Shared>, pub(super) u64);

impl CommandQueue for SqliteQueue {
    async fn created_at(&self) -> PortResult<u64> {
        Ok(self.0.deployment.created_at)
    }

    async fn enqueue(&self, bundles: Vec<Bundle>) -> Vec<PortResult<()>> {
        let mut answers = Vec::with_capacity(bundles.len());
        let mut refused: BTreeSet<Partition> = BTreeSet::new();
        let mut job = Enqueue { bundles: Vec::new(), reserved: 0, shared: Arc::clone(&self.0) };
        for bundle in bundles {
            if !refused.contains(&bundle.partition) && self.admit(&mut job, &bundle).await {
                job.bundles.push((bundle.partition, bundle.payload.into()));
                answers.push(Ok(()));
            } else {
                // Those behind it fail too, or they would overtake it.
                refused.insert(bundle.partition);
                answers.push(Err(PortError::Full(format!(
                    "{} bytes of commands wait for their outcome",
                    self.1
                ))));
            }
        }
        if job.bundles.is_empty() {
            return answers;
        }
        if let Err(error) = self.0.writer.submit(job).await {
            for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
                *answer = Err(error.clone());
            }
        }
        answers
    }

    async fn message(&self, partition: Partition, message: u64) -> PortResult<Option<QueuedMessage>> {
        let mut reader = self.0.reader().await?;
        let rows = MESSAGE.fetch(&mut reader, &[(partition, message)], key).await?;
        rows.first().map(queued).transpose()
    }

    async fn read(&self, after: &[(Partition, u64)], limit: usize) -> PortResult<Vec<QueuedMessage>> {
        let marks = self.0.memory.marks(&self.0.readers).await?;
        let wanted: Vec<(Partition, u64)> = after
            .iter()
            .filter(|(partition, after)| {
                marks.get(usize::from(partition.index())).is_some_and(|marks| marks.queued > *after)
            })
            .copied()
            .collect();
        if wanted.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let mut found = self.0.memory.messages(&wanted, limit);
        if !found.missing.is_empty() {
            let mut reader = self.0.reader().await?;
            let rows = READ
                .fetch(&mut reader, &found.missing, |values, (partition, after, most)| {
                    key(values, &(*partition, *after))?;
                    values.count(*most as u64)
                })
                .await?;
            for row in &rows {
                found.items.push(queued(row)?);
            }
        }
        Ok(found.items)
    }

    async fn purge(&self, before: &[(Partition, u64)]) -> PortResult<()> {
        self.0.writer.submit(Purge { before: before.to_vec(), shared: Arc::clone(&self.0) }).await
    }
}

impl SqliteQueue {
    async fn admit(&self, job: &mut Enqueue, bundle: &Bundle) -> bool {
        let bytes = bundle.payload.len() as u64;
        let reserve = || self.0.memory.reserve(bytes, self.1);
        // Before it is refused, another look: another store may have worked some of it off.
        let admitted = reserve() || (self.0.memory.recount(&self.0.readers).await.is_ok() && reserve());
        if admitted {
            job.reserved += bytes;
        }
        admitted
    }
}

fn key(values: &mut Values, (partition, message): &(Partition, u64)) -> PortResult<()> {
    values.count(u64::from(partition.index()))?;
    values.count(*message)
}

fn queued(row: &SqliteRow) -> PortResult<QueuedMessage> {
    let payload = get::<&[u8]>(row, 2)?.into();
    // The queue is in the log's file: whoever restores one restores both.
    Ok(QueuedMessage { partition: partition(row, 0)?, message: count(row, 1)?, stored_at: 0, payload })
}

struct Enqueue {
    bundles: Vec<(Partition, Arc<[u8]>)>,
    /// Room that is given back when the job is done or dropped.
    reserved: u64,
    shared: Arc<Shared>,
}

impl Job for Enqueue {
    /// The number of the first message.
    type Answer = u64;

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<Self::Answer> {
        let last = ENQUEUE
            .execute(connection, &self.bundles, |values, (partition, payload)| {
                values.count(u64::from(partition.index()))?;
                values.blob(payload)
            })
            .await?;
        // One writer, one transaction: the numbers are consecutive, in the order of the rows.
        let before = u64::try_from(last).unwrap_or_default().checked_sub(self.bundles.len() as u64);
        before.map(|before| before + 1).ok_or_else(|| {
            PortError::Broken(format!("the queue numbered {} messages up to {last}", self.bundles.len()))
        })
    }

    fn committed(&self, first: &Self::Answer) {
        self.shared.memory.enqueued(*first, &self.bundles);
        self.shared.signals.commands.ring();
    }
}

impl Drop for Enqueue {
    fn drop(&mut self) {
        self.shared.memory.release(self.reserved);
    }
}

struct Purge {
    before: Vec<(Partition, u64)>,
    shared: Arc<Shared>,
}

impl Job for Purge {
    type Answer = ();

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<Self::Answer> {
        PURGE.execute(connection, &self.before, key).await.map(|_| ())
    }

    fn committed(&self, (): &Self::Answer) {
        for (partition, before) in &self.before {
            self.shared.memory.purged(*partition, *before);
        }
    }
}
