//! `populate` registers issuers and investors on a running platform, and prints their ids.

use std::collections::BTreeSet;
use std::process::Output;

use tokio::process::Command;

use crate::harness::proto::{GetIssuerRequest, ListInvestorsRequest, ListIssuersRequest};
use crate::harness::{Platform, eur, in_time, money};

async fn populate(platform: &Platform, flags: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_populate")), platform, flags).await
}

async fn run(mut program: Command, platform: &Platform, flags: &[&str]) -> Output {
    let program = program
        .args(["--command-addr", &platform.command_address, "--query-addr", &platform.query_address])
        .args(flags)
        .env_clear()
        .output();
    in_time("populate ends", program).await.unwrap()
}

#[tokio::test]
async fn the_shell_registers_the_same() {
    // given
    let platform = Platform::start().await;
    let flags = ["--seed", "market", "--issuers", "2", "--investors", "1"];
    // when
    let mut shell = Command::new(env!("CARGO_BIN_EXE_financing"));
    shell.arg("populate");
    let shell = run(shell, &platform, &flags).await;
    let program = populate(&platform, &flags).await;
    // then
    assert_eq!(ids(&shell), ids(&program));
    assert_eq!(ids(&shell).0.len(), 2);
}

/// The ids that were printed, of issuers and of investors.
fn ids(output: &Output) -> (Vec<String>, Vec<String>) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let named = |name: &str| {
        (1..)
            .zip(text.lines().filter(|line| line.starts_with(name)))
            .map(|(number, line)| {
                let value = line.strip_prefix(&format!("{name}_{number}=")).expect(line);
                value.split_whitespace().next().unwrap().to_owned()
            })
            .collect::<Vec<_>>()
    };
    (named("ISSUER"), named("INVESTOR"))
}

async fn issuers(platform: &Platform) -> BTreeSet<String> {
    let answer = platform.queries().list_issuers(ListIssuersRequest::default()).await.unwrap().into_inner();
    answer.issuers.into_iter().map(|issuer| issuer.id).collect()
}

async fn investors(platform: &Platform) -> BTreeSet<String> {
    let answer =
        platform.queries().list_investors(ListInvestorsRequest::default()).await.unwrap().into_inner();
    answer.investors.into_iter().map(|investor| investor.id).collect()
}

#[tokio::test]
async fn five_issuers_and_five_investors_with_a_hundred_euros_are_there_when_it_ends() {
    // given
    let platform = Platform::alone().await;

    // when
    let first = populate(&platform, &[]).await;

    // then
    let (issuer_ids, investor_ids) = ids(&first);
    assert_eq!((issuer_ids.len(), investor_ids.len()), (5, 5));
    assert_eq!(issuers(&platform).await, issuer_ids.iter().cloned().collect());
    assert_eq!(investors(&platform).await, investor_ids.iter().cloned().collect());
    for investor_id in &investor_ids {
        assert_eq!(platform.balances(investor_id, "").await, [eur(100, 0), eur(0, 0), eur(0, 0)]);
    }
    let request = GetIssuerRequest { issuer_id: issuer_ids[0].clone(), token: String::new() };
    let issuer = platform.queries().get_issuer(request).await.unwrap().into_inner().issuer.unwrap();
    assert_eq!(issuer.name, "Issuer 1");
    let sold = platform.sell(&issuer_ids[4], eur(100, 0)).await;
    platform.bid(&investor_ids[4], &sold.id, eur(100, 0)).await.expect("what was printed can be used");

    // and when
    let second = populate(&platform, &[]).await;

    // then
    let (more_issuers, more_investors) = ids(&second);
    assert!(more_issuers.iter().all(|id| !issuer_ids.contains(id)));
    assert!(more_investors.iter().all(|id| !investor_ids.contains(id)));
    assert_eq!((issuers(&platform).await.len(), investors(&platform).await.len()), (10, 10));
}

#[tokio::test]
async fn a_seed_gives_the_same_ids_and_registers_them_once() {
    // given
    let platform = Platform::alone().await;
    let flags = ["--seed", "demo", "--issuers", "2", "--investors", "3"];

    // when
    let once = populate(&platform, &flags).await;
    let again = populate(&platform, &flags).await;
    let other = populate(&platform, &["--seed", "other", "--issuers", "1", "--investors", "0"]).await;

    // then
    assert_eq!(ids(&once), ids(&again));
    assert_eq!((ids(&once).0.len(), ids(&once).1.len()), (2, 3));
    assert!(!ids(&once).0.contains(&ids(&other).0[0]));
    assert_eq!((issuers(&platform).await.len(), investors(&platform).await.len()), (3, 3));
}

#[tokio::test]
async fn numbers_and_balance_are_as_asked_for() {
    // given
    let platform = Platform::alone().await;

    // when
    let flags = ["--issuers", "0", "--investors", "250", "--balance", "0.05", "--currency", "USD"];
    let output = populate(&platform, &flags).await;

    // then
    let (issuer_ids, investor_ids) = ids(&output);
    assert_eq!((issuer_ids.len(), investor_ids.len()), (0, 250));
    assert_eq!(platform.balances(&investor_ids[249], "").await[0], money("USD", 0, 5));
}

#[tokio::test]
async fn a_wrong_flag_is_refused_and_said_to_be_wrong() {
    let platform = Platform::alone().await;
    for (flags, said) in [
        (vec!["--issuers=-1"], "--issuers"),
        (vec!["--investors", "many"], "--investors"),
        (vec!["--nonsense"], "--nonsense"),
        (vec!["--balance", "1,50"], "1,50"),
        (vec!["--balance", "0.001"], "balance"),
        (vec!["--currency", "XYZ"], "currency"),
    ] {
        let output = populate(&platform, &flags).await;
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code().is_some_and(|code| code != 0), "{flags:?}: {message}");
        assert!(message.contains(said), "{flags:?}: {message}");
        assert!(!message.contains("panicked"), "{flags:?}: {message}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{flags:?}");
    }
    assert!(investors(&platform).await.is_empty());
}

#[tokio::test]
async fn a_seed_with_another_balance_is_refused() {
    // given
    let platform = Platform::alone().await;
    let flags = ["--seed", "demo", "--issuers", "0", "--investors", "1"];
    let (_, investor_ids) = ids(&populate(&platform, &flags).await);

    // when
    let output = populate(&platform, &[&flags[..], &["--balance", "200"]].concat()).await;

    // then
    assert_eq!(output.status.code().map(|code| code != 0), Some(true), "{output:?}");
    assert_eq!(platform.balances(&investor_ids[0], "").await[0], eur(100, 0));
}

#[tokio::test]
async fn a_platform_that_does_not_run_is_named() {
    let program = Command::new(env!("CARGO_BIN_EXE_populate"))
        .args(["--command-addr", "127.0.0.1:1", "--query-addr", "127.0.0.1:1"])
        .env_clear()
        .output();
    let output = in_time("populate ends", program).await.unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code().is_some_and(|code| code != 0));
    assert!(message.contains("127.0.0.1:1"), "{message}");
}
