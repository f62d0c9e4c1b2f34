//! Many changes of many rows as one statement.
//!
//! The rule this module protects: the row afterwards is what the changes would have made of it one after the other; and a
//! column that no change names stays as it is, whoever else is writing it at that moment.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use eventsourcing::ports::{ColumnType, PortError, PortResult, RowChange, Table, Value};
use sqlx::types::Uuid;

use super::chain::{Chain, changes};
use super::error::too_large;
use super::sql::{Values, counts, each, indices};
use super::tables::{array_type, column, table};

/// What becomes of one column of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell<'a> {
    Integer(i64),
    Text(&'a str),
    Uuid(Uuid),
    /// What the column has, and this.
    Plus(i64),
}

impl<'a> Cell<'a> {
    const fn of(value: &'a Value) -> Self {
        match value {
            Value::Integer(value) => Self::Integer(*value),
            Value::Text(value) => Self::Text(value.as_str()),
            Value::Uuid(value) => Self::Uuid(*value),
        }
    }

    const fn integer(self) -> Option<i64> {
        match self {
            Self::Integer(value) | Self::Plus(value) => Some(value),
            Self::Text(_) | Self::Uuid(_) => None,
        }
    }

    const fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(value) => Some(value),
            Self::Integer(_) | Self::Uuid(_) | Self::Plus(_) => None,
        }
    }

    const fn uuid(self) -> Option<Uuid> {
        match self {
            Self::Uuid(value) => Some(value),
            Self::Integer(_) | Self::Text(_) | Self::Plus(_) => None,
        }
    }
}

/// What becomes of one row, by column index.
type Cells<'a> = BTreeMap<usize, Cell<'a>>;

/// A table, and its columns that are added to. No change ever takes a value away, so a column that is not named travels as
/// NULL and stays; rows with the same shape share an array a column, and a table that nothing is added to has one shape.
type Shape = (usize, Vec<usize>);

/// The rows of each shape, in the order of their keys: two projectors that want the same rows of a shape do not wait for
/// each other.
type Groups<'a> = BTreeMap<Shape, Vec<(Uuid, Cells<'a>)>>;

/// The statement begins with the checkpoints. Their rows are locked in the order of their partitions, and what was locked
/// is compared, so whoever waited sees what the other has written. Either every step is where it must be, or nothing
/// happens; the answer is which of them are.
const BEGIN: &str = "WITH step AS MATERIALIZED (SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::uuid[]) \
     AS s(partition, origin, target, record_id)), \
     locked AS MATERIALIZED (SELECT partition, sequence FROM {checkpoints} WHERE partition = ANY($1::int[]) \
     ORDER BY partition FOR UPDATE), \
     ready AS MATERIALIZED (SELECT s.* FROM step s JOIN locked l ON l.partition = s.partition AND l.sequence = s.origin), \
     go AS MATERIALIZED (SELECT count(*) = cardinality($1::int[]) AS go FROM ready), \
     moved AS (UPDATE {checkpoints} c SET sequence = r.target, record_id = r.record_id FROM ready r CROSS JOIN go \
     WHERE go.go AND c.partition = r.partition)";

/// Places of the statement's beginning.
const PLACES: usize = 4;

/// The statements that were needed so far, one a set of shapes: as many as the projection mixes kinds of changes.
pub(super) struct Upserts {
    tables: &'static [Table],
    /// What stands before the names of the tables that are written.
    prefix: &'static str,
    statements: Mutex<HashMap<Vec<Shape>, Arc<str>>>,
}

impl Upserts {
    pub(super) fn new(tables: &'static [Table], prefix: &'static str) -> Self {
        Self { tables, prefix, statements: Mutex::new(HashMap::new()) }
    }

