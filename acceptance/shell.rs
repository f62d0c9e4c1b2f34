//! The walk through one financing that the README describes, with the client of the platform.

use std::process::Output;

use tokio::process::Command;

use crate::harness::{Platform, eur, in_time};

/// Runs the client as a person would; `http://` before the addresses is fine.
async fn financing(platform: &Platform, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_financing"));
    command
        .env_clear()
        .env("FINANCING_COMMAND_ADDR", &platform.command_address)
        .env("FINANCING_QUERY_ADDR", platform.query_address.trim_start_matches("http://"))
        .args(arguments);
    in_time("the client ends", command.output()).await.unwrap()
}

async fn said(platform: &Platform, arguments: &[&str]) -> String {
    let output = financing(platform, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn failed(platform: &Platform, arguments: &[&str]) -> (Option<i32>, String) {
    let output = financing(platform, arguments).await;
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
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
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("investor_id") && message.contains("amount"), "{message}");
    let (code, message) = failed(&platform, &["show", "invoice", &issuer]).await;
    assert_eq!(code, Some(1), "{message}");
    let (code, message) = failed(&platform, &["sell", &issuer]).await;
    assert_eq!(code, Some(64), "{message}");
}
