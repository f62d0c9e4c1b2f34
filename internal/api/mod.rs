//! The gRPC side of the platform.
//!
//! The rule this module protects: what comes in is parsed into types of the domain before anything else sees it, and what
//! goes out is mapped in one place. Nothing here decides, and nothing here knows a store.
//!
//! # Layout
//!
//! - [`server`]: the two servers, command side and query side, from a bound listener until they are stopped
//! - `connections`: who may connect to them, and how many
//! - `command_service`, `integration_service`, `query_service`: the services, one short method a call
//! - `lists`: the paged lists; `facts`: the stream of facts; `health`: who is asked, and stopped, with the server
//! - `parse`: from the wire to the domain, all violations at once; `paging`: page tokens; `ids`: the ids of a command
//! - `wire`: from the read side to the wire
//! - `status`: the one mapping from errors to a status
//! - `call`, `admission`, `deadline`: what every call has in common
//! - [`observation`]: whoever looks on at the calls
//! - `fuzzing`: what must hold for whatever bytes a client sends
//! - [`codec`]: how messages are read off the wire
//! - [`proto`]: what is generated from `proto/`

mod admission;
mod call;
pub mod codec;
mod command_service;
mod connections;
mod deadline;
mod facts;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod health;
mod ids;
mod integration_service;
mod lists;
pub mod observation;
mod paging;
mod parse;
pub mod proto;
mod query_service;
pub mod server;
mod status;
#[cfg(test)]
mod tests;
mod wire;
