//! The embedded platform: two SQLite files in one directory, also while it runs.
//!
//! The rule this module protects: the files are opened to be read and in no other way.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, query};
use uuid::Uuid;

use super::sqlite::statements;
use super::{StoreError, bundle};
use crate::{Audit, Bus};

/// How long a file may be locked by whoever opens or closes it.
const BUSY: Duration = Duration::from_secs(10);

/// Takes in a data directory: an audit of it, to be finished.
///
/// # Errors
///
/// When a file is not there, or cannot be read.
pub async fn embedded(directory: &Path) -> Result<Audit, StoreError> {
    let (log_file, models_file) = (directory.join("platform.db"), directory.join("readmodels.db"));
    let unreadable = |path: &Path| {
        let place = path.display().to_string();
        move |error: sqlx::Error| StoreError::new(&place, error)
    };
    let (log_failed, models_failed) = (unreadable(&log_file), unreadable(&models_file));
    let mut log = open(&log_file).await?;
    let mut models = open(&models_file).await?;
    let partitions = meta(&mut log, "partitions").await.map_err(&log_failed)?;
    let mut audit = Audit::new(partitions);
    // A transaction sees the file as it is at its first statement.
    models.execute("BEGIN").await.map_err(&models_failed)?;
    statements::projected(&mut models, partitions, &mut audit).await.map_err(&models_failed)?;
    log.execute("BEGIN").await.map_err(&log_failed)?;
    take_in(&mut log, partitions, &mut audit).await.map_err(&log_failed)?;
    statements::rows(&mut models, &mut audit).await.map_err(&models_failed)?;
    log.close().await.map_err(&log_failed)?;
    models.close().await.map_err(&models_failed)?;
    Ok(audit)
}

async fn open(path: &Path) -> Result<SqliteConnection, StoreError> {
    let failed = |error: sqlx::Error| StoreError::new(path.display(), error);
    if !path.is_file() {
        return Err(StoreError::new(
            path.display(),
            "there is no such file; a platform makes what is missing when it starts",
        ));
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY)
        .pragma("query_only", "ON")
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(failed)?;
    // A file of another format opens, and fails at the first look.
    connection.fetch_one("SELECT count(*) FROM sqlite_schema").await.map_err(failed)?;
    Ok(connection)
}

/// A number that the file says of itself.
async fn meta<T: FromStr>(log: &mut SqliteConnection, key: &'static str) -> sqlx::Result<T> {
    let row = log.fetch_one(query("SELECT value FROM meta WHERE key = $1").bind(key)).await?;
    let text: String = row.try_get(0)?;
    text.parse().map_err(|_| sqlx::Error::Decode(format!("{key}: {text:?} cannot be").into()))
}

async fn take_in(log: &mut SqliteConnection, partitions: u16, audit: &mut Audit) -> sqlx::Result<()> {
    relayed(log, audit).await?;
    statements::snapshots(log, audit).await?;
    statements::log(log, partitions, audit).await?;
    statements::inbox(log, audit).await?;
    statements::partitions(log, audit).await?;
    statements::checkpoints(log, audit).await?;
    queue(log, audit).await
}

/// The bus is the log up to a position.
async fn relayed(log: &mut SqliteConnection, audit: &mut Audit) -> sqlx::Result<()> {
    audit.bus_is_in_the_log();
    let mut rows = query("SELECT partition, sequence, record_id FROM relayed").fetch(log);
    while let Some(row) = rows.try_next().await? {
        let (partition, sequence) = (number(row.try_get(0)?)?, number(row.try_get(1)?)?);
        audit.relayed(Bus::WithTheLog, partition, sequence, row.try_get::<Option<Uuid>, _>(2)?);
    }
    Ok(())
}

/// The queue is as old as the file.
async fn queue(log: &mut SqliteConnection, audit: &mut Audit) -> sqlx::Result<()> {
    audit.queue(Some(meta(log, "created_at").await?));
    let mut rows = query("SELECT partition, message, payload FROM queue").fetch(log);
    while let Some(row) = rows.try_next().await? {
        let (partition, message) = (number(row.try_get(0)?)?, number(row.try_get(1)?)?);
        bundle::take_in(audit, partition, message, row.try_get(2)?);
    }
    Ok(())
}

fn number<T: TryFrom<i64>>(value: i64) -> sqlx::Result<T> {
    let wrong = || sqlx::Error::Decode(format!("{value} is stored where it cannot be").into());
    T::try_from(value).map_err(|_| wrong())
}
