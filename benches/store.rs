//! The store alone: 2,000 accounts are opened and get 10 commands each, over PostgreSQL, which flushes every commit to disk.
//!
//! `cargo bench --bench store`. It starts a PostgreSQL of its own, and ends it. Each command is an aggregate that is loaded from
//! its events, a decision, and a transaction with the event, the outcome and the partition's row, as the worker writes them.
//! There are no servers, queues and buses in front of it, and nothing is remembered between two commands.
//!
//! Without batching every client commits one command at a time. A partition's row is moved by compare-and-set, so two clients
//! with commands of one partition take turns; there are 64 partitions. With batching one client commits many commands of many
//! partitions in one transaction, as the platform's worker does with what waits in the queue.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a benchmark stops where something is wrong, and measures with the machine's clock"
)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use eventsourcing::environment::{Environment as _, Timestamp};
use eventsourcing::model::AggregateRef;
use eventsourcing::outcome::{Fingerprint, Outcome, Verdict};
use eventsourcing::partition::{Deployment, Partition, PartitionCount, Sequence, Version};
use eventsourcing::ports::{
    Commit, EventLog as _, History, InboxEntry, LoadRequest, PartitionCommit, PartitionRow, QueuePosition,
};
use eventsourcing::record::Record;
use hdrhistogram::Histogram;
use invoice_financing::postgres::{Connect, PostgresLog};
use invoice_financing::runtime::environment::SystemEnvironment;
use services::PostgresServer;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

const ACCOUNTS: usize = 2000;
const COMMANDS: usize = 10;
const PARTITIONS: u16 = 64;
const CREATED_AT: u64 = 1_767_225_600_000_000;
const DEPOSIT: i64 = 7;

/// What is asked of an account. One that is not open has no balance.
#[derive(Clone, Copy)]
struct Ask {
    account: Uuid,
    open: bool,
}

