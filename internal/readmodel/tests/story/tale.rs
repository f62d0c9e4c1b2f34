//! Writes a log by hand, a record at a time, and lets the query side see as much of it as a test wants.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use domain::events::Event;
use domain::financing::{Command, Financing};
use domain::ids::InvoiceId;
use domain::refusal::Refusal;
use domain::saga::Saga;
use domain::story::{Stories as _, StoryView, StuckView, UnreadableStep};
use domain::views::QueryError;
use eventsourcing::environment::Timestamp;
use eventsourcing::letters::{Discard, resolution_id};
use eventsourcing::model::{AggregateRef, Model as _, Policies as _, Projection as _};
use eventsourcing::partition::{Partition, PartitionCount, Sequence, Version};
use eventsourcing::policy::{actor, derived_command_id};
use eventsourcing::ports::{CheckpointMove, EventBus as _, ProjectionStep, Publication, ReadModels as _};
use eventsourcing::record::{
    COMMAND_DEAD, COMMAND_REFUSED, COMMAND_UNCHANGED, DEAD_LETTER_DISCARDED, DeadData, DeathReason, Record,
    RefusedData, UnchangedData,
};
use eventsourcing::testkit::memory::{MemoryBus, MemoryReadModels};
use readmodel::{FinancingProjection, ReadModelQueries, tables};
use uuid::Uuid;

/// What a command came to.
pub(crate) enum Came {
    /// Facts.
    To(Vec<Event>),
    /// A refusal.
    Refused(Refusal),
    /// Nothing new.
    Unchanged,
    /// Its end.
    Dead(DeathReason),
}

/// A log, and a query side that sees it.
pub(crate) struct Tale {
    bus: MemoryBus,
    models: MemoryReadModels,
    heads: BTreeMap<Partition, Sequence>,
    versions: BTreeMap<AggregateRef, Version>,
    ids: u128,
    now: u64,
}

struct Origin {
    command_id: Uuid,
    correlation_id: Uuid,
    causation_id: Uuid,
    actor: String,
}

/// Memory lets others go first, and never waits for anybody.
/// So many microseconds after the beginning of all time.
pub(crate) fn micros(number: u128) -> Timestamp {
    Timestamp::from_micros(u64::try_from(number).unwrap())
}

pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let (mut future, mut context) = (pin!(future), Context::from_waker(Waker::noop()));
    for _ in 0..10_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("memory answers soon")
}

impl Tale {
    /// When it begins, in microseconds since the Unix epoch.
    pub(crate) const BEGIN: u64 = 1_800_000_000_000_000;
    /// From one record to the next, in microseconds.
    pub(crate) const STEP: u64 = 1_500;

    pub(crate) fn new() -> Self {
        Self {
            bus: MemoryBus::default(),
            models: MemoryReadModels::new(tables::TABLES),
            heads: BTreeMap::new(),
            versions: BTreeMap::new(),
            ids: 0,
            now: Self::BEGIN,
        }
    }

    pub(crate) fn models(&self) -> &MemoryReadModels {
        &self.models
    }

