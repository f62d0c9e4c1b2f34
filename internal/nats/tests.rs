//! What is particular to these adapters, and the contracts of their ports, over real servers.

mod cluster;
mod connections;
mod contracts;
mod others;
mod publishing;
mod reading;
mod restarts;
mod streams;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use eventsourcing::assignment::Assignment;
use eventsourcing::environment::{Environment, Timestamp};
use eventsourcing::partition::{Deployment, Partition, PartitionCount, Sequence};
use eventsourcing::ports::{EventBus, PortError, PortResult, Publication};
use eventsourcing::record::Record;
use eventsourcing::relayer::Relayer;
use eventsourcing::testkit::contract::sample::{aggregate, fact};
use eventsourcing::testkit::memory::MemoryLog;
use serde_json::{Value, json};
use services::NatsServer;
use uuid::Uuid;

use super::{Connect, Nats, NatsBus, Streams, connect};

const DEPLOYMENT: Deployment =
    Deployment { id: Uuid::from_u128(7), partitions: PartitionCount::DEFAULT, created_at: 1_000 };
/// Longer than anything takes.
const ENOUGH: Duration = Duration::from_mins(1);

fn streams() -> Streams {
    Streams { deployment: Some(DEPLOYMENT), ..Streams::of(DEPLOYMENT.partitions) }
}

async fn connected(server: &NatsServer) -> Nats {
    connect(&Connect::to(&server.url())).await.unwrap()
}

/// The clock of this machine.
#[derive(Clone)]
struct Here;

impl Environment for Here {
    fn now(&self) -> Timestamp {
        Timestamp::default().after(UNIX_EPOCH.elapsed().unwrap())
    }

    fn uuid(&self) -> Uuid {
        Uuid::nil()
    }

    fn random(&self) -> u64 {
        0
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}

fn relayer_of(
    log: &MemoryLog,
    bus: NatsBus,
    partitions: impl IntoIterator<Item = Partition>,
) -> Relayer<MemoryLog, NatsBus, Here> {
    Relayer::new(log.clone(), bus, Here, Assignment::of(partitions))
}

/// A server with all streams, and a connection to it.
async fn ready() -> (NatsServer, Nats) {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    fresh(&nats).await;
    (server, nats)
}

/// All streams, empty.
async fn fresh(nats: &Nats) {
    let names: Value = asked(nats, "STREAM.NAMES", &json!({})).await;
    for name in names["streams"].as_array().into_iter().flatten() {
        delete(nats, name.as_str().unwrap()).await;
    }
    nats.ensure_queues(&streams()).await.unwrap();
    nats.ensure_events(&streams()).await.unwrap();
}

async fn asked(nats: &Nats, subject: &str, request: &Value) -> Value {
    nats.request::<Value>(subject, request).await.unwrap().unwrap()
}

async fn delete(nats: &Nats, stream: &str) {
    asked(nats, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
}

/// Tries until it comes out.
async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let trying = async {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            tokio::task::yield_now().await;
        }
    };
    let Ok(value) = tokio::time::timeout(ENOUGH, trying).await else { panic!("never: {what}") };
    value
}

/// Waits until there is a connection again, and JetStream behind it.
async fn back(nats: &Nats) {
    until("a connection", async || nats.request::<Value>("INFO", &()).await.ok()?.ok()).await;
}

/// Records of a partition, with the sequences after `after`.
fn records(partition: Partition, after: u64, count: u64) -> Vec<Arc<Record>> {
    let aggregate = aggregate(partition, 0);
    (after + 1..=after + count).map(|at| Arc::new(fact(partition, at, &aggregate, at))).collect()
}

fn publication(records: &[Arc<Record>]) -> Publication {
    let first = &records[0];
    let expected = Sequence::new(first.sequence.get() - 1);
    Publication { partition: first.partition, expected, records: records.to_vec() }
}

async fn publish(bus: &NatsBus, records: &[Arc<Record>]) {
    assert_eq!(bus.publish(vec![publication(records)]).await, [Ok(())]);
}

const fn from(partition: Partition, sequence: u64) -> (Partition, Sequence) {
    (partition, Sequence::new(sequence))
}

fn sequences(records: &[Arc<Record>]) -> Vec<u64> {
    records.iter().map(|record| record.sequence.get()).collect()
}

fn unavailable<T: std::fmt::Debug>(answer: PortResult<T>) -> String {
    match answer {
        Err(PortError::Unavailable(reason)) => reason,
        other => panic!("{other:?} is not unavailable"),
    }
}

/// Reads until so many records are there.
async fn read_all(bus: &NatsBus, partition: Partition, count: u64) -> Vec<Arc<Record>> {
    let mut all: Vec<Arc<Record>> = Vec::new();
    let bell = bus.bells().hang();
    let reading = async {
        while (all.len() as u64) < count {
            let after = from(partition, all.len() as u64);
            let more = bus.read(&[after], 1000).await.unwrap();
            if more.is_empty() {
                bell.rung().await;
            }
            all.extend(more);
        }
    };
    tokio::time::timeout(ENOUGH, reading).await.expect("all records come");
    all
}
