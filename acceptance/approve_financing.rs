//! The issuer approves a financing: the asking price is paid, to the cent.

use serde_json::json;

use crate::harness::proto::{BidStatus, InvoiceStatus};
use crate::harness::{Platform, eur, json as json_of, reason, uuid};

#[tokio::test]
async fn the_winner_pays_exactly_the_asking_price() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(0, 10)).await;
    let invoice_id = platform.sell(&issuer_id, eur(0, 1)).await.id;
    facts.given(["IssuerCreated", "InvestorCreated", "InvestorFundsAdded", "InvoiceCreated"]).await;
    let bid = platform.bid(&investor_id, &invoice_id, eur(0, 8)).await.unwrap();
    facts.saga(&bid.command_id, ["BidOnInvoicePlaced", "InvoiceFinanced", "InvestorFundsReleased"]).await;

    // when
    let approval = platform.approve(&invoice_id).await.unwrap();

    // then
    let [approved, committed] =
        facts.saga(&approval.command_id, ["InvoiceApproved", "InvestorFundsCommitted"]).await;
    approved.says(
        &format!("invoice/{invoice_id}"),
        &json!({
            "invoice_id": invoice_id, "issuer_id": issuer_id, "bid_id": bid.id, "investor_id": investor_id,
            "amount": json_of(eur(0, 8)), "asking_price": json_of(eur(0, 1)),
        }),
    );
    committed.says(
        &format!("investor/{investor_id}"),
        &json!({
            "investor_id": investor_id, "bid_id": bid.id, "invoice_id": invoice_id,
            "amount": json_of(eur(0, 1)), "remainder": json_of(eur(0, 0)),
        }),
    );
    assert_eq!(committed.extension("causationid"), approved.extension("recordid"));
    facts.nothing_else(&platform).await;

    let both = format!("{},{}", approved.token(), committed.token());
    assert_eq!(platform.balances(&investor_id, &both).await, [eur(0, 9), eur(0, 0), eur(0, 1)]);
    assert_eq!(platform.bid_at(&bid.id, &both).await.status(), BidStatus::Committed);
    let invoice = platform.invoice_at(&invoice_id, &both).await;
    assert_eq!(invoice.status(), InvoiceStatus::Approved);
    assert_eq!(invoice.winning_bid.unwrap().amount, eur(0, 8));
}

#[tokio::test]
async fn what_was_paid_for_several_invoices_adds_up() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(1, 0)).await;

    // when
    let mut last = String::new();
    for (asking_price, bid_amount) in [(10, 10), (20, 30), (7, 70)] {
        let (asking_price, bid_amount) = (eur(0, asking_price), eur(0, bid_amount));
        let invoice_id = platform.sell(&issuer_id, asking_price).await.id;
        let bid = platform.bid(&investor_id, &invoice_id, bid_amount.clone()).await.unwrap();
        facts.until("InvoiceFinanced", "bid_id", &bid.id).await;
        platform.approve(&invoice_id).await.unwrap();
        // Committing and releasing the excess commute: either may be the last.
        let mut left = json_of(bid_amount);
        while left != json_of(eur(0, 0)) {
            let seen = facts.next().await;
            if seen.name == "InvestorFundsCommitted" || seen.name == "InvestorFundsReleased" {
                assert_eq!(seen.text("bid_id"), bid.id);
                left = seen.data["remainder"].clone();
                seen.token().clone_into(&mut last);
            }
        }
    }

    // then
    assert_eq!(platform.balances(&investor_id, &last).await, [eur(0, 63), eur(0, 0), eur(0, 37)]);
}

#[tokio::test]
async fn an_approval_is_final() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(1, 0)).await;
    let invoice_id = platform.sell(&issuer_id, eur(1, 0)).await.id;
    let bid = platform.bid(&investor_id, &invoice_id, eur(1, 0)).await.unwrap();
    facts.until("InvoiceFinanced", "bid_id", &bid.id).await;
    platform.approve(&invoice_id).await.unwrap();
    let committed = facts.until("InvestorFundsCommitted", "bid_id", &bid.id).await;

    // when
    let again = platform.approve(&invoice_id).await.unwrap_err();
    let reversal = platform.reverse(&invoice_id).await.unwrap_err();

    // then
    assert_eq!([reason(&again), reason(&reversal)], ["INVOICE_NOT_FINANCED", "INVOICE_NOT_FINANCED"]);
    assert!(again.message().contains("APPROVED"), "{again}");
    facts.given(["CommandRefused", "CommandRefused"]).await;
    facts.nothing_else(&platform).await;
    let balances = platform.balances(&investor_id, committed.token()).await;
    assert_eq!(balances, [eur(0, 0), eur(0, 0), eur(1, 0)]);
}

#[tokio::test]
async fn nobody_approves_what_is_not_financed() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let invoice = platform.sell(&issuer_id, eur(1, 0)).await;
    facts.given(["IssuerCreated", "InvoiceCreated"]).await;

    // when
    let unfinanced = platform.approve(&invoice.id).await.unwrap_err();
    let unknown = platform.approve(&uuid()).await.unwrap_err();

    // then
    assert_eq!(reason(&unfinanced), "INVOICE_NOT_FINANCED");
    assert!(unfinanced.message().contains("AVAILABLE"), "{unfinanced}");
    assert_eq!(reason(&unknown), "INVOICE_NOT_FOUND");
    facts.given(["CommandRefused", "CommandRefused"]).await;
    facts.nothing_else(&platform).await;
    let shown = platform.invoice_at(&invoice.id, &invoice.token).await;
    assert_eq!(shown.status(), InvoiceStatus::Available);
}
