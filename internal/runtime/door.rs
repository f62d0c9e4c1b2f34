//! The admin door of a process: an address of its own for what changes a running platform.
//!
//! The rule this module protects: nobody gets in who is not on this machine, unless somebody has said so; and who has said so is
//! told that nobody is asked who they are.

use std::io::Write as _;

use tokio::net::TcpListener;

use crate::api::admin::AdminServices;
use crate::api::server::{Limits, serve_admin};

use super::environment::SystemEnvironment;
use super::supervise::Process;

/// Opens it, and says on standard output where it is.
///
/// # Errors
///
/// When that cannot be said.
pub(super) fn open(
    process: &mut Process,
    listener: TcpListener,
    services: AdminServices<SystemEnvironment>,
    limits: Limits,
) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let address = listener.local_addr().map_err(failed)?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "the admin door is open to other machines: it asks nobody who they are, so whoever reaches it may use it"
        );
    }
    let mut out = std::io::stdout();
    writeln!(out, "admin on {address}").and_then(|()| out.flush()).map_err(failed)?;
    let stop = process.intake_stop();
    process.servers.start("admin server", async move {
        let served = serve_admin(listener, services, SystemEnvironment, limits, stop).await;
        served.map_err(|error| error.to_string())
    });
    Ok(())
}
