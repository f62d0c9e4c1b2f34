//! The client of the platform, as people and scripts use it: the walk that the README describes, and every command.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::{Platform, eur, in_time, uuid};

/// The client as a person would run it; `http://` before the addresses is fine.
fn client(platform: &Platform, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_financing"));
    command
        .env_clear()
        .env("FINANCING_COMMAND_ADDR", &platform.command_address)
        .env("FINANCING_QUERY_ADDR", platform.query_address.trim_start_matches("http://"))
        .args(arguments)
        .kill_on_drop(true);
    command
}

async fn ended(mut command: Command) -> Output {
    in_time("the client ends", command.output()).await.unwrap()
}

async fn financing(platform: &Platform, arguments: &[&str]) -> Output {
    ended(client(platform, arguments)).await
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn said(platform: &Platform, arguments: &[&str]) -> String {
    text(financing(platform, arguments).await)
}

/// What it says to a person where it is this many columns wide.
async fn said_in(platform: &Platform, columns: usize, arguments: &[&str]) -> Vec<String> {
    let mut command = client(platform, arguments);
    command.env("COLUMNS", columns.to_string());
    let text = text(ended(command).await);
    let wide = text.lines().filter(|line| line.chars().count() > columns).collect::<Vec<_>>();
    assert!(wide.is_empty(), "{arguments:?} in {columns} columns: {wide:#?}");
    text.lines().map(ToOwned::to_owned).collect()
}

/// What it says to a script: an object a line.
fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

async fn object(platform: &Platform, arguments: &[&str]) -> Value {
    let mut objects = objects(&said(platform, arguments).await);
    assert_eq!(objects.len(), 1, "{arguments:?}: {objects:?}");
    objects.remove(0)
}

async fn failed(platform: &Platform, arguments: &[&str]) -> (Option<i32>, String) {
    let output = financing(platform, arguments).await;
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Where something went wrong, with `--json`: the exit code, and what stands under `error`.
async fn error(platform: &Platform, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = financing(platform, arguments).await;
    assert!(!output.stderr.is_empty(), "people are told, too");
    let mut objects = objects(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(objects.len(), 1, "{arguments:?}: {objects:?}");
    (output.status.code(), objects[0]["error"].take())
}

fn assigned<'a>(line: &'a str, name: &str) -> &'a str {
    line.strip_prefix(name).unwrap().strip_prefix('=').unwrap().split_whitespace().next().unwrap()
}

#[tokio::test]
async fn an_invoice_is_financed_from_the_shell() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;
    let late = platform.investor(eur(100, 0)).await;

    // when
    let sold = said(&platform, &["sell", &issuer, "50.00"]).await;
    let invoice = assigned(&sold, "INVOICE");
    let won = said(&platform, &["bid", &investor, invoice, "60"]).await;
    let lost = said(&platform, &["bid", &late, invoice, "60.00"]).await;
    said(&platform, &["approve", invoice]).await;

    // then
    assert!(won.ends_with("# WON\n"), "{won}");
    assert!(lost.ends_with("# RELEASED: INVOICE_NOT_AVAILABLE\n"), "{lost}");
    assert!(said(&platform, &["show", "bid", assigned(&won, "BID")]).await.contains("60.00 EUR"));
    assert!(said(&platform, &["show", "invoice", invoice]).await.contains("status        APPROVED"));
    assert!(said(&platform, &["show", "issuer", &issuer]).await.contains(&issuer));
    let shown = said(&platform, &["show", "investor", &investor]).await;
    assert!(shown.contains("available  50.00 EUR") && shown.contains("committed  50.00 EUR"), "{shown}");
}

#[tokio::test]
async fn an_exit_code_tells_a_refusal_from_a_failure_and_from_a_mistake() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;
    let sold = said(&platform, &["sell", &issuer, "50.00"]).await;
    let invoice = assigned(&sold, "INVOICE");

    // then
    let (code, message) = failed(&platform, &["bid", &investor, invoice, "600"]).await;
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("INSUFFICIENT_FUNDS") && message.contains("100.00 EUR"), "{message}");
    let (code, message) = failed(&platform, &["bid", "nobody", invoice, "-1"]).await;
    assert_eq!(code, Some(64), "{message}");
    assert!(message.contains("investor_id") && message.contains("amount"), "{message}");
    let (code, message) = failed(&platform, &["show", "invoice", &issuer]).await;
    assert_eq!(code, Some(1), "{message}");
    for mistake in [
        &["sell", &issuer][..],
        &["sell", &issuer, "1", "--wait", "10"],
        &["sell", &issuer, "1", "--wait", "6m"],
        &["sell", &issuer, "1", "--request-id", "mine"],
        &["invoices", invoice, "--status", "available"],
        &["invoices", "--status", "sold"],
        &["bids", "--limit", "0"],
    ] {
        let (code, message) = failed(&platform, mistake).await;
        assert_eq!(code, Some(64), "{mistake:?}: {message}");
    }
}

