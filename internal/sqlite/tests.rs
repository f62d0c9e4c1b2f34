//! What is particular to these adapters, and the contracts of their ports.

mod platform;
mod readmodels;
mod writing;

use std::cell::RefCell;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use eventsourcing::command::Bundle;
use eventsourcing::environment::Doorbells;
use eventsourcing::partition::{Deployment, Partition, PartitionCount, Sequence};
use eventsourcing::ports::{
    CheckpointMove, Checkpoints, CommandQueue as _, Commit, DeadCommands as _, DeadQuery, EventBus as _,
    EventLog, LoadRequest, PortError, PortResult, ProjectionStep, Publication, ReadModelSchema,
    ReadModels as _, RowChange, Value,
};
use eventsourcing::record::Record;
use eventsourcing::testkit::contract;
use eventsourcing::testkit::contract::sample::{
    Owner, TABLES, THINGS, aggregate, append, bundle, id, partition, snapshot,
};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _, Row as _};
use tempfile::TempDir;
use uuid::Uuid;

use super::connect;
use super::sql::{Many, count, rows};
use super::writer::{Job, Writer};
use super::{Access, DirectoryLock, OpenError, PlatformStore, SqliteReadModels};

const DEPLOYMENT: Deployment =
    Deployment { id: Uuid::from_u128(7), partitions: PartitionCount::DEFAULT, created_at: 1_000 };
const MODELS: ReadModelSchema = ReadModelSchema { version: 1, tables: TABLES };

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn alone(directory: &Path) -> PlatformStore {
    let lock = DirectoryLock::acquire(directory).unwrap();
    PlatformStore::open(directory, Access::Alone(lock), &DEPLOYMENT).await.unwrap()
}

async fn shared(directory: &Path) -> PlatformStore {
    PlatformStore::open(directory, Access::Shared, &DEPLOYMENT).await.unwrap()
}

async fn models(directory: &Path) -> SqliteReadModels {
    SqliteReadModels::open(&directory.join("readmodels.db"), &DEPLOYMENT, MODELS).await.unwrap()
}

/// A new directory, which stays until the end.
fn fresh(directories: &RefCell<Vec<TempDir>>) -> std::path::PathBuf {
    let directory = temporary();
    let path = directory.path().to_owned();
    directories.borrow_mut().push(directory);
    path
}

fn sequences(records: &[Arc<Record>]) -> Vec<u64> {
    records.iter().map(|record| record.sequence.get()).collect()
}

const fn from(partition: Partition, sequence: u64) -> (Partition, Sequence) {
    (partition, Sequence::new(sequence))
}

#[tokio::test]
async fn the_dead_letters_keep_their_contract() {
    let kept = RefCell::default();
    contract::dead_commands(async || alone(&fresh(&kept)).await.log()).await;
    contract::dead_commands(async || shared(&fresh(&kept)).await.log()).await;
}

#[tokio::test]
async fn a_file_of_an_earlier_release_gets_its_index_of_dead_letters() {
    let directory = temporary();
    let store = alone(directory.path()).await;
    let mut connection =
        SqliteConnection::connect(&directory.path().join("platform.db").display().to_string()).await.unwrap();
    connection.execute("DROP INDEX dead_commands").await.unwrap();
    connection.close().await.unwrap();
    let asked = DeadQuery { limit: 1, ..DeadQuery::default() };
    assert!(store.log().dead(&asked).await.is_err(), "nothing is looked for without the index");
    store.close().await;
    drop(store);
    let store = alone(directory.path()).await;
    assert_eq!(store.log().dead(&asked).await, Ok(Vec::new()));
}

#[tokio::test]
async fn the_log_keeps_its_contract() {
    let kept = RefCell::default();
    contract::event_log(async || alone(&fresh(&kept)).await.log()).await;
    contract::event_log(async || shared(&fresh(&kept)).await.log()).await;
}

#[tokio::test]
async fn the_checkpoints_keep_their_contract() {
    let kept = RefCell::default();
    contract::checkpoints(async || alone(&fresh(&kept)).await.log()).await;
}

#[tokio::test]
async fn what_waits_is_counted_as_promised() {
    let kept = RefCell::default();
    contract::waiting(async || {
        let queue = alone(&fresh(&kept)).await.queue();
        (queue.clone(), queue)
    })
    .await;
}

#[tokio::test]
async fn the_queue_keeps_its_contract() {
    let kept = RefCell::default();
    contract::command_queue(async || alone(&fresh(&kept)).await.queue()).await;
    contract::command_queue(async || shared(&fresh(&kept)).await.queue()).await;
}

#[tokio::test]
async fn the_bus_keeps_its_contract() {
    let kept = RefCell::default();
    let parts = |store: PlatformStore| (store.log(), store.bus());
    contract::event_bus(async || parts(alone(&fresh(&kept)).await)).await;
    contract::event_bus(async || parts(shared(&fresh(&kept)).await)).await;
}

#[tokio::test]
async fn the_read_models_keep_their_contract() {
    let kept = RefCell::default();
    contract::read_models(async || models(&fresh(&kept)).await).await;
}

#[tokio::test]
async fn the_rebuilds_keep_their_contract() {
    let kept = RefCell::default();
    contract::rebuilds(async || models(&fresh(&kept)).await).await;
}

