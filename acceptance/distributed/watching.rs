//! A live query whose process dies: another goes on with it, and so does the shell's watch when the same comes back.

use std::collections::BTreeMap;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::cluster::{Cluster, Kind};
use crate::harness::proto::query_service_client::QueryServiceClient;
use crate::harness::proto::{Bid, BidStatus, WatchBidsRequest};
use crate::harness::{eur, in_time};

/// Bids that are placed before and after the process dies.
const BIDS: usize = 20;

/// Reads on until a message fulfils a condition on all that was sent by then. Answers with the last token.
async fn follow(
    address: &str,
    token: String,
    seen: &mut BTreeMap<String, Vec<BidStatus>>,
    enough: impl Fn(&BTreeMap<String, Vec<BidStatus>>) -> bool,
) -> String {
    let mut queries = QueryServiceClient::connect(format!("http://{address}")).await.unwrap();
    let request = WatchBidsRequest { resume_token: token, ..WatchBidsRequest::default() };
    let mut stream = queries.watch_bids(request).await.unwrap().into_inner();
    loop {
        let message = in_time("a message", stream.message()).await.unwrap().expect("no end");
        for bid in message.changes {
            let Bid { id, .. } = &bid;
            let statuses = seen.entry(id.clone()).or_default();
            assert_ne!(statuses.last(), Some(&bid.status()), "{id} comes twice: {statuses:?}");
            statuses.push(bid.status());
        }
        if enough(seen) {
            return message.resume_token;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_goes_on_with_a_watch() {
    // given
    let mut cluster = Cluster::start(|kind| if kind == Kind::Queries { 2 } else { 1 }).await;
    let addresses = cluster.addresses(Kind::Queries);
    let platform = cluster.platform().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(1000, 0)).await;
    let mut seen = BTreeMap::new();
    let mut invoices = Vec::new();
    for _ in 0..BIDS {
        invoices.push(platform.on_sale(&issuer_id, eur(10, 0)).await);
        platform.bid(&investor_id, invoices.last().unwrap(), eur(10, 0)).await.unwrap();
    }
    let token = follow(&addresses[0], String::new(), &mut seen, |seen| seen.len() == BIDS).await;

    // when
    cluster.replica("queries-1").kill().await;
    for invoice_id in &invoices {
        platform.approve(invoice_id).await.unwrap();
    }

    // then
    let ended = |seen: &BTreeMap<String, Vec<BidStatus>>| {
        seen.values().all(|statuses| statuses.last() == Some(&BidStatus::Committed))
    };
    follow(&addresses[1], token, &mut seen, ended).await;
    assert_eq!(seen.len(), BIDS);
    println!("{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_goes_on_when_the_process_comes_back() {
    // given
    let mut cluster = Cluster::start(|_| 1).await;
    let platform = cluster.platform().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(1000, 0)).await;
    let invoice_id = platform.on_sale(&issuer_id, eur(10, 0)).await;
    let mut watch = tokio::process::Command::new(env!("CARGO_BIN_EXE_financing"))
        .env_clear()
        .env("FINANCING_QUERY_ADDR", &cluster.addresses(Kind::Queries)[0])
        .args(["watch", &invoice_id])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut said = vec![in_time("a line", lines.next_line()).await.unwrap().unwrap()];

    // when everything happens while nobody answers
    cluster.replica("queries-1").kill().await;
    let mut errors = BufReader::new(watch.stderr.take().unwrap());
    let mut told = String::new();
    in_time("the person is told", errors.read_line(&mut told)).await.unwrap();
    platform.bid(&investor_id, &invoice_id, eur(12, 0)).await.unwrap();
    while platform.approve(&invoice_id).await.is_err() {
        // The bid has not reached the invoice yet.
    }
    let queries = cluster.replica("queries-1");
    queries.begin();
    queries.ready().await;

    // then
    while let Some(line) = in_time("a line", lines.next_line()).await.unwrap() {
        said.push(line);
    }
    assert!(in_time("the watch ends", watch.wait()).await.unwrap().success());
    in_time("all that it says", errors.read_to_string(&mut told)).await.unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    let times = |words: &str| said.iter().filter(|line| line.contains(words)).count();
    assert_eq!((times("AVAILABLE"), times("APPROVED"), times("COMMITTED")), (1, 1, 1), "{said:#?}");
}
