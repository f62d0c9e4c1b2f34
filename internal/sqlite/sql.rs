//! Statements for many rows at once.
//!
//! The rule this module protects: the number of statements does not grow with the number of rows (each costs about
//! 50 us for its way to the connection's thread), and the number of different statements is small, so that all of them
//! stay prepared. A statement has room for a power of two of rows; the rows that are left over are NULL, match
//! nothing, and cost no binding.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use eventsourcing::ports::{PortError, PortResult};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Decode, Executor as _, Row as _, Sqlite, Type};
use uuid::Uuid;

use super::error::{port_error, too_large};

/// Statements hold 1, 2, 4, ... rows, and at most this many. With 16 columns that is 4,096 of 32,766 variables.
const MOST: usize = 256;
const SIZES: usize = 9;

/// The values of a statement, in order.
#[derive(Default)]
pub(super) struct Values(SqliteArguments);

impl Values {
    fn add<'t, T: sqlx::Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> PortResult<()> {
        self.0.add(value).map_err(|error| PortError::Content(error.to_string()))
    }

    pub(super) fn int(&mut self, value: i64) -> PortResult<()> {
        self.add(value)
    }

    pub(super) fn count(&mut self, value: u64) -> PortResult<()> {
        self.add(i64::try_from(value).map_err(|_| too_large(value))?)
    }

    pub(super) fn text(&mut self, value: &str) -> PortResult<()> {
        self.add(value)
    }

    pub(super) fn blob(&mut self, value: &[u8]) -> PortResult<()> {
        self.add(value)
    }

    pub(super) fn uuid(&mut self, value: Uuid) -> PortResult<()> {
        self.add(value.as_bytes().as_slice())
    }

    pub(super) fn null(&mut self) -> PortResult<()> {
        self.add(None::<i64>)
    }
}

/// A statement over a list of rows: a beginning, `(?, ..), (?, ..)`, and an end. The end must leave rows alone whose
/// `column1` is NULL.
pub(super) struct Many {
    begin: Cow<'static, str>,
    columns: usize,
    end: Cow<'static, str>,
    texts: [OnceLock<Arc<str>>; SIZES],
}

impl Many {
    /// A statement that is known at compile time.
    pub(super) const fn new(begin: &'static str, columns: usize, end: &'static str) -> Self {
        Self {
            begin: Cow::Borrowed(begin),
            columns,
            end: Cow::Borrowed(end),
            texts: [const { OnceLock::new() }; SIZES],
        }
    }

    /// A statement over tables that are declared in code.
    pub(super) const fn built(begin: String, columns: usize, end: String) -> Self {
        Self {
            begin: Cow::Owned(begin),
            columns,
            end: Cow::Owned(end),
            texts: [const { OnceLock::new() }; SIZES],
        }
    }

    fn text(&self, rows: usize) -> PortResult<Arc<str>> {
        let room = rows.next_power_of_two();
        let size = usize::try_from(room.trailing_zeros()).unwrap_or(SIZES);
        let slot = self.texts.get(size).ok_or_else(|| too_large(rows))?;
        Ok(Arc::clone(slot.get_or_init(|| {
            let row = format!("({})", vec!["?"; self.columns].join(","));
            let mut text = String::with_capacity(self.begin.len() + self.end.len() + room * (row.len() + 1));
            // Writing to a String does not fail.
            let _written = write!(text, "{}{}{}", self.begin, vec![row.as_str(); room].join(","), self.end);
            text.into()
        })))
    }

    /// One at a time: the values of the next are bound when the last has run, so that a batch of thousands of rows is not in memory
    /// once more.
    fn statements<'a, T>(
        &'a self,
        items: &'a [T],
        bind: impl Fn(&mut Values, &T) -> PortResult<()> + 'a,
    ) -> impl Iterator<Item = PortResult<(Arc<str>, SqliteArguments)>> + 'a {
        items.chunks(MOST).map(move |chunk| {
            let mut values = Values::default();
            values.0.reserve(chunk.len() * self.columns, 0);
            for item in chunk {
                bind(&mut values, item)?;
            }
            Ok((self.text(chunk.len())?, values.0))
        })
    }

    /// Runs it over the items, for its effect. Answers with the number of the last row that was inserted.
    pub(super) async fn execute<T: Sync>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        bind: impl Fn(&mut Values, &T) -> PortResult<()> + Send,
    ) -> PortResult<i64> {
        let mut last = 0;
        for statement in self.statements(items, bind) {
            let (text, values) = statement?;
            let query = sqlx::query_with::<Sqlite, _>(AssertSqlSafe(text), values);
            last = connection.execute(query).await.map_err(|error| port_error(&error))?.last_insert_rowid();
        }
        Ok(last)
    }

    /// Runs it over the items, for the rows that it returns.
    pub(super) async fn fetch<T: Sync>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        bind: impl Fn(&mut Values, &T) -> PortResult<()> + Send,
    ) -> PortResult<Vec<SqliteRow>> {
        let mut rows = Vec::new();
        for statement in self.statements(items, bind) {
            let (text, values) = statement?;
            rows.append(&mut fetch(connection, text, values).await?);
        }
        Ok(rows)
    }
}

async fn fetch(
    connection: &mut SqliteConnection,
    text: Arc<str>,
    values: SqliteArguments,
) -> PortResult<Vec<SqliteRow>> {
    let query = sqlx::query_with::<Sqlite, _>(AssertSqlSafe(text), values);
    connection.fetch_all(query).await.map_err(|error| port_error(&error))
}

/// Runs one statement with these values, for its rows.
pub(super) async fn rows(
    connection: &mut SqliteConnection,
    text: impl Into<Arc<str>>,
    values: Values,
) -> PortResult<Vec<SqliteRow>> {
    fetch(connection, text.into(), values.0).await
}

/// Splits indices into rounds, so that no key comes twice in one round: the second of two steps of one partition
/// starts where the first ends, and one statement would compare both with the same row.
pub(super) fn rounds<T, K: Ord>(items: &[T], key: impl Fn(&T) -> K) -> Vec<Vec<usize>> {
    let mut seen = std::collections::BTreeMap::new();
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let round: &mut usize = seen.entry(key(item)).or_default();
        if rounds.len() <= *round {
            rounds.push(Vec::new());
        }
        if let Some(indices) = rounds.get_mut(*round) {
            indices.push(index);
        }
        *round += 1;
    }
    rounds
}

/// A column of a row.
pub(super) fn get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
    row: &'r SqliteRow,
    column: usize,
) -> PortResult<T> {
    row.try_get(column).map_err(|error| port_error(&error))
}

/// A column that holds a number that is never negative.
pub(super) fn count(row: &SqliteRow, column: usize) -> PortResult<u64> {
    unsigned(get::<i64>(row, column)?)
}

/// A stored number that is never negative, and fits into its type.
pub(super) fn unsigned<T: TryFrom<i64>>(value: i64) -> PortResult<T> {
    T::try_from(value).map_err(|_| PortError::Broken(format!("{value} is stored where it cannot be")))
}

/// A column that holds a UUID.
pub(super) fn uuid(row: &SqliteRow, column: usize) -> PortResult<Uuid> {
    Uuid::from_slice(get::<&[u8]>(row, column)?)
        .map_err(|error| PortError::Broken(format!("what is stored is no UUID: {error}")))
}
