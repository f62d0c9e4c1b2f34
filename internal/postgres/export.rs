//! A whole log, carried away.
//!
//! The rule this module protects: what is read is one snapshot, of a platform whose processes have all stopped. A role that may read
//! the log, the inbox and the checkpoints is enough.

use eventsourcing::outcome::{Fingerprint, Outcome};
use eventsourcing::partition::{Deployment, Partition, PartitionCount, Sequence};
use eventsourcing::ports::{InboxEntry, PortError, PortResult};
use eventsourcing::transfer::{Carried, Contents, LogSource, Share};
use sqlx::Executor as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::connect::{Connect, Session};
use super::error::{OpenError, port_error};
use super::log::record;
use super::sql::{Values, count, get, index, partition, signed, unsigned};
use super::{deployment, migrate};

/// A transaction that takes its time, and waits for somebody who writes a file.
const PATIENT: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// A snapshot that stays what it is until it ends, and in which nothing can be written.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Who lives, by the clock of the database.
const LIVING: &str = "SELECT count(*) FROM members \
     WHERE lives_until > floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

const SHARES: &str = "SELECT p.partition, p.head, COALESCE(c.sequence, 0) FROM partitions p LEFT JOIN checkpoints c \
     ON c.partition = p.partition AND c.reader = $1::text ORDER BY p.partition";

/// The columns of a record in the order in which it is read, and of its command's outcome where it is the last one.
const READ: &str = "SELECT r.partition, r.sequence, r.record_id, r.recorded_at, r.aggregate_type, r.aggregate_id, r.version, \
     r.event_type, r.schema, r.data, r.command_id, r.correlation_id, r.causation_id, r.actor, r.traceparent, \
     r.last_of_command, i.fingerprint, i.verdict FROM records r LEFT JOIN inbox i ON r.last_of_command \
     AND i.command_id = r.command_id AND i.partition = r.partition AND i.sequence = r.sequence \
     WHERE r.partition = $1::int AND r.sequence > $2::bigint ORDER BY r.sequence LIMIT $3::bigint";

/// The log of a platform whose processes have stopped, to be carried away.
pub struct PostgresExport {
    connection: PgConnection,
    contents: Contents,
}

impl PostgresExport {
    /// Begins a snapshot of a log. `reader` names the policies' checkpoints.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or read, has no log, or processes run that work with it.
    pub async fn open(connect: &Connect, reader: &str) -> Result<Self, OpenError> {
        let mut session = connect.session().await?;
        session.execute(PATIENT).await?;
        deployment::refuse_unfinished(&mut session).await?;
        migrate::check(&mut session, migrate::LOG).await?;
        refuse_running(&mut session).await?;
        session.execute(BEGIN).await?;
        let deployment = found(&mut session).await?;
        let values = session.read(|| Values::default().and(reader))?;
        let rows = session.rows(SHARES, values).await?;
        let shares = session.read(|| rows.iter().map(share).collect())?;
        let commands: i64 = session.one("SELECT count(*) FROM inbox").await?;
        let commands = session.read(|| unsigned(commands))?;
        let contents = Contents { deployment, shares, commands };
        Ok(Self { connection: session.into_connection(), contents })
    }

    /// The partitions of a log.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or read, or has no log.
    pub async fn partitions(connect: &Connect) -> Result<PartitionCount, OpenError> {
        let mut session = connect.session().await?;
        deployment::refuse_unfinished(&mut session).await?;
        migrate::check(&mut session, migrate::LOG).await?;
        Ok(found(&mut session).await?.partitions)
    }

    /// What there is.
    #[must_use]
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }
}

/// Refuses a database that somebody works with.
pub(super) async fn refuse_running(session: &mut Session) -> Result<(), OpenError> {
    let living: i64 = session.one(LIVING).await?;
    match session.read(|| unsigned(living))? {
        0 => Ok(()),
        members => Err(OpenError::Running { database: session.database.clone(), members }),
    }
}

/// Who the database belongs to, however many partitions that has.
async fn found(session: &mut Session) -> Result<Deployment, OpenError> {
    let rows = session.rows("SELECT partitions FROM deployment", Values::default()).await?;
    let unprepared = || OpenError::Unprepared {
        database: session.database.clone(),
        reason: "it belongs to no deployment".to_owned(),
    };
    let row = rows.first().ok_or_else(unprepared)?;
    let partitions: u16 = session.read(|| unsigned(get::<i32>(row, 0)?))?;
    let partitions = PartitionCount::new(partitions).ok_or_else(unprepared)?;
    match deployment::read(session, partitions).await? {
        Some(deployment) => Ok(deployment),
        None => Err(OpenError::Unprepared {
            database: session.database.clone(),
            reason: "it belongs to no deployment any more".to_owned(),
        }),
    }
}

fn share(row: &PgRow) -> PortResult<Share> {
    Ok(Share {
        partition: partition(row, 0)?,
        head: Sequence::new(count(row, 1)?),
        reacted: Sequence::new(count(row, 2)?),
    })
}

impl LogSource for PostgresExport {
    async fn read(
        &mut self,
        partition: Partition,
        after: Sequence,
        limit: usize,
    ) -> PortResult<Vec<Carried>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = Values::default().and(index(partition))?.and(signed(after.get())?)?.and(limit)?;
        let rows = self.connection.fetch_all(sqlx::query_with(READ, values.0)).await;
        rows.map_err(|error| port_error(&error))?.iter().map(carried).collect()
    }
}

fn carried(row: &PgRow) -> PortResult<Carried> {
    let record = record(row)?;
    if !record.last_of_command {
        return Ok(Carried { record, outcome: None });
    }
    let broken =
        |what: &str| PortError::Broken(format!("the outcome at record {}: {what}", record.position()));
    let fingerprint: Option<&[u8]> = get(row, 16)?;
    let fingerprint =
        fingerprint.ok_or_else(|| broken("the inbox does not have it; see `financing verify`"))?;
    let fingerprint = fingerprint.try_into().map_err(|_| broken("its fingerprint has another length"))?;
    let verdict = serde_json::from_str(get(row, 17)?).map_err(|error| broken(&error.to_string()))?;
    let outcome = Outcome { command_id: record.command_id, position: record.position(), verdict };
    Ok(Carried { outcome: Some(InboxEntry { fingerprint: Fingerprint(fingerprint), outcome }), record })
}
