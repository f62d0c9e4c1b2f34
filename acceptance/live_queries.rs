//! Live queries: a snapshot, then what changes, and a token with which a watch goes on as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Streaming;

use crate::harness::proto::{
    Bid, BidStatus, Invoice, InvoiceStatus, WatchBidsRequest, WatchBidsResponse, WatchInvestorsRequest,
    WatchInvestorsResponse, WatchInvoicesRequest,
};
use crate::harness::{Home, Platform, eur, in_time};

/// More than one message of a snapshot takes.
const INVESTORS: usize = 300;

/// A watch of bids, as a client keeps it.
struct Bids {
    stream: Streaming<WatchBidsResponse>,
    token: String,
    /// What was sent of each, in that order.
    seen: BTreeMap<String, Vec<(BidStatus, String)>>,
}

impl Bids {
    async fn watch(platform: &Platform, request: WatchBidsRequest) -> Self {
        let stream = platform.queries().watch_bids(request).await.unwrap().into_inner();
        Self { stream, token: String::new(), seen: BTreeMap::new() }
    }

    /// Goes on on another platform, or on the same that was started again.
    async fn resume(self, platform: &Platform, request: WatchBidsRequest) -> Self {
        let request = WatchBidsRequest { resume_token: self.token.clone(), ..request };
        let Self { stream, .. } = Self::watch(platform, request).await;
        Self { stream, ..self }
    }

    /// The next message's rows, and whether the snapshot is whole.
    async fn next(&mut self) -> (Vec<Bid>, bool) {
        let message = in_time("a message", self.stream.message()).await.unwrap().expect("no end");
        assert!(!message.resume_token.is_empty());
        self.token = message.resume_token;
        for bid in &message.changes {
            let states = self.seen.entry(bid.id.clone()).or_default();
            states.push((bid.status(), bid.reason.clone()));
            assert_eq!(
                states.iter().collect::<BTreeSet<_>>().len(),
                states.len(),
                "nothing twice: {states:?}"
            );
        }
        (message.changes, message.snapshot_complete)
    }

    async fn until(&mut self, bid_id: &str, status: BidStatus) {
        let is_there = |states: &Vec<(BidStatus, String)>| states.last().map(|last| last.0) == Some(status);
        while !self.seen.get(bid_id).is_some_and(is_there) {
            self.next().await;
        }
    }

    /// Of which bids anything was sent.
    fn ids(&self) -> BTreeSet<&str> {
        self.seen.keys().map(String::as_str).collect()
    }
}

fn of_investor(investor_id: &str) -> WatchBidsRequest {
    WatchBidsRequest { investor_id: investor_id.to_owned(), ..WatchBidsRequest::default() }
}

#[tokio::test]
async fn a_bids_whole_way_is_seen() {
    // given
    let platform = Platform::start().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(100, 0)).await;
    let invoice_id = platform.on_sale(&issuer_id, eur(50, 0)).await;
    let mut bids = Bids::watch(&platform, of_investor(&investor_id)).await;
    assert_eq!(bids.next().await, (Vec::new(), true), "there is none yet, and that is all");

    // when
    let bid = platform.bid(&investor_id, &invoice_id, eur(60, 0)).await.unwrap();
    bids.until(&bid.id, BidStatus::Won).await;
    platform.approve(&invoice_id).await.unwrap();

    // then
    bids.until(&bid.id, BidStatus::Committed).await;
    let statuses: Vec<BidStatus> = bids.seen[&bid.id].iter().map(|(status, _)| *status).collect();
    // What passes quickly may be left out; the order is that of the bid's way.
    let way = [BidStatus::Placed, BidStatus::Won, BidStatus::Committed];
    assert!(statuses.is_sorted() && statuses.iter().all(|status| way.contains(status)), "{statuses:?}");
    assert_eq!(statuses[statuses.len() - 2..], [BidStatus::Won, BidStatus::Committed]);

    // and of one that comes too late
    let lost = platform.bid(&investor_id, &invoice_id, eur(50, 0)).await.unwrap();
    bids.until(&lost.id, BidStatus::Released).await;
    while bids.seen[&lost.id].last().unwrap().1.is_empty() {
        // The release may be shown before the verdict.
        bids.next().await;
    }
    assert_eq!(bids.seen[&lost.id].last().unwrap().1, "INVOICE_NOT_AVAILABLE");
    assert_eq!(bids.ids(), BTreeSet::from([bid.id.as_str(), lost.id.as_str()]));
}

