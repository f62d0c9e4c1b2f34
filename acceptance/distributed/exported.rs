//! A platform moves: from one process on files to many on PostgreSQL and NATS, and back. Its clients notice nothing but the
//! pause; and what is not a whole export becomes no platform.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use domain::financing::{Command, Financing};
use domain::ids::InvoiceId;
use domain::invoice::{ApproveFinancing, InvoiceCommand};
use eventsourcing::command::{Envelope, pack};
use eventsourcing::partition::{Deployment, PartitionCount};
use eventsourcing::ports::CommandQueue as _;
use invoice_financing::sqlite::{Access, DirectoryLock, PlatformStore};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Home, Load, Platform, Program, uuid};
use crate::ledger::{Ledger, connect_raw, new_deployment, outcomes, until};
use crate::parts::{ALL, Parts, settle};
use crate::starting::Roles;

const CLIENTS: usize = 8;
/// Commands that are accepted before the platform moves, and after it has.
const COMMANDS: usize = 120;
/// Everything but what takes commands from outside.
const WITHOUT_LISTENER: [&str; 4] = ["worker", "policies", "relayer", "projector"];

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It failed, and says all of this.
#[track_caller]
fn refused(output: &Output, says: &[&str]) {
    let complaint = words(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    for says in says {
        assert!(complaint.contains(says), "{says:?}: {complaint}");
    }
}

#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stderr));
    words(&output.stdout)
}

/// What the checker says that is the same wherever the log is kept.
#[track_caller]
fn books(said: &str) -> Vec<String> {
    let same = ["records", "outcomes", "issuers", "investors", "invoices", "bids", "money"];
    let lines = said.lines().filter(|line| same.iter().any(|word| line.starts_with(word)));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert!(lines.len() >= same.len(), "{said}");
    lines
}

fn financing() -> Program {
    Program::new(env!("CARGO_BIN_EXE_financing"))
}

async fn export(data: &Path, file: &Path, more: &[&str]) -> Output {
    let (data, file) = (data.display().to_string(), file.display().to_string());
    financing().flags(&["export", "--data-dir", &data, "--output", &file]).flags(more).output().await
}

async fn import(data: &Path, file: &Path) -> Output {
    let (data, file) = (data.display().to_string(), file.display().to_string());
    financing().flags(&["import", "--data-dir", &data, "--input", &file]).output().await
}

/// Ends in good order.
async fn stopped(platform: Platform) -> Home {
    platform.signal("-TERM").await;
    let (code, home) = platform.ended().await;
    assert_eq!(code, Some(0));
    home
}

/// What a client is told of each of these commands.
async fn told(platform: &Platform, commands: &[String]) -> Vec<String> {
    let mut told = Vec::new();
    for command_id in commands {
        told.push(format!("{:?}", platform.outcome(command_id).await));
    }
    told
}

