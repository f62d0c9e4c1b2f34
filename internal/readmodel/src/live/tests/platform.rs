//! A platform in memory, whose projection moves on between any two calls.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use domain::events::Event;
use domain::financing::Financing;
use domain::investor::InvestorEvent;
use domain::invoice::InvoiceEvent;
use domain::live::Resume;
use eventsourcing::environment::Timestamp;
use eventsourcing::model::{AggregateRef, Projection as _};
use eventsourcing::partition::{Partition, Version};
use eventsourcing::ports::{
    CheckpointMove, EventBus as _, PortError, PortResult, Projected, ProjectionStep, Publication,
    RankedQuery, ReadModels, Row, RowQuery, Value,
};
use eventsourcing::record::Record;
use eventsourcing::testkit::memory::{MemoryBus, MemoryReadModels};
use eventsourcing::testkit::world::Dice;
use uuid::Uuid;

use super::{now, partitions};
use crate::live::feed::Feed;
use crate::live::lookout::Lookout;
use crate::live::recent::Recent;
use crate::live::{Bounds, Watched};
use crate::projection::FinancingProjection;
use crate::tables::TABLES;

/// Every state that a row of a table was in.
type Said = BTreeMap<(&'static str, Uuid), Vec<Vec<Option<Value>>>>;

/// What the watches of one process share.
pub(super) type Shared = (Arc<Lookout<Platform>>, Arc<Recent<MemoryBus>>);

/// Fewer records of each partition than come while nobody looks.
const FEW: usize = 3;

/// Bus, read models, and all that any row has ever said.
#[derive(Clone)]
pub(super) struct Platform {
    pub(super) bus: MemoryBus,
    pub(super) models: MemoryReadModels,
    pub(super) said: Arc<Mutex<Said>>,
    /// In how many of a hundred cases the projection moves on before a call is answered.
    moves: Arc<Mutex<(usize, Dice)>>,
}

impl Platform {
    pub(super) fn new(seed: u64, percent: usize) -> Self {
        let moves = Arc::new(Mutex::new((percent, Dice::new(seed))));
        let (bus, models) = (MemoryBus::default(), MemoryReadModels::new(TABLES));
        Self { bus, models, said: Arc::default(), moves }
    }

    pub(super) fn publish(&self, event: &Event) {
        let partition = partitions().partition_of(subject(event).id);
        let expected = self.bus.last(partition);
        self.publish_as(event, Uuid::new_v5(&Uuid::nil(), format!("{partition}-{expected}").as_bytes()));
    }

    pub(super) fn publish_as(&self, event: &Event, id: Uuid) {
        let aggregate = subject(event);
        let partition = partitions().partition_of(aggregate.id);
        let (expected, encoded) = (self.bus.last(partition), event.encode().unwrap());
        let record = Record {
            partition,
            sequence: expected.next(),
            record_id: id,
            recorded_at: Timestamp::default(),
            aggregate,
            version: Some(Version::new(1)),
            event_type: Cow::Borrowed(encoded.event_type),
            schema: encoded.schema,
            data: encoded.data,
            command_id: id,
            correlation_id: id,
            causation_id: id,
            actor: "test".to_owned(),
            traceparent: None,
            last_of_command: true,
        };
        let publication = Publication { partition, expected, records: vec![Arc::new(record)] };
        now(self.bus.publish(vec![publication])).remove(0).unwrap();
    }

    /// Projects at most so many records of a partition, in one step.
    pub(super) fn project(&self, partition: Partition, most: usize) {
        let from = self.models.checkpoint(partition);
        let records = now(self.bus.read(&[(partition, from)], most)).unwrap();
        let Some(last) = records.last() else { return };
        let changes: Vec<_> = records
            .iter()
            .flat_map(|record| FinancingProjection.project(record, &record.entry::<Financing>().unwrap()))
            .collect();
        let rows: Vec<_> = changes.iter().map(|change| (change.table, change.key)).collect();
        let checkpoint = CheckpointMove { partition, from, to: last.sequence };
        let step = ProjectionStep { checkpoint, record_id: last.record_id, changes };
        assert_eq!(now(self.models.apply(vec![step])), Ok(vec![true]));
        let mut said = self.said.lock().unwrap();
        for (table, key) in rows {
            let row = now(self.models.row(table, key)).unwrap().unwrap();
            let states = said.entry((table, key)).or_default();
            if states.last() != Some(&row.values) {
                states.push(row.values);
            }
        }
    }

    pub(super) fn project_all(&self) {
        for partition in partitions().all() {
            self.project(partition, usize::MAX);
        }
    }

    /// Perhaps the projection moves on.
    fn moves_on(&self) {
        let (partition, most) = {
            let mut moves = self.moves.lock().unwrap();
            let percent = moves.0;
            if !moves.1.percent(percent) {
                return;
            }
            (moves.1.below(usize::from(partitions().get())), 1 + moves.1.below(3))
        };
        self.project(Partition::from_index(u16::try_from(partition).unwrap()), most);
    }

    pub(super) fn feed<V>(
        &self,
        watched: Watched<V>,
        from: Option<Resume>,
        bounds: Bounds,
    ) -> Feed<Self, MemoryBus, V> {
        let (lookout, recent) = self.shared(FEW);
        Feed::new(lookout, recent, watched, from, bounds)
    }

    /// What the watches of one process share, with so many records of each partition.
    pub(super) fn shared(&self, recent: usize) -> Shared {
        let count = usize::from(partitions().get());
        let lookout = Lookout::new(Arc::new(self.clone()), partitions(), 1);
        (Arc::new(lookout), Arc::new(Recent::new(Arc::new(self.bus.clone()), count, recent)))
    }
}

impl ReadModels for Platform {
    async fn checkpoints(&self, partitions: &[Partition]) -> PortResult<Vec<(Partition, Projected)>> {
        self.moves_on();
        self.models.checkpoints(partitions).await
    }

    async fn apply(&self, _: Vec<ProjectionStep>) -> PortResult<Vec<bool>> {
        Err(PortError::Broken("a watch writes nothing".to_owned()))
    }

    async fn row(&self, table: &'static str, key: Uuid) -> PortResult<Option<Row>> {
        self.moves_on();
        self.models.row(table, key).await
    }

    async fn rows(&self, query: &RowQuery) -> PortResult<Vec<Row>> {
        self.moves_on();
        self.models.rows(query).await
    }

    async fn ranked(&self, query: &RankedQuery) -> PortResult<Vec<Row>> {
        self.moves_on();
        self.models.ranked(query).await
    }
}

pub(super) fn subject(event: &Event) -> AggregateRef {
    match event {
        Event::Issuer(_) => AggregateRef::new("issuer", Uuid::from_u128(1)),
        Event::Investor(event) => match event {
            InvestorEvent::InvestorCreated(event) => event.investor_id,
            InvestorEvent::InvestorFundsAdded(event) => event.investor_id,
            InvestorEvent::BidOnInvoicePlaced(event) => event.investor_id,
            InvestorEvent::InvestorFundsReleased(event) => event.investor_id,
            InvestorEvent::InvestorFundsCommitted(event) => event.investor_id,
        }
        .aggregate(),
        Event::Invoice(event) => match event {
            InvoiceEvent::InvoiceCreated(event) => event.invoice_id,
            InvoiceEvent::InvoiceFinanced(event) => event.invoice_id,
            InvoiceEvent::BidOnInvoiceRejected(event) => event.invoice_id,
            InvoiceEvent::InvoiceApproved(event) => event.invoice_id,
            InvoiceEvent::InvoiceReversed(event) => event.invoice_id,
        }
        .aggregate(),
    }
}