#[tokio::test]
async fn only_what_is_asked_for_is_sent() {
    // given
    let platform = Platform::start().await;
    let (issuer_id, other_issuer) = (platform.issuer().await, platform.issuer().await);
    let investors = platform.investors(2, eur(100, 0)).await;
    let first = platform.on_sale(&issuer_id, eur(10, 0)).await;
    let other = platform.on_sale(&other_issuer, eur(10, 0)).await;
    let request = WatchInvoicesRequest { issuer_id: issuer_id.clone(), ..WatchInvoicesRequest::default() };
    let mut of_issuer = platform.queries().watch_invoices(request).await.unwrap().into_inner();
    let request = WatchInvoicesRequest { ids: vec![other.clone()], ..WatchInvoicesRequest::default() };
    let mut by_id = platform.queries().watch_invoices(request).await.unwrap().into_inner();
    let request = WatchBidsRequest { invoice_id: other.clone(), ..WatchBidsRequest::default() };
    let mut on_invoice = Bids::watch(&platform, request).await;

    // when
    let second = platform.on_sale(&issuer_id, eur(10, 0)).await;
    let elsewhere = platform.bid(&investors[0], &second, eur(10, 0)).await.unwrap();
    let bid = platform.bid(&investors[1], &other, eur(10, 0)).await.unwrap();

    // then
    on_invoice.until(&bid.id, BidStatus::Won).await;
    assert!(!on_invoice.ids().contains(elsewhere.id.as_str()));
    let mut seen = BTreeMap::new();
    while seen.get(&second) != Some(&InvoiceStatus::Financed) {
        let message = in_time("the second", of_issuer.message()).await.unwrap().unwrap();
        seen.extend(message.changes.into_iter().map(|invoice| (invoice.id.clone(), invoice.status())));
    }
    assert_eq!(seen, BTreeMap::from([(first, InvoiceStatus::Available), (second, InvoiceStatus::Financed)]));
    let mut statuses = Vec::new();
    while statuses.last() != Some(&InvoiceStatus::Financed) {
        let message = in_time("the one named", by_id.message()).await.unwrap().unwrap();
        assert!(message.changes.iter().all(|invoice| invoice.id == other));
        statuses.extend(message.changes.iter().map(Invoice::status));
    }
    assert_eq!(statuses, [InvoiceStatus::Available, InvoiceStatus::Financed]);
}

/// A watch of investors, and what was sent of each.
struct Accounts {
    stream: Streaming<WatchInvestorsResponse>,
    token: String,
    complete: bool,
    /// What each had available, every time that it was sent.
    seen: BTreeMap<String, Vec<i64>>,
}

impl Accounts {
    async fn watch(platform: &Platform, resume_token: &str, seen: BTreeMap<String, Vec<i64>>) -> Self {
        let request = WatchInvestorsRequest { ids: Vec::new(), resume_token: resume_token.to_owned() };
        let stream = platform.queries().watch_investors(request).await.unwrap().into_inner();
        Self { stream, token: resume_token.to_owned(), complete: false, seen }
    }

    /// How many rows the next message has.
    async fn next(&mut self) -> usize {
        let message = in_time("a message", self.stream.message()).await.unwrap().expect("no end");
        self.token = message.resume_token;
        self.complete = message.snapshot_complete;
        for investor in &message.changes {
            let available = investor.available.as_ref().unwrap().units;
            self.seen.entry(investor.id.clone()).or_default().push(available);
        }
        message.changes.len()
    }
}

#[tokio::test]
async fn a_watch_goes_on_over_restarts_of_everything() {
    // given a watch that has had the first half of its snapshot
    let platform = Platform::start_in(Home::new(), &[]).await;
    let issuer_id = platform.issuer().await;
    let investors = platform.investors(INVESTORS, eur(100, 0)).await;
    let invoice_id = platform.on_sale(&issuer_id, eur(50, 0)).await;
    let mut accounts = Accounts::watch(&platform, "", BTreeMap::new()).await;
    let count = accounts.next().await;
    assert!(count > 0 && count < INVESTORS && !accounts.complete, "{count} in the first message");
    let Accounts { token, seen, .. } = accounts;

    // when everything is killed, and two accounts change: one that was sent, and one that was not
    let sent = seen.keys().next().unwrap().clone();
    let unsent = investors.iter().find(|id| !seen.contains_key(*id)).unwrap().clone();
    let platform = Platform::start_in(platform.kill().await, &[]).await;
    let bid = platform.bid(&sent, &invoice_id, eur(50, 0)).await.unwrap();
    let other = platform.bid(&unsent, &invoice_id, eur(20, 0)).await.unwrap();
    let mut bids = Bids::watch(&platform, WatchBidsRequest::default()).await;
    bids.until(&bid.id, BidStatus::Won).await;
    bids.until(&other.id, BidStatus::Released).await;

    // then it goes on where it was
    let mut accounts = Accounts::watch(&platform, &token, seen).await;
    while accounts.seen.len() < INVESTORS || accounts.seen[&sent].last() != Some(&50) || !accounts.complete {
        accounts.next().await;
    }
    for (id, available) in &accounts.seen {
        let expected: &[i64] = if *id == sent { &[100, 50] } else { &[100] };
        assert_eq!(available, expected, "{id}");
    }

    // and once more, behind the snapshot
    let Accounts { token, seen, .. } = accounts;
    let (_, home) = {
        platform.signal("-TERM").await;
        platform.ended().await
    };
    let platform = Platform::start_in(home, &[]).await;
    let mut accounts = Accounts::watch(&platform, &token, seen).await;
    assert_eq!(accounts.next().await, 0, "nothing has changed");
    assert!(accounts.complete);
    platform.reverse(&invoice_id).await.unwrap();
    assert_eq!(accounts.next().await, 1);
    assert_eq!(accounts.seen[&sent], [100, 50, 100]);
    let mut bids = bids.resume(&platform, WatchBidsRequest::default()).await;
    bids.until(&bid.id, BidStatus::Released).await;
}
