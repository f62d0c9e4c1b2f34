//! A whole log, brought here.
//!
//! The rule this module protects: what is written has a name of its own until it is whole, checked and on disk. Then it gets the
//! name of the store, in one step: so a platform has all of it or none, whoever is killed and when; and where it has none because
//! somebody was killed, nothing starts there before a person has said how to go on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use eventsourcing::partition::Deployment;
use eventsourcing::ports::{PortError, PortResult};
use eventsourcing::record::Record;
use eventsourcing::transfer::{Carried, Contents, LogTarget};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};

use super::commit::{INBOX, RECORDS, bind_inbox, bind_record, with_verdict};
use super::connect;
use super::error::{OpenError, port_error};
use super::lock::DirectoryLock;
use super::platform::{FILE, IMPORTING};
use super::schema;
use super::sql::{Many, Values, rows};

static HEADS: Many = Many::new(
    "UPDATE partitions SET head = v.column2 FROM (VALUES ",
    2,
    ") AS v WHERE partitions.partition = v.column1",
);

static REACTED: Many = Many::new(
    "INSERT INTO checkpoints (reader, partition, sequence) SELECT * FROM (VALUES ",
    3,
    ") WHERE column1 IS NOT NULL",
);

/// What only the whole can show. None of them may find anything.
const WRONG: [(&str, &str); 3] = [
    (
        "the versions of an aggregate have gaps",
        "SELECT 1 FROM records WHERE version IS NOT NULL GROUP BY aggregate_type, aggregate_id \
         HAVING min(version) <> 1 OR max(version) <> count(*) LIMIT 1",
    ),
    ("two records have one id", "SELECT 1 FROM records GROUP BY record_id HAVING count(*) > 1 LIMIT 1"),
    (
        "a partition's row does not name its last record",
        "SELECT 1 FROM partitions AS p WHERE p.head <> \
         (SELECT COALESCE(max(r.sequence), 0) FROM records AS r WHERE r.partition = p.partition) LIMIT 1",
    ),
];

/// A log that is being brought into a directory.
pub struct SqliteImport {
    connection: SqliteConnection,
    directory: PathBuf,
    contents: Contents,
    reader: String,
    /// Nobody starts here meanwhile.
    _lock: DirectoryLock,
}

impl SqliteImport {
    /// Begins in a directory in which there is no platform. What an import has left behind that did not end is begun anew.
    /// `reader` names the policies' checkpoints.
    ///
    /// # Errors
    ///
    /// When there is a platform, a process has the directory, or it cannot be written.
    pub async fn begin(directory: &Path, contents: &Contents, reader: &str) -> Result<Self, OpenError> {
        let lock = DirectoryLock::acquire(directory)?;
        for name in [FILE, "readmodels.db"] {
            let path = directory.join(name);
            if path.exists() {
                return Err(OpenError::Taken { path });
            }
        }
        let path = directory.join(IMPORTING);
        clear(directory)?;
        let mut connection = connect::writer(&path).await?;
        let _same: Deployment = schema::settle(&path, &mut connection, &contents.deployment).await?;
        let directory = directory.to_owned();
        Ok(Self { connection, directory, contents: contents.clone(), reader: reader.to_owned(), _lock: lock })
    }

    async fn run(&mut self, sql: &'static str) -> PortResult<()> {
        self.connection.execute(sql).await.map(|_| ()).map_err(|error| port_error(&error))
    }

    async fn check(&mut self) -> PortResult<()> {
        for (what, sql) in WRONG {
            if !rows(&mut self.connection, sql, Values::default()).await?.is_empty() {
                return Err(PortError::Broken(format!("what was exported is no log: {what}")));
            }
        }
        Ok(())
    }
}

impl LogTarget for SqliteImport {
    async fn append(&mut self, carried: Vec<Carried>) -> PortResult<()> {
        let (mut records, mut inbox) = (Vec::with_capacity(carried.len()), Vec::new());
        for Carried { record, outcome } in carried {
            records.push(record);
            inbox.extend(outcome.map(with_verdict).transpose()?);
        }
        self.run("BEGIN IMMEDIATE").await?;
        let records: Vec<&Record> = records.iter().collect();
        RECORDS.execute(&mut self.connection, &records, |values, record| bind_record(values, record)).await?;
        INBOX.execute(&mut self.connection, &inbox, bind_inbox).await?;
        self.run("COMMIT").await
    }

    async fn finish(mut self) -> PortResult<()> {
        // The checks sort all record ids. (Outside of the transaction: within, SQLite refuses it.)
        self.run("PRAGMA temp_store = FILE").await?;
        self.run("BEGIN IMMEDIATE").await?;
        HEADS
            .execute(&mut self.connection, &self.contents.shares, |values, share| {
                values.count(u64::from(share.partition.index()))?;
                values.count(share.head.get())
            })
            .await?;
        let reader = self.reader.clone();
        REACTED
            .execute(&mut self.connection, &self.contents.shares, |values, share| {
                values.text(&reader)?;
                values.count(u64::from(share.partition.index()))?;
                values.count(share.reacted.get())
            })
            .await?;
        self.check().await?;
        self.run("COMMIT").await?;
        self.run("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        let (path, whole) = (self.directory.join(IMPORTING), self.directory.join(FILE));
        self.connection.close().await.map_err(|error| port_error(&error))?;
        settle(&path, &whole, &self.directory).map_err(|error| {
            PortError::Unavailable(format!("{} did not become {}: {error}", path.display(), whole.display()))
        })
    }

    async fn abandon(self) -> PortResult<()> {
        // The file goes in any case.
        let _closed = self.connection.close().await;
        clear(&self.directory).map_err(|error| PortError::Unavailable(error.to_string()))
    }
}

/// Removes what an import has written. The file itself goes last: while it is there, nothing starts here.
fn clear(directory: &Path) -> Result<(), OpenError> {
    for end in ["-wal", "-shm", ""] {
        let path = directory.join(format!("{IMPORTING}{end}"));
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(OpenError::Io { path, reason: error.to_string() }),
        }
    }
    Ok(())
}

/// Gives a file that is on disk its name, and has that on disk, too.
fn settle(from: &Path, to: &Path, directory: &Path) -> std::io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)?;
    File::open(directory)?.sync_all()
}
