//! A second set of the read models, in the same file.
//!
//! The rule this module protects: no transaction of the writer takes longer the more rows there are, so that whoever projects
//! never waits for a rebuild for longer than for anybody else. Steps are applied a batch at a time, into tables that have their
//! indexes from the beginning; the swap only renames tables; and what is in nobody's way any more is emptied a slice at a time (but for
//! its indexes, which go one by one) before it is dropped, after the swap, or when the file is opened again, before anybody uses it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use eventsourcing::partition::Partition;
use eventsourcing::ports::{self, PortError, PortResult, Projected, ProjectionStep, Table};
use eventsourcing::shadow::{Rebuildable, Shadow};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockWriteGuard, RwLock};

use super::connect::store;
use super::error::{OpenError, port_error};
use super::readmodels::{
    Moves, Shared, SqliteReadModels, advance, create_index, create_tables, index_name, load,
};
use super::sql::{Many, Values, get, rows};
use super::upsert::Upserts;
use super::writer::Job;

/// Before the names of the tables that are built.
const REBUILT: &str = "rebuilt_";
/// Before the names of those whose place was taken.
const RETIRED: &str = "retired_";

/// Rows that one transaction deletes of what is dropped: some milliseconds, tens where the disk is slow.
const SLICE: u64 = 5_000;

/// The checkpoints' table, which is swapped with the others.
const CHECKPOINTS: &str = "checkpoints";

static MOVES: Moves = Moves {
    begin: Many::new(
        "INSERT INTO rebuilt_checkpoints (partition, sequence) SELECT column1, 0 FROM (VALUES ",
        1,
        ") WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING",
    ),
    advance: Many::new(
        "UPDATE rebuilt_checkpoints SET sequence = v.column3, record_id = v.column4 FROM (VALUES ",
        4,
        ") AS v WHERE rebuilt_checkpoints.partition = v.column1 AND rebuilt_checkpoints.sequence = v.column2 \
         RETURNING partition",
    ),
};

/// Where one set stands and the other does not. A checkpoint that never moved may have a row or none.
const APART: &str = "WITH live AS (SELECT partition, sequence, record_id FROM checkpoints WHERE sequence > 0), \
     rebuilt AS (SELECT partition, sequence, record_id FROM rebuilt_checkpoints WHERE sequence > 0) \
     SELECT * FROM (SELECT * FROM live EXCEPT SELECT * FROM rebuilt) \
     UNION ALL SELECT * FROM (SELECT * FROM rebuilt EXCEPT SELECT * FROM live) LIMIT 1";

/// What a rebuild keeps in the store.
pub(super) struct Rebuilding {
    /// Taken by the one that is under way.
    turn: Arc<Mutex<()>>,
    /// Steps go through it; who holds the live ones has it closed.
    pub(super) gate: Arc<RwLock<()>>,
    upserts: Upserts,
}

impl Rebuilding {
    pub(super) fn new(tables: &'static [Table]) -> Self {
        Self { turn: Arc::default(), gate: Arc::default(), upserts: Upserts::new(tables, REBUILT) }
    }
}

/// Drops what a rebuild has left behind that did not come to its end, or to the end of its tidying up.
pub(super) async fn drop_leftovers(
    path: &Path,
    connection: &mut SqliteConnection,
    tables: &[Table],
) -> Result<(), OpenError> {
    for sql in [REBUILT, RETIRED].into_iter().flat_map(|prefix| drops(tables, prefix)) {
        connection.execute(AssertSqlSafe(sql)).await.map_err(|error| store(path, &error))?;
    }
    Ok(())
}

fn names(tables: &[Table]) -> impl Iterator<Item = &'static str> {
    tables.iter().map(|table| table.name).chain([CHECKPOINTS])
}

fn drops(tables: &[Table], prefix: &str) -> Vec<String> {
    names(tables).map(|name| format!("DROP TABLE IF EXISTS {prefix}{name}")).collect()
}

/// The tables of a rebuild. See [`Shadow`].
pub struct SqliteShadow {
    shared: Arc<Shared>,
    held: Option<OwnedRwLockWriteGuard<()>>,
    _turn: OwnedMutexGuard<()>,
}

impl Rebuildable for SqliteReadModels {
    type Shadow = SqliteShadow;

    async fn begin_rebuild(&self) -> PortResult<Option<SqliteShadow>> {
        let shared = Arc::clone(&self.0);
        let Ok(turn) = Arc::clone(&shared.rebuilding.turn).try_lock_owned() else { return Ok(None) };
        let shadow = SqliteShadow { shared, held: None, _turn: turn };
        shadow.drop_all(&[REBUILT, RETIRED]).await?;
        shadow.run(create_tables(self.0.tables, REBUILT)).await?;
        shadow.create_indexes().await?;
        Ok(Some(shadow))
    }
}

impl SqliteShadow {
    async fn run(&self, sql: String) -> PortResult<()> {
        self.shared.writer.submit(Run(sql)).await
    }

    /// To drop a table is to visit each of its pages, so it is emptied before.
    async fn drop_all(&self, prefixes: &[&str]) -> PortResult<()> {
        for prefix in prefixes {
            for name in names(self.shared.tables) {
                while self.shared.writer.submit(Empty(format!("{prefix}{name}"))).await? {}
                self.run(format!("DROP TABLE IF EXISTS {prefix}{name}")).await?;
            }
        }
        Ok(())
    }

