//! What has happened, as spans of one trace.
//!
//! The rule this module protects: the id of a span is derived from what it is about (a command, a record), so every process can
//! name the parent of its span without being told, and telling the same thing twice tells it once. One trace holds all that a
//! client's call brings about:
//!
//! ```text
//! the call -> decide (a command) -> relay (its records)
//!                                -> react (to one of them) -> decide (the command that follows) -> ..
//!                                -> project (its records)
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventsourcing::environment::Timestamp;
use eventsourcing::letters::resolution_id;
use eventsourcing::observer::{Decided, Decision, Interval, Reacted, Reaction};
use eventsourcing::outcome::Fingerprint;
use eventsourcing::record::Record;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use uuid::Uuid;

use super::export::Offer;
use super::ratio::Ratio;
use crate::api::observation::CallSpan;

/// The flag of a trace that is kept.
const SAMPLED: u8 = 1;

/// Makes spans, and offers them to the collector.
pub(super) struct Spans {
    offer: Offer,
    ratio: Ratio,
    scope: InstrumentationScope,
}

/// A trace context as it is handed on, of a trace that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Context {
    trace: TraceId,
    parent: SpanId,
}

impl Context {
    /// Reads a `traceparent`. `None`: there is none, or its trace is not kept.
    fn kept(traceparent: Option<&str>) -> Option<Self> {
        let mut parts = traceparent?.split('-').skip(1);
        let trace = TraceId::from_hex(parts.next()?).ok()?;
        let parent = SpanId::from_hex(parts.next()?).ok()?;
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        (flags & SAMPLED == SAMPLED).then_some(Self { trace, parent })
    }
}

/// What a span is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A command was decided.
    Decide,
    /// A command's records were published, from this one on.
    Relay,
    /// A policy reacted to a record.
    React,
    /// A command's records were projected, from this one on.
    Project,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Relay => "relay",
            Self::React => "react",
            Self::Project => "project",
        }
    }

    /// The id of the span of this step that is about the command, or the record, with this id.
    fn span(self, about: Uuid) -> SpanId {
        let Fingerprint(hash) = Fingerprint::of(&[about.as_bytes(), self.name().as_bytes()].concat());
        let mut id = [0; 8];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        SpanId::from_bytes(id)
    }
}

/// A span, before it is one.
struct Draft {
    context: Context,
    id: SpanId,
    name: String,
    kind: SpanKind,
    during: Interval,
    status: Status,
    attributes: Vec<KeyValue>,
}

impl Spans {
    pub(super) fn new(offer: Offer, ratio: Ratio) -> Self {
        let scope =
            InstrumentationScope::builder("financing").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { offer, ratio, scope }
    }

    /// The trace context that a call hands on: of the client's trace, where it sent one that is kept; of a new one, where it
    /// sent none and this one is kept.
    pub(super) fn begin(&self, came_with: Option<&str>, [trace, span]: [Uuid; 2]) -> Option<String> {
        let (_, span) = span.as_u64_pair();
        let trace = match came_with {
            Some(_) => Context::kept(came_with)?.trace,
            None if self.ratio.keeps(trace) => TraceId::from_bytes(trace.into_bytes()),
            None => return None,
        };
        Some(format!("00-{trace}-{span:016x}-{SAMPLED:02x}"))
    }

    pub(super) fn called(&self, call: &CallSpan<'_>) {
        let Some(own) = Context::kept(Some(call.handed_on)) else { return };
        let parent = Context::kept(call.came_with).map_or(SpanId::INVALID, |context| context.parent);
        let mut attributes =
            vec![KeyValue::new("rpc.system", "grpc"), KeyValue::new("rpc.method", call.method)];
        attributes.extend(call.command_id.map(|id| text("financing.command_id", &id)));
        self.tell(Draft {
            context: Context { trace: own.trace, parent },
            id: own.parent,
            name: call.method.to_owned(),
            kind: SpanKind::Server,
            during: Interval { start: call.start, end: call.end },
            status: if call.failed { Status::error("") } else { Status::Unset },
            attributes,
        });
    }

