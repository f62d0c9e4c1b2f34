//! The read models, in a file of their own.
//!
//! The rule this module protects: rows and checkpoints are one transaction, so after whatever interruption the rows are
//! the fold of the records up to the checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use eventsourcing::environment::Doorbells;
use eventsourcing::partition::{Deployment, Partition, Sequence};
use eventsourcing::ports::{
    Column, ColumnType, Index, PortResult, Projected, ProjectionStep, RankedQuery, ReadModelSchema,
    ReadModels, Row, RowQuery, Table, Test, Value,
};
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use uuid::Uuid;

use super::connect;
use super::error::{OpenError, port_error};
use super::log::partition;
use super::rebuild::{self, Rebuilding};
use super::schema;
use super::sql::{Many, Values, count, get, rounds, rows, uuid};
use super::upsert::{Upserts, bind, column, table};
use super::writer::{Job, Writer};

static LOAD: Many = Many::new(
    "SELECT c.partition, c.sequence, c.record_id FROM (VALUES ",
    1,
    ") AS v CROSS JOIN checkpoints AS c ON c.partition = v.column1",
);

/// The statements that move checkpoints.
pub(super) struct Moves {
    pub(super) begin: Many,
    pub(super) advance: Many,
}

static MOVES: Moves = Moves {
    begin: Many::new(
        "INSERT INTO checkpoints (partition, sequence) SELECT column1, 0 FROM (VALUES ",
        1,
        ") WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING",
    ),
    advance: Many::new(
        "UPDATE OR FAIL checkpoints SET sequence = v.column3, record_id = v.column4 FROM (VALUES ",
        4,
        ") AS v WHERE checkpoints.partition = v.column1 AND checkpoints.sequence = v.column2 RETURNING partition",
    ),
};

const fn sql_type(column: &Column) -> &'static str {
    match column.kind {
        ColumnType::Integer => "INTEGER",
        ColumnType::Text => "TEXT",
        ColumnType::Uuid => "BLOB",
    }
}

pub(super) struct Shared {
    pub(super) writer: Writer,
    readers: SqlitePool,
    pub(super) tables: &'static [Table],
    upserts: Upserts,
    projected: Doorbells,
    pub(super) rebuilding: Rebuilding,
}

/// What a file says of its tables: it must be the same to be opened.
fn describe(models: &ReadModelSchema) -> String {
    let mut text = format!("readmodels-{}", models.version);
    for table in models.tables {
        // Writing to a String does not fail.
        let _written = write!(text, " {}(", table.name);
        for (index, column) in table.columns.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let indexed = match column.index {
                Index::None => String::new(),
                Index::All => "*".to_owned(),
                Index::WhileAbsent(other) => format!("*no {other}"),
            };
            let _written = write!(text, "{comma}{} {}{indexed}", column.name, sql_type(column));
        }
        text.push(')');
    }
    text
}

fn create(models: &ReadModelSchema) -> String {
    let mut sql = create_tables(models.tables, "");
    for table in models.tables {
        for column in table.columns.iter().filter(|column| column.index != Index::None) {
            sql.push_str(&create_index(table, column, "", &index_name(table, column)));
        }
    }
    sql
}

/// The tables without indexes, under names with this before them.
pub(super) fn create_tables(tables: &[Table], prefix: &str) -> String {
    let mut sql = format!(
        "CREATE TABLE {prefix}checkpoints (partition INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, \
         record_id BLOB) STRICT;"
    );
    for Table { name, columns } in tables {
        let _written = write!(sql, "\nCREATE TABLE {prefix}{name} (key BLOB PRIMARY KEY");
        for column in *columns {
            let _written = write!(sql, ", {} {}", column.name, sql_type(column));
        }
        sql.push_str(") STRICT, WITHOUT ROWID;");
    }
    sql
}

/// What the index over a column is called.
pub(super) fn index_name(table: &Table, column: &Column) -> String {
    format!("{}_by_{}", table.name, column.name)
}

/// An index over a column of a table whose name has this before it.
pub(super) fn create_index(table: &Table, column: &Column, prefix: &str, name: &str) -> String {
    let only = match column.index {
        Index::None | Index::All => String::new(),
        Index::WhileAbsent(other) => format!(" WHERE {other} IS NULL"),
    };
    format!("\nCREATE INDEX {name} ON {prefix}{} ({}, key){only};", table.name, column.name)
}

/// The read models of one file.
#[derive(Clone)]
pub struct SqliteReadModels(pub(super) Arc<Shared>);

