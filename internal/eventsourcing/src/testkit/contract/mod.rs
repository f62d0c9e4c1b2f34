//! One suite a port, which every adapter passes.
//!
//! The rule this module protects: the loops are written against what a port promises, so whatever keeps the promise
//! in memory keeps it on disk and over the network in the same way, or its own tests say so.
//!
//! Every suite takes a closure that makes a fresh, empty store, with room for [`PARTITIONS`]; the read models are
//! opened with [`sample::TABLES`]. A clone of a port is another handle on the same store. A promise that is broken
//! panics, in the case that names it.
//!
//! # Layout
//!
//! - [`sample`]: records, outcomes, snapshots, bundles and tables to test with, and an owner that writes them
//! - `queue`: [`command_queue`]
//! - `log`, `load`: [`event_log`]: its commits, and what is read back
//! - `checkpoints`: [`checkpoints`]
//! - `bus`: [`event_bus`]
//! - `read_models`: [`read_models`]; `rebuild`: [`rebuilds`], beside those that are read, and
//!   [`swaps_beside_readers`]
//! - `leases`: [`leases`]
//! - `foreign`: [`foreign_events`] and [`foreign_positions`]
//! - `dead_letters`: [`dead_letters`] and [`foreign_letters`]
//! - `dead_commands`: [`dead_commands`]
//! - `waiting`: [`waiting`]
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a contract is a test: a broken promise panics, wherever the adapter lives"
)]

mod bus;
mod checkpoints;
mod dead_commands;
mod dead_letters;
mod foreign;
mod leases;
mod load;
mod log;
mod queue;
mod read_models;
mod rebuild;
pub mod sample;
mod waiting;

use std::collections::BTreeMap;

pub use bus::event_bus;
pub use checkpoints::checkpoints;
pub use dead_commands::dead_commands;
pub use dead_letters::{dead_letters, foreign_letters};
pub use foreign::{foreign_events, foreign_positions};
pub use leases::leases;
pub use log::event_log;
pub use queue::command_queue;
pub use read_models::read_models;
pub use rebuild::{rebuilds, swaps_beside_readers};
pub use waiting::waiting;

use crate::partition::{Partition, PartitionCount};

/// How many partitions the stores under test have.
pub const PARTITIONS: PartitionCount = PartitionCount::DEFAULT;

/// An answer about partitions, of which the order does not matter; each partition is in it once.
fn by_partition<T>(answers: Vec<(Partition, T)>) -> BTreeMap<Partition, T> {
    let count = answers.len();
    let map: BTreeMap<_, _> = answers.into_iter().collect();
    assert_eq!(map.len(), count, "a partition is answered twice");
    map
}
