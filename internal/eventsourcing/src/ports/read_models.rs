//! The read models: tables of rows, whatever they show.
//!
//! The rule this module protects: rows and checkpoints are one call, and so one transaction.

use std::future::Future;

use uuid::Uuid;

use super::PortResult;
use super::log::CheckpointMove;
use crate::partition::{Partition, Sequence};

/// The type of a read model's column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// A 64-bit integer.
    Integer,
    /// Text.
    Text,
    /// A UUID.
    Uuid,
}

/// A read model's column. Every column is written from the facts of one partition only, and may be absent.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnType,
    /// How rows are found by it.
    pub index: Index,
}

/// How a store finds rows by a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// By looking at every row: nobody asks.
    None,
    /// Lists are filtered by it.
    All,
    /// Rows are listed in its order while they have no value in this other column. The index holds only those, so it
    /// stays small where a row soon gets that value.
    WhileAbsent(&'static str),
}

/// A read model's table: rows under a UUID.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, beside the key.
    pub columns: &'static [Column],
}

/// The tables that a store of read models has.
#[derive(Debug, Clone, Copy)]
pub struct ReadModelSchema {
    /// Grows whenever the projection or a table changes: then the store is to be made anew.
    pub version: u32,
    /// The tables.
    pub tables: &'static [Table],
}

/// The value in a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A 64-bit integer.
    Integer(i64),
    /// Text.
    Text(String),
    /// A UUID.
    Uuid(Uuid),
}

impl Value {
    /// The integer, where it is one.
    #[must_use]
    pub const fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Text(_) | Self::Uuid(_) => None,
        }
    }

    /// The text, where it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(value) => Some(value),
            Self::Integer(_) | Self::Uuid(_) => None,
        }
    }

    /// The UUID, where it is one.
    #[must_use]
    pub const fn uuid(&self) -> Option<Uuid> {
        match self {
            Self::Uuid(value) => Some(*value),
            Self::Integer(_) | Self::Text(_) => None,
        }
    }
}

/// What a record changes in one row. The row is made where there is none. A change sets a column or adds to it, never
/// both; a sum that leaves the type's range is a [`PortError::Content`](super::PortError::Content).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The table.
    pub table: &'static str,
    /// The row.
    pub key: Uuid,
    /// Columns that get a value.
    pub set: Vec<(&'static str, Value)>,
    /// Integer columns that something is added to; an absent one counts as zero.
    pub add: Vec<(&'static str, i64)>,
}

/// How far a projection has come in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Projected {
    /// The last record that it has seen.
    pub sequence: Sequence,
    /// That record's id: a log that was restored has another one there. `None` before the first.
    pub record_id: Option<Uuid>,
}

/// One partition's part of a projector's transaction.
#[derive(Debug, Clone)]
pub struct ProjectionStep {
    /// How the checkpoint moves: by compare-and-set, in the same transaction.
    pub checkpoint: CheckpointMove,
    /// The id of the record that it moves to.
    pub record_id: Uuid,
    /// The row changes, in order.
    pub changes: Vec<RowChange>,
}

/// What a column must be for a row to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// It has this value.
    Is(Value),
    /// It has a value.
    Present,
    /// It has none.
    Absent,
}

/// Rows of one table.
#[derive(Debug, Clone)]
pub struct RowQuery {
    /// The table.
    pub table: &'static str,
    /// All of these hold.
    pub conditions: Vec<(&'static str, Test)>,
    /// Only rows with one of these keys, of which there are a thousand at most; `None` where the key does not matter.
    pub keys: Option<Vec<Uuid>>,
    /// Only rows with a greater key, in the order of the UUIDs' bytes.
    pub after: Option<Uuid>,
    /// At most this many.
    pub limit: u32,
}

/// Rows of one table in the order of an integer column.
#[derive(Debug, Clone)]
pub struct RankedQuery {
    /// The table.
    pub table: &'static str,
    /// All of these hold.
    pub conditions: Vec<(&'static str, Test)>,
    /// The column: the least comes first, and where it is the same the order is that of the keys. Rows without a value are
    /// not listed.
    pub by: &'static str,
    /// Only rows where that column is at most this.
    pub up_to: i64,
    /// At most this many.
    pub limit: u32,
}

/// A row as it is read: the value of each of the table's columns, in the table's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The row's key.
    pub key: Uuid,
    /// The values.
    pub values: Vec<Option<Value>>,
}

/// The read models: tables and the projection's checkpoints, in one store.
pub trait ReadModels: Send + Sync + 'static {
    /// How far the projection has come in each partition.
    fn checkpoints(
        &self,
        partitions: &[Partition],
    ) -> impl Future<Output = PortResult<Vec<(Partition, Projected)>>> + Send;

    /// Applies steps in one transaction. One answer a step, in order; `false`: its checkpoint was not where the
    /// projector remembers it, and nothing of that step happened.
    fn apply(&self, steps: Vec<ProjectionStep>) -> impl Future<Output = PortResult<Vec<bool>>> + Send;

    /// The row under a key.
    fn row(&self, table: &'static str, key: Uuid) -> impl Future<Output = PortResult<Option<Row>>> + Send;

    /// The rows that a query asks for, in the order of their keys.
    fn rows(&self, query: &RowQuery) -> impl Future<Output = PortResult<Vec<Row>>> + Send;

    /// The rows that a query asks for, in the order of a column.
    fn ranked(&self, query: &RankedQuery) -> impl Future<Output = PortResult<Vec<Row>>> + Send;
}
