//! Who looks on at the loops and the calls, and passes on what they tell.
//!
//! The rule this module protects: of a record or a command only its ids, its place, its name and what became of it are passed
//! on.

use std::sync::Arc;
use std::time::Duration;

use eventsourcing::environment::{Environment as _, Timestamp};
use eventsourcing::observer::{Decided, Interval, Observer, Queued, Reacted};
use eventsourcing::partition::Partition;
use eventsourcing::record::Record;
use eventsourcing::turn::Trouble;
use tonic::Code;
use uuid::Uuid;

use super::metrics::Metrics;
use super::span::Spans;
use crate::api::observation::{CallObserver, CallSpan};
use crate::runtime::environment::SystemEnvironment;

/// Counts, and makes spans where these are asked for.
pub(super) struct Onlooker {
    metrics: Metrics,
    spans: Option<Spans>,
}

impl Onlooker {
    pub(super) const fn new(metrics: Metrics, spans: Option<Spans>) -> Self {
        Self { metrics, spans }
    }

    pub(super) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Observer for Onlooker {
    fn now(&self) -> Timestamp {
        SystemEnvironment.now()
    }

    fn queued(&self, batch: &Queued) {
        self.metrics.queued(batch.part, batch.commands);
        // What the policies look at at once are records: they tell of these as well.
        if batch.part != "policies" && batch.commands > 0 {
            self.metrics.batch(batch.part, batch.commands);
        }
    }

    fn decided(&self, batch: &Decided) {
        self.metrics.batch("worker", batch.commands);
        self.metrics.committed(batch.commit.start.until(batch.commit.end));
        for decision in &batch.decisions {
            self.metrics.outcome(decision.method, decision.state, decision.reason.as_deref());
        }
        if let Some(spans) = &self.spans {
            spans.decided(batch);
        }
    }

    fn relayed(&self, records: &[Arc<Record>], during: Interval) {
        self.metrics.batch("relayer", records.len());
        self.metrics.relayed(records.len());
        if let Some(spans) = &self.spans {
            spans.relayed(records, during);
        }
    }

    fn reacted(&self, step: &Reacted) {
        self.metrics.dead_letters(step.dead_letters);
        if step.records > 0 {
            self.metrics.batch("policies", step.records);
        }
        if let Some(spans) = &self.spans {
            spans.reacted(step);
        }
    }

    fn projected(&self, records: &[Arc<Record>], during: Interval) {
        self.metrics.batch("projector", records.len());
        self.metrics.projected(records.len());
        if let Some(spans) = &self.spans {
            spans.projected(records, during);
        }
    }

    fn fenced(&self, part: &'static str, _partition: Partition) {
        self.metrics.fenced(part);
    }

    fn failed(&self, part: &'static str, trouble: &Trouble) {
        match trouble {
            Trouble::Retry(_) => self.metrics.retried(part),
            Trouble::Halt(_) => self.metrics.halted(part),
        }
    }
}

impl CallObserver for Onlooker {
    fn answered(&self, method: &'static str, code: Code, took: Duration) {
        self.metrics.answered(method, code, took);
    }

    fn begin(&self, came_with: Option<&str>, chance: [Uuid; 2]) -> Option<String> {
        self.spans.as_ref()?.begin(came_with, chance)
    }

    fn ended(&self, span: &CallSpan<'_>) {
        if let Some(spans) = &self.spans {
            spans.called(span);
        }
    }
}
