//! Spans on their way to a collector.
//!
//! The rule this module protects: offering a span takes no time and never fails. What waits is bounded; what finds no room, and
//! what the collector does not take, is counted and forgotten; and of a collector that is down the log says so once.

use std::time::Duration;

use eventsourcing::environment::{Environment as _, Stop, Stopper};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::metrics::{DroppedBecause, Metrics};
use crate::runtime::environment::SystemEnvironment;

/// Spans that may wait.
const ROOM: usize = 16 * 1024;

/// Spans in one request.
const BATCH: usize = 512;

/// How long spans are gathered. Nobody waits for them, and a request for each would cost more than the platform itself.
const GATHERING: Duration = Duration::from_millis(250);

/// How long a collector may take for a request, with its repeats.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a process that stops tries to hand its last spans on.
const FAREWELL: Duration = Duration::from_secs(2);

/// The sending end. A clone is the same one.
#[derive(Clone)]
pub(super) struct Offer {
    waiting: mpsc::Sender<SpanData>,
    dropped: Counter,
}

impl Offer {
    /// Offers a span.
    pub(super) fn span(&self, span: SpanData) {
        if self.waiting.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

#[cfg(test)]
impl Offer {
    /// One with room for so many spans, and what comes out at its other end.
    pub(super) fn with_room(room: usize) -> (Self, mpsc::Receiver<SpanData>) {
        let (waiting, receiver) = mpsc::channel(room);
        (Self { waiting, dropped: Counter::default() }, receiver)
    }

    /// How many spans found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

/// The task that hands spans on.
pub(super) struct Export {
    stopper: Stopper,
    task: JoinHandle<()>,
}

impl Export {
    /// Starts it. Whether anybody answers at the endpoint is not asked.
    ///
    /// # Errors
    ///
    /// When the endpoint, or what the environment says beside it (`OTEL_EXPORTER_OTLP_HEADERS`), cannot be understood.
    pub(super) fn start(endpoint: &str, program: &str, metrics: &Metrics) -> Result<(Self, Offer), String> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(PATIENCE);
        let mut exporter = exporter.build().map_err(|error| format!("--otlp-endpoint: {error}"))?;
        exporter.set_resource(&resource(program, SystemEnvironment.uuid()));
        let (waiting, receiver) = mpsc::channel(ROOM);
        let (stopper, stop) = Stop::new();
        let sending = Sending {
            exporter,
            exported: metrics.spans_exported().clone(),
            dropped: metrics.spans_dropped(DroppedBecause::NotTaken),
            failing: false,
        };
        let task = tokio::spawn(hand_on(receiver, sending, stop));
        let dropped = metrics.spans_dropped(DroppedBecause::NoRoom);
        Ok((Self { stopper, task }, Offer { waiting, dropped }))
    }

    /// Hands on what waits; gives up soon.
    pub(super) async fn finish(self) {
        let Self { stopper, mut task } = self;
        stopper.stop();
        match tokio::time::timeout(FAREWELL, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not handed on"),
            Err(_) => {
                tracing::warn!("the last spans were not handed on: the collector takes too long");
                task.abort();
            }
        }
    }
}

/// Who tells: the standard attributes of a resource.
fn resource(program: &str, instance: Uuid) -> Resource {
    Resource::builder_empty()
        .with_service_name(program.to_owned())
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_string()),
        ])
        .build()
}

/// The receiving end of a collector.
struct Sending {
    exporter: SpanExporter,
    exported: Counter,
    dropped: Counter,
    /// Whether the last request failed.
    failing: bool,
}

impl Sending {
    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                self.exported.inc_by(count);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(dropped = self.dropped.get(), "the collector takes spans again");
                }
            }
            Err(error) => {
                self.dropped.inc_by(count);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the collector takes no spans: they are counted and dropped until it does");
                }
            }
        }
    }
}

async fn hand_on(mut receiver: mpsc::Receiver<SpanData>, mut sending: Sending, stop: Stop) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut stopping = false;
    loop {
        if !stopping {
            tokio::select! {
                biased;
                () = stop.given() => {
                    receiver.close();
                    stopping = true;
                }
                received = receiver.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    gather(&mut receiver, &mut batch, &stop).await;
                }
            }
        } else if receiver.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        if !batch.is_empty() {
            sending.send(std::mem::take(&mut batch)).await;
        }
    }
}

/// Waits for more, unless there is enough or it is time to stop.
async fn gather(receiver: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>, stop: &Stop) {
    let gathering = async {
        while batch.len() < BATCH {
            let room = BATCH.saturating_sub(batch.len());
            if receiver.recv_many(batch, room).await == 0 {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.given() => {}
        () = gathering => {}
        () = SystemEnvironment.sleep(GATHERING) => {}
    }
}
