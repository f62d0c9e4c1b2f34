//! The business of invoice financing: who may do what, what follows from it, and how it is written down.
//!
//! The rule this crate protects: no I/O, no clock and no randomness. Everything here is a function of its
//! arguments, so that the whole business can be tested, replayed and read without a platform around it.
//!
//! # Layout
//!
//! - [`ids`], [`name`], [`currency`], [`money`]: the types that a request is parsed into, once, at the edge
//! - [`issuer`], [`investor`], [`invoice`]: the aggregates, each with its commands and its facts
//! - [`reservation`]: what an investor's account sets aside for one bid
//! - [`refusal`]: why the business says no, and the published catalogue of reasons
//! - [`events`]: the sum of all facts, and how each version of each is written down and read
//! - [`financing`]: the bounded context as the kernel sees it
//! - [`saga`]: what follows from what
//! - [`integration`]: what arrives from the Registering context
//! - [`story`]: the words of one invoice's story, from cause to effect
//! - [`views`]: the words of the read side, and the port through which it is asked; [`live`]: the same of live
//!   queries

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod coded;
pub mod currency;
pub mod events;
pub mod financing;
pub mod ids;
pub mod integration;
pub mod investor;
pub mod invoice;
pub mod issuer;
pub mod live;
pub mod money;
pub mod name;
pub mod refusal;
pub mod reservation;
pub mod saga;
pub mod story;
pub mod views;
