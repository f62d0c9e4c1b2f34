//! Log, read models, queue and bus are of different times: whoever cannot go on says so, and the commands of the runbook bring
//! the platform back. They are typed here as `docs/backup.md` has them.

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tempfile::TempDir;

use crate::harness::{Home, Load, Platform, Services};
use crate::ledger::{Ledger, count};
use crate::parts::{ALL, Parts, settle};

const COMMANDS: usize = 60;

/// What `docs/backup.md` says to type in this case.
#[track_caller]
fn runbook(heading: &str) -> String {
    page("docs/backup.md", heading)
}

/// What a page says to type: the lines of the first block behind the heading.
#[track_caller]
pub(crate) fn page(path: &str, heading: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(path).unwrap();
    let (_, behind) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("## {heading}"));
    let section = behind.split("\n## ").next().unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap_or_else(|| panic!("commands behind ## {heading}"));
    block.split("```").next().unwrap().to_owned()
}

/// Types it, in a folder, with what an operator has in the environment: the addresses, `financing`, and PostgreSQL's tools.
pub(crate) fn type_in(folder: &Path, services: &Services, commands: &str) -> String {
    let postgres = services::services().folder().join("bin/postgres").canonicalize().unwrap();
    let platform = PathBuf::from(env!("CARGO_BIN_EXE_financing"));
    let programs =
        [platform.parent().unwrap(), postgres.parent().unwrap(), Path::new("/usr/bin"), Path::new("/bin")];
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::join_paths(programs).unwrap())
        .env("FINANCING_NATS_URL", services.nats.url())
        .env("FINANCING_COMMAND_DATABASE_URL", services.commands.url())
        .env("FINANCING_QUERY_DATABASE_URL", services.queries.url())
        .output()
        .unwrap();
    let [said, complained] =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "{commands}\n{said}{complained}");
    println!("{commands}{said}{complained}");
    said
}