/// Lets everything but the listener work until an export leaves nothing behind; answers with what it says.
async fn exported_when_done(parts: &mut Parts, load: &Load, back: &Path) -> String {
    let ledger = Ledger::open(parts.services()).await;
    let promised = load.promises();
    let behind = "SELECT count(*) FROM partitions p LEFT JOIN checkpoints c ON c.partition = p.partition \
                  AND c.reader = 'policies' WHERE p.head <> COALESCE(c.sequence, 0)";
    loop {
        parts.run(&WITHOUT_LISTENER).await;
        let is_done = async || {
            let outcomes = outcomes(&ledger.log().await);
            promised.iter().all(|command_id| outcomes.contains_key(&command_id.parse().unwrap()))
                && parts.services().commands.psql(behind).trim() == "0"
        };
        until("what was accepted has outcomes, and what follows from it is queued", is_done).await;
        parts.stop(&WITHOUT_LISTENER).await;
        let output = parts.operate(&["export", "--output", &back.display().to_string()]).await;
        match (output.status.success(), parts.services().commands.psql(behind).trim() == "0") {
            (true, true) => break words(&output.stdout),
            // It could go, and its sagas would go on there; but then nobody could compare.
            (true, false) => std::fs::remove_file(back).unwrap(),
            (false, _) => refused(&output, &["have no outcome yet"]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_market_moves_to_many_processes_and_back_to_one_and_nobody_loses_a_cent() {
    // given: a market in one process
    let platform = Platform::start_in(Home::embedded(), &[]).await;
    let load = Load::prepare(&platform, 8).await;
    load.until(&platform, CLIENTS, load.accepted(COMMANDS)).await;
    load.insist(&platform).await;
    let some = load.promises()[..40].to_vec();
    let before = told(&platform, &some).await;
    let folder = TempDir::new().unwrap();
    let there = folder.path().join("there.jsonl");
    refused(&export(&platform.data(), &there, &["--finish"]).await, &["is in use by process "]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");

    // when: it moves
    let old = stopped(platform).await;
    let said = done(&export(&old.data(), &there, &["--finish"]).await);
    assert!(said.starts_with("exported      ") && said.contains("16 partitions"), "{said}");
    let checked = done(&old.verify().output().await);
    let mut parts = Parts::new();
    let said = done(&parts.operate(&["import", "--input", &there.display().to_string()]).await);
    assert!(said.starts_with("imported      ") && said.contains("financing verify"), "{said}");
    parts.run(&ALL).await;

    // then
    let platform = parts.platform().await;
    load.repeat(&platform).await;
    assert_eq!(told(&platform, &some).await, before, "every command keeps its outcome, and its position");
    Ledger::open(parts.services()).await.agree().await;
    let now = done(&parts.operate(&["verify"]).await);
    assert_eq!(books(&now), books(&checked), "to the cent");

    // and when: it goes on, and stops in the middle, with commands that only the queue has
    parts.trade(&load, COMMANDS).await;
    load.insist(&platform).await;
    let back = folder.path().join("back.jsonl");
    let out = ["export", "--output", &back.display().to_string()].map(str::to_owned);
    let out: Vec<&str> = out.iter().map(String::as_str).collect();
    refused(&parts.operate(&out).await, &["is in use: ", "Stop all processes"]);
    parts.stop(&["worker"]).await;
    parts.trade(&load, 20).await;
    load.insist(&platform).await;
    parts.stop(&["listener", "queries", "policies", "relayer", "projector"]).await;

    // then: they are not left behind
    refused(&parts.operate(&out).await, &["have no outcome yet", "Start everything but the listeners"]);
    assert!(!back.exists());
    let said = exported_when_done(&mut parts, &load, &back).await;
    assert!(said.starts_with("exported      "), "{said}");
    let checked = done(&parts.operate(&["verify"]).await);

    // and when: it moves back
    let new = Home::embedded();
    done(&import(&new.data(), &back).await);
    let platform = Platform::start_in(new, &[]).await;

    // then
    assert_eq!(told(&platform, &some).await, before);
    load.repeat(&platform).await;
    assert_eq!(books(&done(&platform.verify().output().await)), books(&checked));
    load.until(&platform, CLIENTS, load.accepted(COMMANDS)).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    let said = done(&platform.verify().flags(&["--settled"]).output().await);
    println!("{said}");
    stopped(platform).await;
}

/// An embedded platform that has stopped, and its export.
async fn exported(folder: &Path) -> (Home, PathBuf, Load) {
    let platform = Platform::start_in(Home::embedded(), &[]).await;
    let load = Load::prepare(&platform, 3).await;
    load.until(&platform, CLIENTS, load.accepted(60)).await;
    load.insist(&platform).await;
    let home = stopped(platform).await;
    let file = folder.join("whole.jsonl");
    done(&export(&home.data(), &file, &["--finish"]).await);
    (home, file, load)
}

/// Texts that are no whole export, and what is said of each.
fn damaged(whole: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let text = String::from_utf8(whole.to_vec()).unwrap();
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    let amount = text.rfind("\"units\":").unwrap() + "\"units\":".len();
    let mut flipped = whole.to_vec();
    flipped[amount] = if flipped[amount] == b'7' { b'8' } else { b'7' };
    vec![
        ("cut off in a line", whole[..whole.len() / 2].to_vec(), "was cut off in the middle"),
        (
            "cut off behind a line",
            whole[..ends[ends.len() - 2]].to_vec(),
            "without its last line, so it was cut off",
        ),
        ("a digit", flipped, "the export was changed: its bytes have the SHA-256 "),
        (
            "another format",
            text.replacen("\"format\":1", "\"format\":2", 1).into_bytes(),
            "has format 2, and this release reads format 1",
        ),
        ("no export", b"SQLite format 3\0".to_vec(), "this is no export"),
        ("twice", [whole, whole].concat(), "it is not one export alone"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_export_becomes_no_platform() {
    // given
    let folder = TempDir::new().unwrap();
    let (old, file, load) = exported(folder.path()).await;
    let whole = std::fs::read(&file).unwrap();
    let new = Home::embedded();
    let mut parts = Parts::new();
    let broken = folder.path().join("broken.jsonl");
    let broken_path = broken.display().to_string();

    for (name, bytes, says) in damaged(&whole) {
        // when
        std::fs::write(&broken, &bytes).unwrap();
        let to_files = import(&new.data(), &broken).await;
        let to_database = parts.operate(&["import", "--input", &broken_path]).await;

        // then
        println!("{name}: {}", words(&to_files.stderr).trim());
        refused(&to_files, &[says]);
        refused(&to_database, &[says]);
        assert!(!new.data().join("platform.db").exists(), "{name}");
    }

    // and: a place that is taken, and a file that is there already
    refused(&import(&old.data(), &file).await, &["platform.db is there already", "never adds"]);
    let again = export(&old.data(), &file, &[]).await;
    assert_eq!(again.status.code(), Some(64), "{again:?}");
    assert_eq!(std::fs::read(&file).unwrap(), whole, "nobody's export is written over");
    let nowhere = financing().flags(&["import", "--input", &file.display().to_string()]).output().await;
    assert_eq!(nowhere.status.code(), Some(64), "{nowhere:?}");

    // and: the whole one becomes a platform in either place, once
    let path = file.display().to_string();
    done(&import(&new.data(), &file).await);
    done(&parts.operate(&["import", "--input", &path]).await);
    refused(&import(&new.data(), &file).await, &["never adds"]);
    refused(
        &parts.operate(&["import", "--input", &path]).await,
        &["has records already", "make an empty database"],
    );
    parts.run(&ALL).await;
    // (What NATS has by now may be of after this export: policies and workers would go on from that.)
    let own = ["streams of this platform from before", "nats stream rm"];
    refused(&parts.operate(&["import", "--input", &path]).await, &own);
    load.repeat(&parts.platform().await).await;
    settle(&parts.platform().await, &load.promises()).await;
    done(&parts.operate(&["verify", "--settled"]).await);
    parts.stop(&ALL).await;
}

/// Begins an import with half of an export, and kills it when there is something of it.
async fn killed_in_the_middle(
    mut import: tokio::process::Command,
    whole: &[u8],
    has_begun: impl AsyncFnMut() -> bool,
) {
    let mut process = import.stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    input.write_all(&whole[..whole.len() / 2]).await.unwrap();
    input.flush().await.unwrap();
    until("the import has begun", has_begun).await;
    assert!(process.try_wait().unwrap().is_none(), "it waits for more");
    process.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_on_what_a_killed_import_has_left_behind_and_another_begins_anew() {
    // given
    let folder = TempDir::new().unwrap();
    let (_old, file, load) = exported(folder.path()).await;
    let whole = std::fs::read(&file).unwrap();
    let new = Home::embedded();
    let mut parts = Parts::new();

    // when
    let mut to_files = tokio::process::Command::new(env!("CARGO_BIN_EXE_financing"));
    to_files.env_clear().args(["import", "--data-dir"]).arg(new.data());
    let importing = new.data().join("platform.db.importing");
    killed_in_the_middle(to_files, &whole, async || importing.exists()).await;
    let services = parts.services();
    let mut to_database = tokio::process::Command::new(env!("CARGO_BIN_EXE_financing"));
    to_database
        .env_clear()
        .env("FINANCING_NATS_URL", services.nats.url())
        .env("FINANCING_COMMAND_DATABASE_URL", services.commands.url())
        .arg("import");
    let begun = async || {
        services.commands.psql("SELECT to_regclass('import_under_way')").trim() == "import_under_way"
    };
    killed_in_the_middle(to_database, &whole, begun).await;

    // then
    let (code, said) = Platform::refusal_to_start(&new.data(), &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("was begun and has not ended: run `financing import` again"), "{said}");
    let data = new.data().display().to_string();
    let exported = financing().flags(&["export", "--data-dir", &data]).output().await;
    refused(&exported, &["has not ended"]);
    parts.begin("worker", &parts.program("worker"));
    parts.gives_up("worker", &["has not ended", "`financing import` again"]).await;
    refused(&parts.operate(&["migrate"]).await, &["has not ended"]);
    refused(&parts.operate(&["export"]).await, &["has not ended"]);

    // and
    done(&import(&new.data(), &file).await);
    done(&parts.operate(&["import", "--input", &file.display().to_string()]).await);
    parts.run(&ALL).await;
    load.repeat(&parts.platform().await).await;
    settle(&parts.platform().await, &load.promises()).await;
    done(&parts.operate(&["verify", "--settled"]).await);
    parts.stop(&ALL).await;
    let platform = Platform::start_in(new, &[]).await;
    load.repeat(&platform).await;
    done(&platform.verify().output().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_only_the_queue_has_is_not_left_behind() {
    // given: what a platform has accepted and not done when it is killed
    let folder = TempDir::new().unwrap();
    let (home, _, _) = exported(folder.path()).await;
    let command_id = uuid().parse().unwrap();
    let approve = ApproveFinancing { invoice_id: InvoiceId::new(uuid().parse().unwrap()) };
    let command = Command::Invoice(InvoiceCommand::ApproveFinancing(approve));
    let envelope = Envelope::first::<Financing>(command_id, "client".to_owned(), &command).unwrap();
    let lock = DirectoryLock::acquire(&home.data()).unwrap();
    let new = Deployment { partitions: PartitionCount::DEFAULT, ..new_deployment() };
    let store = PlatformStore::open(&home.data(), Access::Alone(lock), &new).await.unwrap();
    let encoded = envelope.encode().unwrap();
    let bundles = pack(envelope.partition(PartitionCount::DEFAULT), [encoded.as_slice()]);
    for stored in store.queue().enqueue(bundles).await {
        stored.unwrap();
    }
    store.close().await;
    drop(store);
    let file = folder.path().join("later.jsonl");

    // when
    let output = export(&home.data(), &file, &[]).await;

    // then
    refused(&output, &["1 commands were accepted and have no outcome yet", "--finish"]);
    assert!(!file.exists());

    // and when
    done(&export(&home.data(), &file, &["--finish"]).await);

    // then
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.contains(&command_id.to_string())).expect("it has an outcome");
    assert!(line.contains("\"verdict\":{\"state\":\"REFUSED\",\"reason\":\"INVOICE_NOT_FOUND\""), "{line}");
    done(&home.verify().output().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_through_a_pipe_and_has_the_checksum_that_it_says() {
    // given
    let folder = TempDir::new().unwrap();
    let (home, file, _) = exported(folder.path()).await;

    // when
    let data = home.data().display().to_string();
    let output = financing().flags(&["export", "--data-dir", &data]).output().await;

    // then
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, std::fs::read(&file).unwrap(), "the same log is the same text");
    assert!(words(&output.stderr).starts_with("exported      "), "{output:?}");
    let copy = folder.path().join("piped");
    let script = "head -n -1 whole.jsonl | sha256sum | cut -c 1-64; \
                  gzip -c whole.jsonl | gunzip | \"$FINANCING\" import --data-dir piped";
    let piped = std::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(folder.path())
        .env("FINANCING", env!("CARGO_BIN_EXE_financing"))
        .env_remove("FINANCING_DATA_DIR")
        .env_remove("FINANCING_COMMAND_DATABASE_URL")
        .output()
        .unwrap();
    let said = done(&piped);
    let sum = said.lines().next().unwrap();
    assert!(said.contains(&format!("sha256        {sum}")), "{said}");
    assert!(copy.join("platform.db").is_file());
    assert!(!copy.join("platform.db-wal").exists() && !copy.join("platform.db.importing").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_imported_is_exported_as_the_same_text_with_no_more_rights_than_a_worker_has() {
    // given
    let folder = TempDir::new().unwrap();
    let (_old, file, _) = exported(folder.path()).await;
    let (whole, path) = (std::fs::read(&file).unwrap(), file.display().to_string());
    let roles = Roles::prepare();
    let parts = Parts::new()
        .set("FINANCING_COMMAND_DATABASE_URL", roles.commands.url())
        .set("FINANCING_QUERY_DATABASE_URL", roles.queries.url());
    done(&parts.operate(&["migrate"]).await);
    roles.grant();
    let worker = roles.url(&roles.commands, "worker");

    // when
    let as_worker = parts.operate(&["import", "--input", &path, "--command-database-url", &worker]).await;
    let as_owner = parts.operate(&["import", "--input", &path]).await;

    // then
    refused(&as_worker, &["only the owner of its tables may import"]);
    done(&as_owner);
    let again = parts.operate(&["export", "--command-database-url", &worker]).await;
    assert_eq!(again.status.code(), Some(0), "{}", words(&again.stderr));
    assert!(again.stdout == whole, "every byte of it");
    let new = Home::embedded();
    done(&import(&new.data(), &file).await);
    let copy = folder.path().join("copy.jsonl");
    done(&export(&new.data(), &copy, &[]).await);
    assert!(std::fs::read(&copy).unwrap() == whole, "every byte of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_not_imported_in_front_of_a_bus_or_a_queue_of_another_platform() {
    // given: the streams of another platform
    let folder = TempDir::new().unwrap();
    let (_old, file, _) = exported(folder.path()).await;
    let path = file.display().to_string();
    let mut others = Parts::start().await;
    let load = Load::prepare(&others.platform().await, 2).await;
    others.trade(&load, 10).await;
    others.stop(&ALL).await;
    let database = services::services().database();
    let into = ["import", "--input", &path, "--command-database-url", &database.url()].map(str::to_owned);
    let into: Vec<&str> = into.iter().map(String::as_str).collect();

    // when
    let over_bus = others.operate(&into).await;
    let nats = connect_raw(others.services()).await;
    for partition in 0..16 {
        nats.delete_stream(format!("EVENTS_{partition}")).await.unwrap();
    }
    let over_queue = others.operate(&into).await;

    // then
    refused(&over_bus, &["belongs to deployment ", "without streams of another platform"]);
    refused(&over_queue, &["nobody knows whose", "without streams of another platform"]);
}
