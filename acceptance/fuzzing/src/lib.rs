//! What must hold for whatever bytes arrive from outside.
//!
//! The rule this crate protects: nothing that arrives makes the platform panic; what can be read is the same when it is written
//! and read again; what cannot is refused in words that name what is wrong, and are not longer than what arrived. The fuzzer (`fuzz/`) and
//! the tests run the same functions.
//!
//! # Layout
//!
//! - `lib.rs`: the list; what only modules of the root package can see is beside those modules (`fuzzing.rs`, behind a feature)
//! - `facts`: what the log says: facts, outcomes, snapshots
//! - `messages`: bundles of commands, and what the Registering context sends

mod facts;
mod messages;

pub use facts::{outcome, snapshot, stored_event};
pub use invoice_financing::api::fuzzing::{request, token};
pub use invoice_financing::nats::fuzzing::event as bus_event;
pub use invoice_financing::postgres::fuzzing::url as database_url;
pub use invoice_financing::runtime::fuzzing::configuration;
pub use messages::{bundle, registering};

/// A property of bytes: panics where it does not hold.
pub type Property = fn(&[u8]);

/// Each by the name of its fuzz target and of the folder of its corpus.
pub const TARGETS: &[(&str, Property)] = &[
    ("bundle", bundle),
    ("bus_event", bus_event),
    ("configuration", configuration),
    ("database_url", database_url),
    ("outcome", outcome),
    ("registering", registering),
    ("request", request),
    ("snapshot", snapshot),
    ("stored_event", stored_event),
    ("token", token),
];

/// The most that a refusal may say beyond what it refuses: it may list all currencies.
const MOST_WORDS: usize = 4096;
