//! The distributed platform under harm: processes, the bus and the databases fail, and nothing that was accepted is lost.
//!
//! # Layout
//!
//! - the processes: [`ownership`] (killed, joining, leaving), [`paused`] (stopped, and gone on when another owns what they
//!   had), [`forced`] (two owners at once), [`starting`] (their start and their end), [`processes`] and [`secrets`] (their
//!   settings)
//! - who is away is missed: [`stuck`]
//! - what they stand on: [`queue`], [`bus`], [`registering`] (lost, restored, full), [`outage`] (nobody relays for long)
//! - two of everything: [`available`] (a server of NATS, who leads a stream, and PostgreSQL are lost, one after the other)
//! - backups of different times, and a whole log that moves: [`restored`], [`exported`]
//! - the clients: [`watching`] (a live query whose process dies)
//! - everything at once: [`chaos`]
//! - what they share: `parts` (one process of each component), `cluster` (many), `market` (the clients that keep going
//!   meanwhile), `ledger` (log and bus side by side), and `harness`, as the acceptance tests do
//!
//! These run over PostgreSQL and NATS whatever the topology is that the acceptance tests are run over: an embedded
//! platform has one process to kill, which `crash` does there. So they are a test target of their own, and run once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how one says that something is wrong"
)]

#[expect(dead_code, unused_imports, reason = "each of the two test targets needs another part of it")]
#[path = "../harness/mod.rs"]
mod harness;

mod available;
mod bus;
mod chaos;
mod cluster;
mod exported;
mod forced;
mod ledger;
mod market;
mod outage;
mod ownership;
mod parts;
mod paused;
mod processes;
mod queue;
mod registering;
mod restored;
mod secrets;
mod starting;
mod stuck;
mod verified;
mod watching;