    pub(crate) fn bus(&self) -> &MemoryBus {
        &self.bus
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now)
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &self.ids.to_be_bytes())
    }

    /// A client's command, sent a millisecond before its outcome. Its records are on the bus and projected.
    pub(crate) fn client(&mut self, command: &Command, came: Came) -> Vec<Arc<Record>> {
        let records = self.sent(command, came);
        self.project(&records);
        records
    }

    /// The same, not projected yet.
    pub(crate) fn sent(&mut self, command: &Command, came: Came) -> Vec<Arc<Record>> {
        let random = self.id().into_bytes();
        let millis = (self.now + Self::STEP) / 1000 - 1;
        let entropy: [u8; 10] = random[..10].try_into().unwrap();
        let command_id = uuid::Builder::from_unix_timestamp_millis(millis, &entropy).into_uuid();
        let (correlation_id, causation_id) = (command_id, command_id);
        let origin = Origin { command_id, correlation_id, causation_id, actor: "tester".to_owned() };
        self.append(&origin, command, came)
    }

    /// What a policy makes of a record. Its records are on the bus and projected.
    pub(crate) fn follows(&mut self, cause: &Record, came: Came) -> Vec<Arc<Record>> {
        let records = self.effect(cause, came);
        self.project(&records);
        records
    }

    /// The same, not projected yet.
    pub(crate) fn effect(&mut self, cause: &Record, came: Came) -> Vec<Arc<Record>> {
        let entry = cause.entry::<Financing>().unwrap();
        let (policy, command) = Saga.react(&entry).expect("something follows");
        let origin = Origin {
            command_id: derived_command_id(cause.record_id, policy),
            correlation_id: cause.correlation_id,
            causation_id: cause.record_id,
            actor: actor(policy),
        };
        self.append(&origin, &command, came)
    }

    /// A person retries a dead command. Its records are on the bus and projected.
    pub(crate) fn retried(&mut self, dead: &Record, command: &Command, came: Came) -> Vec<Arc<Record>> {
        let origin = Origin { actor: dead.actor.clone(), ..Self::resolves(dead) };
        let records = self.append(&origin, command, came);
        self.project(&records);
        records
    }

    /// A person decides that nothing is to be done about a dead command. The record is on the bus and projected.
    pub(crate) fn discarded(&mut self, dead: &Record) -> Arc<Record> {
        let (letter_id, reason) = (dead.record_id, "it was a test".to_owned());
        let discard = Discard { letter_id, partition: dead.partition, reason, foreign: None };
        self.now += Self::STEP;
        let line = (DEAD_LETTER_DISCARDED, serde_json::to_string(&discard).unwrap(), false);
        let record = self.line(&Self::resolves(dead), &dead.aggregate, line, true);
        self.project(&[Arc::clone(&record)]);
        record
    }

    fn resolves(dead: &Record) -> Origin {
        Origin {
            command_id: resolution_id(dead.record_id),
            correlation_id: dead.correlation_id,
            causation_id: dead.record_id,
            actor: "operator".to_owned(),
        }
    }

    fn append(&mut self, origin: &Origin, command: &Command, came: Came) -> Vec<Arc<Record>> {
        let aggregate = Financing::target(command);
        let method = Cow::Borrowed(Financing::method(command));
        let raw = serde_json::value::to_raw_value(command).unwrap();
        let command = command.clone();
        let lines: Vec<(&'static str, String, bool)> = match came {
            Came::To(events) => {
                let encoded = events.iter().map(|event| event.encode().unwrap());
                encoded.map(|encoded| (encoded.event_type, encoded.data, true)).collect()
            }
            Came::Refused(refusal) => {
                let (reason, message) = (refusal.code().into(), refusal.to_string());
                let data = RefusedData { reason, message, refusal, method, command };
                vec![(COMMAND_REFUSED, serde_json::to_string(&data).unwrap(), false)]
            }
            Came::Unchanged => {
                let data = UnchangedData { method, command };
                vec![(COMMAND_UNCHANGED, serde_json::to_string(&data).unwrap(), false)]
            }
            Came::Dead(reason) => {
                let message = "it came to the wrong place".to_owned();
                let data = DeadData { reason, message, command: Some(raw), raw: None, discards: None };
                vec![(COMMAND_DEAD, serde_json::to_string(&data).unwrap(), false)]
            }
        };
        self.now += Self::STEP;
        let last = lines.len() - 1;
        let lines = lines.into_iter().enumerate();
        lines.map(|(index, line)| self.line(origin, &aggregate, line, index == last)).collect()
    }

    fn line(
        &mut self,
        origin: &Origin,
        aggregate: &AggregateRef,
        (event_type, data, is_fact): (&'static str, String, bool),
        last_of_command: bool,
    ) -> Arc<Record> {
        let partition = PartitionCount::DEFAULT.partition_of(aggregate.id);
        let expected = self.heads.get(&partition).copied().unwrap_or_default();
        let version = is_fact.then(|| {
            let version = self.versions.entry(aggregate.clone()).or_default();
            *version = version.next();
            *version
        });
        let record = Arc::new(Record {
            partition,
            sequence: expected.next(),
            record_id: self.id(),
            recorded_at: self.now(),
            aggregate: aggregate.clone(),
            version,
            event_type: event_type.into(),
            schema: 1,
            data,
            command_id: origin.command_id,
            correlation_id: origin.correlation_id,
            causation_id: origin.causation_id,
            actor: origin.actor.clone(),
            traceparent: None,
            last_of_command,
        });
        self.heads.insert(partition, record.sequence);
        let publication = Publication { partition, expected, records: vec![Arc::clone(&record)] };
        assert_eq!(at_once(self.bus.publish(vec![publication])), [Ok(())]);
        record
    }

    /// The query side sees these, which come next in their partitions.
    pub(crate) fn project(&self, records: &[Arc<Record>]) {
        for record in records {
            let from = Sequence::new(record.sequence.get() - 1);
            let checkpoint = CheckpointMove { partition: record.partition, from, to: record.sequence };
            let changes = FinancingProjection.project(record, &record.entry::<Financing>().unwrap());
            let step = ProjectionStep { checkpoint, record_id: record.record_id, changes };
            assert_eq!(at_once(self.models.apply(vec![step])), Ok(vec![true]));
        }
    }

    pub(crate) fn queries(&self) -> ReadModelQueries<MemoryReadModels> {
        ReadModelQueries::new(self.models.clone())
    }

    pub(crate) fn try_story(&self, invoice_id: InvoiceId) -> Result<Option<StoryView>, QueryError> {
        at_once(self.queries().story(&self.bus, invoice_id))
    }

    pub(crate) fn story(&self, invoice_id: InvoiceId) -> StoryView {
        self.try_story(invoice_id).expect("it can be read").expect("there is one")
    }

    /// What is expected, and was before now.
    pub(crate) fn stuck(&self) -> Vec<StuckView> {
        self.steps().into_iter().map(|step| step.expect("it can be read")).collect()
    }

    /// The same, with those that cannot be read.
    pub(crate) fn steps(&self) -> Vec<Result<StuckView, UnreadableStep>> {
        at_once(self.queries().stuck(&self.bus, self.now(), 10)).expect("an answer")
    }
}
