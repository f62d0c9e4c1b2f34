//! What is counted.
//!
//! The rule this module protects: the values of a label are a list that somebody wrote down: parts, methods, states, codes, and
//! the reasons of the published catalogue. Whatever else comes is `other`, so that nobody outside can make a new series.

use std::time::Duration;

use domain::refusal::CATALOGUE;
use eventsourcing::record::DeathReason;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use super::machine::Machine;
use crate::api::observation::code_name;

/// The bounds of batches: what a loop takes on at once ends at 1024.
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 512.0, 1024.0];

/// The bounds of durations, in seconds.
const DURATIONS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartLabel {
    part: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    method: &'static str,
    state: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WhatLabel {
    what: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BecauseLabel {
    because: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NoLabels {}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Build {
    program: String,
    version: &'static str,
}

/// Why a span is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DroppedBecause {
    /// Too many were waiting.
    NoRoom,
    /// The collector did not take it.
    NotTaken,
}

/// What is looked up. Where a lookup fails there is no value, and never an old one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reading {
    /// Messages that wait in the command queue.
    QueueMessages(u64),
    /// Their bytes.
    QueueBytes(u64),
    /// Records that are committed and not published.
    RelayLag(u64),
    /// Records that are published and not projected.
    ProjectionLag(u64),
    /// How old the oldest of these is.
    ProjectionAge(Duration),
    /// For how long the oldest saga should have come to its end.
    OldestUnsettled(Duration),
}

type Labelled<T> = Family<NoLabels, Gauge<T, std::sync::atomic::AtomicU64>>;
type Count = Family<NoLabels, Gauge>;

/// The metrics of a process. A clone counts the same.
#[derive(Clone)]
pub(super) struct Metrics {
    calls: Family<CallLabels, Counter>,
    call_duration: Family<MethodLabel, Histogram, fn() -> Histogram>,
    queued: Family<PartLabel, Counter>,
    outcomes: Family<OutcomeLabels, Counter>,
    batches: Family<PartLabel, Histogram, fn() -> Histogram>,
    commit_duration: Histogram,
    relayed: Counter,
    projected: Counter,
    fenced: Family<PartLabel, Counter>,
    retries: Family<PartLabel, Counter>,
    halts: Family<PartLabel, Counter>,
    dead_letters: Counter,
    owned: Family<RoleLabel, Gauge>,
    queue_messages: Count,
    queue_bytes: Count,
    relay_lag: Count,
    projection_lag: Count,
    projection_age: Labelled<f64>,
    oldest_unsettled: Labelled<f64>,
    failed_lookups: Family<WhatLabel, Counter>,
    spans_exported: Counter,
    spans_dropped: Family<BecauseLabel, Counter>,
    registry: std::sync::Arc<Registry>,
}

fn sizes() -> Histogram {
    Histogram::new(SIZES)
}

fn durations() -> Histogram {
    Histogram::new(DURATIONS)
}

/// A batch's size as a histogram takes it.
fn size(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Metrics {
    /// The metrics of a process with this name.
    pub(super) fn new(program: &str) -> Self {
        let mut metrics = Self {
            calls: Family::default(),
            call_duration: Family::new_with_constructor(durations),
            queued: Family::default(),
            outcomes: Family::default(),
            batches: Family::new_with_constructor(sizes),
            commit_duration: durations(),
            relayed: Counter::default(),
            projected: Counter::default(),
            fenced: Family::default(),
            retries: Family::default(),
            halts: Family::default(),
            dead_letters: Counter::default(),
            owned: Family::default(),
            queue_messages: Family::default(),
            queue_bytes: Family::default(),
            relay_lag: Family::default(),
            projection_lag: Family::default(),
            projection_age: Family::default(),
            oldest_unsettled: Family::default(),
            failed_lookups: Family::default(),
            spans_exported: Counter::default(),
            spans_dropped: Family::default(),
            registry: std::sync::Arc::default(),
        };
        metrics.registry = std::sync::Arc::new(metrics.registered(program));
        metrics
    }

    /// Names all of them, once.
    fn registered(&self, program: &str) -> Registry {
        let mut root = Registry::default();
        root.register_collector(Box::new(Machine));
        let all = root.sub_registry_with_prefix("financing");
        let build = Build { program: program.to_owned(), version: env!("CARGO_PKG_VERSION") };
        all.register("build", "Which program this is", Info::new(build));
        self.register_counts(all);
        self.register_lookups(all);
        all.register("spans_exported", "Spans that a collector has taken", self.spans_exported.clone());
        let dropped = "Spans that were dropped: no room, or not taken by the collector";
        all.register("spans_dropped", dropped, self.spans_dropped.clone());
        root
    }

    fn register_counts(&self, all: &mut Registry) {
        all.register("calls", "Calls answered, by gRPC code", self.calls.clone());
        let took = "How long calls took; those that wait for an outcome count with their wait";
        all.register_with_unit("call_duration", took, Unit::Seconds, self.call_duration.clone());
        all.register("commands_queued", "Commands stored by the command queue", self.queued.clone());
        let outcomes = "Outcomes of commands, once for each command";
        all.register("outcomes", outcomes, self.outcomes.clone());
        let sizes = "Commands or records that a part dealt with at once";
        all.register("batch_size", sizes, self.batches.clone());
        let commit = "How long the transactions of the worker took";
        all.register_with_unit("commit_duration", commit, Unit::Seconds, self.commit_duration.clone());
        all.register("records_relayed", "Records published to the bus", self.relayed.clone());
        all.register("records_projected", "Records projected into the read models", self.projected.clone());
        let fenced = "How often a part met another owner of one of its partitions";
        all.register("fenced", fenced, self.fenced.clone());
        all.register("retries", "Failures that a part tries again", self.retries.clone());
        all.register("halts", "Failures that need a person", self.halts.clone());
        all.register("dead_letters", "Dead letters that were kept", self.dead_letters.clone());
    }

    fn register_lookups(&self, all: &mut Registry) {
        all.register("partitions_owned", "Partitions that this process has", self.owned.clone());
        let messages = "Messages of commands that wait for their outcome";
        all.register("queue_messages", messages, self.queue_messages.clone());
        let bytes = "Bytes of commands that wait for their outcome";
        all.register_with_unit("queue_size", bytes, Unit::Bytes, self.queue_bytes.clone());
        let lag = "Records that are committed and not published";
        all.register("relay_lag_records", lag, self.relay_lag.clone());
        let lag = "Records that are published and not projected";
        all.register("projection_lag_records", lag, self.projection_lag.clone());
        let lag = "How old the oldest record is that is published and not projected";
        all.register_with_unit("projection_lag", lag, Unit::Seconds, self.projection_age.clone());
        let oldest = "For how long the oldest saga should have come to its end";
        all.register_with_unit("oldest_unsettled", oldest, Unit::Seconds, self.oldest_unsettled.clone());
        let failed = "Lookups for these metrics that failed";
        all.register("failed_lookups", failed, self.failed_lookups.clone());
    }

    /// In the text format of OpenMetrics, which Prometheus reads.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(super) fn answered(&self, method: &'static str, code: Code, took: Duration) {
        self.calls.get_or_create(&CallLabels { method, code: code_name(code) }).inc();
        self.call_duration.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
    }

    pub(super) fn queued(&self, part: &'static str, commands: usize) {
        if commands > 0 {
            self.queued.get_or_create(&PartLabel { part }).inc_by(commands as u64);
        }
    }

    pub(super) fn batch(&self, part: &'static str, count: usize) {
        self.batches.get_or_create(&PartLabel { part }).observe(size(count));
    }

    pub(super) fn outcome(&self, method: Option<&'static str>, state: &'static str, reason: Option<&str>) {
        let labels = OutcomeLabels {
            method: method.unwrap_or("unreadable"),
            state,
            reason: reason.map_or("", catalogued),
        };
        self.outcomes.get_or_create(&labels).inc();
    }

    pub(super) fn committed(&self, took: Duration) {
        self.commit_duration.observe(took.as_secs_f64());
    }

    pub(super) fn relayed(&self, records: usize) {
        self.relayed.inc_by(records as u64);
    }

    pub(super) fn projected(&self, records: usize) {
        self.projected.inc_by(records as u64);
    }

    pub(super) fn fenced(&self, part: &'static str) {
        self.fenced.get_or_create(&PartLabel { part }).inc();
    }

    pub(super) fn retried(&self, part: &'static str) {
        self.retries.get_or_create(&PartLabel { part }).inc();
    }

    pub(super) fn halted(&self, part: &'static str) {
        self.halts.get_or_create(&PartLabel { part }).inc();
    }

    pub(super) fn dead_letters(&self, kept: usize) {
        self.dead_letters.inc_by(kept as u64);
    }

    pub(super) fn owns(&self, role: &'static str, partitions: usize) {
        self.owned.get_or_create(&RoleLabel { role }).set(whole(partitions as u64));
    }

    /// Forgets what was looked up before.
    pub(super) fn forget_readings(&self) {
        let counts = [&self.queue_messages, &self.queue_bytes, &self.relay_lag, &self.projection_lag];
        counts.into_iter().for_each(Count::clear);
        [&self.projection_age, &self.oldest_unsettled].into_iter().for_each(Labelled::clear);
    }

    pub(super) fn read(&self, reading: Reading) {
        let labels = NoLabels {};
        let count = |gauge: &Count, count| {
            gauge.get_or_create(&labels).set(whole(count));
        };
        let age = |gauge: &Labelled<f64>, age: Duration| {
            gauge.get_or_create(&labels).set(age.as_secs_f64());
        };
        match reading {
            Reading::QueueMessages(messages) => count(&self.queue_messages, messages),
            Reading::QueueBytes(bytes) => count(&self.queue_bytes, bytes),
            Reading::RelayLag(records) => count(&self.relay_lag, records),
            Reading::ProjectionLag(records) => count(&self.projection_lag, records),
            Reading::ProjectionAge(old) => age(&self.projection_age, old),
            Reading::OldestUnsettled(late) => age(&self.oldest_unsettled, late),
        }
    }

    pub(super) fn lookup_failed(&self, what: &'static str) {
        self.failed_lookups.get_or_create(&WhatLabel { what }).inc();
    }

    pub(super) const fn spans_exported(&self) -> &Counter {
        &self.spans_exported
    }

    pub(super) fn spans_dropped(&self, because: DroppedBecause) -> Counter {
        let because = match because {
            DroppedBecause::NoRoom => "no_room",
            DroppedBecause::NotTaken => "not_taken",
        };
        self.spans_dropped.get_or_create(&BecauseLabel { because }).clone()
    }
}

/// The reason as it is published, or `other`.
fn catalogued(reason: &str) -> &'static str {
    let deaths = [DeathReason::Undecodable, DeathReason::WrongPartition, DeathReason::Unstorable];
    let mut known = CATALOGUE.iter().map(|reason| reason.code).chain(deaths.map(DeathReason::code));
    known.find(|known| *known == reason).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nobody_outside_makes_a_new_series() {
        let metrics = Metrics::new("test");
        for reason in ["INSUFFICIENT_FUNDS", "UNSTORABLE", "Jane Doe", "X"] {
            metrics.outcome(Some("BidOnInvoice"), "REFUSED", Some(reason));
        }
        let text = metrics.text().unwrap();
        let count = |reason: &str| {
            let labels = format!("{{method=\"BidOnInvoice\",state=\"REFUSED\",reason=\"{reason}\"}}");
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("financing_outcomes_total")?.strip_prefix(&labels));
            line.map(|count| count.trim().parse::<u64>().unwrap())
        };
        assert_eq!(
            (count("INSUFFICIENT_FUNDS"), count("UNSTORABLE"), count("other")),
            (Some(1), Some(1), Some(2))
        );
        assert!(!text.contains("Jane"));
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let metrics = Metrics::new("test");
        let lag = |text: &str| text.lines().any(|line| line.starts_with("financing_projection_lag_records{"));
        assert!(!lag(&metrics.text().unwrap()));
        metrics.read(Reading::ProjectionLag(3));
        metrics.read(Reading::ProjectionAge(Duration::from_millis(1500)));
        let text = metrics.text().unwrap();
        assert!(text.contains("financing_projection_lag_records{} 3\n"), "{text}");
        assert!(text.contains("financing_projection_lag_seconds{} 1.5\n"), "{text}");
        metrics.forget_readings();
        assert!(!lag(&metrics.text().unwrap()));
    }

    /// The names of all metrics, as they are once everything has happened.
    fn exported() -> BTreeSet<String> {
        let metrics = Metrics::new("test");
        metrics.answered("GetBid", Code::Ok, Duration::ZERO);
        metrics.queued("listener", 1);
        metrics.batch("worker", 1);
        metrics.outcome(None, "DEAD", None);
        metrics.fenced("worker");
        metrics.retried("worker");
        metrics.halted("worker");
        metrics.owns("worker", 1);
        metrics.lookup_failed("queue");
        metrics.spans_dropped(DroppedBecause::NoRoom).inc();
        for reading in [
            Reading::QueueMessages(1),
            Reading::QueueBytes(1),
            Reading::RelayLag(1),
            Reading::ProjectionLag(1),
            Reading::ProjectionAge(Duration::ZERO),
            Reading::OldestUnsettled(Duration::ZERO),
        ] {
            metrics.read(reading);
        }
        let text = metrics.text().unwrap();
        let names = text.lines().filter(|line| !line.starts_with('#'));
        names.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
    }

    fn document(path: &str) -> String {
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    /// The metrics of the platform that a document names.
    fn named(document: &str) -> BTreeSet<&str> {
        let words = document.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("financing_") || word.starts_with("process_")).collect()
    }

    #[test]
    fn documents_name_metrics_that_there_are() {
        let mut known = exported();
        let histogram = |name: &String| Some(name.strip_suffix("_bucket")?.to_owned());
        let histograms: Vec<String> = known.iter().filter_map(histogram).collect();
        assert_eq!(histograms.len(), 3, "{known:?}");
        known.extend(histograms);
        for path in ["docs/telemetry.md", "docs/alerts.md", "docs/runbook.md", "deploy/alerts.yml"] {
            let text = document(path);
            let named = named(&text);
            assert!(!named.is_empty() || path == "docs/runbook.md", "{path} names no metric");
            for name in named {
                assert!(known.contains(name), "{path} names {name}, which nobody exports");
            }
        }
    }

    #[test]
    fn documents_of_telemetry_name_every_metric() {
        let text = document("docs/telemetry.md");
        let named = named(&text);
        for name in exported() {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let base = base.unwrap_or(&name);
            assert!(named.contains(base), "docs/telemetry.md does not name {base}");
        }
    }
}
