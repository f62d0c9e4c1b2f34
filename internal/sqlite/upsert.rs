//! Many changes of many rows as few statements.
//!
//! The rule this module protects: the row afterwards is what the changes would have made of it one after the other.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use eventsourcing::ports::{PortError, PortResult, RowChange, Table, Value};
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::error::too_large;
use super::sql::{Many, Values};

/// What becomes of one column of one row. Values stay where they are: a rebuild has thousands of rows at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell<'a> {
    Set(&'a Value),
    /// Set, and then added to.
    Sum(i64),
    Add(i64),
}

/// What becomes of one row, in the order of the columns' indexes.
type Cells<'a> = Vec<(usize, Cell<'a>)>;

/// A table, and its columns by index with whether they are added to: rows with the same shape share a statement.
type Shape = (usize, Vec<(usize, bool)>);

/// The statements that were needed so far, one a shape: as many as the projection has kinds of changes.
pub(super) struct Upserts {
    tables: &'static [Table],
    /// What stands before the names of the tables that are written.
    prefix: &'static str,
    statements: Mutex<HashMap<Shape, Arc<Many>>>,
}

impl Upserts {
    pub(super) fn new(tables: &'static [Table], prefix: &'static str) -> Self {
        Self { tables, prefix, statements: Mutex::new(HashMap::new()) }
    }

    /// Applies the changes, in order.
    pub(super) async fn apply(
        &self,
        connection: &mut SqliteConnection,
        changes: impl Iterator<Item = &RowChange> + Send,
    ) -> PortResult<()> {
        let groups = self.group(changes)?;
        for (shape, rows) in groups {
            let statement = self.statement(&shape);
            statement
                .execute(connection, &rows, |values, (key, cells)| {
                    values.uuid(*key)?;
                    cells.iter().try_for_each(|(_, cell)| match cell {
                        Cell::Set(value) => bind(values, value),
                        Cell::Sum(amount) | Cell::Add(amount) => values.int(*amount),
                    })
                })
                .await?;
        }
        Ok(())
    }

    fn group<'a>(
        &self,
        changes: impl Iterator<Item = &'a RowChange>,
    ) -> PortResult<BTreeMap<Shape, Vec<(Uuid, Cells<'a>)>>> {
        let mut rows: BTreeMap<(usize, Uuid), Cells<'a>> = BTreeMap::new();
        for change in changes {
            let (index, table) = table(self.tables, change.table)?;
            let cells = rows.entry((index, change.key)).or_default();
            for (name, value) in &change.set {
                let _always = put(cells, column(table, name)?, |_| Some(Cell::Set(value)));
            }
            for (name, amount) in &change.add {
                put(cells, column(table, name)?, |before| add(before, *amount))
                    .ok_or_else(|| too_large(format!("{name} + {amount}")))?;
            }
        }
        let mut groups: BTreeMap<Shape, Vec<(Uuid, Cells<'a>)>> = BTreeMap::new();
        for ((table, key), cells) in rows {
            let columns = cells.iter().map(|(column, cell)| (*column, matches!(cell, Cell::Add(_))));
            groups.entry((table, columns.collect())).or_default().push((key, cells));
        }
        Ok(groups)
    }

    fn statement(&self, shape: &Shape) -> Arc<Many> {
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(statements.entry(shape.clone()).or_insert_with(|| Arc::new(self.build(shape))))
    }

    fn build(&self, (table, columns): &Shape) -> Many {
        let (mut name, mut begin, mut sets) = ("", String::new(), Vec::new());
        if let Some(table) = self.tables.get(*table) {
            name = table.name;
            for (index, added) in columns {
                let Some(column) = table.columns.get(*index).map(|column| column.name) else { continue };
                // Writing to a String does not fail.
                let _written = write!(begin, ", {column}");
                sets.push(if *added {
                    format!("{column} = COALESCE({column}, 0) + excluded.{column}")
                } else {
                    format!("{column} = excluded.{column}")
                });
            }
        }
        let action =
            if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
        Many::built(
            format!("INSERT INTO {}{name} (key{begin}) SELECT * FROM (VALUES ", self.prefix),
            columns.len() + 1,
            format!(") WHERE column1 IS NOT NULL ON CONFLICT (key) DO {action}"),
        )
    }
}

/// Puts what becomes of a column at its place, where there may be something before it.
fn put<'a>(
    cells: &mut Cells<'a>,
    column: usize,
    cell: impl FnOnce(Option<Cell<'a>>) -> Option<Cell<'a>>,
) -> Option<()> {
    match cells.binary_search_by_key(&column, |(column, _)| *column) {
        Ok(place) => {
            let (_, before) = cells.get_mut(place)?;
            *before = cell(Some(*before))?;
        }
        Err(place) => cells.insert(place, (column, cell(None)?)),
    }
    Some(())
}

fn add(before: Option<Cell<'_>>, amount: i64) -> Option<Cell<'_>> {
    match before {
        None => Some(Cell::Add(amount)),
        Some(Cell::Add(sum)) => sum.checked_add(amount).map(Cell::Add),
        Some(Cell::Sum(sum)) => sum.checked_add(amount).map(Cell::Sum),
        Some(Cell::Set(value)) => value.integer()?.checked_add(amount).map(Cell::Sum),
    }
}

/// Binds a value to the next place.
pub(super) fn bind(values: &mut Values, value: &Value) -> PortResult<()> {
    match value {
        Value::Integer(value) => values.int(*value),
        Value::Text(value) => values.text(value),
        Value::Uuid(value) => values.uuid(*value),
    }
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

#[cfg(test)]
mod tests {
    use eventsourcing::ports::ColumnType;

    use super::*;

    const fn column(name: &'static str) -> eventsourcing::ports::Column {
        eventsourcing::ports::Column {
            name,
            kind: ColumnType::Integer,
            index: eventsourcing::ports::Index::None,
        }
    }

    static TABLES: [Table; 1] =
        [Table { name: "sums", columns: &[column("first"), column("second"), column("third")] }];

    fn change(set: Vec<(&'static str, i64)>, add: Vec<(&'static str, i64)>) -> RowChange {
        let set = set.into_iter().map(|(name, value)| (name, Value::Integer(value))).collect();
        RowChange { table: "sums", key: Uuid::from_u128(7), set, add }
    }

    #[test]
    fn many_changes_of_a_row_are_one_row_of_what_they_come_to() {
        let upserts = Upserts::new(&TABLES, "");
        let changes = [
            change(vec![("third", 5)], vec![("first", 1)]),
            change(vec![], vec![("third", 2), ("first", 3)]),
            change(vec![("second", 1)], vec![("third", 1)]),
            change(vec![("second", 9)], vec![]),
        ];
        let groups = upserts.group(changes.iter()).unwrap();
        let shape = (0, vec![(0, true), (1, false), (2, false)]);
        let nine = Value::Integer(9);
        let cells = vec![(0, Cell::Add(4)), (1, Cell::Set(&nine)), (2, Cell::Sum(8))];
        assert_eq!(groups, BTreeMap::from([(shape, vec![(Uuid::from_u128(7), cells)])]));
    }

    #[test]
    fn a_sum_that_is_too_large_is_refused() {
        let upserts = Upserts::new(&TABLES, "");
        for (before, more) in [(vec![("first", i64::MAX)], 1), (vec![], i64::MAX)] {
            let changes = [change(before, vec![("first", more)]), change(vec![], vec![("first", 1)])];
            assert!(upserts.group(changes.iter()).is_err());
        }
    }
}
