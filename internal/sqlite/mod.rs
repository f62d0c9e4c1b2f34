//! The embedded adapters: event log, command queue, event bus and read models in `SQLite` files of one directory.
//!
//! The rule this module protects: whatever was acknowledged is on disk, and one process at a time writes a directory.
//!
//! # Layout
//!
//! - [`lock`]: one process a directory
//! - [`connect`]: connections whose settings were read back
//! - [`writer`]: one writer a file, one flush for everything that waits together
//! - [`sql`]: statements for many rows at once
//! - [`schema`]: the tables of the log's file, and the refusal to open another deployment's
//! - [`platform`]: the store of log, queue and bus in one file
//! - [`log`], [`commit`], [`load`], [`checkpoints`]: the event log
//! - [`dead`]: the dead letters in it
//! - [`queue`], [`depth`], [`bus`]: the command queue, and how much waits in it; the bus, which is the log up to a durable position
//! - [`export`], [`import`]: a whole log, carried away and brought here
//! - [`tail`], [`memory`]: what was committed last, so that most reads need no SQL
//! - [`readmodels`], [`upsert`]: the read models, in a file of their own
//! - [`rebuild`]: a second set of the read models beside the first, until it takes its place
//! - [`error`]: what an error of `SQLite` means to a port

mod bus;
mod checkpoints;
mod commit;
mod connect;
mod dead;
mod depth;
mod error;
mod export;
mod import;
mod load;
mod lock;
mod log;
mod memory;
mod platform;
mod queue;
mod readmodels;
mod rebuild;
mod schema;
mod sql;
mod tail;
#[cfg(test)]
mod tests;
mod upsert;
mod writer;

pub use bus::SqliteBus;
pub use error::OpenError;
pub use export::SqliteExport;
pub use import::SqliteImport;
pub use lock::DirectoryLock;
pub use log::SqliteLog;
pub use platform::{Access, PlatformStore, Signals};
pub use queue::SqliteQueue;
pub use readmodels::SqliteReadModels;
pub use rebuild::SqliteShadow;
