//! A whole log, carried away.
//!
//! The rule this module protects: what is read is what one moment saw, of a platform that has stopped; and nothing is carried away
//! while the queue has a command without an outcome, because only the queue would know of it.

use std::path::{Path, PathBuf};

use eventsourcing::command::unpack;
use eventsourcing::outcome::{Fingerprint, Outcome};
use eventsourcing::partition::{Deployment, Partition, PartitionCount, Sequence};
use eventsourcing::ports::{InboxEntry, PortError, PortResult};
use eventsourcing::transfer::{Carried, Contents, LogSource, Share};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection as _, Executor as _};

use super::connect::{self, store};
use super::error::OpenError;
use super::lock::DirectoryLock;
use super::log::record;
use super::platform::{FILE, IMPORTING};
use super::schema;
use super::sql::{Values, count, get, rows, unsigned};

/// The columns of a record in the order in which it is read, and of its command's outcome where it is the last one.
const READ: &str = "SELECT r.partition, r.sequence, r.record_id, r.recorded_at, r.aggregate_type, r.aggregate_id, r.version, \
     r.event_type, r.schema, r.data, r.command_id, r.correlation_id, r.causation_id, r.actor, r.traceparent, \
     r.last_of_command, i.fingerprint, i.verdict FROM records AS r LEFT JOIN inbox AS i ON r.last_of_command \
     AND i.command_id = r.command_id AND i.partition = r.partition AND i.sequence = r.sequence \
     WHERE r.partition = ? AND r.sequence > ? ORDER BY r.sequence LIMIT ?";

const SHARES: &str = "SELECT p.partition, p.head, COALESCE(c.sequence, 0) FROM partitions AS p LEFT JOIN checkpoints AS c \
     ON c.partition = p.partition AND c.reader = ? ORDER BY p.partition";

/// What stands at a partition's position, or behind it.
const WAITING: &str = "SELECT q.partition, q.message, q.payload, p.queue_message, p.queue_index FROM queue AS q \
     JOIN partitions AS p ON p.partition = q.partition WHERE q.message >= COALESCE(p.queue_message, 0) \
     AND q.message > ? ORDER BY q.message LIMIT 256";

/// The log of a directory in which nothing runs, to be carried away.
pub struct SqliteExport {
    connection: SqliteConnection,
    path: PathBuf,
    contents: Contents,
    /// Nobody starts here meanwhile.
    _lock: DirectoryLock,
}

impl SqliteExport {
    /// Opens the log of a directory, and keeps everybody else out of it. `reader` names the policies' checkpoints.
    ///
    /// # Errors
    ///
    /// When there is none, a process has the directory, or it cannot be read.
    pub async fn open(directory: &Path, reader: &str) -> Result<Self, OpenError> {
        let (path, importing) = (directory.join(FILE), directory.join(IMPORTING));
        if importing.exists() {
            return Err(OpenError::Unfinished { path: importing });
        }
        if !path.is_file() {
            return Err(OpenError::Missing { path });
        }
        let lock = DirectoryLock::acquire(directory)?;
        let fail = |error: sqlx::Error| store(&path, &error);
        let mut connection = connect::writer(&path).await?;
        connection.execute("PRAGMA query_only = ON").await.map_err(fail)?;
        let deployment = deployment(&path, &mut connection).await?;
        connection.execute("BEGIN").await.map_err(fail)?;
        let reading = |reason: PortError| OpenError::Store { path: path.clone(), reason };
        let shares = shares(&mut connection, reader).await.map_err(reading)?;
        let counted =
            rows(&mut connection, "SELECT COUNT(*) FROM inbox", Values::default()).await.map_err(reading)?;
        let commands = counted.first().map_or(Ok(0), |row| count(row, 0)).map_err(reading)?;
        let contents = Contents { deployment, shares, commands };
        Ok(Self { connection, path, contents, _lock: lock })
    }

    /// The partitions of a directory's log.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn partitions(directory: &Path) -> Result<PartitionCount, OpenError> {
        let path = directory.join(FILE);
        if !path.is_file() {
            return Err(OpenError::Missing { path });
        }
        let mut connection = connect::writer(&path).await?;
        let deployment = deployment(&path, &mut connection).await?;
        connection.close().await.map_err(|error| store(&path, &error))?;
        Ok(deployment.partitions)
    }

    /// What there is.
    #[must_use]
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// How many commands were accepted and have no outcome: they are in the queue alone.
    ///
    /// # Errors
    ///
    /// When the queue cannot be read.
    pub async fn waiting(&mut self) -> PortResult<u64> {
        let (mut waiting, mut after): (u64, u64) = (0, 0);
        loop {
            let mut values = Values::default();
            values.count(after)?;
            let found = rows(&mut self.connection, WAITING, values).await?;
            let Some(last) = found.last() else { return Ok(waiting) };
            after = count(last, 1)?;
            for row in &found {
                waiting = waiting.saturating_add(behind(row)?);
            }
        }
    }

    /// Lets everybody in again.
    ///
    /// # Errors
    ///
    /// When the file was not closed in order.
    pub async fn close(self) -> Result<(), OpenError> {
        let path = self.path;
        self.connection.close().await.map_err(|error| store(&path, &error))
    }
}

/// How many commands of a message stand behind the partition's position.
fn behind(row: &SqliteRow) -> PortResult<u64> {
    let partition: u16 = unsigned(get(row, 0)?)?;
    let message = count(row, 1)?;
    let all = unpack(Partition::from_index(partition), message, get(row, 2)?).len() as u64;
    let position: Option<i64> = get(row, 3)?;
    if position.map(unsigned::<u64>).transpose()? == Some(message) {
        // The index counts from 0, and what stands there is done.
        return Ok(all.saturating_sub(count(row, 4)?.saturating_add(1)));
    }
    Ok(all)
}

async fn deployment(path: &Path, connection: &mut SqliteConnection) -> Result<Deployment, OpenError> {
    schema::found(path, connection).await?.ok_or_else(|| OpenError::Missing { path: path.to_owned() })
}

async fn shares(connection: &mut SqliteConnection, reader: &str) -> PortResult<Vec<Share>> {
    let mut values = Values::default();
    values.text(reader)?;
    let found = rows(connection, SHARES, values).await?;
    let share = |row: &SqliteRow| {
        Ok(Share {
            partition: super::log::partition(row, 0)?,
            head: Sequence::new(count(row, 1)?),
            reacted: Sequence::new(count(row, 2)?),
        })
    };
    found.iter().map(share).collect()
}

impl LogSource for SqliteExport {
    async fn read(
        &mut self,
        partition: Partition,
        after: Sequence,
        limit: usize,
    ) -> PortResult<Vec<Carried>> {
        let mut values = Values::default();
        values.count(u64::from(partition.index()))?;
        values.count(after.get())?;
        values.count(limit as u64)?;
        rows(&mut self.connection, READ, values).await?.iter().map(carried).collect()
    }
}

fn carried(row: &SqliteRow) -> PortResult<Carried> {
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
