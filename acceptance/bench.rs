//! `financing bench` measures what happened, and says when it does not add up.

use serde_json::Value;

use crate::harness::{Platform, Program};

/// The program that measures this platform.
fn bench(platform: &Platform, arguments: &[&str]) -> Program {
    Program::new(env!("CARGO_BIN_EXE_financing"))
        .set("FINANCING_COMMAND_ADDR", &platform.command_address)
        .set("FINANCING_QUERY_ADDR", &platform.query_address)
        .flags(&["bench"])
        .flags(arguments)
        .flags(&["--duration", "1s", "--warm-up", "100ms", "--connections", "2"])
}

async fn said(program: &Program) -> String {
    let output = program.output().await;
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {complained}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

async fn object(program: &Program) -> Value {
    serde_json::from_str(&said(program).await).unwrap()
}

#[track_caller]
fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// How many latencies of this point were measured; they are in order, and none is missing.
#[track_caller]
fn measured(report: &Value, point: &str) -> u64 {
    let latencies = report["latencies"].as_array().unwrap();
    let found = latencies.iter().find(|latencies| latencies["point"] == point);
    let found = found.unwrap_or_else(|| panic!("{point}: {report}"));
    let percentiles = ["p50_micros", "p90_micros", "p99_micros", "p999_micros", "max_micros"];
    let percentiles = percentiles.map(|name| count(&found[name]));
    assert!(percentiles[0] > 0 && percentiles.is_sorted(), "{found}");
    count(&found["measured"])
}

#[tokio::test]
async fn sales_are_measured_for_people_and_every_one_of_them_is_there() {
    // given
    let platform = Platform::start().await;

    // when
    let text = said(&bench(&platform, &["sell", "--clients", "4"])).await;

    // then
    for says in ["closed loop, 4 clients", "commands accepted", "durable ", "p99.9", "CPU/sale", "generator"]
    {
        assert!(text.contains(says), "{says}: {text}");
    }
    assert!(text.contains("everything adds up"), "{text}");
}

#[tokio::test]
async fn financings_are_followed_to_the_last_cent() {
    // given
    let platform = Platform::start().await;

    // when
    let report = object(&bench(&platform, &["financing", "--clients", "4", "--json"])).await;

    // then
    let books = &report["books"];
    let settled = count(&books["settled"]);
    assert!(settled > 0, "{report}");
    assert_eq!([&books["sold"], &books["invoices"], &books["approved"]].map(count), [settled; 3]);
    assert_eq!(count(&books["committed"]), settled * 10_000, "an invoice is sold for 100.00 EUR");
    let funds = ["available", "reserved", "committed"].map(|name| count(&books[name])).iter().sum::<u64>();
    assert_eq!(funds, count(&books["funded"]));
    assert_eq!(count(&books["reserved"]), 0);
    assert_eq!(report["breaches"], serde_json::json!([]));
    assert!(measured(&report, "accepted") > measured(&report, "relayed"), "three commands a financing");
    assert!(measured(&report, "settled") > 0 && count(&report["completed"]["per_second"]) > 0);
    assert_eq!(report["platform"]["partitions"], 16);
    assert!(["embedded", "distributed"].contains(&report["platform"]["topology"].as_str().unwrap()));
    let generator = report["processes"].as_array().unwrap().iter().find(|one| one["name"] == "generator");
    assert!(count(&generator.unwrap()["resident_bytes"]) > 0, "{report}");
}

#[tokio::test]
async fn an_open_loop_asks_for_as_many_as_are_due() {
    // given
    let platform = Platform::start().await;

    // when
    let report = object(&bench(&platform, &["sell", "--rate", "50", "--json"])).await;

    // then
    assert_eq!((&report["loop"], count(&report["per_second"])), (&Value::from("open"), 50));
    assert_eq!(count(&report["books"]["sold"]), 55, "those of the warm-up, too: {report}");
    assert_eq!(measured(&report, "accepted"), 50);
    assert!(measured(&report, "projected") > 0);
}

#[tokio::test]
async fn a_bench_without_a_platform_fails_and_one_called_wrongly_says_so() {
    let nowhere = Program::new(env!("CARGO_BIN_EXE_financing"))
        .flags(&["bench", "sell", "--command-addr", "127.0.0.1:1", "--query-addr", "127.0.0.1:1"])
        .output()
        .await;
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("Is the platform running?"));
    let both = Program::new(env!("CARGO_BIN_EXE_financing"))
        .flags(&["bench", "sell", "--clients", "2", "--rate", "5"])
        .output()
        .await;
    assert_eq!(both.status.code(), Some(64));
}