/// Folds an account's events, and says which comes next.
fn decide(history: &History, ask: Ask) -> (u64, &'static str, String) {
    let balance = history.events.iter().fold(None, |balance: Option<i64>, event| {
        let change: i64 =
            serde_json::from_str::<serde_json::Value>(&event.data).unwrap()["amount"].as_i64().unwrap();
        Some(balance.unwrap_or(0) + change)
    });
    assert_eq!(balance.is_none(), ask.open, "an account is opened once, and used after that");
    let version = u64::try_from(history.events.len()).unwrap() + 1;
    if ask.open {
        return (version, "AccountOpened", r#"{"amount":0}"#.to_owned());
    }
    (
        version,
        "AmountDeposited",
        format!(r#"{{"amount":{DEPOSIT},"balance":{}}}"#, balance.unwrap_or(0) + DEPOSIT),
    )
}

/// A store, and what the owner of each partition remembers of it.
struct Store {
    log: PostgresLog,
    partitions: PartitionCount,
    rows: BTreeMap<Partition, Mutex<PartitionRow>>,
}

impl Store {
    async fn open(url: &str, connections: u32) -> Self {
        let partitions = PartitionCount::new(PARTITIONS).unwrap();
        let new = Deployment { id: SystemEnvironment.uuid(), partitions, created_at: CREATED_AT };
        let connect = Connect { connections, ..Connect::new(url, "bench") };
        let log = PostgresLog::open(&connect, &new).await.unwrap();
        let all: Vec<Partition> = partitions.all().collect();
        let rows = log.take_over(&all).await.unwrap();
        let rows = rows.into_iter().map(|(partition, row)| (partition, Mutex::new(row))).collect();
        Self { log, partitions, rows }
    }

    /// Loads, decides and commits: one transaction, however many commands it is.
    async fn execute(&self, asks: &[Ask]) {
        let mut of_partition: BTreeMap<Partition, Vec<Ask>> = BTreeMap::new();
        for ask in asks {
            of_partition.entry(self.partitions.partition_of(ask.account)).or_default().push(*ask);
        }
        // In order of the partitions, as everybody takes them.
        let mut owned = Vec::new();
        for (partition, asks) in of_partition {
            owned.push((partition, self.rows[&partition].lock().await, asks));
        }
        let aggregates: Vec<AggregateRef> = owned
            .iter()
            .flat_map(|(_, _, asks)| asks.iter().map(|ask| AggregateRef::new("account", ask.account)))
            .collect();
        let commands: Vec<Uuid> = aggregates.iter().map(|_| SystemEnvironment.uuid()).collect();
        let request = LoadRequest { commands: commands.clone(), aggregates, ..LoadRequest::default() };
        let loaded = self.log.load(&request).await.unwrap();
        assert!(loaded.inbox.is_empty(), "no command was seen before");

        let mut decided = commands.into_iter().zip(loaded.histories);
        let parts: Vec<PartitionCommit> = owned
            .iter()
            .map(|(partition, row, asks)| {
                let facts = asks.iter().zip(decided.by_ref());
                part(*partition, **row, facts.map(|(ask, (command, history))| (*ask, command, history)))
            })
            .collect();
        let after: Vec<PartitionRow> = parts.iter().map(PartitionCommit::row_after).collect();
        let committed = self.log.commit(parts).await.unwrap();
        assert!(committed.iter().all(|commit| *commit == Commit::Done), "nobody else owns them");
        for ((_, row, _), after) in owned.iter_mut().zip(after) {
            **row = after;
        }
    }
}

fn part(
    partition: Partition,
    row: PartitionRow,
    facts: impl Iterator<Item = (Ask, Uuid, History)>,
) -> PartitionCommit {
    let (mut records, mut inbox) = (Vec::new(), Vec::new());
    for ((ask, command_id, history), sequence) in facts.zip(row.head.get() + 1..) {
        let (version, event_type, data) = decide(&history, ask);
        let record = Record {
            partition,
            sequence: Sequence::new(sequence),
            record_id: SystemEnvironment.uuid(),
            recorded_at: Timestamp::from_micros(SystemEnvironment.now().as_micros()),
            aggregate: AggregateRef::new("account", ask.account),
            version: Some(Version::new(version)),
            event_type: Cow::Borrowed(event_type),
            schema: 1,
            data,
            command_id,
            correlation_id: command_id,
            causation_id: command_id,
            actor: "bench".to_owned(),
            traceparent: None,
            last_of_command: true,
        };
        inbox.push(InboxEntry {
            fingerprint: Fingerprint::of(record.data.as_bytes()),
            outcome: Outcome { command_id, position: record.position(), verdict: Verdict::Applied },
        });
        records.push(record);
    }
    let message = row.position.map_or(0, |position| position.message) + 1;
    let mark = inbox.first().unwrap().outcome.command_id;
    let position = QueuePosition { created_at: CREATED_AT, message, mark, index: 0 };
    PartitionCommit { partition, expected: row, position, records, inbox, snapshots: Vec::new() }
}

/// The rounds of the workload, one after the other: every account is opened, then everybody gets a command, ten times. In batches of this size; no
/// batch has two commands of one account.
fn rounds(size: usize) -> Vec<Arc<Vec<Vec<Ask>>>> {
    let accounts: Vec<Uuid> = (0..ACCOUNTS).map(|_| SystemEnvironment.uuid()).collect();
    (0..=COMMANDS)
        .map(|round| {
            let asks: Vec<Ask> =
                accounts.iter().map(|account| Ask { account: *account, open: round == 0 }).collect();
            Arc::new(asks.chunks(size).map(<[Ask]>::to_vec).collect())
        })
        .collect()
}

/// Clients work off these batches; answers with the latency of each.
async fn round(store: &Arc<Store>, clients: usize, batches: Arc<Vec<Vec<Ask>>>) -> Histogram<u64> {
    let (mut all, next) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..clients {
        let (store, batches, next) = (Arc::clone(store), Arc::clone(&batches), Arc::clone(&next));
        all.spawn(async move {
            let mut latencies = Histogram::<u64>::new(3).unwrap();
            while let Some(asks) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                store.execute(asks).await;
                latencies.record(u64::try_from(sent.elapsed().as_micros()).unwrap()).unwrap();
            }
            latencies
        });
    }
    let mut latencies = Histogram::<u64>::new(3).unwrap();
    while let Some(more) = all.join_next().await {
        latencies.add(more.unwrap()).unwrap();
    }
    latencies
}

async fn run(server: &PostgresServer, clients: usize, batch: usize) {
    let database = server.database();
    let store = Arc::new(Store::open(&database.url(), u32::try_from(clients).unwrap().max(2)).await);
    let rounds = rounds(batch);
    let mut latencies = Histogram::<u64>::new(3).unwrap();
    let begin = Instant::now();
    for batches in rounds {
        latencies.add(round(&store, clients, batches).await).unwrap();
    }
    let micros = begin.elapsed().as_micros();
    let commands = ACCOUNTS * (COMMANDS + 1);
    let (found, right) = check(&database);
    assert_eq!(
        (found, right),
        (commands, ACCOUNTS),
        "every command is in the log, and every account adds up"
    );
    store.log.close().await;
    let per_second = u128::try_from(commands).unwrap() * 1_000_000 / micros;
    println!(
        "{clients:>7}  {batch:>5}  {per_second:>9}/s  {:>9} us  {:>9} us",
        latencies.value_at_quantile(0.5),
        latencies.value_at_quantile(0.99)
    );
}

/// How many records the log has, and how many accounts have a balance that is the sum of what was deposited.
fn check(database: &services::Database) -> (usize, usize) {
    let count = |sql: &str| database.psql(sql).trim().parse().unwrap();
    let balance = DEPOSIT * i64::try_from(COMMANDS).unwrap();
    (
        count("SELECT count(*) FROM records"),
        count(&format!("SELECT count(*) FROM records WHERE data::jsonb->>'balance' = '{balance}'")),
    )
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = PostgresServer::start();
    let database = server.database();
    let said = |setting: &str| database.psql(&format!("SHOW {setting}")).trim().to_owned();
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{} cores,{}; load average {}",
        std::thread::available_parallelism().unwrap(),
        processor.trim_start().trim_start_matches(':'),
        load.split_whitespace().next().unwrap_or("unknown")
    );
    println!(
        "PostgreSQL {}, fsync {}, synchronous_commit {}, wal_sync_method {}",
        said("server_version"),
        said("fsync"),
        said("synchronous_commit"),
        said("wal_sync_method")
    );
    println!("{ACCOUNTS} accounts opened, {COMMANDS} commands each, {PARTITIONS} partitions\n");
    println!("clients  batch   commands            p50           p99   (of a transaction)");
    for clients in [1, 16, 64] {
        run(&server, clients, 1).await;
    }
    for batch in [16, 64, 512] {
        run(&server, 1, batch).await;
    }
}
