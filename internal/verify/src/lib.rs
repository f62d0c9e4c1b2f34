//! Checks what a platform has stored against its invariants.
//!
//! The rule this crate protects: a defect of the platform cannot hide itself. So nothing here is the platform's own code:
//! stored formats, money, the saga's rules, the ids of its commands and the read models are written down a second time, from
//! the documentation.
//!
//! # Layout
//!
//! - [`Audit`]: takes everything in, one piece at a time, and reports; no I/O
//! - `fold`: what the facts come to, and the rules between them
//! - `saga`: causes and effects; `letters`: dead letters, and what people did about them
//! - `lane`, `commands`: sequences, runs, outcomes, the inbox, the queue
//! - `bus`: how far it is, and whoever reads it
//! - `readmodels`, `snapshot`: what is derived
//! - `facts`, `money`, `record`: the stored formats
//! - [`Breach`], [`Report`]: what is said in the end
//! - `stores` (feature): reads files, databases and streams, with SQL of its own

mod audit;
mod breach;
mod bus;
mod commands;
mod ending;
mod facts;
mod fold;
mod hash;
mod lane;
mod letters;
mod money;
mod readmodels;
mod record;
mod report;
mod saga;
mod snapshot;
#[cfg(feature = "stores")]
pub mod stores;

pub use audit::{Audit, Bus, Expect};
pub use breach::{Breach, Invariant};
pub use lane::PartitionRow;
pub use money::Currency;
pub use readmodels::Row;
pub use record::{Kind, Position, Record};
pub use report::{Bids, Counts, DeadLetter, Invoices, LetterState, OpenSaga, Outcomes, Report, Totals};
