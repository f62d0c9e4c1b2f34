//! What the business is specified to do, in sentences.
//!
//! - `issuer`, `investor`, `invoice`: every rule and every refusal of each aggregate
//! - `policies`: what follows from what
//! - `saga`: the aggregates and the policies together, driven by hand and by chance
//! - `context`: the aggregates as one bounded context
//! - `reproducers`: what the reference implementation gets wrong
//! - `golden`: every fact ever written can be read
//! - `registering`: what the Registering context sends over the bus
//! - `wire`: money, catalogue, commands and integration events as others see them

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod context;
mod golden;
mod golden_commands;
mod investor;
mod invoice;
mod issuer;
mod policies;
mod registering;
mod reproducers;
mod saga;
mod vocabulary;
mod wire;
mod world;
