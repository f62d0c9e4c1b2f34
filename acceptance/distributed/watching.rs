//! A live query whose process dies: another goes on with it.

use std::collections::BTreeMap;

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
        invoices.push(platform.sell(&issuer_id, eur(10, 0)).await.id);
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