impl SqliteReadModels {
    /// Opens the file, and creates it where there is none.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or was made for other tables, another number of partitions or another
    /// deployment.
    pub async fn open(
        path: &Path,
        deployment: &Deployment,
        models: ReadModelSchema,
    ) -> Result<Self, OpenError> {
        if let Some(directory) = path.parent() {
            let io =
                |error: std::io::Error| OpenError::Io { path: path.to_owned(), reason: error.to_string() };
            std::fs::create_dir_all(directory).map_err(io)?;
        }
        let mut connection = connect::writer(path).await?;
        let meta =
            schema::prepare(path, &mut connection, &describe(&models), deployment, &create(&models)).await?;
        let stored = meta.get("deployment_id").cloned().unwrap_or_default();
        if stored != deployment.id.to_string() {
            return Err(OpenError::Deployment { path: path.to_owned(), stored, asked: deployment.id });
        }
        rebuild::drop_leftovers(path, &mut connection, models.tables).await?;
        let readers = connect::readers(path).await?;
        // Nothing is remembered of this file, so a commit in doubt makes nothing uncertain.
        let writer = Writer::start(path, connection, Arc::new(|| {}));
        let (upserts, projected) = (Upserts::new(models.tables, ""), Doorbells::default());
        let rebuilding = Rebuilding::new(models.tables);
        Ok(Self(Arc::new(Shared { writer, readers, tables: models.tables, upserts, projected, rebuilding })))
    }

    /// Rung whenever rows were projected.
    #[must_use]
    pub fn projected(&self) -> &Doorbells {
        &self.0.projected
    }

    /// Finishes what was submitted and closes the file.
    pub async fn close(&self) {
        self.0.readers.close().await;
        self.0.writer.close().await;
    }

    /// Completes when the writer has ended.
    pub async fn ended(&self) {
        self.0.writer.ended().await;
    }

    async fn query(&self, text: String, values: Values, table: &Table) -> PortResult<Vec<Row>> {
        let mut reader = self.0.readers.acquire().await.map_err(|error| port_error(&error))?;
        let found = rows(&mut reader, text, values).await?;
        found.iter().map(|row| decode(row, table)).collect()
    }
}

impl ReadModels for SqliteReadModels {
    async fn checkpoints(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, Projected)>> {
        let mut reader = self.0.readers.acquire().await.map_err(|error| port_error(&error))?;
        load(&mut reader, partitions).await
    }

    async fn apply(&self, steps: Vec<ProjectionStep>) -> PortResult<Vec<bool>> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let _not_held = self.0.rebuilding.gate.read().await;
        self.0.writer.submit(Apply { steps, shared: Arc::clone(&self.0) }).await
    }

    async fn row(&self, name: &'static str, key: Uuid) -> PortResult<Option<Row>> {
        let (_, table) = table(self.0.tables, name)?;
        let mut values = Values::default();
        values.uuid(key)?;
        let text = format!("{} WHERE key = ?", select(table));
        Ok(self.query(text, values, table).await?.pop())
    }

    async fn rows(&self, query: &RowQuery) -> PortResult<Vec<Row>> {
        let (_, table) = table(self.0.tables, query.table)?;
        let mut values = Values::default();
        let mut tests = tests(&mut values, table, &query.conditions)?;
        if let Some(keys) = &query.keys {
            // Room for a power of two, so that there are few different statements; NULL is nobody's key.
            let room = keys.len().next_power_of_two();
            for place in 0..room {
                match keys.get(place) {
                    Some(key) => values.uuid(*key)?,
                    None => values.null()?,
                }
            }
            tests.push(format!("key IN ({})", vec!["?"; room].join(",")));
        }
        if let Some(after) = query.after {
            values.uuid(after)?;
            tests.push("key > ?".to_owned());
        }
        values.count(u64::from(query.limit))?;
        let tests = if tests.is_empty() { String::new() } else { format!(" WHERE {}", tests.join(" AND ")) };
        let text = format!("{}{tests} ORDER BY key LIMIT ?", select(table));
        self.query(text, values, table).await
    }

    async fn ranked(&self, query: &RankedQuery) -> PortResult<Vec<Row>> {
        let (_, table) = table(self.0.tables, query.table)?;
        column(table, query.by)?;
        let (mut values, by) = (Values::default(), query.by);
        let mut tests = tests(&mut values, table, &query.conditions)?;
        tests.push(format!("{by} <= ?"));
        values.int(query.up_to)?;
        values.count(u64::from(query.limit))?;
        let text = format!("{} WHERE {} ORDER BY {by}, key LIMIT ?", select(table), tests.join(" AND "));
        self.query(text, values, table).await
    }
}