#[tokio::test]
async fn a_swap_does_not_wait_for_whoever_reads() {
    let kept = RefCell::new(Vec::new());
    let path = RefCell::new(std::path::PathBuf::new());
    let make = async || {
        let directory = fresh(&kept);
        *path.borrow_mut() = directory.join("readmodels.db");
        models(&directory).await
    };
    let read = async |_: &SqliteReadModels| {
        let file = path.borrow().clone();
        let mut reader = connect::writer(&file).await.unwrap();
        reader.execute("BEGIN").await.unwrap();
        reader.execute("SELECT * FROM things").await.unwrap();
        reader
    };
    contract::swaps_beside_readers(make, read, false).await;
}

#[tokio::test]
async fn a_directory_belongs_to_one_process() {
    let directory = temporary();
    let lock = DirectoryLock::acquire(directory.path()).unwrap();
    let refused = DirectoryLock::acquire(directory.path()).unwrap_err().to_string();
    assert!(refused.contains(&directory.path().display().to_string()), "{refused}");
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    drop(lock);
    DirectoryLock::acquire(directory.path()).unwrap();
}

#[tokio::test]
async fn every_connection_flushes_as_it_was_asked_to() {
    let directory = temporary();
    let path = directory.path().join("some.db");
    let mut writer = connect::writer(&path).await.unwrap();
    let readers = connect::readers(&path).await.unwrap();
    let mut reader = readers.acquire().await.unwrap();
    for connection in [&mut writer, &mut *reader] {
        let row = connection.fetch_one("PRAGMA synchronous").await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 2, "synchronous is FULL");
        let row = connection.fetch_one("PRAGMA journal_mode").await.unwrap();
        assert_eq!(row.get::<String, _>(0), "wal");
    }
    assert!(reader.execute("CREATE TABLE t (a)").await.is_err(), "a reader cannot write");
}

#[tokio::test]
async fn a_file_of_another_shape_is_refused() {
    let directory = temporary();
    let store = alone(directory.path()).await;
    models(directory.path()).await.close().await;
    store.close().await;
    drop(store);
    let other = Deployment { partitions: PartitionCount::new(4).unwrap(), ..DEPLOYMENT };
    let refused = PlatformStore::open(directory.path(), Access::Shared, &other).await.err().unwrap();
    assert!(matches!(refused, OpenError::Partitions { .. }));
    let text = refused.to_string();
    assert!(text.contains("created with 16 partitions") && text.contains("but 4 are configured"), "{text}");

    let file = directory.path().join("readmodels.db");
    let refused = SqliteReadModels::open(&file, &other, MODELS).await.err().unwrap();
    assert!(matches!(refused, OpenError::Partitions { .. }));
    let other = Deployment { id: Uuid::from_u128(8), ..DEPLOYMENT };
    let refused = SqliteReadModels::open(&file, &other, MODELS).await.err().unwrap();
    assert!(matches!(refused, OpenError::Deployment { .. }));
    let newer = ReadModelSchema { version: 2, ..MODELS };
    let refused = SqliteReadModels::open(&file, &DEPLOYMENT, newer).await.err().unwrap();
    assert!(matches!(refused, OpenError::Schema { .. }));

    change(directory.path(), "UPDATE meta SET value = 'platform-999' WHERE key = 'schema'").await.unwrap();
    let refused = PlatformStore::open(directory.path(), Access::Shared, &DEPLOYMENT).await.err().unwrap();
    assert!(refused.to_string().contains("platform-999"), "{refused}");
}

/// Changes the file behind the store's back.
async fn change(directory: &Path, sql: &'static str) -> Result<(), sqlx::Error> {
    let mut connection = connect::writer(&directory.join("platform.db")).await.unwrap();
    connection.execute(sql).await?;
    connection.close().await
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let directory = temporary();
    let (one, two) = (partition(1), partition(2));
    let store = alone(directory.path()).await;
    let written = append(&store.log(), one, 0, 3).await;
    let publication =
        Publication { partition: one, expected: Sequence::ZERO, records: written[..2].to_vec() };
    assert_eq!(store.bus().publish(vec![publication]).await, [Ok(())]);
    assert_eq!(store.queue().enqueue(vec![bundle(two, &[id("a")])]).await, [Ok(())]);
    let step = CheckpointMove { partition: one, from: Sequence::ZERO, to: Sequence::new(2) };
    assert_eq!(store.log().advance("reader", &[step]).await, Ok(vec![true]));
    store.close().await;
    assert!(matches!(store.log().take_over(&[one]).await, Err(PortError::Unavailable(_))), "it is closed");
    drop(store);

    let later = Deployment { id: Uuid::from_u128(9), created_at: 2_000, ..DEPLOYMENT };
    let lock = DirectoryLock::acquire(directory.path()).unwrap();
    let store = PlatformStore::open(directory.path(), Access::Alone(lock), &later).await.unwrap();
    assert_eq!(store.deployment(), DEPLOYMENT, "it is the deployment that it was created as");
    assert_eq!(store.queue().created_at().await, Ok(1_000));
    assert_eq!(store.log().read(&[from(one, 0)], 10).await.unwrap(), written);
    assert_eq!(store.bus().read(&[from(one, 0)], 10).await.unwrap(), written[..2]);
    assert_eq!(store.queue().read(&[(two, 0)], 10).await.unwrap().len(), 1);
    assert_eq!(store.log().rows(&[one]).await.unwrap()[0].1.head, Sequence::new(3));
    let log = store.log();
    assert_eq!(Checkpoints::load(&log, "reader", &[one]).await, Ok(vec![from(one, 2)]));
}
