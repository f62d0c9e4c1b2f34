//! The tables of the log's file, and the refusal to open another deployment's.
//!
//! The rule this module protects: records and inbox rows are written once and never changed, whoever tries; and a
//! file that was made for another number of partitions is not opened.

use std::collections::BTreeMap;
use std::path::Path;

use eventsourcing::partition::{Deployment, PartitionCount};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor as _, Row as _};
use uuid::Uuid;

use super::connect::store;
use super::error::OpenError;

/// The version of these tables.
const SCHEMA: &str = "platform-1";

/// Records have a row id and are found by an index: with sixteen partitions growing at once, a table in the order of
/// its primary key would split its pages in the middle and leave them half empty.
const TABLES: &str = "
CREATE TABLE partitions (
    partition INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL DEFAULT 0,
    head INTEGER NOT NULL DEFAULT 0,
    queue_created_at INTEGER,
    queue_message INTEGER,
    queue_first BLOB,
    queue_index INTEGER
) STRICT;
CREATE TABLE records (
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    record_id BLOB NOT NULL,
    recorded_at INTEGER NOT NULL,
    aggregate_type TEXT NOT NULL,
    aggregate_id BLOB NOT NULL,
    version INTEGER,
    event_type TEXT NOT NULL,
    schema INTEGER NOT NULL,
    data TEXT NOT NULL,
    command_id BLOB NOT NULL,
    correlation_id BLOB NOT NULL,
    causation_id BLOB NOT NULL,
    actor TEXT NOT NULL,
    traceparent TEXT,
    last_of_command INTEGER NOT NULL,
    PRIMARY KEY (partition, sequence)
) STRICT;
CREATE UNIQUE INDEX records_of_aggregate ON records (aggregate_type, aggregate_id, version)
    WHERE version IS NOT NULL;
CREATE TRIGGER records_are_not_changed BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
CREATE TRIGGER records_are_not_deleted BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
CREATE TABLE inbox (
    command_id BLOB PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    verdict TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER inbox_is_not_changed BEFORE UPDATE ON inbox
    BEGIN SELECT RAISE(ABORT, 'the inbox is append-only'); END;
CREATE TRIGGER inbox_is_not_deleted BEFORE DELETE ON inbox
    BEGIN SELECT RAISE(ABORT, 'the inbox is append-only'); END;
CREATE TABLE snapshots (
    aggregate_type TEXT NOT NULL,
    aggregate_id BLOB NOT NULL,
    version INTEGER NOT NULL,
    schema INTEGER NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE queue (
    message INTEGER PRIMARY KEY AUTOINCREMENT,
    partition INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX queue_of_partition ON queue (partition, message);
CREATE TABLE relayed (
    partition INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL DEFAULT 0,
    record_id BLOB
) STRICT;
CREATE TABLE checkpoints (
    reader TEXT NOT NULL,
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (reader, partition)
) STRICT, WITHOUT ROWID;
";

/// What was added since files of this schema were first made; whoever opens one adds what is missing. An older release reads
/// such a file as it always did.
const ADDED: &str = "CREATE INDEX IF NOT EXISTS dead_commands ON records (partition, sequence) \
     WHERE version IS NULL AND event_type = 'CommandDead'";

/// What a file says of itself.
const META: &str =
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID";

/// Makes the tables where there are none, and checks that the file is this deployment's. Answers with the deployment
/// as the file knows it.
pub(super) async fn settle(
    path: &Path,
    connection: &mut SqliteConnection,
    asked: &Deployment,
) -> Result<Deployment, OpenError> {
    let partitions = asked.partitions;
    let create = format!(
        "{TABLES}
        WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < {partitions})
            INSERT INTO partitions (partition) SELECT n FROM number;
        INSERT INTO relayed (partition) SELECT partition FROM partitions;"
    );
    let meta = prepare(path, connection, SCHEMA, asked, &create).await?;
    connection.execute(ADDED).await.map_err(|error| store(path, &error))?;
    deployment(path, &meta, asked.partitions)
}

/// Whose file it is, as it says itself; `None` where it says nothing.
pub(super) async fn found(
    path: &Path,
    connection: &mut SqliteConnection,
) -> Result<Option<Deployment>, OpenError> {
    let is_there = connection.fetch_optional("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").await;
    if is_there.map_err(|error| store(path, &error))?.is_none() {
        return Ok(None);
    }
    let meta = read(path, connection).await?;
    let of = |key: &str| meta.get(key).cloned().unwrap_or_default();
    if of("schema") != SCHEMA {
        return Err(OpenError::Schema {
            path: path.to_owned(),
            stored: of("schema"),
            asked: SCHEMA.to_owned(),
        });
    }
    let partitions = of("partitions").parse().ok().and_then(PartitionCount::new);
    let partitions = partitions.ok_or_else(|| unreadable(path, &of("partitions")))?;
    deployment(path, &meta, partitions).map(Some)
}

fn deployment(
    path: &Path,
    meta: &BTreeMap<String, String>,
    partitions: PartitionCount,
) -> Result<Deployment, OpenError> {
    let of = |key: &str| meta.get(key).cloned().unwrap_or_default();
    let (id, created_at) = (of("deployment_id"), of("created_at"));
    Ok(Deployment {
        id: Uuid::parse_str(&id).map_err(|_| unreadable(path, &id))?,
        partitions,
        created_at: created_at.parse().map_err(|_| unreadable(path, &created_at))?,
    })
}

fn unreadable(path: &Path, stored: &str) -> OpenError {
    OpenError::Schema {
        path: path.to_owned(),
        stored: format!("an unreadable value {stored}"),
        asked: SCHEMA.to_owned(),
    }
}

/// Creates what is missing and compares schema and partitions, in one transaction.
pub(super) async fn prepare(
    path: &Path,
    connection: &mut SqliteConnection,
    schema: &str,
    asked: &Deployment,
    create: &str,
) -> Result<BTreeMap<String, String>, OpenError> {
    let fail = |error: sqlx::Error| store(path, &error);
    connection.execute("BEGIN IMMEDIATE").await.map_err(fail)?;
    connection.execute(META).await.map_err(fail)?;
    let mut meta = read(path, connection).await?;
    if meta.is_empty() {
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(create))).await.map_err(fail)?;
        for (key, value) in [
            ("schema", schema.to_owned()),
            ("partitions", asked.partitions.to_string()),
            ("deployment_id", asked.id.to_string()),
            ("created_at", asked.created_at.to_string()),
        ] {
            let insert = sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?)").bind(key).bind(value);
            connection.execute(insert).await.map_err(fail)?;
        }
        meta = read(path, connection).await?;
    }
    connection.execute("COMMIT").await.map_err(fail)?;
    let of = |key: &str| meta.get(key).cloned().unwrap_or_default();
    if of("schema") != schema {
        return Err(OpenError::Schema {
            path: path.to_owned(),
            stored: of("schema"),
            asked: schema.to_owned(),
        });
    }
    if of("partitions") != asked.partitions.to_string() {
        return Err(OpenError::Partitions {
            path: path.to_owned(),
            stored: of("partitions"),
            asked: asked.partitions,
        });
    }
    Ok(meta)
}

async fn read(path: &Path, connection: &mut SqliteConnection) -> Result<BTreeMap<String, String>, OpenError> {
    let fail = |error: sqlx::Error| store(path, &error);
    let rows = connection.fetch_all("SELECT key, value FROM meta").await.map_err(fail)?;
    rows.iter().map(|row| Ok((row.try_get(0).map_err(fail)?, row.try_get(1).map_err(fail)?))).collect()
}