#[tokio::test]
async fn a_script_reads_one_object_with_exact_money_and_the_reason_of_a_refusal() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;

    // when
    let sold = object(&platform, &["sell", &issuer, "50.05", "--json"]).await;
    let invoice = sold["invoice_id"].as_str().unwrap();
    let bid = object(&platform, &["bid", &investor, invoice, "60", "--json"]).await;
    let (code, refusal) = error(&platform, &["bid", &investor, invoice, "600", "--json"]).await;
    let reversed = object(&platform, &["reverse", invoice, "--json"]).await;
    let (code_again, again) = error(&platform, &["approve", invoice, "--json"]).await;
    let (code_of_mistake, mistake) = error(&platform, &["approve", "nothing", "--json"]).await;

    // then
    assert_eq!(
        (sold["state"].as_str(), sold["token"].as_str().map(str::is_empty)),
        (Some("APPLIED"), Some(false))
    );
    assert_eq!(bid["bid"]["status"], "WON");
    assert_eq!(bid["bid"]["amount"]["units"], 60);
    assert_eq!(bid["bid"]["amount"]["decimal"], "60.00");
    assert_eq!((code, refusal["kind"].as_str()), (Some(2), Some("REFUSED")));
    assert_eq!(refusal["reason"], "INSUFFICIENT_FUNDS");
    assert_eq!(refusal["investor_id"], *investor);
    assert!(refusal["message"].as_str().unwrap().contains("49.95 EUR"), "{refusal}");
    assert_eq!(reversed["invoice"]["status"], "REVERSED");
    assert_eq!(reversed["bid"]["status"], "RELEASED");
    assert_eq!((code_again, again["reason"].as_str()), (Some(2), Some("INVOICE_NOT_FINANCED")));
    assert_eq!((code_of_mistake, mistake["kind"].as_str()), (Some(64), Some("FAILED")));
    let money = &object(&platform, &["invoices", invoice, "--json"]).await["asking_price"];
    let expected =
        serde_json::json!({ "currency_code": "EUR", "units": 50, "nanos": 50_000_000, "decimal": "50.05" });
    assert_eq!(*money, expected);
}

#[tokio::test]
async fn who_does_not_wait_gets_the_ids_and_asks_later() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;

    // when
    let sold = said(&platform, &["sell", &issuer, "50.00", "--no-wait"]).await;
    let (invoice, command) = sold.split_once('\n').unwrap();
    let (invoice, command) = (assigned(invoice, "INVOICE"), assigned(command, "COMMAND"));
    let outcome = object(&platform, &["command", command, "--wait", "20s", "--json"]).await;
    let broke = said(&platform, &["bid", &investor, invoice, "600", "--no-wait"]).await;
    let refused = assigned(broke.lines().nth(1).unwrap(), "COMMAND");
    let refusal = financing(&platform, &["command", refused, "--wait", "20s", "--json"]).await;

    // then
    assert_eq!((outcome["id"].as_str(), outcome["state"].as_str()), (Some(command), Some("APPLIED")));
    let token = outcome["token"].as_str().unwrap();
    assert_eq!(
        object(&platform, &["invoices", invoice, "--token", token, "--json"]).await["status"],
        "AVAILABLE"
    );
    assert_eq!(refusal.status.code(), Some(2));
    let outcome = objects(&String::from_utf8(refusal.stdout).unwrap());
    assert_eq!((outcome.len(), outcome[0]["reason"].as_str()), (1, Some("INSUFFICIENT_FUNDS")));
    let shown = said(&platform, &["command", command]).await;
    assert!(shown.contains("state    APPLIED"), "{shown}");
    let nobodys = said(&platform, &["command", &uuid()]).await;
    assert!(nobodys.contains("PENDING"), "{nobodys}");
    let pending = object(&platform, &["command", &uuid(), "--json"]).await;
    assert_eq!(pending["state"], "PENDING");
}

