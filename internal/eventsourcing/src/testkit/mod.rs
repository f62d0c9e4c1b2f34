//! What tests are made of.
//!
//! # Layout
//!
//! - [`contract`]: one suite a port, which every adapter passes, and samples to write down
//! - [`memory`]: every port in memory, with a place for faults
//! - [`world`]: one thread, a virtual clock and dice under a seed, for the loops to live in
//! - [`scenario`]: given/when/then for aggregates

pub mod contract;
pub mod memory;
pub mod scenario;
pub mod world;
