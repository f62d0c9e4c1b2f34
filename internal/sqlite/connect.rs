//! Connections whose settings were read back.
//!
//! The rule this module protects: no connection is used that does not flush as it was asked to. `SQLite` accepts a
//! pragma that it does not apply without a word, and in WAL mode with `synchronous=NORMAL` a power cut took every one
//! of 300 acknowledged commits in our test; with `FULL` none.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Executor as _, Row as _};

use super::error::{OpenError, port_error};

/// Readers: the loops read one at a time, queries a few.
const READERS: u32 = 3;
/// What a writer remembers of its file, in negative KiB: 8 MiB. A page that it has forgotten comes from the system's cache, which is
/// nearly as fast; 16 were no faster, neither for commands nor for a rebuild.
const WRITER_CACHE: &str = "-8192";
/// What a reader remembers of the file, in negative KiB: 1 MiB, the statements' way down their trees. It forgets all of it whenever
/// somebody has written since it read last. `SQLite` (built with `SQLITE_ENABLE_MEMORY_MANAGEMENT`, as ours is) has one pool for the
/// pages of all connections of a process: where readers leave their share, writers use it. Two writers and nine readers are 25 MiB
/// in all.
const READER_CACHE: &str = "-1024";
/// How long a connection waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);
/// Rows that the connection's thread may be ahead of their reader.
const ROWS_AHEAD: usize = 512;
/// Pages in the write-ahead log before it is folded into the file: 64 MiB. Ids that are not in order touch a page each,
/// and a page that is touched often is folded in once; four times less cost a third of the commits.
const CHECKPOINT: &str = "16000";
/// Statements that each connection keeps prepared.
const PREPARED: usize = 256;

/// `synchronous=FULL`, as SQLite reports it: a commit waits for the disk. The read models could be derived again after a
/// power cut, but a reader who saw a row would not see it a moment later.
const SYNCHRONOUS_FULL: &str = "2";

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .busy_timeout(BUSY)
        .statement_cache_capacity(PREPARED)
        .row_buffer_size(ROWS_AHEAD)
        .pragma("wal_autocheckpoint", CHECKPOINT)
        .disable_statement_logging()
}

/// A connection that writes. It belongs to its owner and to no pool.
pub(super) async fn writer(path: &Path) -> Result<SqliteConnection, OpenError> {
    // Temporary are the pages that a statement may have to take back: files of them cost some percent of all.
    let options = options(path).pragma("cache_size", WRITER_CACHE).pragma("temp_store", "MEMORY");
    let mut connection = options.connect().await.map_err(|error| store(path, &error))?;
    verify(path, &mut connection, "0").await?;
    Ok(connection)
}

/// A pool of connections that only read. Nobody begins a transaction on them, so a cancelled reader leaves none
/// behind (sqlx issue 4393).
pub(super) async fn readers(path: &Path) -> Result<SqlitePool, OpenError> {
    let options = options(path).pragma("cache_size", READER_CACHE).pragma("query_only", "ON");
    let options = options.pragma("temp_store", "MEMORY");
    let verified = path.to_owned();
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(move |connection, _| {
            let path = verified.clone();
            Box::pin(async move {
                let verified = verify(&path, connection, "1").await;
                verified.map_err(|error| sqlx::Error::Configuration(Box::new(error)))
            })
        })
        .connect_with(options)
        .await
        .map_err(|error| store(path, &error))
}

async fn verify(path: &Path, connection: &mut SqliteConnection, query_only: &str) -> Result<(), OpenError> {
    for (name, sql, asked) in [
        ("journal_mode", "PRAGMA journal_mode", "wal"),
        ("synchronous", "PRAGMA synchronous", SYNCHRONOUS_FULL),
        ("query_only", "PRAGMA query_only", query_only),
    ] {
        let row = connection.fetch_one(sql).await.map_err(|error| store(path, &error))?;
        // Some are numbers: SQLite writes them as text when it is asked for text.
        let found: String = row.try_get_unchecked(0).map_err(|error| store(path, &error))?;
        if found != asked {
            return Err(OpenError::Setting { name, asked: asked.to_owned(), found });
        }
    }
    Ok(())
}

/// The error of a file that could not be opened or read.
pub(super) fn store(path: &Path, error: &sqlx::Error) -> OpenError {
    OpenError::Store { path: path.to_owned(), reason: port_error(error) }
}