    /// Of the empty tables: an index over millions of rows takes seconds, in one transaction.
    async fn create_indexes(&self) -> PortResult<()> {
        for table in self.shared.tables {
            for column in table.columns.iter().filter(|column| column.index != ports::Index::None) {
                // An index cannot be renamed. That of the live table has one of two names, so this one has the other.
                let name = index_name(table, column);
                let other = format!("{name}_again");
                let (table, column) = (*table, *column);
                let create = |name: &str| create_index(&table, &column, REBUILT, name);
                let index = Index { create: create(&name), otherwise: create(&other), name };
                self.shared.writer.submit(index).await?;
            }
        }
        Ok(())
    }
}

impl Shadow for SqliteShadow {
    async fn apply(&mut self, steps: Vec<ProjectionStep>) -> PortResult<()> {
        self.shared.writer.submit(Build { steps, shared: Arc::clone(&self.shared) }).await
    }

    /// The tables have theirs since they were made.
    async fn index(&mut self) -> PortResult<()> {
        Ok(())
    }

    async fn hold(&mut self, partitions: &[Partition]) -> PortResult<Vec<(Partition, Projected)>> {
        if self.held.is_none() {
            self.held = Some(Arc::clone(&self.shared.rebuilding.gate).write_owned().await);
        }
        // By the writer: behind whatever was submitted by somebody who did not wait for the answer.
        self.shared.writer.submit(Standing(partitions.to_vec())).await
    }

    async fn swap(&mut self) -> PortResult<bool> {
        if self.held.is_none() {
            return Err(PortError::Conflict("the read models are not held".to_owned()));
        }
        self.shared.writer.submit(Swap(self.shared.tables)).await?;
        self.held = None;
        // The rebuild is done, whatever becomes of this.
        if let Err(error) = self.drop_all(&[RETIRED]).await {
            tracing::warn!(%error, "what the old read models had is dropped at the next start");
        }
        Ok(true)
    }

    async fn abandon(mut self) -> PortResult<()> {
        self.held = None;
        self.drop_all(&[REBUILT]).await
    }
}

/// Statements without values.
struct Run(String);

impl Job for Run {
    type Answer = ();

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<()> {
        run(connection, self.0.clone()).await
    }

    fn committed(&self, (): &()) {}
}

async fn run(connection: &mut SqliteConnection, sql: String) -> PortResult<()> {
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
    done.map(|_| ()).map_err(|error| port_error(&error))
}

/// Deletes a slice of a table, where there is one of this name, and first its indexes. Answers whether there may be more.
struct Empty(String);

impl Job for Empty {
    type Answer = bool;

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<bool> {
        let Self(table) = self;
        let mut values = Values::default();
        values.text(table)?;
        let of_it =
            "SELECT type, name FROM sqlite_schema WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type";
        let found = rows(connection, of_it, values).await?;
        let Some(first) = found.first() else { return Ok(false) };
        if get::<String>(first, 0)? == "index" {
            run(connection, format!("DROP INDEX {}", get::<String>(first, 1)?)).await?;
            return Ok(true);
        }
        let key = if table.ends_with(CHECKPOINTS) { "partition" } else { "key" };
        let slice = format!("DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} LIMIT {SLICE})");
        let done = connection.execute(AssertSqlSafe(slice)).await.map_err(|error| port_error(&error))?;
        Ok(done.rows_affected() == SLICE)
    }

    fn committed(&self, _answer: &bool) {}
}

struct Build {
    steps: Vec<ProjectionStep>,
    shared: Arc<Shared>,
}

impl Job for Build {
    type Answer = ();

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<()> {
        if advance(connection, &MOVES, &self.steps).await?.contains(&false) {
            return Err(PortError::Conflict("a step does not follow those before it".to_owned()));
        }
        let changes = self.steps.iter().flat_map(|step| &step.changes);
        self.shared.rebuilding.upserts.apply(connection, changes).await
    }

    fn committed(&self, (): &()) {}
}

struct Index {
    name: String,
    create: String,
    otherwise: String,
}

impl Job for Index {
    type Answer = ();

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<()> {
        let mut values = Values::default();
        values.text(&self.name)?;
        let taken = "SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?";
        let taken = !rows(connection, taken, values).await?.is_empty();
        run(connection, if taken { self.otherwise.clone() } else { self.create.clone() }).await
    }

    fn committed(&self, (): &()) {}
}

struct Standing(Vec<Partition>);

impl Job for Standing {
    type Answer = Vec<(Partition, Projected)>;

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<Self::Answer> {
        load(connection, &self.0).await
    }

    fn committed(&self, _answer: &Self::Answer) {}
}

struct Swap(&'static [Table]);

impl Job for Swap {
    type Answer = ();

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<()> {
        if !rows(connection, APART, Values::default()).await?.is_empty() {
            return Err(PortError::Conflict("the shadow is not where the read models are".to_owned()));
        }
        let mut renames = String::new();
        for name in names(self.0) {
            // Writing to a String does not fail.
            let _written = writeln!(
                renames,
                "ALTER TABLE {name} RENAME TO {RETIRED}{name}; ALTER TABLE {REBUILT}{name} RENAME TO {name};"
            );
        }
        run(connection, renames).await
    }

    fn committed(&self, (): &()) {}
}
