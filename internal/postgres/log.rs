//! The event log: reading it, and taking partitions over.
//!
//! The rule this module protects: records are read in the order of their sequences, without gaps, and only what is
//! committed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use eventsourcing::environment::Timestamp;
use eventsourcing::model::AggregateRef;
use eventsourcing::partition::{Deployment, Epoch, Partition, Sequence, Version};
use eventsourcing::ports::{
    Beyond, Commit, EventLog, Follows, LoadRequest, Loaded, PartitionCommit, PartitionRow, PortError,
    PortResult, QueuePosition,
};
use eventsourcing::record::Record;
use sqlx::postgres::PgRow;

use super::connect::{Connect, Session};
use super::database::Database;
use super::error::OpenError;
use super::sql::{Values, count, counts, each, get, indices, partition, unsigned};
use super::{commit, deployment, load, migrate};

const ROWS: &str = "SELECT partition, epoch, head, queue_created_at, queue_message, queue_first, queue_index \
     FROM partitions WHERE partition = ANY($1::int[])";

/// The rows are locked in the order of their partitions, here as in a commit: two that want the same ones never wait
/// for each other.
const TAKE_OVER: &str = "WITH locked AS MATERIALIZED (\
     SELECT partition FROM partitions WHERE partition = ANY($1::int[]) ORDER BY partition FOR UPDATE) \
     UPDATE partitions p SET epoch = p.epoch + 1 FROM locked WHERE p.partition = locked.partition \
     RETURNING p.partition, p.epoch, p.head, p.queue_created_at, p.queue_message, p.queue_first, p.queue_index";

const FORGET_QUEUE: &str = "WITH locked AS MATERIALIZED (\
     SELECT partition FROM partitions WHERE partition = ANY($1::int[]) ORDER BY partition FOR UPDATE) \
     UPDATE partitions p SET epoch = p.epoch + 1, queue_created_at = NULL, queue_message = NULL, queue_first = NULL, \
     queue_index = NULL FROM locked WHERE p.partition = locked.partition";

/// How many records each partition may give is known before any is read: the head says how many there are behind the
/// position, and what the partitions before it have given is taken off the limit. Heads and records are of one snapshot.
const READ: &str = "WITH asked AS (\
     SELECT a.place, a.partition, a.behind, p.head - a.behind AS waiting \
     FROM unnest($1::int[], $2::bigint[]) WITH ORDINALITY AS a(partition, behind, place) \
     JOIN partitions p ON p.partition = a.partition WHERE p.head > a.behind), \
     share AS (SELECT place, partition, behind, \
     least(waiting, $3::bigint - (sum(waiting) OVER (ORDER BY place) - waiting))::bigint AS share FROM asked) \
     SELECT r.partition, r.sequence, r.record_id, r.recorded_at, r.aggregate_type, r.aggregate_id, r.version, \
     r.event_type, r.schema, r.data, r.command_id, r.correlation_id, r.causation_id, r.actor, r.traceparent, \
     r.last_of_command \
     FROM share s CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.partition = s.partition \
     AND r.sequence > s.behind AND r.sequence <= s.behind + s.share OFFSET 0) r \
     WHERE s.share > 0 ORDER BY s.place, r.sequence";

/// The same, and where each of these partitions ends: those whose head is where the caller says it is are left out, unless it
/// has to be proven. One statement, because the relayer asks at every turn: what it costs is paid for each batch.
const BEYOND: &str = "WITH asked AS (\
     SELECT a.place, a.partition, coalesce(p.head, 0) AS head, greatest(a.last - 1, 0) AS behind \
     FROM unnest($1::int[], $2::bigint[], $3::bool[]) WITH ORDINALITY AS a(partition, last, proven, place) \
     LEFT JOIN partitions p ON p.partition = a.partition \
     WHERE coalesce(p.head, 0) <> a.last OR NOT a.proven), \
     waiting AS (SELECT place, partition, head, behind, greatest(head - behind, 0) AS waiting FROM asked), \
     share AS (SELECT place, partition, head, behind, \
     least(waiting, $4::bigint - (sum(waiting) OVER (ORDER BY place) - waiting))::bigint AS share FROM waiting) \
     SELECT s.partition, r.sequence, r.record_id, r.recorded_at, r.aggregate_type, r.aggregate_id, r.version, \
     r.event_type, r.schema, r.data, r.command_id, r.correlation_id, r.causation_id, r.actor, r.traceparent, \
     r.last_of_command, s.head \
     FROM share s LEFT JOIN LATERAL (SELECT * FROM records r WHERE r.partition = s.partition \
     AND r.sequence > s.behind AND r.sequence <= s.behind + s.share OFFSET 0) r ON true \
     ORDER BY s.place, r.sequence";