    pub(super) fn decided(&self, batch: &Decided) {
        for decision in &batch.decisions {
            let Some(mut context) = Context::kept(decision.traceparent.as_deref()) else { continue };
            let Decision { command_id, correlation_id, causation_id, .. } = *decision;
            // A client's command is its own cause: its parent is the call, which is in the context. That of a dead letter's retry is
            // what the dead command had there: nobody reacts to a dead letter.
            if causation_id != command_id && command_id != resolution_id(causation_id) {
                context.parent = Step::React.span(causation_id);
            }
            let method = decision.method.unwrap_or("unreadable");
            let mut attributes = vec![
                text("financing.command_id", &command_id),
                text("financing.correlation_id", &correlation_id),
                KeyValue::new("financing.method", method),
                KeyValue::new("financing.outcome", decision.state),
                number("financing.partition", u64::from(batch.partition.index())),
                number("financing.sequence", decision.position.sequence.get()),
                number("financing.records", decision.records as u64),
                number("financing.batch_size", batch.commands as u64),
            ];
            attributes
                .extend(decision.reason.clone().map(|reason| KeyValue::new("financing.reason", reason)));
            let dead = decision.state == "DEAD";
            self.tell(Draft {
                context,
                id: Step::Decide.span(command_id),
                name: format!("decide {method}"),
                kind: SpanKind::Consumer,
                during: batch.during,
                status: if dead { Status::error("the command is dead") } else { Status::Unset },
                attributes,
            });
        }
    }

    pub(super) fn relayed(&self, records: &[Arc<Record>], during: Interval) {
        self.of_records(Step::Relay, &SpanKind::Producer, records, during);
    }

    pub(super) fn projected(&self, records: &[Arc<Record>], during: Interval) {
        self.of_records(Step::Project, &SpanKind::Consumer, records, during);
    }

    pub(super) fn reacted(&self, step: &Reacted) {
        for Reaction { record, policy, command_id } in &step.reactions {
            let Some(context) = Context::kept(record.traceparent.as_deref()) else { continue };
            let mut attributes = about(record);
            attributes.push(KeyValue::new("financing.policy", *policy));
            attributes.push(text("financing.next_command_id", command_id));
            self.tell(Draft {
                context: Context { parent: Step::Decide.span(record.command_id), ..context },
                id: Step::React.span(record.record_id),
                name: format!("react {policy}"),
                kind: SpanKind::Consumer,
                during: step.during,
                status: Status::Unset,
                attributes,
            });
        }
    }

    /// A span for each command of which there are records.
    fn of_records(&self, step: Step, kind: &SpanKind, records: &[Arc<Record>], during: Interval) {
        for records in records.chunk_by(|one, next| one.command_id == next.command_id) {
            let (Some(first), Some(last)) = (records.first(), records.last()) else { continue };
            let Some(context) = Context::kept(first.traceparent.as_deref()) else { continue };
            let mut attributes = about(last);
            attributes.push(number("financing.records", records.len() as u64));
            self.tell(Draft {
                context: Context { parent: Step::Decide.span(first.command_id), ..context },
                id: step.span(first.record_id),
                name: format!("{} {}", step.name(), last.event_type),
                kind: kind.clone(),
                during,
                status: Status::Unset,
                attributes,
            });
        }
    }

    fn tell(&self, draft: Draft) {
        let Draft { context: Context { trace, parent }, id, name, kind, during, status, attributes } = draft;
        let start_time = time(during.start);
        self.offer.span(SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: parent,
            parent_span_is_remote: true,
            span_kind: kind,
            name: name.into(),
            start_time,
            end_time: time(during.end).max(start_time),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        });
    }
}

/// Which record: where it stands and where it comes from, and nothing of what it says.
fn about(record: &Record) -> Vec<KeyValue> {
    vec![
        text("financing.command_id", &record.command_id),
        text("financing.correlation_id", &record.correlation_id),
        KeyValue::new("financing.event", record.event_type.to_string()),
        number("financing.partition", u64::from(record.partition.index())),
        number("financing.sequence", record.sequence.get()),
    ]
}

fn text(name: &'static str, value: &impl ToString) -> KeyValue {
    KeyValue::new(name, value.to_string())
}

fn number(name: &'static str, value: u64) -> KeyValue {
    KeyValue::new(name, i64::try_from(value).unwrap_or(i64::MAX))
}

fn time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(at.as_micros())
}

#[cfg(test)]
mod tests {
    use eventsourcing::partition::{LogPosition, Partition, Sequence};
    use tokio::sync::mpsc::Receiver;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const CLIENT: u64 = 0x00f0_67aa_0ba9_02b7;

    fn spans(room: usize, ratio: &str) -> (Spans, Receiver<SpanData>, Offer) {
        let (offer, told) = Offer::with_room(room);
        (Spans::new(offer.clone(), ratio.parse().unwrap()), told, offer)
    }

    fn chance() -> [Uuid; 2] {
        [Uuid::from_u128(0xa << 64 | 0x1234_5678), Uuid::from_u128(0xb)]
    }

