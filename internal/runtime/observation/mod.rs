//! Traces and metrics: what the platform tells those who run it, beside its logs.
//!
//! The rule this module protects: nothing here can slow, stop or change the platform. What is not asked for costs nothing; a
//! collector that is down costs spans, which are counted; and what is told holds no name, no amount and no secret.
//!
//! # Layout
//!
//! - [`settings`]: what is asked for; [`ratio`]: which part of the traces
//! - [`onlooker`]: who looks on at the loops and the calls
//! - [`span`]: what has happened, as spans whose ids everybody can derive; [`export`]: to the collector
//! - [`metrics`]: what is counted; [`lookup`]: what is looked up when it is asked for; [`machine`]: what the process takes
//! - [`scrape`]: metrics over HTTP

mod export;
pub mod lookup;
mod machine;
mod metrics;
mod onlooker;
mod ratio;
mod scrape;
pub mod settings;
mod span;

use std::io::Write as _;
use std::sync::Arc;

use eventsourcing::assignment::Assignment;
use eventsourcing::environment::{Environment as _, Timestamp};
use eventsourcing::observer::Watch;
use eventsourcing::ports::Role;
use tokio::net::TcpListener;

use crate::api::observation::CallWatch;

use super::environment::SystemEnvironment;
use super::supervise::Process;

use export::Export;
use lookup::Lookup;
use metrics::Metrics;
use onlooker::Onlooker;
use scrape::Scrape;
use settings::TelemetrySettings;
use span::Spans;

/// The telemetry of a process.
pub struct Telemetry {
    onlooker: Option<Arc<Onlooker>>,
    export: Option<Export>,
    port: Option<TcpListener>,
    lookups: Vec<Lookup>,
    owned: Owned,
}

/// The partitions that a process has, by role. A clone is the same list.
#[derive(Clone, Default)]
pub struct Owned(Arc<std::sync::Mutex<Vec<(Role, Assignment)>>>);

impl Owned {
    /// The process takes part in a role.
    pub fn add(&self, role: Role, assignment: &Assignment) {
        let mut owned = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        owned.push((role, assignment.clone()));
    }

    /// How many partitions it has, by role.
    fn counts(&self) -> Vec<(Role, usize)> {
        let owned = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        owned.iter().map(|(role, assignment)| (*role, assignment.current().len())).collect()
    }
}

impl Telemetry {
    /// Starts what is asked for. The address of the metrics is bound when this comes back, and answered from
    /// [`Telemetry::serve`] on. `program` is the name under which collectors show the process.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound, or the collector's is none.
    pub async fn start(settings: &TelemetrySettings, program: &str) -> Result<Self, String> {
        let none = settings.metrics_addr.is_none() && settings.otlp_endpoint.is_none();
        if none {
            return Ok(Self {
                onlooker: None,
                export: None,
                port: None,
                lookups: Vec::new(),
                owned: Owned::default(),
            });
        }
        let port = match settings.metrics_addr {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|error| format!("--metrics-addr {address}: {error}"))?)
            }
            None => None,
        };
        let metrics = Metrics::new(program);
        let (spans, export) = match &settings.otlp_endpoint {
            Some(endpoint) => {
                let (export, offer) = Export::start(endpoint, program, &metrics)?;
                (Some(Spans::new(offer, settings.trace_ratio)), Some(export))
            }
            None => (None, None),
        };
        let onlooker = Some(Arc::new(Onlooker::new(metrics, spans)));
        Ok(Self { onlooker, export, port, lookups: Vec::new(), owned: Owned::default() })
    }

    /// Who looks on at the loops.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.onlooker.clone().map_or_else(Watch::default, |onlooker| Watch::by(onlooker))
    }

    /// Who looks on at the calls.
    #[must_use]
    pub fn calls(&self) -> CallWatch {
        self.onlooker.clone().map_or_else(CallWatch::default, |onlooker| CallWatch::by(onlooker))
    }

    /// The partitions that the process has.
    #[must_use]
    pub fn owned(&self) -> Owned {
        self.owned.clone()
    }

    /// Something to look up whenever somebody asks for metrics, but not more than once a second.
    pub fn looks_up(&mut self, lookup: Lookup) {
        if self.port.is_some() {
            self.lookups.push(lookup);
        }
    }

    /// Answers who asks for metrics, where that is asked for, and says on standard output where, in the form
    /// `metrics on HOST:PORT`.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written.
    pub fn serve(&mut self, process: &mut Process) -> Result<(), String> {
        let (Some(port), Some(onlooker)) = (self.port.take(), &self.onlooker) else { return Ok(()) };
        let address = port.local_addr().map_err(|error| error.to_string())?;
        tracing::info!(%address, "answering metrics");
        let mut out = std::io::stdout();
        writeln!(out, "metrics on {address}")
            .and_then(|()| out.flush())
            .map_err(|error| error.to_string())?;
        let lookups = std::mem::take(&mut self.lookups);
        let scrape = Scrape::new(onlooker.metrics().clone(), lookups, self.owned.clone());
        let stop = process.intake_stop();
        process.servers.start("metrics server", scrape::serve(port, Arc::new(scrape), stop));
        Ok(())
    }

    /// Hands on the spans that are still waiting, and gives up soon where nobody takes them.
    pub async fn finish(self) {
        if let Some(export) = self.export {
            export.finish().await;
        }
    }
}

/// How long ago that was.
fn age(of: Timestamp) -> std::time::Duration {
    of.until(SystemEnvironment.now())
}
