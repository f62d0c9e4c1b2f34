//! The small traits behind which stores, queues and buses live.
//!
//! The rule this module protects: what has to happen together is one call, so that an adapter can make it one
//! transaction; and a call takes work for many partitions at once, so that an adapter can make it one round trip.
//!
//! # Layout
//!
//! - [`queue`]: the command queue, and where outcomes go
//! - [`log`]: the event log, with inbox, snapshots, partition rows and checkpoints
//! - [`bus`]: the event bus
//! - [`read_models`]: the tables that queries read
//! - [`ownership`]: who owns which partition
//! - [`integration`]: other contexts, and dead letters

mod bus;
mod integration;
mod log;
mod ownership;
mod queue;
mod read_models;

use crate::turn::Trouble;

pub use bus::{BusTail, EventBus, Publication};
pub use integration::{
    DeadCommands, DeadLetter, DeadLetters, DeadQuery, ForeignEvents, ForeignLetter, ForeignLetters,
    ForeignMessage, ForeignPosition, ForeignPositions,
};
pub use log::{
    Beyond, CheckpointMove, Checkpoints, Commit, EventLog, Follows, History, InboxEntry, LoadRequest, Loaded,
    PartitionCommit, PartitionRow, Snapshot, StoredEvent,
};
pub use ownership::{Leases, Role};
pub use queue::{CommandQueue, QueuePosition, QueuedMessage, Replies};
pub use read_models::{
    Column, ColumnType, Index, Projected, ProjectionStep, RankedQuery, ReadModelSchema, ReadModels, Row,
    RowChange, RowQuery, Table, Test, Value,
};

/// Why a port could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The infrastructure failed, or its answer was lost: it may or may not have happened.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Something in the request cannot be stored, however often it is tried.
    #[error("the store refuses the content: {0}")]
    Content(String),
    /// Another writer was first with something that must be unique. Nothing happened; look again.
    #[error("another writer was first: {0}")]
    Conflict(String),
    /// It has no room. Nothing happened.
    #[error("full: {0}")]
    Full(String),
    /// What is stored is not what must be there: a person has to look.
    #[error("{0}")]
    Broken(String),
}

impl PortError {
    /// What a loop does about it where it has no better idea: the one place that says whether to retry.
    #[must_use]
    pub fn trouble(self) -> Trouble {
        match self {
            Self::Unavailable(_) | Self::Conflict(_) | Self::Full(_) => Trouble::Retry(self.to_string()),
            Self::Content(_) | Self::Broken(_) => Trouble::Halt(self.to_string()),
        }
    }
}

/// The answer of a port.
pub type PortResult<T> = Result<T, PortError>;
