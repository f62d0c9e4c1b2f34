//! The values of a statement, and the columns of a row.
//!
//! The rule this module protects: a statement's text is the same however many rows it is about, because rows travel as
//! one array a column; so every text is prepared once a connection, and costs one round trip.

use eventsourcing::partition::{LogPosition, Partition, Sequence};
use eventsourcing::ports::{PortError, PortResult};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, Decode, Encode, Postgres, Row as _, Type};

use super::error::{port_error, too_large};

/// The values of a statement, in order.
#[derive(Default)]
pub(super) struct Values(pub(super) PgArguments);

impl Values {
    /// These values, and one more.
    pub(super) fn and<'t, T: Encode<'t, Postgres> + Type<Postgres>>(mut self, value: T) -> PortResult<Self> {
        self.0.add(value).map_err(|error| PortError::Content(error.to_string()))?;
        Ok(self)
    }

    /// How many there are: the place of the last one.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// One array: the same of each item.
pub(super) fn each<'a, T, V>(items: &'a [T], of: impl Fn(&'a T) -> V) -> Vec<V> {
    items.iter().map(of).collect()
}

/// One array of counters: the same of each item.
pub(super) fn counts<'a, T>(items: &'a [T], of: impl Fn(&'a T) -> u64) -> PortResult<Vec<i64>> {
    items.iter().map(|item| signed(of(item))).collect()
}

/// Partitions, as their column holds them.
pub(super) fn indices<'a, T>(items: &'a [T], of: impl Fn(&'a T) -> Partition) -> Vec<i32> {
    items.iter().map(|item| index(of(item))).collect()
}

/// A partition, as its column holds it.
pub(super) fn index(partition: Partition) -> i32 {
    i32::from(partition.index())
}

/// A counter, as its column holds it.
pub(super) fn signed(value: u64) -> PortResult<i64> {
    i64::try_from(value).map_err(|_| too_large(value))
}

/// A column of a row.
pub(super) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    column: usize,
) -> PortResult<T> {
    row.try_get(column).map_err(|error| port_error(&error))
}

/// A column that holds a number that is never negative.
pub(super) fn count(row: &PgRow, column: usize) -> PortResult<u64> {
    unsigned(get::<i64>(row, column)?)
}

/// A stored number that is never negative, and fits into its type.
pub(super) fn unsigned<N: Copy + std::fmt::Display, T: TryFrom<N>>(value: N) -> PortResult<T> {
    T::try_from(value).map_err(|_| PortError::Broken(format!("{value} is stored where it cannot be")))
}

/// A column that holds a partition.
pub(super) fn partition(row: &PgRow, column: usize) -> PortResult<Partition> {
    Ok(Partition::from_index(unsigned(get::<i32>(row, column)?)?))
}

/// Two columns that hold a partition and a sequence.
pub(super) fn position(row: &PgRow, first: usize) -> PortResult<LogPosition> {
    Ok(LogPosition { partition: partition(row, first)?, sequence: Sequence::new(count(row, first + 1)?) })
}
