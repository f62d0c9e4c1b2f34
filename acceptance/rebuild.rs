//! `financing rebuild`: the read models are built anew while commands and queries go on, and nobody sees a half; whoever kills
//! the platform or hangs up in the middle leaves them as they were.

use std::process::Output;

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tonic::{Code, Streaming};

use crate::harness::proto::read_model_admin_service_client::ReadModelAdminServiceClient;
use crate::harness::proto::{
    ListInvoicesRequest, RebuildPhase, RebuildReadModelsRequest, RebuildReadModelsResponse,
};
use crate::harness::{Home, Load, Platform, Program, eur, in_time, issuer_registered, reason, uuid};

const CLIENTS: usize = 6;
/// Events that one request publishes.
const AT_ONCE: usize = 1000;
/// As many requests as make a rebuild long enough to be met in the middle.
const REQUESTS: usize = 40;

/// All read models, and what tells them from others.
const TABLES: [(&str, &str); 6] = [
    (
        "checkpoints",
        "SELECT partition, sequence, record_id FROM checkpoints WHERE sequence > 0 ORDER BY partition",
    ),
    ("issuers", "SELECT * FROM issuers ORDER BY key"),
    ("investors", "SELECT * FROM investors ORDER BY key"),
    ("invoices", "SELECT * FROM invoices ORDER BY key"),
    ("bids", "SELECT * FROM bids ORDER BY key"),
    ("commands", "SELECT * FROM commands ORDER BY key"),
];

/// What is stored, read past the platform.
async fn stored(home: &Home) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(services) = home.services() {
        for (table, sql) in TABLES {
            all.push(format!("{table}\n{}", services.queries.psql(sql)));
        }
        let left = "SELECT relname FROM pg_class WHERE relname LIKE 'rebuilt%' OR relname LIKE 'retired%'";
        assert_eq!(services.queries.psql(left), "", "nothing is left over");
        return all;
    }
    let path = home.data().join("readmodels.db");
    let mut file = SqliteConnectOptions::new().filename(path).read_only(true).connect().await.unwrap();
    for (table, sql) in TABLES {
        let columns = columns(&mut file, table).await;
        let quoted: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
        let sql = sql.replace('*', "key").replacen("partition, sequence, record_id", "partition", 1);
        let (_, rest) = sql.split_once(" FROM ").unwrap();
        let sql = format!("SELECT {} FROM {rest}", quoted.join(" || '|' || "));
        let rows = file.fetch_all(AssertSqlSafe(sql)).await.unwrap();
        let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        all.push(format!("{table}\n{}", rows.join("\n")));
    }
    let left = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'rebuilt%' OR name LIKE 'retired%'";
    assert_eq!(file.fetch_one(left).await.unwrap().get::<i64, _>(0), 0, "nothing is left over");
    file.close().await.unwrap();
    all
}

