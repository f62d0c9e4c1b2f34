//! The distributed adapters of what is stored: event log and read models in PostgreSQL, in two databases that may be two
//! servers.
//!
//! The rule this module protects: whatever was acknowledged is on disk; of two owners one writes; and a process that is
//! paused, wherever it is, is in nobody's way. So every operation is one statement, which is its own transaction; a rebuild's last
//! moment is the one that is not, and the server ends it where it is paused.
//!
//! # Layout
//!
//! - [`connect`]: connections whose settings were read back
//! - [`database`]: connections that are used again only when their statement has come to an end
//! - [`sql`]: the values of a statement, and the columns of a row
//! - [`migrate`]: the tables, made once, by whoever may
//! - [`deployment`]: the refusal to open another deployment's database
//! - [`log`], [`commit`], [`load`], [`checkpoints`], [`foreign`]: the event log, and what is kept beside it
//! - [`dead`]: the dead letters in it
//! - [`export`], [`import`]: a whole log, carried away and brought here
//! - [`leases`]: who tries which partition, in either database
//! - [`readmodels`], [`tables`], [`chain`], [`upsert`]: the read models; [`rebuild`]: a second set of them
//! - `fuzzing`: what must hold for whatever somebody gives as a database's URL
//! - [`error`]: what an error of PostgreSQL means to a port

mod chain;
mod checkpoints;
mod commit;
mod connect;
mod database;
mod dead;
mod deployment;
mod error;
mod export;
mod foreign;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod import;
mod leases;
mod load;
mod log;
mod migrate;
mod readmodels;
mod rebuild;
mod sql;
mod tables;
#[cfg(test)]
mod tests;
mod upsert;

pub use connect::Connect;
pub use error::OpenError;
pub use export::PostgresExport;
pub use import::PostgresImport;
pub use log::{PostgresLog, migrate_log};
pub use readmodels::{PostgresReadModels, migrate_read_models};
pub use rebuild::PostgresShadow;
