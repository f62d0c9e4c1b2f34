//! What the acceptance tests share.
//!
//! # Layout
//!
//! - [`words`]: money, ids, conditions and errors in the words of the tests
//! - [`program`]: one process, driven as an operator would
//! - [`home`]: what a platform keeps, in either topology
//! - [`platform`]: the platform, in the topology that the tests are run over, on free ports
//! - [`client`]: what a client asks of it, in one line each
//! - [`facts`]: watching the facts as they come, and checking their order
//! - [`audit`]: adding up the money and the outcomes of a whole log
//! - [`dice`]: chance that can be repeated
//! - [`load`]: many clients at once, who remember what they were promised
//! - [`query_side`]: the query side alone, fed with facts

mod audit;
mod client;
mod dice;
mod facts;
mod home;
pub(crate) mod load;
mod platform;
mod program;
mod query_side;
mod words;

pub(crate) use invoice_financing::api::proto::financing::v1 as proto;
pub(crate) use invoice_financing::api::proto::registering::v1 as registering;

pub(crate) use audit::Audit;
pub(crate) use client::{investor_registered, issuer_registered};
pub(crate) use dice::Dice;
pub(crate) use facts::Facts;
pub(crate) use home::{Home, Services};
pub(crate) use load::Load;
pub(crate) use platform::Platform;
pub(crate) use program::{Program, Running};
pub(crate) use query_side::QuerySide;
pub(crate) use words::{cents, eur, in_time, information, json, money, reason, uuid, violated, wait};