#[tokio::test]
async fn a_request_id_makes_a_retry_a_retry() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;
    let (sale, offer) = (uuid(), uuid());

    // when
    let sell = ["sell", &issuer, "50.00", "--request-id", &sale];
    let (sold, again) = (said(&platform, &sell).await, said(&platform, &sell).await);
    let invoice = assigned(&sold, "INVOICE");
    let bid = ["bid", &investor, invoice, "60", "--request-id", &offer];
    let (placed, placed_again) = (said(&platform, &bid).await, said(&platform, &bid).await);

    // then
    assert_eq!((&sold, &placed), (&again, &placed_again));
    assert_eq!(platform.balances(&investor, "").await, [eur(50, 0), eur(50, 0), eur(0, 0)]);
    let (code, message) = failed(&platform, &["sell", &issuer, "51", "--request-id", &sale]).await;
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("REQUEST_ID_REUSED"), "{message}");
}

#[tokio::test]
async fn lists_are_filtered_and_fit_the_terminal() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;
    let won = platform.on_sale(&issuer, eur(50, 0)).await;
    let open = platform.on_sale(&issuer, eur(70, 0)).await;
    let bid = said(&platform, &["bid", &investor, &won, "50"]).await;
    let bid = assigned(&bid, "BID");

    // then
    let ids = async |arguments: &[&str]| {
        let rows = objects(&said(&platform, &[arguments, &["--json"]].concat()).await);
        rows.into_iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["invoices", "--issuer", &issuer]).await, [won.clone(), open.clone()]);
    assert_eq!(
        ids(&["invoices", "--issuer", &issuer, "--status", "available"]).await,
        std::slice::from_ref(&open)
    );
    assert_eq!(ids(&["invoices", "--investor", &investor]).await, std::slice::from_ref(&won));
    assert_eq!(ids(&["bids", "--invoice", &won]).await, [bid]);
    assert_eq!(ids(&["bids", "--investor", &investor, "--status", "won"]).await, [bid]);
    assert!(ids(&["bids", "--investor", &investor, "--status", "placed"]).await.is_empty());
    assert_eq!(ids(&["investors", &investor]).await, std::slice::from_ref(&investor));
    assert_eq!(ids(&["issuers", &issuer]).await, std::slice::from_ref(&issuer));
    assert!(ids(&["issuers", "--name", "Acme", "--limit", "1000"]).await.contains(&issuer));
    assert!(ids(&["investors", "--name", "Nobody"]).await.is_empty());

    for columns in [80, 160] {
        let lines = said_in(&platform, columns, &["invoices", "--issuer", &issuer]).await;
        assert!(lines[0].starts_with("INVOICE ") && lines[0].contains("ASKING PRICE  STATUS"), "{lines:#?}");
        assert!(lines[1].starts_with(&won) && lines[1].contains("50.00 EUR  FINANCED"), "{lines:#?}");
        let lines = said_in(&platform, columns, &["bids", "--investor", &investor]).await;
        assert!(lines[1].starts_with(bid) && lines[1].contains("50.00 EUR  WON"), "{lines:#?}");
        let lines = said_in(&platform, columns, &["investors", "--name", "Lender", "--limit", "1"]).await;
        assert!(lines[1].starts_with("Lender") && lines[1].contains(" EUR"), "{lines:#?}");
        let lines = said_in(&platform, columns, &["issuers", "--limit", "1"]).await;
        assert_eq!(lines.len(), 2, "{lines:#?}");
    }

    let first = financing(&platform, &["invoices", "--issuer", &issuer, "--limit", "1"]).await;
    let told = String::from_utf8(first.stderr).unwrap();
    assert!(told.contains("there are more invoices"), "{told}");
    assert_eq!(String::from_utf8(first.stdout).unwrap().lines().count(), 2);
    let none = financing(&platform, &["bids", "--invoice", &open]).await;
    assert_eq!((none.stdout.len(), String::from_utf8(none.stderr).unwrap().as_str()), (0, "no bids\n"));
}

