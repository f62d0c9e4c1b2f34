//! The issuer reverses a financing: the asking price goes back to the investor.

use serde_json::json;

use crate::harness::proto::{BidStatus, InvoiceStatus};
use crate::harness::{Platform, eur, json as json_of, reason, uuid};

#[tokio::test]
async fn the_winner_gets_the_asking_price_back() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(100, 0)).await;
    let invoice_id = platform.sell(&issuer_id, eur(60, 0)).await.id;
    facts.given(["IssuerCreated", "InvestorCreated", "InvestorFundsAdded", "InvoiceCreated"]).await;
    let bid = platform.bid(&investor_id, &invoice_id, eur(75, 0)).await.unwrap();
    facts.saga(&bid.command_id, ["BidOnInvoicePlaced", "InvoiceFinanced", "InvestorFundsReleased"]).await;

    // when
    let reversal = platform.reverse(&invoice_id).await.unwrap();

    // then
    let [reversed, released] =
        facts.saga(&reversal.command_id, ["InvoiceReversed", "InvestorFundsReleased"]).await;
    reversed.says(
        &format!("invoice/{invoice_id}"),
        &json!({
            "invoice_id": invoice_id, "issuer_id": issuer_id, "bid_id": bid.id, "investor_id": investor_id,
            "amount": json_of(eur(75, 0)), "asking_price": json_of(eur(60, 0)),
        }),
    );
    released.says(
        &format!("investor/{investor_id}"),
        &json!({
            "investor_id": investor_id, "bid_id": bid.id, "invoice_id": invoice_id, "kind": "RETURN",
            "amount": json_of(eur(60, 0)), "remainder": json_of(eur(0, 0)),
        }),
    );
    assert_eq!(released.extension("causationid"), reversed.extension("recordid"));
    facts.nothing_else(&platform).await;

    let both = format!("{},{}", reversed.token(), released.token());
    assert_eq!(platform.balances(&investor_id, &both).await, [eur(100, 0), eur(0, 0), eur(0, 0)]);
    let shown = platform.bid_at(&bid.id, &both).await;
    assert_eq!((shown.status(), shown.reason.as_str()), (BidStatus::Released, ""));
    let invoice = platform.invoice_at(&invoice_id, &both).await;
    assert_eq!(invoice.status(), InvoiceStatus::Reversed);
    assert_eq!(invoice.winning_bid.unwrap().bid_id, bid.id);
}

#[tokio::test]
async fn a_reversal_is_final() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(1, 0)).await;
    let invoice_id = platform.sell(&issuer_id, eur(1, 0)).await.id;
    let bid = platform.bid(&investor_id, &invoice_id, eur(1, 0)).await.unwrap();
    facts.until("InvoiceFinanced", "bid_id", &bid.id).await;
    platform.reverse(&invoice_id).await.unwrap();
    let returned = facts.until("InvestorFundsReleased", "bid_id", &bid.id).await;

    // when
    let again = platform.reverse(&invoice_id).await.unwrap_err();
    let approval = platform.approve(&invoice_id).await.unwrap_err();
    let next = platform.bid(&investor_id, &invoice_id, eur(1, 0)).await.unwrap();

    // then
    assert_eq!([reason(&again), reason(&approval)], ["INVOICE_NOT_FINANCED", "INVOICE_NOT_FINANCED"]);
    assert!(again.message().contains("REVERSED"), "{again}");
    facts.given(["CommandRefused", "CommandRefused"]).await;
    let [_, rejected, _] = facts
        .saga(&next.command_id, ["BidOnInvoicePlaced", "BidOnInvoiceRejected", "InvestorFundsReleased"])
        .await;
    assert_eq!(rejected.text("reason"), "INVOICE_NOT_AVAILABLE");
    assert_eq!(platform.bid_at(&bid.id, returned.token()).await.status(), BidStatus::Released);
}

#[tokio::test]
async fn nobody_reverses_what_is_not_financed() {
    // given
    let platform = Platform::start().await;
    let issuer_id = platform.issuer().await;
    let invoice = platform.sell(&issuer_id, eur(1, 0)).await;

    // when
    let unfinanced = platform.reverse(&invoice.id).await.unwrap_err();
    let unknown = platform.reverse(&uuid()).await.unwrap_err();

    // then
    assert_eq!(reason(&unfinanced), "INVOICE_NOT_FINANCED");
    assert_eq!(reason(&unknown), "INVOICE_NOT_FOUND");
    let shown = platform.invoice_at(&invoice.id, &invoice.token).await;
    assert_eq!(shown.status(), InvoiceStatus::Available);
}

#[tokio::test]
async fn the_money_of_a_reversed_invoice_can_be_bid_again() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(1, 0)).await;
    let first = platform.sell(&issuer_id, eur(1, 0)).await;
    let bid = platform.bid(&investor_id, &first.id, eur(1, 0)).await.unwrap();
    facts.until("InvoiceFinanced", "bid_id", &bid.id).await;
    platform.reverse(&first.id).await.unwrap();
    facts.until("InvestorFundsReleased", "bid_id", &bid.id).await;
    let second = platform.sell(&issuer_id, eur(1, 0)).await;

    // when
    let bid = platform.bid(&investor_id, &second.id, eur(1, 0)).await.unwrap();

    // then
    let financed = facts.until("InvoiceFinanced", "bid_id", &bid.id).await;
    assert_eq!(financed.text("invoice_id"), second.id);
}
