//! Saying where a process answers, and serving its health.
//!
//! The rule this module protects: the line on standard output comes when the process can be used, and not before, so that
//! people and programs may wait for it.

use std::io::Write as _;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::api::server::{Limits, serve_health};
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::supervise::Process;

use super::text;

/// Binds a port, and says which setting is wrong where that fails.
pub(super) async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{setting} {address}: {error}"))
}

/// Says on standard output what is answered where, in the form `commands on HOST:PORT`.
pub(super) fn announce(what: &str, listener: &TcpListener) -> Result<(), String> {
    let address = listener.local_addr().map_err(text)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, "answering {what}");
    let mut out = std::io::stdout();
    writeln!(out, "{what} on {address}").and_then(|()| out.flush()).map_err(text)
}

/// Serves health for a process that serves nothing else.
pub(super) fn serve(process: &mut Process, listener: TcpListener, limits: Limits) -> Result<(), String> {
    announce("health", &listener)?;
    let stop = process.intake_stop();
    process.servers.start("health server", async move {
        serve_health(listener, SystemEnvironment, limits, stop).await.map_err(text)
    });
    Ok(())
}