#[tokio::test]
async fn a_watch_ends_when_what_it_watches_has_settled() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;
    let invoice = platform.on_sale(&issuer, eur(50, 0)).await;

    // when
    let mut watch = client(&platform, &["watch", &invoice, "--json"]);
    let mut watch = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut next = async || {
        let line = in_time("the watch says something", lines.next_line()).await.unwrap();
        line.map(|line| serde_json::from_str::<Value>(&line).unwrap())
    };
    let first = next().await.unwrap();
    let bid = said(&platform, &["bid", &investor, &invoice, "60"]).await;
    said(&platform, &["approve", &invoice]).await;
    let mut rest = Vec::new();
    while let Some(object) = next().await {
        rest.push(object);
    }

    // then
    assert_eq!(first["invoice"]["status"], "AVAILABLE");
    let of = |what: &str| {
        let rows = rest.iter().filter(|row| row.get(what).is_some());
        rows.map(|row| row[what]["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Changes that come at the same moment may be seen as one.
    assert_eq!(of("invoice").last().map(String::as_str), Some("APPROVED"));
    assert_eq!(of("bid").last().map(String::as_str), Some("COMMITTED"));
    assert!(in_time("the watch ends", watch.wait()).await.unwrap().success());
    let bid = assigned(&bid, "BID");
    let settled = said_in(&platform, 80, &["watch", bid]).await;
    assert!(settled.len() == 1 && settled[0].contains("COMMITTED  60.00 EUR"), "{settled:?}");
}

#[tokio::test]
async fn a_watch_can_end_earlier() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let investor = platform.investor(eur(100, 0)).await;
    let invoice = platform.on_sale(&issuer, eur(50, 0)).await;
    let placed = said(&platform, &["bid", &investor, &invoice, "60", "--no-wait"]).await;
    let mut lines = placed.lines();
    let (bid, command) = (assigned(lines.next().unwrap(), "BID"), assigned(lines.next().unwrap(), "COMMAND"));

    // when
    let outcome = object(&platform, &["command", command, "--wait", "20s", "--json"]).await;
    let token = outcome["token"].as_str().unwrap();
    let won = said(&platform, &["watch", bid, "--until", "won", "--token", token]).await;
    let late = financing(&platform, &["watch", bid, "--timeout", "200ms"]).await;

    // then
    assert!(won.lines().last().unwrap().contains("WON"), "{won}");
    assert_eq!(late.status.code(), Some(1));
    assert!(String::from_utf8(late.stderr).unwrap().contains("200ms"));
    let (code, message) = failed(&platform, &["watch", &uuid()]).await;
    assert!(code == Some(1) && message.contains("no invoice and no bid"), "{message}");
}

#[tokio::test]
async fn what_is_not_well_formed_has_the_exit_code_of_a_wrong_call() {
    let platform = Platform::start().await;
    let (issuer, investor) = (platform.issuer().await, platform.investor(eur(100, 0)).await);
    let invoice = platform.on_sale(&issuer, eur(50, 0)).await;
    for wrong in [
        vec!["sell", &issuer, "1,50"],
        vec!["sell", "nobody", "50"],
        vec!["bid", &investor, &invoice, "0"],
        vec!["bid", &investor, &invoice, "5.001"],
        vec!["story", "nonsense"],
    ] {
        let (code, message) = failed(&platform, &wrong).await;
        assert_eq!(code, Some(64), "{wrong:?}: {message}");
    }
}

/// Everything that is on the platform is asked for over a terminal, and then over one that wants no colours.
#[tokio::test]
async fn colours_are_for_terminals_that_want_them() {
    // given
    let platform = Platform::start().await;
    let issuer = platform.issuer().await;
    let invoice = platform.on_sale(&issuer, eur(50, 0)).await;
    let on_a_terminal = async |settings: &[(&str, &str)]| {
        let financing = env!("CARGO_BIN_EXE_financing");
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{financing} invoices {invoice}"), "/dev/null"]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
        command.env("FINANCING_QUERY_ADDR", &platform.query_address).envs(settings.iter().copied());
        text(ended(command).await)
    };

    // then
    let coloured = on_a_terminal(&[]).await;
    assert!(coloured.contains('\u{1b}') && coloured.contains("AVAILABLE"), "{coloured:?}");
    for settings in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        let plain = on_a_terminal(&settings).await;
        assert!(!plain.contains('\u{1b}') && plain.contains("AVAILABLE"), "{plain:?}");
    }
    assert!(!said(&platform, &["invoices", &invoice]).await.contains('\u{1b}'), "no terminal at all");
}

#[tokio::test]
async fn shells_learn_the_commands_and_people_read_examples() {
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_financing"));
        command.env_clear().args(arguments);
        text(ended(command).await)
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).await;
        assert!(script.contains("watch") && script.contains("request-id"), "{shell}");
    }
    let help = run(&["--help"]).await;
    let groups = ["A first look:", "Doing business:", "Looking:", "Running the platform:"];
    let at: Vec<usize> = groups.iter().map(|group| help.find(group).expect(group)).collect();
    assert!(at.is_sorted(), "{help}");
    assert!(run(&["bid", "--help"]).await.contains("financing bid $INVESTOR_1 $INVOICE 60.00"));
}
