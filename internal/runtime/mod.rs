//! Configuration, composition, telemetry, shutdown: where the parts become processes.
//!
//! # Layout
//!
//! - [`client`]: what every gRPC client in the house shares
//! - [`config`]: settings from flags, environment and file
//! - [`distributed`]: the platform on PostgreSQL and NATS, one process per component
//! - [`embedded`]: the platform in one process
//! - [`environment`]: the machine's clock and randomness
//! - `fuzzing`: what must hold for whatever a configuration says
//! - [`observation`]: traces and metrics
//! - [`populate`]: registers issuers and investors
//! - [`process`]: what every program does around its work
//! - [`settings`]: the settings of the distributed programs
//! - [`shell`]: a client for the shell
//! - [`stores`]: the embedded platform without its servers, for any context
//! - [`verify`]: checks all that a platform has stored
//! - [`signals`], [`supervise`], [`telemetry`]: stopping, dying, telling
//! - [`terminal`]: what the clients know of the terminal that they print to

pub mod client;
pub mod config;
pub mod distributed;
pub mod embedded;
pub mod environment;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod observation;
pub mod populate;
pub mod process;
pub mod settings;
pub mod shell;
pub mod signals;
pub mod stores;
pub mod supervise;
pub mod telemetry;
pub mod terminal;
pub mod verify;
