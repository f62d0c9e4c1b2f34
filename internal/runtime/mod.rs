//! Configuration, composition, telemetry, shutdown: where the parts become processes.
//!
//! # Layout
//!
//! - `allocator`: where every program's memory comes from
//! - [`bench`]: measures a running platform
//! - [`client`]: what every gRPC client in the house shares
//! - [`config`]: settings from flags, environment and file
//! - [`dead`]: looking after dead letters
//! - [`demo`]: a whole market on a running platform
//! - [`distributed`]: the platform on PostgreSQL and NATS, one process per component
//! - `door`: the admin door of a process
//! - [`embedded`]: the platform in one process
//! - [`environment`]: the machine's clock and randomness
//! - `fuzzing`: what must hold for whatever a configuration says
//! - [`observation`]: traces and metrics
//! - [`populate`]: registers issuers and investors
//! - [`process`]: what every program does around its work
//! - [`rebuild`]: rebuilds of the read models, and a client that asks for one
//! - [`settings`]: the settings of the distributed programs
//! - [`shell`]: a client for the shell
//! - [`stores`]: the embedded platform without its servers, for any context
//! - [`story`]: tells one invoice's story, and lists what is stuck
//! - [`transfer`]: carries a whole event log from one platform to another
//! - [`verify`]: checks all that a platform has stored
//! - [`signals`], [`supervise`], [`telemetry`]: stopping, dying, telling
//! - [`terminal`]: what the clients know of the terminal that they print to

#[cfg(all(target_os = "linux", feature = "jemalloc"))]
mod allocator;
pub mod bench;
pub mod client;
pub mod config;
pub mod dead;
pub mod demo;
pub mod distributed;
mod door;
pub mod embedded;
pub mod environment;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod observation;
pub mod populate;
pub mod process;
pub mod rebuild;
pub mod settings;
pub mod shell;
pub mod signals;
pub mod stores;
pub mod story;
pub mod supervise;
pub mod telemetry;
pub mod terminal;
pub mod transfer;
pub mod verify;
