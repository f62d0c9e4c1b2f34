//! The distributed adapters for NATS JetStream: command queue, event bus, other contexts' events, dead letters, replies
//! and wake-ups.
//!
//! The rule this module protects: nobody shares a consumer. Whoever reads a stream reads it in order from a position that it
//! stores itself; what the server keeps for a reader may be lost at any time.
//!
//! # Layout
//!
//! - [`settings`], [`connect`]: what a connection is made with; the connection, and what a server has to be
//! - [`watchman`]: who leaves a server that its cluster does not reach
//! - [`streams`], [`compare`]: the streams: created, read back, compared
//! - [`queue`], [`bus`]: the command queue and the event bus; [`depth`]: how much waits in the queue
//! - [`foreign`]: other contexts' events; [`dead`], [`letters`]: dead letters, kept and read
//! - [`replies`], [`wake`]: outcomes and wake-ups between processes, which may be lost
//! - [`event`], [`time`]: a record as a message
//! - [`publish`]: messages in order, and their acknowledgements
//! - [`tails`], [`window`], [`follower`], [`fetch`]: reading from any position: what came last from memory, the rest in pages
//! - [`leaving`]: what stays in the streams when a platform goes, and streams that a person throws away
//! - `fuzzing`: what must hold for whatever message stands on the bus
//! - [`error`]: what an answer of the server means

mod bus;
mod compare;
mod connect;
mod dead;
mod depth;
mod error;
mod event;
mod fetch;
mod follower;
mod foreign;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod leaving;
mod letters;
mod publish;
mod queue;
mod replies;
mod settings;
mod streams;
mod tails;
#[cfg(test)]
mod tests;
mod time;
mod wake;
mod watchman;
mod window;

pub use bus::NatsBus;
pub use connect::{Nats, connect};
pub use dead::NatsDeadLetters;
pub use depth::NatsDepth;
pub use error::NatsError;
pub use foreign::NatsForeignEvents;
pub use queue::NatsQueue;
pub use replies::{NatsReplies, reply_address};
pub use settings::Connect;
pub use streams::Streams;
pub use wake::Wake;
