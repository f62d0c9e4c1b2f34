//! Reads all that a platform has stored into an [`Audit`](crate::Audit): files, databases, streams.
//!
//! The rule this module protects: on a platform that runs meanwhile, nothing is called wrong that only is not there yet. So what
//! is derived is looked at before what it derives from, and the log last:
//!
//! 1. the read models' checkpoints, in a snapshot that stays open until their rows are read: they show a prefix of the bus;
//! 2. the policies' checkpoints: they have read a prefix of the bus, and what follows from it is in the queue, or was;
//! 3. the bus: it has a prefix of the log;
//! 4. the queue: what has left it since has an outcome in the log;
//! 5. the log with inbox, partitions' rows and snapshots, in one snapshot;
//! 6. the ends of the bus again: whatever in the log follows from a record, that record was on the bus before it;
//! 7. the messages at the queue's positions, as the log has them; where one is gone, whether the position moved on.
//!
//! The embedded platform has 2 to 7 in one file, and so in one snapshot: it is all one moment. Nothing is written anywhere, and
//! nobody is locked out; but an open snapshot keeps a database from forgetting what has changed since, so an audit of a large
//! platform is better made of a copy.

mod bundle;
mod distributed;
mod embedded;
mod event;
mod postgres;
mod sqlite;

pub use distributed::{Distributed, distributed};
pub use embedded::embedded;

/// Why something could not be looked at. That is no breach: nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file, a database or a stream cannot be opened or read.
    #[error("{place}: {reason}")]
    Unreadable {
        /// Which.
        place: String,
        /// Why.
        reason: String,
    },
}

impl StoreError {
    fn new(place: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Self::Unreadable { place: place.to_string(), reason: reason.to_string() }
    }
}
