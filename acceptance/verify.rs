//! `financing verify`: of a platform that works, that has stopped, of a copy, and of one that somebody has changed by hand.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};

use crate::crash::settle;
use crate::harness::{Home, Load, Platform, Program};

const CLIENTS: usize = 6;
/// Commands that are accepted before it is looked at, and between two looks.
const COMMANDS: usize = 60;
const LOOKS: usize = 3;

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Nothing is wrong; answers with what is said of that.
#[track_caller]
fn clean(output: &Output) -> String {
    let (said, complained) = (words(&output.stdout), words(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{complained}{said}");
    assert!(said.contains("\nbreaches      0\n"), "{said}");
    said
}

/// How many of something were counted.
#[track_caller]
fn counted(said: &str, what: &str) -> usize {
    let line =
        said.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_else(|| panic!("{what}: {said}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// All that was said, but for how much the queue still remembers: that is purged by and by.
fn lasting(said: &str) -> Vec<&str> {
    said.lines().filter(|line| !line.starts_with("commands")).collect()
}

fn of_directory(data: &Path) -> Program {
    Program::new(env!("CARGO_BIN_EXE_financing"))
        .flags(&["verify", "--data-dir"])
        .flags(&[&data.display().to_string()])
}

#[tokio::test]
async fn nothing_is_wrong_with_a_platform_that_works_and_then_with_one_that_has_stopped() {
    // given
    let platform = Platform::alone().await;
    let load = Load::prepare(&platform, 6).await;

    // when
    let looks = async {
        let mut records = 0;
        for _ in 0..LOOKS {
            load.accepted(COMMANDS).await;
            let said = clean(&platform.verify().output().await);
            let now = counted(&said, "records");
            assert!(now > records, "it works meanwhile: {said}");
            records = now;
        }
    };
    load.until(&platform, CLIENTS, looks).await;
    load.insist(&platform).await;
    let promised = load.promises();
    settle(&platform, &promised).await;

    // then
    let said = clean(&platform.verify().flags(&["--settled"]).output().await);
    assert_eq!(counted(&said, "open sagas"), 0, "{said}");
    assert!(counted(&said, "commands") >= promised.len(), "{said}");
    assert_eq!(counted(&said, "records"), counted(&said, "bus"), "{said}");
    platform.signal("-TERM").await;
    let (code, home) = platform.ended().await;
    assert_eq!(code, Some(0));
    assert_eq!(lasting(&clean(&home.verify().flags(&["--settled"]).output().await)), lasting(&said));
    let json = home.verify().flags(&["--json"]).output().await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["counts"]["records"], counted(&said, "records"));
    assert_eq!(json["breached"], 0);
}

/// A platform whose data directory is settled, and which has stopped.
async fn stopped() -> Home {
    let platform = Platform::start_in(Home::embedded(), &[]).await;
    let load = Load::prepare(&platform, 4).await;
    load.until(&platform, CLIENTS, load.accepted(COMMANDS)).await;
    load.insist(&platform).await;
    settle(&platform, &load.promises()).await;
    platform.kill().await
}

fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::TempDir::new().unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

async fn open(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

#[tokio::test]
async fn a_copy_is_as_good_as_what_it_is_a_copy_of() {
    // given
    let home = stopped().await;
    let said = clean(&home.verify().flags(&["--settled"]).output().await);

    // when
    let copy = copied(&home.data());

    // then
    assert_eq!(clean(&of_directory(copy.path()).flags(&["--settled"]).output().await), said);
}

#[tokio::test]
async fn an_amount_that_somebody_changed_by_hand_is_found_and_its_record_named() {
    // given
    let home = stopped().await;
    let mut log = open(&home.data().join("platform.db")).await;
    log.execute("DROP TRIGGER records_are_not_changed").await.unwrap();
    let row = log
        .fetch_one(
            "UPDATE records SET data = json_set(data, '$.amount.units', json_extract(data, '$.amount.units') + 1)
             WHERE rowid = (SELECT min(rowid) FROM records WHERE event_type = 'InvestorFundsReleased')
             RETURNING partition || '-' || sequence",
        )
        .await
        .unwrap();
    let position: String = row.get(0);
    log.close().await.unwrap();

    // when
    let output = home.verify().output().await;

    // then
    let (said, complained) = (words(&output.stdout), words(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{complained}");
    assert!(complained.contains(&format!("the first is I1: record {position} (")), "{complained}");
    assert!(said.contains(&format!("I1: record {position} (")), "{said}");
}

#[tokio::test]
async fn a_balance_that_somebody_changed_by_hand_is_found_and_its_row_named() {
    // given
    let home = stopped().await;
    let mut models = open(&home.data().join("readmodels.db")).await;
    let row = models
        .fetch_one(
            "UPDATE investors SET available = available + 1 WHERE key = (SELECT min(key) FROM investors)
             RETURNING lower(hex(key))",
        )
        .await
        .unwrap();
    let key: String = row.get(0);
    models.close().await.unwrap();

    // when
    let output = home.verify().output().await;

    // then
    let complained = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complained}");
    assert!(
        complained.contains("the first is I6") && complained.replace('-', "").contains(&key),
        "{complained}"
    );
}

/// One thing is wrong with a settled platform that somebody has changed so, and this is said of it.
async fn changed(sql: &'static str, says: &[&str]) {
    let home = stopped().await;
    let mut log = open(&home.data().join("platform.db")).await;
    log.execute(sql).await.unwrap();
    log.close().await.unwrap();
    let output = home.verify().output().await;
    let complained = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complained}");
    assert!(says.iter().all(|says| complained.contains(says)), "{complained}");
}

#[tokio::test]
async fn a_queue_that_was_emptied_is_found_before_a_worker_halts_at_it() {
    changed("DELETE FROM queue", &["the first is I2", "is missing", "`financing queue adopt`"]).await;
}

#[tokio::test]
async fn a_queue_of_another_time_is_named_once() {
    changed(
        "UPDATE meta SET value = value + 1 WHERE key = 'created_at'",
        &["error: 1 breaches; the first is I2", "created anew", "`financing queue adopt`"],
    )
    .await;
}

#[tokio::test]
async fn a_bus_of_which_nobody_knows_the_end_is_found() {
    changed("DELETE FROM relayed WHERE partition = 3", &["the first is I5", "partition 3"]).await;
    changed(
        "UPDATE relayed SET record_id = NULL WHERE partition = (SELECT min(partition) FROM relayed WHERE sequence > 0)",
        &["the first is I5", "with which record"],
    )
    .await;
}

#[tokio::test]
async fn what_was_found_is_said_by_the_exit_code_though_nothing_can_be_printed() {
    // given
    let home = stopped().await;
    let unprintable = || {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let data = home.data();
        let verify = Command::new(env!("CARGO_BIN_EXE_financing"))
            .env_clear()
            .args(["verify", "--data-dir"])
            .arg(data)
            .stdout(full)
            .output()
            .unwrap();
        (verify.status.code(), words(&verify.stderr))
    };

    // when
    let (code, complained) = unprintable();

    // then
    assert_eq!(code, Some(74), "{complained}");
    assert!(
        complained.contains("nothing is wrong") && complained.contains("standard output"),
        "{complained}"
    );

    // when
    let mut models = open(&home.data().join("readmodels.db")).await;
    models.execute("UPDATE investors SET available = available + 1").await.unwrap();
    models.close().await.unwrap();
    let (code, complained) = unprintable();

    // then
    assert_eq!(code, Some(1), "{complained}");
    assert!(complained.contains("the first is I6") && complained.contains("standard output"), "{complained}");
}

#[tokio::test]
async fn what_cannot_be_opened_is_no_breach_and_a_wrong_call_is_neither() {
    // given
    let empty = tempfile::TempDir::new().unwrap();
    let url = "--command-database-url=postgres://nobody:hidden@127.0.0.1:1/nothing";
    let other = "--query-database-url=postgres://nobody:hidden@127.0.0.1:1/nothing";
    let verify = || Program::new(env!("CARGO_BIN_EXE_financing")).flags(&["verify"]);

    // when
    for (program, code, says) in [
        (of_directory(empty.path()), 74, "platform.db"),
        (verify().flags(&[url, other, "--nats-url=nats://127.0.0.1:1"]), 74, ""),
        (verify().flags(&[url, other, "--nats-url=nats://me:hidden@127.0.0.1:1"]), 74, ""),
        (verify().flags(&[url]), 64, "--query-database-url"),
        (verify().flags(&[other]), 64, "--command-database-url"),
        (of_directory(empty.path()).flags(&[url]), 64, "--data-dir"),
        (verify().flags(&["--nonsense"]), 64, "--nonsense"),
    ] {
        let output = program.output().await;

        // then
        let complained = words(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{program}: {complained}");
        assert!(complained.contains(says) && !complained.contains("hidden"), "{program}: {complained}");
    }
}
