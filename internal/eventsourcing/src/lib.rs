//! The kernel of an event-sourced platform: what moves commands and facts, and knows nothing of what they mean.
//!
//! # Layout
//!
//! - [`partition`]: the unit of order, parallelism, ownership and failover; sequences, versions, epochs
//! - [`model`]: what a bounded context gives the kernel: decide, evolve, and how its events are written down
//! - [`command`]: a command on its way, and the bundles that carry several
//! - [`record`]: one line of the event log: a fact, or the outcome of a command that produced none
//! - [`cloudevent`]: a record as the world outside sees it
//! - [`outcome`]: what became of a command
//! - [`ports`]: the small traits behind which stores, queues and buses live
//! - [`environment`]: clock, randomness, wake-ups and stop signals, all of them parameters
//! - [`assignment`]: which partitions a loop owns
//! - [`membership`]: who owns which partition, where several processes share the work
//! - [`turn`]: the one loop shape; retries in place, backoff, stop
//! - [`desk`]: where those sit who wait for an outcome
//! - [`listener`], [`worker`], [`relayer`], [`policy`], [`projector`]: the five loops
//! - [`importer`]: a sixth, beside them: what other contexts say, as commands
//! - [`rebuild`]: read models built anew beside those that are read; [`shadow`]: the port that it writes to
//! - [`queue`]: how a reader proves that the queue in front of it is the one it remembers, and how a person accepts another
//! - [`transfer`]: a whole log on its way to another store
//! - [`deadletters`]: where dead letters are kept that need no place of their own
//! - [`letters`]: dead letters as people see them: found, read, retried and discarded
//! - [`observer`]: whoever looks on at the loops
//! - [`mutants`]: planted bugs, so that what looks for bugs can show that it finds them; none without the feature of that name
//! - `testkit` (feature): in-memory ports, the contract suite, given/when/then scenarios

pub mod assignment;
pub mod cloudevent;
pub mod command;
mod consequences;
pub mod deadletters;
pub mod desk;
pub mod environment;
pub mod importer;
pub mod letters;
pub mod listener;
pub mod membership;
pub mod model;
pub mod mutants;
pub mod observer;
pub mod outcome;
pub mod partition;
pub mod policy;
pub mod ports;
pub mod projector;
pub mod queue;
pub mod rebuild;
pub mod record;
pub mod relayer;
mod rotation;
pub mod shadow;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod transfer;
pub mod turn;
pub mod worker;