    fn context(flags: &str) -> String {
        format!("00-{TRACE}-{CLIENT:016x}-{flags}")
    }

    /// A command's only decision, at this place.
    fn decided(command_id: Uuid, causation_id: Uuid, flags: &str) -> Decided {
        let position = LogPosition { partition: Partition::from_index(1), sequence: Sequence::new(7) };
        let decision = Decision {
            command_id,
            correlation_id: command_id,
            causation_id,
            traceparent: Some(context(flags)),
            method: Some("BidOnInvoice"),
            state: "REFUSED",
            reason: Some("INSUFFICIENT_FUNDS".to_owned()),
            position,
            records: 1,
        };
        let (start, end) = (Timestamp::from_micros(1_000), Timestamp::from_micros(3_000));
        Decided {
            partition: position.partition,
            commands: 4,
            decisions: vec![decision],
            during: Interval { start, end },
            commit: Interval::default(),
        }
    }

    #[test]
    fn a_call_is_between_its_client_and_what_it_brings_about() {
        let (spans, mut told, _) = spans(8, "0");
        let handed_on = spans.begin(Some(&context("01")), chance()).unwrap();
        assert_eq!(handed_on, format!("00-{TRACE}-000000000000000b-01"));
        let came_with = context("01");
        let (start, end) = (Timestamp::from_micros(5), Timestamp::from_micros(4));
        spans.called(&CallSpan {
            method: "SellInvoice",
            command_id: None,
            came_with: Some(&came_with),
            handed_on: &handed_on,
            failed: true,
            start,
            end,
        });
        let span = told.try_recv().unwrap();
        assert_eq!(span.span_context.trace_id(), TraceId::from_hex(TRACE).unwrap());
        assert_eq!(span.span_context.span_id(), SpanId::from_bytes(0xb_u64.to_be_bytes()));
        assert_eq!(span.parent_span_id, SpanId::from_bytes(CLIENT.to_be_bytes()));
        assert_eq!(span.status, Status::error(""));
        assert_eq!(span.end_time, span.start_time, "a clock that was set back makes no negative time");
    }

    #[test]
    fn whether_a_trace_is_kept_is_the_clients_to_say_or_else_the_ratios() {
        let ([all, none], chance) = (["1", "0"].map(|ratio| spans(1, ratio).0), chance());
        assert_eq!(all.begin(Some(&context("00")), chance), None);
        assert!(none.begin(Some(&context("01")), chance).is_some());
        assert!(all.begin(None, chance).is_some_and(|begun| begun.ends_with("-000000000000000b-01")));
        assert_eq!(none.begin(None, chance), None);
        let (spans, mut told, _) = spans(1, "1");
        spans.decided(&decided(Uuid::from_u128(1), Uuid::from_u128(1), "00"));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn whoever_knows_the_cause_knows_the_parent() {
        let (spans, mut told, _) = spans(8, "1");
        let (command, record) = (Uuid::from_u128(1), Uuid::from_u128(2));
        spans.decided(&decided(command, command, "01"));
        let first = told.try_recv().unwrap();
        assert_eq!(first.parent_span_id, SpanId::from_bytes(CLIENT.to_be_bytes()), "the call");
        assert_eq!(first.name, "decide BidOnInvoice");
        spans.decided(&decided(Uuid::from_u128(3), record, "03"));
        let next = told.try_recv().unwrap();
        assert_eq!(next.parent_span_id, Step::React.span(record));
        let ids = [Step::Decide, Step::Relay, Step::React, Step::Project].map(|step| step.span(command));
        assert_eq!(ids[0], first.span_context.span_id());
        let different: std::collections::HashSet<SpanId> = ids.into();
        assert_eq!(different.len(), 4);
        // Of another release, or in another process, it is the same one.
        assert_eq!(ids[0].to_string(), "5341010db3a75a6e");
    }

    #[test]
    fn a_retry_stands_where_the_command_stood_that_died() {
        let (spans, mut told, _) = spans(8, "1");
        let letter = Uuid::from_u128(4);
        spans.decided(&decided(resolution_id(letter), letter, "01"));
        let again = told.try_recv().unwrap();
        assert_eq!(again.parent_span_id, SpanId::from_bytes(CLIENT.to_be_bytes()));
        assert_ne!(again.parent_span_id, Step::React.span(letter), "which nobody tells");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_nobody_waits() {
        let (spans, mut told, offer) = spans(1, "1");
        for number in 1..=3 {
            let command = Uuid::from_u128(number);
            spans.decided(&decided(command, command, "01"));
        }
        assert_eq!(offer.dropped(), 2);
        assert!(told.try_recv().is_ok());
    }
}
