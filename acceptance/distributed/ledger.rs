//! The log and the bus of one platform, read where they are stored and laid side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use eventsourcing::environment::Environment as _;
use eventsourcing::partition::{Deployment, Partition, PartitionCount, Sequence};
use eventsourcing::ports::{EventBus, EventLog};
use eventsourcing::record::Record;
use invoice_financing::nats::{self, Nats, NatsBus};
use invoice_financing::postgres::{self, PostgresLog};
use invoice_financing::runtime::environment::SystemEnvironment;
use uuid::Uuid;

use crate::harness::{Services, in_time};

/// Records read at once.
const PAGE: usize = 4096;

/// How often a condition is looked at that nobody rings a bell for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Looks until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let mut looks = tokio::time::interval(BETWEEN_LOOKS);
    let looking = async {
        while !is_so().await {
            looks.tick().await;
        }
    };
    in_time(what, looking).await;
}

/// The records of each partition, in order.
type Records = BTreeMap<Partition, Vec<Arc<Record>>>;

/// A deployment that a test makes where there is none yet.
pub(crate) fn new_deployment() -> Deployment {
    let created_at = SystemEnvironment.now().as_micros();
    Deployment { id: SystemEnvironment.uuid(), partitions: PartitionCount::DEFAULT, created_at }
}

/// The log and the bus.
pub(crate) struct Ledger {
    log: PostgresLog,
    bus: NatsBus,
}

impl Ledger {
    /// Of the platform on these services.
    pub(crate) async fn open(services: &Services) -> Self {
        Self::of(services, PartitionCount::DEFAULT).await
    }

    /// Of a platform with another number of partitions.
    pub(crate) async fn of(services: &Services, partitions: PartitionCount) -> Self {
        let log = postgres::Connect::new(services.commands.url(), "test");
        let log = PostgresLog::open(&log, &Deployment { partitions, ..new_deployment() }).await.unwrap();
        Self { log, bus: NatsBus::for_watchers(&connect(services).await) }
    }

    fn partitions(&self) -> PartitionCount {
        self.log.deployment().partitions
    }

    /// Ends the connections to the log.
    pub(crate) async fn close(self) {
        self.log.close().await;
    }

    /// Every record of the log. Fails where a sequence or a version has a gap, or a command has two outcomes.
    pub(crate) async fn log(&self) -> Records {
        let page = async |after: &[(Partition, Sequence)]| self.log.read(after, PAGE).await.unwrap();
        let records = read(self.partitions(), page).await;
        is_exact(&records);
        records
    }

    /// Every record of the bus.
    pub(crate) async fn bus(&self) -> Records {
        let page = async |after: &[(Partition, Sequence)]| self.bus.read(after, PAGE).await.unwrap();
        read(self.partitions(), page).await
    }

    /// Waits until the bus has as many records as the log, and compares them one by one. Answers with how many there are.
    pub(crate) async fn agree(&self) -> usize {
        let agree = async || {
            // The bus first: what is on it is in the log, however fast it goes on.
            let bus = self.bus().await;
            let log = self.log().await;
            for (partition, records) in &bus {
                let logged = log.get(partition).map_or(&[][..], Vec::as_slice);
                let differs = records.iter().zip(logged).find(|(relayed, logged)| relayed != logged);
                assert!(differs.is_none(), "the bus has another record than the log: {differs:?}");
                assert!(records.len() <= logged.len(), "the bus has more than the log");
            }
            count(&log) == count(&bus)
        };
        until("the bus has what the log has", agree).await;
        count(&self.log().await)
    }
}

/// The event log that the services keep, made where it is not there yet.
pub(crate) async fn open_log(services: &Services) -> PostgresLog {
    let connect = postgres::Connect::new(services.commands.url(), "test");
    PostgresLog::open(&connect, &new_deployment()).await.unwrap()
}

/// A connection of the test's own.
pub(crate) async fn connect(services: &Services) -> Nats {
    nats::connect(&nats::Connect::to(&services.nats.url())).await.unwrap()
}

/// The bus without the platform in front of it.
pub(crate) async fn connect_raw(services: &Services) -> jetstream::Context {
    jetstream::new(async_nats::connect(services.nats.url()).await.unwrap())
}

/// How many records these are.
pub(crate) fn count(records: &Records) -> usize {
    records.values().map(Vec::len).sum()
}

/// What became of every command that has an outcome: the record that says so.
pub(crate) fn outcomes(records: &Records) -> BTreeMap<Uuid, Arc<Record>> {
    let last = records.values().flatten().filter(|record| record.last_of_command);
    last.map(|record| (record.command_id, Arc::clone(record))).collect()
}

async fn read(
    partitions: PartitionCount,
    page: impl AsyncFn(&[(Partition, Sequence)]) -> Vec<Arc<Record>>,
) -> Records {
    let mut all: Records = partitions.all().map(|partition| (partition, Vec::new())).collect();
    loop {
        let after: Vec<(Partition, Sequence)> = all
            .iter()
            .map(|(partition, records)| {
                (*partition, records.last().map_or(Sequence::ZERO, |record| record.sequence))
            })
            .collect();
        let records = page(&after).await;
        if records.is_empty() {
            return all;
        }
        for record in records {
            all.get_mut(&record.partition).unwrap().push(record);
        }
    }
}

#[track_caller]
fn is_exact(records: &Records) {
    let (mut ids, mut commands) = (BTreeSet::new(), BTreeSet::new());
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for (partition, records) in records {
        for (record, sequence) in records.iter().zip(1..) {
            assert_eq!(record.sequence.get(), sequence, "partition {partition} has no gap");
            assert!(ids.insert(record.record_id), "a record id is unique: {record:?}");
            if record.last_of_command {
                assert!(commands.insert(record.command_id), "a command has one outcome: {record:?}");
            }
            if let Some(version) = record.version {
                let before = versions.insert(record.aggregate.to_string(), version.get()).unwrap_or(0);
                assert_eq!(version.get(), before + 1, "versions have no gap: {record:?}");
            }
        }
    }
}
