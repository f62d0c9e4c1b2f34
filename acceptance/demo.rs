//! `financing demo` plays a market on a running platform, and shows that it adds up.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::{Platform, in_time, uuid};

async fn demo(platform: &Platform, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_financing"));
    command
        .env_clear()
        .env("FINANCING_COMMAND_ADDR", &platform.command_address)
        .env("FINANCING_QUERY_ADDR", &platform.query_address)
        .env("COLUMNS", "80")
        .arg("demo")
        .args(arguments)
        .kill_on_drop(true);
    in_time("the demo ends", command.output()).await.unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn a_market_of_every_kind_of_saga_adds_up_to_the_cent() {
    // given
    let platform = Platform::start().await;
    let seed = uuid();

    // when
    let story = said(&demo(&platform, &["--seed", &seed]).await);

    // then
    for happened in [
        "Issuer A registers",
        "Investor 5 opens with",
        "wins",
        "loses: INVOICE_NOT_AVAILABLE",
        "loses: BID_BELOW_ASKING_PRICE",
        "loses: SELF_FINANCING",
        "refused, INSUFFICIENT_FUNDS",
        "approves once more: refused, INVOICE_NOT_FINANCED",
        "└ refused: INVOICE_NOT_FOUND",
        "that were too much go back to",
        "are committed",
        "It adds up to the cent.",
    ] {
        assert!(story.contains(happened), "{happened}: {story}");
    }
    assert!(!story.contains('\u{1b}') && !story.contains("somebody"), "{story}");
    let wide = story.lines().filter(|line| line.chars().count() > 80).collect::<Vec<_>>();
    assert!(wide.is_empty(), "{wide:#?}");
}

#[tokio::test]
async fn a_seed_that_was_played_happens_once_and_shows_the_same_sheet() {
    // given
    let platform = Platform::alone().await;
    let arguments = ["--seed", "spring", "--invoices", "10", "--json"];
    let object = |output: &Output| serde_json::from_str::<Value>(&said(output)).unwrap();

    // when
    let first = object(&demo(&platform, &arguments).await);
    let mut facts = platform.all_facts().await;
    let again = object(&demo(&platform, &arguments).await);

    // then
    assert_eq!((first["adds_up"].as_bool(), again["adds_up"].as_bool()), (Some(true), Some(true)));
    assert_eq!(first["balance_sheet"], again["balance_sheet"]);
    assert_eq!(
        (first["bids"].clone(), first["invoices"].clone()),
        (again["bids"].clone(), again["invoices"].clone())
    );
    assert!(first["facts_told"].as_u64().unwrap() > 50, "{first}");
    assert_eq!(again["facts_told"], 0);
    let sheet = &first["balance_sheet"];
    let of = |name: &str| {
        sheet["total"][name]["decimal"].as_str().unwrap().replace('.', "").parse::<u64>().unwrap()
    };
    assert_eq!(of("opened_with"), of("available") + of("committed"));
    assert!(of("committed") > 0 && of("available") > 0);
    // Nothing was recorded by the second: as many records as the first has told, or less where others are not told of.
    let mut recorded = 0;
    let marker = platform.issuer().await;
    while facts.next().await.event.subject != format!("issuer/{marker}") {
        recorded += 1;
    }
    assert_eq!(first["facts_told"], recorded);
}

#[tokio::test]
async fn two_demos_at_once_tell_only_of_themselves() {
    // given
    let platform = Platform::start().await;
    let (one, other) = (uuid(), uuid());
    let play = async |seed: &str| {
        let output = demo(&platform, &["--seed", seed, "--invoices", "5", "--json"]).await;
        serde_json::from_str::<Value>(&said(&output)).unwrap()
    };

    // when
    let (one, other) = tokio::join!(play(&one), play(&other));

    // then
    // How many bids of a race lose is the same, whoever wins.
    assert_eq!(one["facts_told"].as_u64().unwrap(), other["facts_told"].as_u64().unwrap());
    assert_ne!(one["balance_sheet"]["investors"][0]["id"], other["balance_sheet"]["investors"][0]["id"]);
}

#[tokio::test]
async fn without_a_platform_a_demo_fails_and_says_so() {
    let program = Command::new(env!("CARGO_BIN_EXE_financing"))
        .args(["demo", "--command-addr", "127.0.0.1:1", "--query-addr", "127.0.0.1:1"])
        .env_clear()
        .output();
    let output = in_time("the demo ends", program).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("127.0.0.1:1"));
}