/// The command side's database: the event log, the policies' checkpoints, the positions in other contexts' streams, and
/// who tries which partition.
#[derive(Clone)]
pub struct PostgresLog {
    pub(super) database: Database,
    deployment: Deployment,
}

/// Makes the command side's tables where they are not, and writes the deployment down where there is none. Answers with
/// the one that the database belongs to.
///
/// # Errors
///
/// When the database cannot be reached, would lose what it acknowledges, was made by another release or for another number
/// of partitions, or does not let this role make tables.
pub async fn migrate_log(connect: &Connect, new: &Deployment) -> Result<Deployment, OpenError> {
    let mut session = connect.session().await?;
    prepare(&mut session, new).await
}

async fn prepare(session: &mut Session, new: &Deployment) -> Result<Deployment, OpenError> {
    migrate::begin(session).await?;
    deployment::refuse_unfinished(session).await?;
    migrate::apply(session, migrate::LOG).await?;
    deployment::write(session, new).await?;
    let deployment = settled(session, new).await?;
    let values = session.read(|| Values::default().and(i32::from(deployment.partitions.get())))?;
    let rows =
        "INSERT INTO partitions (partition) SELECT generate_series(0, $1::int - 1) ON CONFLICT DO NOTHING";
    session.rows(rows, values).await?;
    migrate::commit(session).await?;
    Ok(deployment)
}

async fn settled(session: &mut Session, new: &Deployment) -> Result<Deployment, OpenError> {
    deployment::read(session, new.partitions).await?.ok_or_else(|| OpenError::Unprepared {
        database: session.database.clone(),
        reason: "it belongs to no deployment".to_owned(),
    })
}

impl PostgresLog {
    /// Opens the command side's database. A role that may make tables makes those that are missing; any other checks
    /// that they are there. `new` is the deployment that a new database belongs to; one that belongs to a deployment
    /// keeps its id and the time of its creation.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, would lose what it acknowledges, is not prepared, was made by another
    /// release, or was made for another number of partitions.
    pub async fn open(connect: &Connect, new: &Deployment) -> Result<Self, OpenError> {
        let mut session = connect.session().await?;
        let deployment = if migrate::allowed(&mut session).await? {
            prepare(&mut session, new).await?
        } else {
            deployment::refuse_unfinished(&mut session).await?;
            migrate::check(&mut session, migrate::LOG).await?;
            settled(&mut session, new).await?
        };
        Ok(Self { database: connect.database()?, deployment })
    }

    /// The deployment that the database belongs to.
    #[must_use]
    pub fn deployment(&self) -> Deployment {
        self.deployment
    }

    /// Waits for what is under way and closes the connections. Later calls answer that the log is unavailable.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

impl EventLog for PostgresLog {
    async fn take_over(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, PartitionRow)>> {
        self.partitions(TAKE_OVER, partitions).await
    }

    async fn rows(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, PartitionRow)>> {
        self.partitions(ROWS, partitions).await
    }

    async fn load(&self, request: &LoadRequest) -> PortResult<Loaded> {
        load::load(&self.database, request).await
    }

    async fn commit(&self, parts: Vec<PartitionCommit>) -> PortResult<Vec<Commit>> {
        commit::commit(&self.database, &parts).await
    }

    async fn forget_queue(&self, partitions: &[Partition]) -> PortResult<()> {
        self.partitions(FORGET_QUEUE, partitions).await.map(|_| ())
    }

