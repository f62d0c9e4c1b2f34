//! The gRPC side of the platform.
//!
//! The rule this module protects: what comes in is parsed into types of the domain before anything else sees it, and what
//! goes out is mapped in one place. Nothing here decides, and nothing here knows a store.
//!
//! # Layout
//!
//! - [`server`]: the servers: command side, query side, admin door, from a bound listener until they are stopped
//! - `connections`: who may connect to them, and how many
//! - `command_service`, `integration_service`, `query_service`: the services, one short method a call
//! - [`dead_letters`]: the service of those who look after what could not be done
//! - `lists`: the paged lists; `story`: one invoice's story, and what is stuck; `facts`: the stream of facts; `health`: who is asked, and stopped, with the server
//! - `watch`: live queries; `outbox`: what their clients have not taken yet; `resume`: where they go on
//! - `parse`: from the wire to the domain, all violations at once; `paging`: page tokens; `ids`: the ids of a command
//! - [`platform`]: what the platform tells of itself
//! - `wire`: from the read side to the wire
//! - `status`: the one mapping from errors to a status
//! - [`admin`]: the admin door
//! - `call`, `admission`, `deadline`: what every call has in common; `gate`: what is refused before it is one;
//!   `serving`: the connections that they come in on
//! - [`observation`]: whoever looks on at the calls
//! - `fuzzing`: what must hold for whatever bytes a client sends
//! - [`codec`]: how messages are read off the wire
//! - [`proto`]: what is generated from `proto/`

pub mod admin;
mod admission;
mod call;
pub mod codec;
mod command_service;
mod connections;
pub mod dead_letters;
mod deadline;
mod facts;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod health;
pub(crate) mod ids;
mod integration_service;
mod lists;
pub mod observation;
mod outbox;
mod paging;
mod parse;
pub mod platform;
pub mod proto;
mod query_service;
mod resume;
pub mod server;
mod serving;
mod status;
mod story;
#[cfg(test)]
mod tests;
mod watch;
mod wire;
