//! The acceptance tests: the platform as its clients see it, one file per use case.
//!
//! # Layout
//!
//! - the saga: [`issuer_registered`], [`investor_registered`], [`sell_invoice`], [`bid_on_invoice`],
//!   [`approve_financing`], [`reverse_financing`]; many at once: [`race`]
//! - what a client may rely on: [`queries`], [`live_queries`], [`read_your_writes`], [`idempotence`], [`refusals`], [`bad_input`],
//!   [`services`], [`shell`], [`watch`], [`demo`], [`story`]
//! - what an operator may rely on: [`start`], [`stop`], [`crash`], [`dead_letters`], [`populate`], [`verify`], [`rebuild`], [`bench`],
//!   [`telemetry`]
//! - what an engineer may rely on: [`architecture`], [`documents`], [`compose`]
//! - [`harness`]: what they share
//!
//! Every test has a platform of its own, on free ports, in a directory of its own; so they run in parallel. Nothing sleeps:
//! whoever waits, waits for a condition. With `FINANCING_TEST_TOPOLOGY=distributed` the platform is one process per component,
//! on a NATS server and two databases of the test's own. With `FINANCING_COMMAND_ADDR` and `FINANCING_QUERY_ADDR` it is the
//! one that runs there; then one test at a time (`--test-threads=1`), and tests that harm the platform or count all that it has
//! start an embedded one all the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how one says that something is wrong"
)]

mod approve_financing;
mod architecture;
mod bad_input;
mod bench;
mod bid_on_invoice;
mod compose;
mod crash;
mod dead_letters;
mod demo;
mod documents;
#[expect(dead_code, unused_imports, reason = "each of the two test targets needs another part of it")]
mod harness;
mod idempotence;
mod investor_registered;
mod issuer_registered;
mod live_queries;
mod populate;
mod queries;
mod race;
mod read_your_writes;
mod rebuild;
mod refusals;
mod reverse_financing;
mod sell_invoice;
mod services;
mod shell;
mod start;
mod stop;
mod story;
mod telemetry;
mod verify;
mod watch;