    /// The statement that applies these chains, and its values. No partition may have two.
    pub(super) fn statement(&self, chains: &[Chain<'_>]) -> PortResult<(Arc<str>, Values)> {
        let groups = self.group(changes(chains))?;
        let mut values = Values::default()
            .and(indices(chains, Chain::partition))?
            .and(counts(chains, |chain| chain.from().get())?)?
            .and(counts(chains, |chain| chain.to().get())?)?
            .and(each(chains, Chain::record_id))?;
        for ((index, _), rows) in &groups {
            values = values.and(each(rows, |(key, _)| *key))?;
            let columns = self.tables.get(*index).map_or(&[][..], |table| table.columns);
            for (place, column) in columns.iter().enumerate() {
                values = array(values, column.kind, rows, place)?;
            }
        }
        Ok((self.text(groups.into_keys().collect()), values))
    }

    fn group<'a>(&self, changes: impl Iterator<Item = &'a RowChange>) -> PortResult<Groups<'a>> {
        let mut rows: BTreeMap<(usize, Uuid), Cells<'a>> = BTreeMap::new();
        for change in changes {
            let (index, table) = table(self.tables, change.table)?;
            let cells = rows.entry((index, change.key)).or_default();
            for (name, value) in &change.set {
                cells.insert(column(table, name)?, Cell::of(value));
            }
            for (name, amount) in &change.add {
                let column = column(table, name)?;
                let before = cells.remove(&column);
                let sum = add(before, *amount).ok_or_else(|| too_large(format!("{name} + {amount}")))?;
                cells.insert(column, sum);
            }
        }
        let mut groups = Groups::new();
        for ((table, key), cells) in rows {
            let added = cells.iter().filter(|(_, cell)| matches!(cell, Cell::Plus(_)));
            groups.entry((table, added.map(|(column, _)| *column).collect())).or_default().push((key, cells));
        }
        Ok(groups)
    }

    fn text(&self, shapes: Vec<Shape>) -> Arc<str> {
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = statements.get(&shapes) {
            return Arc::clone(text);
        }
        let text: Arc<str> = self.build(&shapes).into();
        statements.insert(shapes, Arc::clone(&text));
        text
    }

    fn build(&self, shapes: &[Shape]) -> String {
        let begin = BEGIN.replace("{checkpoints}", &format!("{}checkpoints", self.prefix));
        let (mut text, mut place) = (begin, PLACES);
        for (number, (index, added)) in shapes.iter().enumerate() {
            let Some(table) = self.tables.get(*index) else { continue };
            let (mut names, mut sets) = ("\"key\"".to_owned(), Vec::new());
            place += 1;
            let mut arrays = format!("${place}::uuid[]");
            for (column_index, column) in table.columns.iter().enumerate() {
                let name = column.name;
                place += 1;
                // Writing to a String does not fail.
                let _written = write!(names, ", \"{name}\"");
                let _written = write!(arrays, ", ${place}::{}", array_type(column));
                sets.push(if added.contains(&column_index) {
                    format!("\"{name}\" = COALESCE(t.\"{name}\", 0) + excluded.\"{name}\"")
                } else {
                    format!("\"{name}\" = COALESCE(excluded.\"{name}\", t.\"{name}\")")
                });
            }
            let (table, sets) = (format!("{}{}", self.prefix, table.name), sets.join(", "));
            let action = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {sets}") };
            let _written = write!(
                text,
                ", upsert_{number} AS (INSERT INTO \"{table}\" AS t ({names}) SELECT v.* FROM go CROSS JOIN \
                 unnest({arrays}) AS v({names}) WHERE go.go ORDER BY v.\"key\" ON CONFLICT (\"key\") DO {action})"
            );
        }
        text.push_str(" SELECT partition FROM ready");
        text
    }
}

/// One column of the rows: NULL where it is not named.
fn array(values: Values, kind: ColumnType, rows: &[(Uuid, Cells)], place: usize) -> PortResult<Values> {
    match kind {
        ColumnType::Integer => values.and(typed(rows, place, Cell::integer)?),
        ColumnType::Text => values.and(typed(rows, place, Cell::text)?),
        ColumnType::Uuid => values.and(typed(rows, place, Cell::uuid)?),
    }
}

fn typed<'a, T>(
    rows: &[(Uuid, Cells<'a>)],
    place: usize,
    of: impl Fn(Cell<'a>) -> Option<T>,
) -> PortResult<Vec<Option<T>>> {
    let value = |cell: &Cell<'a>| {
        of(*cell).ok_or_else(|| PortError::Broken(format!("{cell:?} is not of its column's type")))
    };
    rows.iter().map(|(_, cells)| cells.get(&place).map(value).transpose()).collect()
}

fn add(before: Option<Cell<'_>>, amount: i64) -> Option<Cell<'_>> {
    match before {
        None => Some(Cell::Plus(amount)),
        Some(Cell::Plus(sum)) => sum.checked_add(amount).map(Cell::Plus),
        Some(Cell::Integer(value)) => value.checked_add(amount).map(Cell::Integer),
        Some(Cell::Text(_) | Cell::Uuid(_)) => None,
    }
}