/// The conditions in words of SQL, and their values behind those that are there.
fn tests(values: &mut Values, table: &Table, conditions: &[(&'static str, Test)]) -> PortResult<Vec<String>> {
    let test = |(name, test): &(&'static str, Test)| {
        column(table, name)?;
        Ok(match test {
            Test::Is(value) => {
                bind(values, value)?;
                format!("{name} = ?")
            }
            Test::Present => format!("{name} IS NOT NULL"),
            Test::Absent => format!("{name} IS NULL"),
        })
    };
    conditions.iter().map(test).collect()
}

fn select(table: &Table) -> String {
    let mut text = "SELECT key".to_owned();
    for column in table.columns {
        text.push_str(", ");
        text.push_str(column.name);
    }
    text.push_str(" FROM ");
    text.push_str(table.name);
    text
}

/// A UUID; unless the file is damaged, then it is something else, and whoever reads it says so.
fn of_bytes(bytes: &[u8]) -> Value {
    Uuid::from_slice(bytes).map_or_else(|_| Value::Text(format!("{bytes:02x?}")), Value::Uuid)
}

fn decode(row: &SqliteRow, table: &Table) -> PortResult<Row> {
    let value = |(index, column): (usize, &Column)| {
        let index = index + 1;
        Ok(match column.kind {
            ColumnType::Integer => get::<Option<i64>>(row, index)?.map(Value::Integer),
            ColumnType::Text => get::<Option<String>>(row, index)?.map(Value::Text),
            ColumnType::Uuid => get::<Option<&[u8]>>(row, index)?.map(of_bytes),
        })
    };
    let values = table.columns.iter().enumerate().map(value).collect::<PortResult<_>>()?;
    Ok(Row { key: uuid(row, 0)?, values })
}

pub(super) async fn load(
    connection: &mut SqliteConnection,
    partitions: &[Partition],
) -> PortResult<Vec<(Partition, Projected)>> {
    let found =
        LOAD.fetch(connection, partitions, |values, one| values.count(u64::from(one.index()))).await?;
    let mut projected = BTreeMap::new();
    for row in &found {
        let record_id = get::<Option<&[u8]>>(row, 2)?.map(|_| uuid(row, 2)).transpose()?;
        projected
            .insert(partition(row, 0)?, Projected { sequence: Sequence::new(count(row, 1)?), record_id });
    }
    Ok(partitions.iter().map(|one| (*one, projected.get(one).copied().unwrap_or_default())).collect())
}

/// Moves the checkpoints by compare-and-set. One answer a step, in order.
pub(super) async fn advance(
    connection: &mut SqliteConnection,
    moves: &'static Moves,
    steps: &[ProjectionStep],
) -> PortResult<Vec<bool>> {
    let first: Vec<Partition> = steps
        .iter()
        .filter(|step| step.checkpoint.from == Sequence::ZERO)
        .map(|step| step.checkpoint.partition)
        .collect();
    moves.begin.execute(connection, &first, |values, one| values.count(u64::from(one.index()))).await?;
    let mut answers = vec![false; steps.len()];
    for round in rounds(steps, |step| step.checkpoint.partition) {
        let round: Vec<(usize, &ProjectionStep)> =
            round.iter().filter_map(|index| Some((*index, steps.get(*index)?))).collect();
        let moved = moves
            .advance
            .fetch(connection, &round, |values, (_, step)| {
                values.count(u64::from(step.checkpoint.partition.index()))?;
                values.count(step.checkpoint.from.get())?;
                values.count(step.checkpoint.to.get())?;
                values.uuid(step.record_id)
            })
            .await?;
        let moved: BTreeSet<Partition> =
            moved.iter().map(|row| partition(row, 0)).collect::<PortResult<_>>()?;
        for (index, step) in round {
            if let Some(answer) = answers.get_mut(index) {
                *answer = moved.contains(&step.checkpoint.partition);
            }
        }
    }
    Ok(answers)
}

struct Apply {
    steps: Vec<ProjectionStep>,
    shared: Arc<Shared>,
}

impl Job for Apply {
    type Answer = Vec<bool>;

    async fn run(&self, connection: &mut SqliteConnection) -> PortResult<Self::Answer> {
        let moved = advance(connection, &MOVES, &self.steps).await?;
        let changes: Vec<_> = self
            .steps
            .iter()
            .zip(&moved)
            .filter(|(_, moved)| **moved)
            .flat_map(|(step, _)| &step.changes)
            .collect();
        self.shared.upserts.apply(connection, changes.into_iter()).await?;
        Ok(moved)
    }

    fn committed(&self, answer: &Self::Answer) {
        if answer.contains(&true) {
            self.shared.projected.ring();
        }
    }
}