/// Everything runs again: clients send again what they were promised, sagas come to their end, and nothing is wrong.
async fn is_well(parts: &mut Parts, load: &Load) {
    let platform = parts.platform().await;
    load.repeat(&platform).await;
    parts.trade(load, COMMANDS).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    Ledger::open(parts.services()).await.agree().await;
    let output = parts.operate(&["verify", "--settled"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    parts.stop(&ALL).await;
}

/// A platform with some past.
async fn with_a_past() -> (Parts, Load) {
    let parts = Parts::start().await;
    let load = Load::prepare(&parts.platform().await, 8).await;
    parts.trade(&load, COMMANDS).await;
    (parts, load)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_log_of_an_earlier_time_goes_on_without_what_only_the_others_remember() {
    // given: a dump of the running platform's log, and everything else goes on
    let folder = TempDir::new().unwrap();
    let (mut parts, load) = with_a_past().await;
    type_in(folder.path(), parts.services(), &runbook("Backing up the distributed platform"));
    parts.trade(&load, 2 * COMMANDS).await;
    let ledger = Ledger::open(parts.services()).await;
    let before = ledger.agree().await;
    parts.stop(&["worker"]).await;
    parts.trade(&load, 20).await;
    ledger.close().await;
    parts.stop(&["listener", "queries", "policies", "relayer", "projector"]).await;

    // when
    let restoring = runbook("The event log was restored to an earlier time");
    let (restore, rest) = restoring.split_once("\nfinancing ").expect("the dump is put back first");
    type_in(folder.path(), parts.services(), restore);

    // then: nothing goes on by itself, and nothing is published
    let ledger = Ledger::open(parts.services()).await;
    let restored = count(&ledger.log().await);
    println!("the log went from {before} records back to {restored}");
    assert!(restored < before);
    parts.begin("relayer", &parts.program("relayer"));
    parts
        .gives_up("relayer", &["the log of partition ", " is behind the bus", "restored to an earlier state"])
        .await;
    let verified = parts.operate(&["verify"]).await;
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    ledger.close().await;

    // and when
    let said = type_in(folder.path(), parts.services(), &format!("financing {rest}"));

    // then
    assert!(said.contains(" messages of 16 partitions are gone"), "{said}");
    assert!(said.contains(" messages of commands are gone with the old queue"), "{said}");
    parts.run(&ALL).await;
    load.begin_again(&parts.platform().await).await;
    is_well(&mut parts, &load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_was_lost_with_all_its_streams_is_filled_from_the_log() {
    // given
    let folder = TempDir::new().unwrap();
    let (mut parts, load) = with_a_past().await;
    let before = Ledger::open(parts.services()).await.agree().await;
    parts.stop(&ALL).await;

    // when
    let nats = &mut parts.services_mut().nats;
    nats.stop();
    std::fs::remove_dir_all(nats.store()).unwrap();
    nats.start_again();

    // then
    parts.run(&["listener"]).await;
    parts.begin("worker", &parts.program("worker"));
    parts.gives_up("worker", &["the stream was created anew", "`financing queue adopt`"]).await;

    // and when
    type_in(folder.path(), parts.services(), &runbook("NATS was lost"));

    // then
    parts.run(&["queries", "worker", "policies", "relayer", "projector"]).await;
    let after = Ledger::open(parts.services()).await.agree().await;
    println!("{before} records were on the bus, and {after} are");
    assert!(after >= before);
    is_well(&mut parts, &load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_that_were_lost_are_built_from_the_bus() {
    // given
    let folder = TempDir::new().unwrap();
    let (mut parts, load) = with_a_past().await;
    parts.stop(&["queries", "projector"]).await;

    // when
    type_in(folder.path(), parts.services(), &runbook("The read models were lost"));

    // then
    parts.run(&["queries", "projector"]).await;
    is_well(&mut parts, &load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_of_an_earlier_time_catch_up() {
    // given
    let folder = TempDir::new().unwrap();
    let (mut parts, load) = with_a_past().await;
    let [dump, restore] = [
        "pg_dump --format=custom --file=models.dump \"$FINANCING_QUERY_DATABASE_URL\"",
        "pg_restore --clean --if-exists --no-owner --single-transaction --dbname=\"$FINANCING_QUERY_DATABASE_URL\" models.dump",
    ];
    type_in(folder.path(), parts.services(), dump);
    parts.trade(&load, COMMANDS).await;
    parts.stop(&ALL).await;

    // when
    type_in(folder.path(), parts.services(), restore);

    // then
    parts.run(&ALL).await;
    is_well(&mut parts, &load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_log_that_is_older_than_the_read_models_alone_waits_for_a_person() {
    // given: log and bus are of one time, the read models of a later one
    let folder = TempDir::new().unwrap();
    let (mut parts, load) = with_a_past().await;
    type_in(folder.path(), parts.services(), &runbook("Backing up the distributed platform"));
    parts.trade(&load, COMMANDS).await;
    Ledger::open(parts.services()).await.agree().await;
    parts.stop(&["listener", "worker", "policies", "relayer"]).await;
    parts.stop(&["queries", "projector"]).await;
    let restoring = runbook("The event log was restored to an earlier time");
    let without_models: Vec<&str> = restoring.lines().filter(|line| !line.contains("QUERY")).collect();
    type_in(folder.path(), parts.services(), &without_models.join("\n"));

    // when
    parts.run(&["listener", "worker", "policies", "relayer"]).await;
    parts.begin("projector", &parts.program("projector"));

    // then
    parts.says("projector", "they have to be built anew").await;
    parts.kill_if_it_lives("projector").await;

    // and when
    type_in(folder.path(), parts.services(), &runbook("The read models were lost"));

    // then
    parts.run(&["queries", "projector"]).await;
    load.begin_again(&parts.platform().await).await;
    is_well(&mut parts, &load).await;
}

async fn open(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_running_embedded_platform_goes_on_from_where_it_was() {
    // given: a copy, made as the runbook says, while the platform works
    let platform = Platform::start_in(Home::embedded(), &[]).await;
    let load = Load::prepare(&platform, 4).await;
    load.until(&platform, 6, load.accepted(COMMANDS)).await;
    let data = platform.data();
    let commands = runbook("Backing up the embedded platform");
    let (_, sql) = commands.split_once("sqlite3 data/platform.db \"").expect("it says how");
    let sql = sql.split('"').next().unwrap().to_owned();
    let backup = TempDir::new().unwrap();
    let sql = sql.replace("'backup/", &format!("'{}/", backup.path().display()));
    let copying = async {
        load.accepted(20).await;
        let mut log = open(&data.join("platform.db")).await;
        log.execute(sqlx::AssertSqlSafe(sql.clone())).await.unwrap();
        log.close().await.unwrap();
        load.accepted(COMMANDS).await;
    };
    load.until(&platform, 6, copying).await;
    load.insist(&platform).await;
    platform.signal("-TERM").await;
    let (_, home) = platform.ended().await;

    // when: it is put back, and the read models are of a later time
    for end in ["", "-wal", "-shm"] {
        let _gone = std::fs::remove_file(data.join(format!("platform.db{end}")));
    }
    std::fs::copy(backup.path().join("platform.db"), data.join("platform.db")).unwrap();

    // then
    let (code, said) = Platform::refusal_to_start(&data, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("readmodels.db* and start it"), "{said}");

    // and when
    for end in ["", "-wal", "-shm"] {
        let _gone = std::fs::remove_file(data.join(format!("readmodels.db{end}")));
    }
    let platform = Platform::start_in(home, &[]).await;

    // then
    load.begin_again(&platform).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    let output = platform.verify().flags(&["--settled"]).output().await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let _home = platform.kill().await;
}
