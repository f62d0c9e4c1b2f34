//! The read models, in a database of their own.
//!
//! The rule this module protects: rows and checkpoints are one transaction, so after whatever interruption the rows are
//! the fold of the records up to the checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use eventsourcing::partition::{Deployment, Partition, Sequence};
use eventsourcing::ports::{
    Column, ColumnType, PortResult, Projected, ProjectionStep, RankedQuery, ReadModelSchema, ReadModels, Row,
    RowQuery, Table, Test, Value,
};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::chain::{Chain, Placed};
use super::connect::{Connect, Session};
use super::database::Database;
use super::error::OpenError;
use super::sql::{Values, count, get, indices, partition};
use super::tables::{self, column, table};
use super::upsert::Upserts;
use super::{deployment, migrate, rebuild};

const CHECKPOINTS: &str = "SELECT partition, sequence, record_id FROM checkpoints WHERE partition = ANY($1::int[]) AND sequence > 0";

/// A step locks its checkpoint's row, so there is one for every partition from the beginning.
const BEGIN: &str = "INSERT INTO checkpoints (partition, sequence) SELECT generate_series(0, $1::int - 1), 0 \
     ON CONFLICT DO NOTHING";

pub(super) struct Shared {
    /// How it is reached.
    pub(super) connect: Connect,
    database: Database,
    pub(super) tables: &'static [Table],
    upserts: Upserts,
    /// Those of a rebuild.
    pub(super) rebuilt: Upserts,
    /// What a rebuild holds them with.
    pub(super) hold: String,
}

/// The query side's database: the read models, and who tries which partition.
#[derive(Clone)]
pub struct PostgresReadModels(pub(super) Arc<Shared>);

/// Makes the query side's tables where they are not. It does not say whose facts will be there: the first projector does.
///
/// # Errors
///
/// When the database cannot be reached, would lose what it acknowledges, was made by another release or for other tables,
/// or does not let this role make tables.
pub async fn migrate_read_models(connect: &Connect, schema: ReadModelSchema) -> Result<(), OpenError> {
    let mut session = connect.session().await?;
    prepare(&mut session, &schema).await
}

async fn prepare(session: &mut Session, schema: &ReadModelSchema) -> Result<(), OpenError> {
    migrate::begin(session).await?;
    migrate::apply(session, migrate::QUERY).await?;
    tables::make(session, schema).await?;
    migrate::commit(session).await
}

async fn check(session: &mut Session, schema: &ReadModelSchema) -> Result<(), OpenError> {
    migrate::check(session, migrate::QUERY).await?;
    tables::check(session, schema).await
}

impl PostgresReadModels {
    /// Opens the query side's database for a projector. A role that may make tables makes those that are missing; any
    /// other checks that they are there. A database that nobody has projected to is this deployment's from now on.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, would lose what it acknowledges, is not prepared, was made by another release
    /// or for other tables, or belongs to another deployment or has another number of partitions.
    pub async fn open(
        connect: &Connect,
        deployment: &Deployment,
        schema: ReadModelSchema,
    ) -> Result<Self, OpenError> {
        let mut session = connect.session().await?;
        if migrate::allowed(&mut session).await? {
            prepare(&mut session, &schema).await?;
        } else {
            check(&mut session, &schema).await?;
        }
        deployment::write(&mut session, deployment).await?;
        belongs_to(&mut session, deployment).await?;
        let values = session.read(|| Values::default().and(i32::from(deployment.partitions.get())))?;
        session.rows(BEGIN, values).await?;
        rebuild::drop_leftovers(&mut session).await;
        Self::over(connect, schema)
    }

    /// Opens the query side's database for one who only reads. It writes nothing, whatever its role may do.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; and when no projector has ever written there.
    pub async fn open_to_read(
        connect: &Connect,
        deployment: &Deployment,
        schema: ReadModelSchema,
    ) -> Result<Self, OpenError> {
        let mut session = connect.session().await?;
        check(&mut session, &schema).await?;
        belongs_to(&mut session, deployment).await?;
        Self::over(connect, schema)
    }

    fn over(connect: &Connect, schema: ReadModelSchema) -> Result<Self, OpenError> {
        let (database, tables) = (connect.database()?, schema.tables);
        let (upserts, rebuilt) = (Upserts::new(tables, ""), Upserts::new(tables, rebuild::REBUILT));
        let (connect, hold) = (connect.clone(), rebuild::hold(tables));
        Ok(Self(Arc::new(Shared { connect, database, tables, upserts, rebuilt, hold })))
    }

    /// Waits for what is under way and closes the connections. Later calls answer that the read models are unavailable.
    pub async fn close(&self) {
        self.0.database.close().await;
    }

    pub(super) fn database(&self) -> &Database {
        &self.0.database
    }

    async fn query(&self, text: String, values: Values, table: &Table) -> PortResult<Vec<Row>> {
        let found = self.0.database.rows(AssertSqlSafe(text), values).await?;
        found.iter().map(|row| decode(row, table)).collect()
    }
}

async fn belongs_to(session: &mut Session, deployment: &Deployment) -> Result<(), OpenError> {
    let database = session.database.clone();
    match deployment::read(session, deployment.partitions).await? {
        None => Err(OpenError::NotBegun { database }),
        Some(stored) if stored.id == deployment.id => Ok(()),
        Some(stored) => Err(OpenError::Deployment { database, stored: stored.id, asked: deployment.id }),
    }
}

