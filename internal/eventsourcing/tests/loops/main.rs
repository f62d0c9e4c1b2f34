//! The loops together, on one thread and under a seed: the real loops, over ports in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test says what it expects"
)]

mod dead;
mod fence;
mod ledger;
mod market;
mod ownership;
mod rebuilt;
mod replaced;
mod stage;
mod trouble;
