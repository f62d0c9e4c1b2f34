//! The read models' tables, as they are described in code.
//!
//! The rule this module protects: tables that were made for another description are not opened, and never altered: what
//! they hold can be built anew from the log.

use std::fmt::Write as _;

use eventsourcing::ports::{Column, ColumnType, Index, PortError, PortResult, ReadModelSchema, Table};
use sqlx::AssertSqlSafe;

use super::connect::Session;
use super::error::OpenError;
use super::rebuild;
use super::sql::{Values, get};

/// Texts are compared by their bytes: nothing here is sorted for people, and an index does not depend on the system's
/// locales.
const fn sql_type(column: &Column) -> &'static str {
    match column.kind {
        ColumnType::Integer => "bigint",
        ColumnType::Text => "text COLLATE \"C\"",
        ColumnType::Uuid => "uuid",
    }
}

/// The type of a column's values on their way, as an array.
pub(super) const fn array_type(column: &Column) -> &'static str {
    match column.kind {
        ColumnType::Integer => "bigint[]",
        ColumnType::Text => "text[]",
        ColumnType::Uuid => "uuid[]",
    }
}

/// What a database says of its tables: it must be the same to be opened.
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
            let kind = match column.kind {
                ColumnType::Integer => "integer",
                ColumnType::Text => "text",
                ColumnType::Uuid => "uuid",
            };
            let _written = write!(text, "{comma}{} {kind}{indexed}", column.name);
        }
        text.push(')');
    }
    text
}

fn create(models: &ReadModelSchema) -> String {
    let tables = models.tables;
    format!("{}{}", create_tables(tables, "", ""), create_indexes(tables, ""))
}

/// The tables without indexes, under names with this before them, and with further parameters of their storage.
pub(super) fn create_tables(tables: &[Table], prefix: &str, storage: &str) -> String {
    let mut sql = String::new();
    for Table { name, columns } in tables {
        let _written = write!(sql, "CREATE TABLE \"{prefix}{name}\" (\"key\" uuid PRIMARY KEY");
        for column in *columns {
            let _written = write!(sql, ", \"{}\" {}", column.name, sql_type(column));
        }
        let _written = writeln!(sql, ") WITH (fillfactor = 80{storage});");
    }
    sql
}

/// The indexes of these tables.
pub(super) fn create_indexes(tables: &[Table], prefix: &str) -> String {
    let mut sql = String::new();
    for (Table { name, .. }, Column { name: column, index, .. }) in indexed(tables) {
        let only = match index {
            Index::None | Index::All => String::new(),
            Index::WhileAbsent(other) => format!(" WHERE \"{other}\" IS NULL"),
        };
        let _written = writeln!(
            sql,
            "CREATE INDEX \"{prefix}{name}_by_{column}\" ON \"{prefix}{name}\" (\"{column}\", \"key\"){only};"
        );
    }
    sql
}

/// The columns that have an index.
pub(super) fn indexed(tables: &[Table]) -> impl Iterator<Item = (&Table, &'static Column)> {
    tables.iter().flat_map(|table| {
        table.columns.iter().filter(|column| column.index != Index::None).map(move |column| (table, column))
    })
}

/// Makes the tables where there are none, in the transaction that is open.
pub(super) async fn make(session: &mut Session, models: &ReadModelSchema) -> Result<(), OpenError> {
    if described(session).await?.is_none() {
        session.execute(AssertSqlSafe(create(models))).await?;
        let values = session.read(|| Values::default().and(describe(models)))?;
        session.rows("INSERT INTO read_models (description) VALUES ($1)", values).await?;
    }
    session.execute(AssertSqlSafe(rebuild::functions(models.tables))).await?;
    check(session, models).await
}

/// Checks that the tables are those that are described.
pub(super) async fn check(session: &mut Session, models: &ReadModelSchema) -> Result<(), OpenError> {
    let (database, asked) = (session.database.clone(), describe(models));
    match described(session).await? {
        Some(stored) if stored == asked => Ok(()),
        Some(stored) => Err(OpenError::ReadModels { database, stored, asked }),
        None => Err(OpenError::Unprepared { database, reason: "there are no read models".to_owned() }),
    }
}

async fn described(session: &mut Session) -> Result<Option<String>, OpenError> {
    let rows = session.rows("SELECT description FROM read_models", Values::default()).await?;
    session.read(|| rows.first().map(|row| get(row, 0)).transpose())
}

/// The table of this name.
pub(super) fn table(tables: &'static [Table], name: &str) -> PortResult<(usize, &'static Table)> {
    let found = tables.iter().enumerate().find(|(_, table)| table.name == name);
    found.ok_or_else(|| PortError::Broken(format!("there is no read model {name}")))
}

/// The index of the column of this name.
pub(super) fn column(table: &Table, name: &str) -> PortResult<usize> {
    let found = table.columns.iter().position(|column| column.name == name);
    found.ok_or_else(|| PortError::Broken(format!("the read model {} has no column {name}", table.name)))
}
