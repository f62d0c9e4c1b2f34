//! The bus is lost, or loses its tail, or is ahead of a log that was restored: it is the log again, record by record, or
//! somebody is told why it cannot be.

use std::path::PathBuf;

use services::{Database, services};
use tempfile::TempDir;

use crate::harness::Load;
use crate::ledger::{Ledger, connect_raw, count, until};
use crate::parts::{ALL, Parts, settle};
use crate::queue::copy;

/// A copy of a database as it was at some time.
struct Backup {
    original: String,
    /// From here it is made and put back: nobody may be connected to a database that is copied or renamed.
    desk: Database,
}

impl Backup {
    fn of(database: &Database) -> Self {
        let backup = Self { original: database.name().to_owned(), desk: services().database() };
        let (original, name) = (&backup.original, backup.name());
        backup.desk.psql(&format!("CREATE DATABASE {name} OWNER financing TEMPLATE {original};"));
        backup
    }

    fn name(&self) -> String {
        format!("{}_backup", self.original)
    }

    fn restore(self) {
        let (original, name) = (&self.original, self.name());
        self.desk.psql(&format!(
            "DROP DATABASE {original} WITH (FORCE);\nALTER DATABASE {name} RENAME TO {original};"
        ));
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.desk.psql(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE);", self.name()));
    }
}

#[tokio::test]
async fn a_log_that_was_restored_to_an_earlier_state_does_not_go_on_under_the_bus() {
    // given
    let mut parts = Parts::start().await;
    let load = Load::prepare(&parts.platform().await, 8).await;
    parts.trade(&load, 30).await;
    parts.stop(&ALL).await;
    let backup = Backup::of(&parts.services().commands);
    parts.run(&ALL).await;
    parts.trade(&load, 60).await;
    let ledger = Ledger::open(parts.services()).await;
    ledger.agree().await;
    parts.stop(&ALL).await;
    // Sagas went on until the end.
    let before = count(&ledger.bus().await);
    ledger.close().await;

    // when
    backup.restore();
    let ledger = Ledger::open(parts.services()).await;
    let restored = count(&ledger.log().await);
    parts.begin("relayer", &parts.program("relayer"));

    // then
    parts.gives_up("relayer", &["the log of partition ", " is behind the bus", "restored"]).await;
    assert_eq!(count(&ledger.bus().await), before, "nothing was published");
    println!("the log went from {before} records back to {restored}");
    assert!(restored < before);

    // and when: the worker makes another history of the commands that the queue still has, at least the last of each partition; it has
    // to be told to, because what was worked off may be purged
    parts.adopt().await;
    parts.run(&["worker"]).await;
    let grown = async || count(&ledger.log().await) > restored;
    until("the log goes on", grown).await;
    parts.begin("relayer", &parts.program("relayer"));

    // then
    parts.gives_up("relayer", &[" of partition "]).await;
    let bus = ledger.bus().await;
    assert_eq!(count(&bus), before, "still nothing was published");
}

/// The streams of the bus in the store of NATS.
fn streams(parts: &Parts) -> Vec<PathBuf> {
    let streams = parts.services().nats.store().join("jetstream/$G/streams");
    let all = std::fs::read_dir(streams).unwrap().map(|entry| entry.unwrap().path());
    let events = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("EVENTS_");
    let found: Vec<PathBuf> = all.filter(events).collect();
    assert_eq!(found.len(), 16, "{found:?}");
    found
}

#[tokio::test]
async fn a_bus_that_lost_its_tail_is_filled_again_while_the_platform_runs() {
    // given
    let mut parts = Parts::start().await;
    let load = Load::prepare(&parts.platform().await, 8).await;
    parts.trade(&load, 30).await;
    let ledger = Ledger::open(parts.services()).await;
    let older = ledger.agree().await;
    let backup = TempDir::new().unwrap();
    parts.services_mut().nats.stop();
    for stream in streams(&parts) {
        copy(&stream, &backup.path().join(stream.file_name().unwrap()));
    }
    parts.services_mut().nats.start_again();
    let platform = parts.trade(&load, 60).await;
    load.repeat(&platform).await;
    let settled = settle(&platform, &load.promises()).await;
    let before = Ledger::open(parts.services()).await.agree().await;

    // when: what the bus had is lost, and nothing new comes that would say so
    parts.services_mut().nats.kill();
    for stream in streams(&parts) {
        std::fs::remove_dir_all(&stream).unwrap();
        copy(&backup.path().join(stream.file_name().unwrap()), &stream);
    }
    parts.services_mut().nats.start_again();

    // then
    let ledger = Ledger::open(parts.services()).await;
    let records = ledger.agree().await;
    assert_eq!(records, before, "nothing acted again");
    println!("the bus went from {before} records back to {older}, and has {records} again");
    assert!(older < before);
    let platform = parts.platform().await;
    settled.adds_up(&platform).await;
    parts.trade(&load, 30).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    ledger.agree().await;
    for name in ALL {
        let log = parts.logged(name);
        assert!(!log.contains("halted"), "nobody halts: {name}");
    }
    parts.stop(&ALL).await;
}

#[tokio::test]
async fn a_bus_that_was_deleted_is_built_again_while_the_platform_runs() {
    // given
    let mut parts = Parts::start().await;
    let load = Load::prepare(&parts.platform().await, 8).await;
    let platform = parts.trade(&load, 60).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    let before = Ledger::open(parts.services()).await.agree().await;

    // when
    let nats = connect_raw(parts.services()).await;
    for partition in 0..16 {
        nats.delete_stream(format!("EVENTS_{partition}")).await.unwrap();
    }

    // then
    let ledger = Ledger::open(parts.services()).await;
    for partition in 0..16 {
        let is_there = async || nats.get_stream(format!("EVENTS_{partition}")).await.is_ok();
        until("the stream is there again", is_there).await;
    }
    let records = ledger.agree().await;
    assert_eq!(records, before, "nothing acted again");
    println!("{records} records are on the bus again");
    let platform = parts.platform().await;
    parts.trade(&load, 30).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    ledger.agree().await;
    parts.stop(&ALL).await;
}

#[tokio::test]
async fn one_stream_that_is_deleted_under_load_is_built_again() {
    // given
    let mut parts = Parts::start().await;
    let load = Load::prepare(&parts.platform().await, 8).await;
    let platform = parts.trade(&load, 60).await;
    let nats = connect_raw(parts.services()).await;

    // when
    let harm = async {
        for partition in [0, 5, 11] {
            load.accepted(10).await;
            nats.delete_stream(format!("EVENTS_{partition}")).await.unwrap();
        }
        load.accepted(60).await;
    };
    load.until(&platform, 8, harm).await;

    // then
    load.repeat(&platform).await;
    // Who watches while a stream is away is told to come back.
    for partition in [0, 5, 11] {
        let is_there = async || nats.get_stream(format!("EVENTS_{partition}")).await.is_ok();
        until("the stream is there again", is_there).await;
    }
    let ledger = Ledger::open(parts.services()).await;
    ledger.agree().await;
    settle(&platform, &load.promises()).await;
    let records = ledger.agree().await;
    let built = parts.logged("relayer").matches("a stream was lost: it is made again").count();
    println!("{records} records; the relayer made {built} streams again");
    assert!(built > 0, "the relayer noticed");
    parts.stop(&ALL).await;
}