    async fn read(&self, after: &[(Partition, Sequence)], limit: usize) -> PortResult<Vec<Arc<Record>>> {
        if after.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let values = Values::default()
            .and(indices(after, |(partition, _)| *partition))?
            .and(counts(after, |(_, sequence)| sequence.get())?)?
            .and(i64::try_from(limit).unwrap_or(i64::MAX))?;
        let rows = self.database.rows(READ, values).await?;
        let records: Vec<_> = rows.iter().map(|row| record(row).map(Arc::new)).collect::<PortResult<_>>()?;
        without_gaps(after, &records)?;
        Ok(records)
    }

    async fn beyond(&self, ends: &[Follows], limit: usize) -> PortResult<Beyond> {
        if ends.is_empty() {
            return Ok(Beyond::default());
        }
        let values = Values::default()
            .and(indices(ends, |end| end.partition))?
            .and(counts(ends, |end| end.last.get())?)?
            .and(each(ends, |end| end.proven))?
            .and(i64::try_from(limit).unwrap_or(i64::MAX))?;
        let rows = self.database.rows(BEYOND, values).await?;
        let mut beyond = Beyond::default();
        for row in &rows {
            let partition = partition(row, 0)?;
            if beyond.heads.last().is_none_or(|(last, _)| *last != partition) {
                beyond.heads.push((partition, Sequence::new(count(row, 16)?)));
            }
            if get::<Option<i64>>(row, 1)?.is_some() {
                beyond.records.push(Arc::new(record(row)?));
            }
        }
        let after: Vec<_> = ends.iter().map(|end| (end.partition, end.last.before())).collect();
        without_gaps(&after, &beyond.records)?;
        Ok(beyond)
    }
}

impl PostgresLog {
    async fn partitions(
        &self,
        sql: &'static str,
        partitions: &[Partition],
    ) -> PortResult<Vec<(Partition, PartitionRow)>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let values = Values::default().and(indices(partitions, |partition| *partition))?;
        let rows = self.database.rows(sql, values).await?;
        let found: BTreeMap<_, _> = rows.iter().map(partition_row).collect::<PortResult<_>>()?;
        Ok(partitions.iter().filter_map(|partition| Some((*partition, *found.get(partition)?))).collect())
    }
}

fn partition_row(row: &PgRow) -> PortResult<(Partition, PartitionRow)> {
    let position = match get::<Option<i64>>(row, 3)? {
        Some(created_at) => Some(QueuePosition {
            created_at: unsigned(created_at)?,
            message: count(row, 4)?,
            mark: get(row, 5)?,
            index: unsigned(get::<i64>(row, 6)?)?,
        }),
        None => None,
    };
    let (epoch, head) = (Epoch::new(count(row, 1)?), Sequence::new(count(row, 2)?));
    Ok((partition(row, 0)?, PartitionRow { epoch, head, position }))
}

/// The columns of a record, in the order of [`READ`].
pub(super) fn record(row: &PgRow) -> PortResult<Record> {
    Ok(Record {
        partition: partition(row, 0)?,
        sequence: Sequence::new(count(row, 1)?),
        record_id: get(row, 2)?,
        recorded_at: Timestamp::from_micros(count(row, 3)?),
        aggregate: AggregateRef { kind: Cow::Owned(get(row, 4)?), id: get(row, 5)? },
        version: get::<Option<i64>>(row, 6)?.map(unsigned).transpose()?.map(Version::new),
        event_type: Cow::Owned(get(row, 7)?),
        schema: unsigned(get::<i32>(row, 8)?)?,
        data: get(row, 9)?,
        command_id: get(row, 10)?,
        correlation_id: get(row, 11)?,
        causation_id: get(row, 12)?,
        actor: get(row, 13)?,
        traceparent: get(row, 14)?,
        last_of_command: get(row, 15)?,
    })
}

/// A record that is missing was taken out behind the log's back: whoever went on behind it would never know.
fn without_gaps(after: &[(Partition, Sequence)], records: &[Arc<Record>]) -> PortResult<()> {
    let mut last: BTreeMap<Partition, Sequence> = after.iter().copied().collect();
    for record in records {
        let before = last.insert(record.partition, record.sequence).unwrap_or_default();
        if record.sequence != before.next() {
            return Err(PortError::Broken(format!(
                "the log has a gap: {} does not follow {}-{before}",
                record.position(),
                record.partition
            )));
        }
    }
    Ok(())
}
