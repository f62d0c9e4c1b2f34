//! The admin door of a process: an address of its own for what changes a running platform.
//!
//! The rule this module protects: nobody gets in who is not on this machine, unless somebody has said so; and who has said so is
//! told that nobody is asked who they are.

use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::api::admin::AdminServices;
use crate::api::server::{Limits, serve_admin};

use super::environment::SystemEnvironment;
use super::supervise::Process;

/// Where it is, unless somebody says otherwise.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8082);

/// A port for it where nobody has said which: the usual one; or any, so that a second platform on a machine needs no setting more.
///
/// # Errors
///
/// When there is none.
pub(super) async fn usual() -> Result<TcpListener, String> {
    let listener = match TcpListener::bind(USUAL).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let listener = TcpListener::bind(SocketAddr::new(USUAL.ip(), 0)).await;
            if let Some(address) = listener.as_ref().ok().and_then(|listener| listener.local_addr().ok()) {
                tracing::warn!(
                    "{USUAL} is taken: `financing rebuild` and `financing dead` need --admin-addr {address} here"
                );
            }
            listener
        }
        bound => bound,
    };
    listener.map_err(|error| format!("--admin-addr {USUAL}: {error}"))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_platform_on_a_machine_gets_a_port_of_its_own() {
        let (first, second) = (usual().await.unwrap(), usual().await.unwrap());
        let [first, second] = [first, second].map(|listener| listener.local_addr().unwrap());
        assert!(first.ip().is_loopback() && second.ip().is_loopback());
        assert_ne!(first, second);
        assert_ne!(second, USUAL, "it is taken, by the first or by somebody else");
    }
}
