//! The platform on PostgreSQL and NATS, one process per component.
//!
//! The rule this module protects: a process owns nothing because it was started, only because the store says so; so any
//! number of each may run, and any of them may be killed.
//!
//! # Layout
//!
//! - [`commands`]: the program `commandsd`: listener, worker and policies, or any of them
//! - [`relayer`]: the program `relayerd`
//! - [`projector`]: the program `queryprojectord`
//! - [`queries`]: the program `queriesd`
//! - [`operations`]: what an operator does: migrate, adopt a queue, ask for health
//! - [`leaving`]: carrying the log away or here; throwing the bus away
//! - `connect`: reaching NATS and PostgreSQL, also before they are up
//! - `ownership`: which partitions a process works
//! - `adoption`: going on with another command queue
//! - `announcing`: waking those in other processes who wait for a commit
//! - `readiness`: saying where a process answers, and serving its health

mod adoption;
mod announcing;
pub mod commands;
mod connect;
pub mod leaving;
pub mod operations;
mod ownership;
pub mod projector;
pub mod queries;
mod readiness;
pub mod relayer;

use std::fmt::Display;
use std::time::Duration;

pub(super) use connect::once;
pub(super) use leaving::{Leaving, arrive};

/// How often the relayer looks, also when nobody woke it.
const RELAY_POLL: Duration = Duration::from_millis(100);

/// How often every other loop looks, also when nobody woke it: what is stored rings its readers, so this is a net.
const POLL: Duration = Duration::from_secs(1);

/// The name under which the policies keep their checkpoints.
const POLICIES: &str = "policies";

/// The name under which the importer of registrations keeps its position.
const IMPORTER: &str = "registering";

fn text(error: impl Display) -> String {
    error.to_string()
}
