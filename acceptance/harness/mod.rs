//! What the acceptance tests share.
//!
//! # Layout
//!
//! - [`words`]: money, ids, conditions and errors in the words of the tests
//! - [`platform`]: the platform as a process, on free ports, driven as anybody else would
//! - [`client`]: what a client asks of it, in one line each
//! - [`facts`]: watching the facts as they come, and checking their order
//! - [`audit`]: adding up the money and the outcomes of a whole log
//! - [`load`]: many clients at once, who remember what they were promised
//! - [`query_side`]: the query side alone, in this process, fed with facts

mod audit;
mod client;
mod facts;
mod load;
mod platform;
mod query_side;
mod words;

pub(crate) use invoice_financing::api::proto::financing::v1 as proto;
pub(crate) use invoice_financing::api::proto::registering::v1 as registering;

pub(crate) use audit::Audit;
pub(crate) use client::{investor_registered, issuer_registered};
pub(crate) use facts::Facts;
pub(crate) use load::Load;
pub(crate) use platform::{Home, Platform};
pub(crate) use query_side::QuerySide;
pub(crate) use words::{cents, eur, in_time, information, json, money, reason, uuid, violated, wait};