async fn columns(file: &mut SqliteConnection, table: &str) -> Vec<String> {
    let sql = format!("SELECT name FROM pragma_table_info('{table}')");
    let rows = file.fetch_all(AssertSqlSafe(sql)).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn door(platform: &Platform) -> &str {
    platform.admin_address.as_deref().expect("a platform of the test's own")
}

async fn financing(platform: &Platform, arguments: &[&str]) -> Output {
    let program = Program::new(env!("CARGO_BIN_EXE_financing")).flags(&["rebuild"]).flags(arguments);
    program.set("FINANCING_ADMIN_ADDR", door(platform)).output().await
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asks for a rebuild, as any gRPC client may.
async fn ask(platform: &Platform) -> Result<Streaming<RebuildReadModelsResponse>, tonic::Status> {
    let address = format!("http://{}", door(platform));
    let mut client = ReadModelAdminServiceClient::connect(address).await.unwrap();
    Ok(client.rebuild_read_models(RebuildReadModelsRequest {}).await?.into_inner())
}

/// A rebuild of which some is done and some is not.
async fn in_the_middle(platform: &Platform) -> Streaming<RebuildReadModelsResponse> {
    let mut steps = ask(platform).await.unwrap();
    loop {
        let step = in_time("a step", steps.message()).await.unwrap().expect("it goes on");
        assert_eq!(step.phase(), RebuildPhase::Building, "it takes long enough to be met in the middle");
        if step.records_done > 0 {
            assert!(step.records_done < step.records_total, "{step:?}");
            return steps;
        }
    }
}

/// A platform with much to fold.
async fn with_a_long_log() -> Platform {
    let platform = Platform::alone().await;
    for _ in 0..REQUESTS {
        let events = (0..AT_ONCE).map(|_| issuer_registered(&uuid(), "Acme")).collect();
        platform.publish(events).await;
    }
    is_projected(platform.keeps(), REQUESTS * AT_ONCE).await;
    platform
}

/// Waits until there are so many records, and all that there are is projected.
async fn is_projected(home: &Home, records: usize) {
    let seen = async {
        loop {
            let (projected, written) = match home.services() {
                Some(services) => {
                    let projected = services.queries.psql("SELECT sum(sequence) FROM checkpoints");
                    let written = services.commands.psql("SELECT sum(head) FROM partitions");
                    (projected.trim().parse().unwrap_or(0), written.trim().parse().unwrap_or(0))
                }
                None => (
                    sum(home, "readmodels.db", "SELECT coalesce(sum(sequence), 0) FROM checkpoints").await,
                    sum(home, "platform.db", "SELECT sum(head) FROM partitions").await,
                ),
            };
            if projected == written && usize::try_from(written).unwrap() >= records {
                return;
            }
        }
    };
    in_time("all is projected", seen).await;
}

async fn sum(home: &Home, file: &str, sql: &'static str) -> i64 {
    let path = home.data().join(file);
    let mut file = SqliteConnectOptions::new().filename(path).read_only(true).connect().await.unwrap();
    let sum = file.fetch_one(sql).await.unwrap().get(0);
    file.close().await.unwrap();
    sum
}

/// Nothing is wrong with what is stored, says the checker.
async fn is_clean(platform: &Platform) {
    let output = platform.verify().output().await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Everything that was accepted is projected: from here on nothing moves by itself.
async fn is_quiet(platform: &Platform, load: &Load) {
    crate::crash::settle(platform, &load.promises()).await;
    is_projected(platform.keeps(), 0).await;
}

#[tokio::test]
async fn what_is_rebuilt_is_what_was_projected() {
    // given
    let platform = Platform::alone().await;
    let load = Load::prepare(&platform, 6).await;
    load.until(&platform, CLIENTS, load.accepted(120)).await;
    is_quiet(&platform, &load).await;
    let before = stored(platform.keeps()).await;

    // when
    let told = said(&financing(&platform, &[]).await);

    // then
    assert!(
        told.starts_with("the read models are rebuilt: ") && told.contains(" of 16 partitions in "),
        "{told}"
    );
    assert_eq!(stored(platform.keeps()).await, before, "every row and every checkpoint");
    is_clean(&platform).await;
    // Again, and after a start.
    said(&financing(&platform, &[]).await);
    assert_eq!(stored(platform.keeps()).await, before);
    let platform = Platform::start_in(platform.kill().await, &[]).await;
    assert_eq!(stored(platform.keeps()).await, before);
    load.repeat(&platform).await;
    load.until(&platform, CLIENTS, load.accepted(20)).await;
    is_clean(&platform).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_queries_go_on_meanwhile() {
    // given
    let platform = Platform::alone().await;
    let load = Load::prepare(&platform, 6).await;
    load.until(&platform, CLIENTS, load.accepted(80)).await;

    // when
    let rebuilds = async {
        let mut records = 0;
        for _ in 0..4 {
            load.accepted(20).await;
            let told = said(&financing(&platform, &["--json"]).await);
            let steps: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let last = steps.last().expect("steps");
            assert_eq!((&last["phase"], &last["partitions"]), (&Value::from("SWAPPED"), &Value::from(16)));
            assert_eq!(last["records_done"], last["records_total"]);
            let done = last["records_done"].as_u64().unwrap();
            assert!(done > records, "{done} records, and {records} before");
            records = done;
            is_clean(&platform).await;
        }
    };
    let reads = async {
        let mut most = 0;
        loop {
            // Who waits for what he wrote sees it, whichever set of tables he meets.
            let sold = platform.sell(&platform.issuer().await, eur(10, 0)).await;
            platform.invoice_at(&sold.id, &sold.token).await;
            let invoices = count_invoices(&platform).await;
            assert!(invoices >= most, "{invoices} invoices, and {most} before: that is a half");
            most = invoices;
        }
    };
    let both = async {
        tokio::select! {
            () = rebuilds => {}
            () = reads => {}
        }
    };
    load.until(&platform, CLIENTS, Box::pin(both)).await;

    // then
    load.insist(&platform).await;
    is_quiet(&platform, &load).await;
    is_clean(&platform).await;
    let (status, _) = {
        platform.signal("-TERM").await;
        platform.ended().await
    };
    assert_eq!(status, Some(0), "nothing has died of it");
}

async fn count_invoices(platform: &Platform) -> usize {
    let mut request = ListInvoicesRequest { page_size: 1000, ..ListInvoicesRequest::default() };
    let mut count = 0;
    loop {
        let page =
            platform.queries().list_invoices(request.clone()).await.expect("no read fails").into_inner();
        count += page.invoices.len();
        if page.next_page_token.is_empty() {
            return count;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn one_at_a_time_and_who_hangs_up_has_cancelled() {
    // given
    let platform = with_a_long_log().await;
    let before = stored(platform.keeps()).await;

    // when
    let steps = in_the_middle(&platform).await;
    let refused = ask(&platform).await.unwrap_err();

    // then
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "REBUILD_UNDER_WAY"));
    let output = financing(&platform, &[]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("(REBUILD_UNDER_WAY)"), "{output:?}");

    // when
    drop(steps);

    // then
    let again = async {
        loop {
            match ask(&platform).await {
                Ok(steps) => return steps,
                Err(refused) => assert_eq!(reason(&refused), "REBUILD_UNDER_WAY"),
            }
        }
    };
    drop(in_time("the first is cancelled", again).await);
    let last = async { while ask(&platform).await.is_err() {} };
    in_time("the second is cancelled", last).await;
    let cancelled = async {
        loop {
            let output = financing(&platform, &[]).await;
            if output.status.success() {
                return;
            }
        }
    };
    in_time("one comes to its end", cancelled).await;
    assert_eq!(stored(platform.keeps()).await, before);
}

#[tokio::test]
async fn a_kill_in_the_middle_leaves_them_as_they_were() {
    // given
    let mut platform = with_a_long_log().await;
    let before = stored(platform.keeps()).await;

    // when
    let steps = in_the_middle(&platform).await;
    platform.last_process().kill().await;
    drop(steps);

    // then
    let home = platform.into_home().await;
    let platform = Platform::start_in(home, &[]).await;
    assert_eq!(stored(platform.keeps()).await, before);
    let sold = platform.sell(&platform.issuer().await, eur(1, 0)).await;
    platform.invoice_at(&sold.id, &sold.token).await;
    is_clean(&platform).await;
    said(&financing(&platform, &[]).await);
    is_clean(&platform).await;
}

#[tokio::test]
async fn a_stop_in_the_middle_is_a_stop_in_good_order() {
    let platform = with_a_long_log().await;
    let before = stored(platform.keeps()).await;
    let mut steps = in_the_middle(&platform).await;
    platform.signal("-TERM").await;
    let told = async {
        while let Ok(Some(step)) = steps.message().await {
            assert_ne!(step.phase(), RebuildPhase::Swapped);
        }
    };
    in_time("the stream ends", told).await;
    let (status, home) = platform.ended().await;
    assert_eq!(status, Some(0));
    assert_eq!(stored(&home).await, before);
}

#[tokio::test]
async fn the_door_is_open_to_this_machine_alone_unless_somebody_says_so() {
    for (flags, warned) in [(&[][..], false), (&["--admin-addr", "0.0.0.0:0"][..], true)] {
        let platform = Platform::start_in(Home::embedded(), flags).await;
        let home = platform.kill().await;
        let log = home.logged("platform");
        assert_eq!(log.contains("the admin door is open to other machines"), warned, "{log}");
    }
}