impl ReadModels for PostgresReadModels {
    async fn checkpoints(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, Projected)>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let values = Values::default().and(indices(partitions, |one| *one))?;
        let mut projected = BTreeMap::new();
        for row in &self.0.database.rows(CHECKPOINTS, values).await? {
            let (sequence, record_id) = (Sequence::new(count(row, 1)?), get(row, 2)?);
            projected.insert(partition(row, 0)?, Projected { sequence, record_id });
        }
        Ok(partitions.iter().map(|one| (*one, projected.get(one).copied().unwrap_or_default())).collect())
    }

    async fn apply(&self, steps: Vec<ProjectionStep>) -> PortResult<Vec<bool>> {
        let mut answers = vec![false; steps.len()];
        let mut left: Vec<Placed<'_>> = steps.iter().enumerate().collect();
        // Nearly always once: a step is refused when another projector owns its partition, and then nothing happened.
        while !left.is_empty() {
            let chains = Chain::of(&left);
            let (text, values) = self.0.upserts.statement(&chains)?;
            let rows = self.0.database.rows(AssertSqlSafe(text), values).await?;
            let ready: BTreeSet<Partition> =
                rows.iter().map(|row| partition(row, 0)).collect::<PortResult<_>>()?;
            let refused: BTreeSet<usize> =
                chains.iter().filter(|chain| !ready.contains(&chain.partition())).map(Chain::first).collect();
            if refused.is_empty() {
                for place in chains.iter().flat_map(Chain::places) {
                    if let Some(answer) = answers.get_mut(place) {
                        *answer = true;
                    }
                }
                break;
            }
            left.retain(|(place, _)| !refused.contains(place));
        }
        Ok(answers)
    }

    async fn row(&self, name: &'static str, key: Uuid) -> PortResult<Option<Row>> {
        let (_, table) = table(self.0.tables, name)?;
        let text = format!("{} WHERE \"key\" = $1::uuid", select(table));
        Ok(self.query(text, Values::default().and(key)?, table).await?.pop())
    }

    async fn rows(&self, query: &RowQuery) -> PortResult<Vec<Row>> {
        let (_, table) = table(self.0.tables, query.table)?;
        let (mut values, mut tests) = tests(table, &query.conditions)?;
        let mut place = values.len();
        if let Some(keys) = &query.keys {
            place += 1;
            values = values.and(keys.clone())?;
            tests.push(format!("\"key\" = ANY(${place}::uuid[])"));
        }
        if let Some(after) = query.after {
            place += 1;
            values = values.and(after)?;
            tests.push(format!("\"key\" > ${place}"));
        }
        values = values.and(i64::from(query.limit))?;
        let tests = if tests.is_empty() { String::new() } else { format!(" WHERE {}", tests.join(" AND ")) };
        let text = format!("{}{tests} ORDER BY \"key\" LIMIT ${}", select(table), place + 1);
        self.query(text, values, table).await
    }

    async fn ranked(&self, query: &RankedQuery) -> PortResult<Vec<Row>> {
        let (_, table) = table(self.0.tables, query.table)?;
        column(table, query.by)?;
        let (values, mut tests) = tests(table, &query.conditions)?;
        let (by, place) = (query.by, values.len());
        tests.push(format!("\"{by}\" <= ${}", place + 1));
        let values = values.and(query.up_to)?.and(i64::from(query.limit))?;
        let (tests, limit) = (tests.join(" AND "), place + 2);
        let text = format!("{} WHERE {tests} ORDER BY \"{by}\", \"key\" LIMIT ${limit}", select(table));
        self.query(text, values, table).await
    }
}

/// The conditions in words of SQL, and their values.
fn tests(table: &Table, conditions: &[(&'static str, Test)]) -> PortResult<(Values, Vec<String>)> {
    let (mut values, mut tests) = (Values::default(), Vec::with_capacity(conditions.len()));
    for (name, test) in conditions {
        column(table, name)?;
        tests.push(match test {
            Test::Is(value) => {
                values = bind(values, value)?;
                format!("\"{name}\" = ${}", values.len())
            }
            Test::Present => format!("\"{name}\" IS NOT NULL"),
            Test::Absent => format!("\"{name}\" IS NULL"),
        });
    }
    Ok((values, tests))
}

fn bind(values: Values, value: &Value) -> PortResult<Values> {
    match value {
        Value::Integer(value) => values.and(*value),
        Value::Text(value) => values.and(value.as_str()),
        Value::Uuid(value) => values.and(*value),
    }
}

fn select(table: &Table) -> String {
    let mut text = "SELECT \"key\"".to_owned();
    for column in table.columns {
        // Writing to a String does not fail.
        let _written = write!(text, ", \"{}\"", column.name);
    }
    let _written = write!(text, " FROM \"{}\"", table.name);
    text
}

fn decode(row: &PgRow, table: &Table) -> PortResult<Row> {
    let value = |(index, column): (usize, &Column)| {
        let index = index + 1;
        Ok(match column.kind {
            ColumnType::Integer => get::<Option<i64>>(row, index)?.map(Value::Integer),
            ColumnType::Text => get::<Option<String>>(row, index)?.map(Value::Text),
            ColumnType::Uuid => get::<Option<Uuid>>(row, index)?.map(Value::Uuid),
        })
    };
    let values = table.columns.iter().enumerate().map(value).collect::<PortResult<_>>()?;
    Ok(Row { key: get(row, 0)?, values })
}
