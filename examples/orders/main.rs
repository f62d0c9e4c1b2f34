//! A second domain on the same kernel: orders over plain HTTP and JSON, filled from stock by an order processor.
//!
//! `cargo run --example orders` serves it on 127.0.0.1:8090; `docs/your-own-domain.md` has the requests to try.
//!
//! # Layout
//!
//! - [`domain`]: orders and stock items: what they decide, and what happens to them
//! - [`shop`]: the domain as the kernel sees it, the order processor, the read model
//! - [`http`]: the requests and their answers

mod domain;
mod http;
mod shop;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use eventsourcing::environment::{Stop, within};
use invoice_financing::runtime::config::LogSettings;
use invoice_financing::runtime::environment::SystemEnvironment;
use invoice_financing::runtime::process::{self, Threads};
use invoice_financing::runtime::signals::Signals;
use invoice_financing::runtime::stores::Running;
use invoice_financing::runtime::telemetry::LogFormat;
use tokio::net::TcpListener;

use crate::shop::{OrderProcessor, SCHEMA, Shop, Shown};

/// Takes orders over HTTP, and fills them from stock.
#[derive(Parser)]
struct Settings {
    /// Where it listens; port 0 takes a free one
    #[arg(long, env = "ORDERS_ADDR", default_value = "127.0.0.1:8090")]
    addr: SocketAddr,
    /// The directory that holds everything; one process at a time
    #[arg(long, env = "ORDERS_DATA_DIR", default_value = "orders-data")]
    data_dir: PathBuf,
}

/// How long a stop waits for requests under way.
const GRACE: Duration = Duration::from_secs(10);

/// Serves a shop until it is told to stop, or a part of it dies.
async fn serve(
    listener: TcpListener,
    directory: &Path,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let mut shop = Running::start::<Shop>(directory, SCHEMA, OrderProcessor, Shown).await?;
    println!("orders on {}", listener.local_addr().map_err(text)?);
    let (stopper, stopping) = Stop::new();
    let server = axum::serve(listener, http::router(shop.front().clone()))
        .with_graceful_shutdown(async move { stopping.given().await });
    let mut server = pin!(server.into_future());
    let death = tokio::select! {
        biased;
        reason = shop.death() => Some(reason),
        ended = &mut server => Some(ended.map_or_else(text, |()| "the server ended though nobody asked it to".into())),
        () = stop => None,
    };
    // Intake stops first and the loops last. Half a shop finishes nothing: what was accepted goes on with the next start.
    stopper.stop();
    let served = match death {
        None => within(&SystemEnvironment, GRACE, server).await.unwrap_or(Ok(())).map_err(text),
        Some(reason) => Err(reason),
    };
    served.and(shop.stop().await)
}

async fn run(Settings { addr, data_dir }: Settings) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(text)?;
    let listener = TcpListener::bind(addr).await.map_err(|error| format!("--addr {addr}: {error}"))?;
    let asked_to = async move {
        signals.next().await;
        signals.abort_at_the_next();
    };
    serve(listener, &data_dir, asked_to).await
}

fn main() -> ExitCode {
    let log = LogSettings { log_format: LogFormat::Human, log: "info".to_owned() };
    process::run(&log, Threads::EachCore, run(Settings::parse()))
}

fn text(error: impl Display) -> String {
    error.to_string()
}
