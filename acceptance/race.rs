//! Many investors want the same invoice.

use futures_util::future::join_all;

use crate::harness::proto::{BidStatus, InvoiceStatus, ListBidsRequest};
use crate::harness::{Audit, Platform, cents, eur};

const INVESTORS: usize = 50;

#[tokio::test]
async fn of_fifty_bids_at_once_one_wins_and_all_others_come_back() {
    // given
    let platform = Platform::alone().await;
    let issuer_id = platform.issuer().await;
    let investors = platform.investors(INVESTORS, eur(100, 0)).await;
    let invoice_id = platform.sell(&issuer_id, eur(33, 33)).await.id;
    let mut audit = Audit::begin(&platform).await;

    // when
    let bids = (0_i32..).zip(&investors).map(|(number, investor_id)| {
        let amount = eur(33 + i64::from(number), 33);
        let (platform, invoice_id) = (&platform, &invoice_id);
        async move { platform.bid(investor_id, invoice_id, amount).await.unwrap() }
    });
    let bids = join_all(bids).await;

    // then
    let placed: Vec<String> = bids.iter().map(|bid| bid.command_id.clone()).collect();
    audit.until(|audit| audit.has_outcomes(&placed) && audit.every_bid_is_answered()).await;
    assert_eq!((audit.bids(), audit.winners()), (INVESTORS, 1));

    let winning = audit.financed[&invoice_id].clone();
    let number = bids.iter().position(|bid| bid.id == winning).unwrap();
    audit.until(|audit| audit.accounts.values().map(|account| account.reserved).sum::<i64>() == 3333).await;
    let winner = platform.investor_at(&investors[number], &audit.token()).await;
    let left = 10_000 - 3333;
    assert_eq!([winner.available, winner.reserved].map(|money| cents(money.as_ref())), [left, 3333]);
    let invoice = platform.invoice_at(&invoice_id, &audit.token()).await;
    assert_eq!(invoice.status(), InvoiceStatus::Financed);
    assert_eq!(invoice.winning_bid.unwrap().bid_id, winning);

    // and when
    let approval = platform.approve(&invoice_id).await.unwrap();

    // then
    audit.until(|audit| audit.has_outcomes([&approval.command_id]) && audit.no_bid_is_open()).await;
    audit.adds_up(&platform).await;
    let committed: i64 = audit.accounts.values().map(|account| account.committed).sum();
    let available: i64 = audit.accounts.values().map(|account| account.available).sum();
    assert_eq!((committed, available), (3333, 50 * 10_000 - 3333));
    assert_eq!(audit.accounts[&investors[number]].committed, 3333);

    for (status, count) in [(BidStatus::Committed, 1), (BidStatus::Released, INVESTORS - 1)] {
        let request = ListBidsRequest {
            invoice_id: invoice_id.clone(),
            status: status.into(),
            token: audit.token(),
            ..ListBidsRequest::default()
        };
        let listed = platform.queries().list_bids(request).await.unwrap().into_inner().bids;
        assert_eq!(listed.len(), count, "{status:?}");
        let reason = if status == BidStatus::Committed { "" } else { "INVOICE_NOT_AVAILABLE" };
        assert!(listed.iter().all(|bid| bid.reason == reason), "{listed:?}");
    }
}
