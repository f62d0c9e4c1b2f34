//! What is particular to these adapters, and the contracts of their ports.

mod cancelled;
mod opening;
mod owners;
mod projecting;
mod rebuilding;
mod roles;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use eventsourcing::partition::{Deployment, Partition, PartitionCount, Sequence};
use eventsourcing::ports::{
    CheckpointMove, Checkpoints, Commit, EventLog, ForeignPositions, Leases, LoadRequest, PortError,
    ProjectionStep, ReadModelSchema, ReadModels, Role, RowChange, RowQuery, Value,
};
use eventsourcing::record::Record;
use eventsourcing::testkit::contract;
use eventsourcing::testkit::contract::sample::{
    Owner, TABLES, THINGS, aggregate, append, id, partition, snapshot,
};
use services::{Database, services};
use sqlx::AssertSqlSafe;
use sqlx::types::Uuid;
use tokio::sync::Mutex;

use super::connect::Session;
use super::sql::{Values, get};
use super::{Connect, OpenError, PostgresLog, PostgresReadModels, migrate_log, migrate_read_models};

const DEPLOYMENT: Deployment =
    Deployment { id: Uuid::from_u128(7), partitions: PartitionCount::DEFAULT, created_at: 1_000 };
const MODELS: ReadModelSchema = ReadModelSchema { version: 1, tables: TABLES };

/// As the owner, with few connections: many tests run at once.
fn owner(database: &Database) -> Connect {
    Connect { connections: 4, ..Connect::new(database.url(), "tests") }
}

async fn log(database: &Database) -> PostgresLog {
    PostgresLog::open(&owner(database), &DEPLOYMENT).await.unwrap()
}

async fn models(database: &Database) -> PostgresReadModels {
    PostgresReadModels::open(&owner(database), &DEPLOYMENT, MODELS).await.unwrap()
}

/// A database for the stores of a suite: each in a schema of its own, which is made much quicker than a database.
struct Stores {
    database: Database,
    session: Mutex<Session>,
    made: Cell<u32>,
}

impl Stores {
    async fn new() -> Self {
        let database = services().database();
        let session = Mutex::new(owner(&database).session().await.unwrap());
        Self { database, session, made: Cell::new(0) }
    }

    /// An empty place for a store.
    async fn fresh(&self) -> Connect {
        let (number, owner) = (self.made.replace(self.made.get() + 1), owner(&self.database));
        let sql = AssertSqlSafe(format!("CREATE SCHEMA store_{number}"));
        self.session.lock().await.execute(sql).await.unwrap();
        Connect { url: format!("{}?options[search_path]=store_{number}", owner.url), ..owner }
    }

    async fn log(&self) -> PostgresLog {
        PostgresLog::open(&self.fresh().await, &DEPLOYMENT).await.unwrap()
    }

    async fn models(&self) -> PostgresReadModels {
        PostgresReadModels::open(&self.fresh().await, &DEPLOYMENT, MODELS).await.unwrap()
    }

    /// Lets some of the server's time pass, which is the one that leases run by.
    async fn pause(&self) {
        self.session.lock().await.execute("SELECT pg_sleep(0.02)").await.unwrap();
    }
}

/// Completes when the session sees what it is waiting for.
async fn until(session: &mut Session, condition: &'static str) {
    let seen = async { while !session.one::<bool>(condition).await.unwrap() {} };
    tokio::time::timeout(Duration::from_secs(20), seen)
        .await
        .unwrap_or_else(|_| panic!("never: {condition}"));
}

const fn from(partition: Partition, sequence: u64) -> (Partition, Sequence) {
    (partition, Sequence::new(sequence))
}

fn step(number: u16, from: u64, to: u64, changes: Vec<RowChange>) -> ProjectionStep {
    let (from, to) = (Sequence::new(from), Sequence::new(to));
    ProjectionStep {
        checkpoint: CheckpointMove { partition: partition(number), from, to },
        record_id: id("record"),
        changes,
    }
}

fn set(key: Uuid, column: &'static str, value: Value) -> RowChange {
    RowChange { table: THINGS, key, set: vec![(column, value)], add: Vec::new() }
}

fn add(key: Uuid, column: &'static str, amount: i64) -> RowChange {
    RowChange { table: THINGS, key, set: Vec::new(), add: vec![(column, amount)] }
}

#[tokio::test]
async fn the_dead_letters_keep_their_contract() {
    let stores = Stores::new().await;
    contract::dead_commands(async || stores.log().await).await;
}

#[tokio::test]
async fn the_log_keeps_its_contract() {
    let stores = Stores::new().await;
    contract::event_log(async || stores.log().await).await;
}

#[tokio::test]
async fn the_checkpoints_keep_their_contract() {
    let stores = Stores::new().await;
    contract::checkpoints(async || stores.log().await).await;
}

#[tokio::test]
async fn the_foreign_positions_keep_their_contract() {
    let stores = Stores::new().await;
    contract::foreign_positions(async || stores.log().await).await;
}

#[tokio::test]
async fn the_read_models_keep_their_contract() {
    let stores = Stores::new().await;
    contract::read_models(async || stores.models().await).await;
}

#[tokio::test]
async fn the_rebuilds_keep_their_contract() {
    let stores = Stores::new().await;
    contract::rebuilds(async || stores.models().await).await;
}

#[tokio::test]
async fn the_leases_of_the_log_keep_their_contract() {
    let stores = Stores::new().await;
    contract::leases(async || stores.log().await, async || stores.pause().await).await;
}

#[tokio::test]
async fn the_leases_of_the_read_models_keep_their_contract() {
    let stores = Stores::new().await;
    contract::leases(async || stores.models().await, async || stores.pause().await).await;
}
