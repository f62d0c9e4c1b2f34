//! An investor bids to finance an invoice: the bid's amount is reserved, and then the bid wins or comes back.

use serde_json::json;

use crate::harness::proto::{BidStatus, InvoiceStatus, Money};
use crate::harness::{
    Platform, eur, investor_registered, issuer_registered, json as json_of, money, reason, uuid,
};

struct OnSale {
    platform: Platform,
    facts: crate::harness::Facts,
    issuer_id: String,
    invoice_id: String,
    investor_id: String,
}

/// An invoice on sale, and an investor with a hundred euros.
async fn given(asking_price: Option<Money>) -> OnSale {
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(100, 0)).await;
    let invoice_id = platform.sell(&issuer_id, asking_price).await.id;
    facts.given(["IssuerCreated", "InvestorCreated", "InvestorFundsAdded", "InvoiceCreated"]).await;
    OnSale { platform, facts, issuer_id, invoice_id, investor_id }
}

#[tokio::test]
async fn a_bid_above_the_asking_price_wins_and_the_excess_comes_back() {
    let OnSale { platform, mut facts, issuer_id, invoice_id, investor_id } = given(eur(60, 0)).await;

    // when
    let bid = platform.bid(&investor_id, &invoice_id, eur(75, 50)).await.unwrap();

    // then
    let [placed, financed, released] =
        facts.saga(&bid.command_id, ["BidOnInvoicePlaced", "InvoiceFinanced", "InvestorFundsReleased"]).await;
    let investor = format!("investor/{investor_id}");
    placed.says(
        &investor,
        &json!({
            "investor_id": investor_id, "bid_id": bid.id, "invoice_id": invoice_id,
            "amount": json_of(eur(75, 50)),
        }),
    );
    financed.says(
        &format!("invoice/{invoice_id}"),
        &json!({
            "invoice_id": invoice_id, "issuer_id": issuer_id, "bid_id": bid.id, "investor_id": investor_id,
            "amount": json_of(eur(75, 50)), "asking_price": json_of(eur(60, 0)),
        }),
    );
    released.says(
        &investor,
        &json!({
            "investor_id": investor_id, "bid_id": bid.id, "invoice_id": invoice_id, "kind": "EXCESS",
            "amount": json_of(eur(15, 50)), "remainder": json_of(eur(60, 0)),
        }),
    );
    assert_eq!(financed.extension("causationid"), placed.extension("recordid"));
    assert_eq!(released.extension("causationid"), financed.extension("recordid"));

    let token = released.token();
    assert_eq!(platform.balances(&investor_id, token).await, [eur(40, 0), eur(60, 0), eur(0, 0)]);
    let invoice = platform.invoice_at(&invoice_id, financed.token()).await;
    assert_eq!(invoice.status(), InvoiceStatus::Financed);
    let winner = invoice.winning_bid.unwrap();
    assert_eq!(
        (winner.bid_id, winner.investor_id, winner.amount),
        (bid.id.clone(), investor_id, eur(75, 50))
    );
    let shown = platform.bid_at(&bid.id, token).await;
    assert_eq!((shown.status(), shown.reason.as_str()), (BidStatus::Won, ""));
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn a_bid_at_the_asking_price_wins_and_nothing_comes_back() {
    let OnSale { platform, mut facts, invoice_id, investor_id, .. } = given(eur(100, 0)).await;

    // when
    let bid = platform.bid(&investor_id, &invoice_id, eur(100, 0)).await.unwrap();

    // then
    let [placed, financed] = facts.saga(&bid.command_id, ["BidOnInvoicePlaced", "InvoiceFinanced"]).await;
    facts.nothing_else(&platform).await;
    assert_eq!(placed.token(), bid.token);
    let both = format!("{},{}", bid.token, financed.token());
    assert_eq!(platform.balances(&investor_id, &both).await, [eur(0, 0), eur(100, 0), eur(0, 0)]);
    assert_eq!(platform.bid_at(&bid.id, &both).await.status(), BidStatus::Won);
}

#[tokio::test]
async fn a_bid_below_the_asking_price_is_rejected_and_all_of_it_comes_back() {
    let OnSale { platform, mut facts, invoice_id, investor_id, .. } = given(eur(60, 0)).await;

    // when
    let bid = platform.bid(&investor_id, &invoice_id, eur(59, 99)).await.unwrap();

    // then
    let [placed, rejected, released] = facts
        .saga(&bid.command_id, ["BidOnInvoicePlaced", "BidOnInvoiceRejected", "InvestorFundsReleased"])
        .await;
    rejected.says(
        &format!("invoice/{invoice_id}"),
        &json!({
            "invoice_id": invoice_id, "bid_id": bid.id, "investor_id": investor_id,
            "amount": json_of(eur(59, 99)), "reason": "BID_BELOW_ASKING_PRICE",
        }),
    );
    released.says(
        &format!("investor/{investor_id}"),
        &json!({
            "investor_id": investor_id, "bid_id": bid.id, "invoice_id": invoice_id, "kind": "RELEASE",
            "amount": json_of(eur(59, 99)), "remainder": json_of(eur(0, 0)),
        }),
    );
    assert_eq!(rejected.extension("causationid"), placed.extension("recordid"));
    assert_eq!(released.extension("causationid"), rejected.extension("recordid"));

    let both = format!("{},{}", rejected.token(), released.token());
    assert_eq!(platform.balances(&investor_id, &both).await, [eur(100, 0), eur(0, 0), eur(0, 0)]);
    let shown = platform.bid_at(&bid.id, &both).await;
    assert_eq!((shown.status(), shown.reason.as_str()), (BidStatus::Released, "BID_BELOW_ASKING_PRICE"));
    assert_eq!((shown.investor_id, shown.invoice_id), (investor_id, invoice_id.clone()));
    assert_eq!(platform.invoice_at(&invoice_id, &both).await.status(), InvoiceStatus::Available);
}

#[tokio::test]
async fn nobody_bids_more_than_is_available() {
    let OnSale { platform, mut facts, invoice_id, investor_id, .. } = given(eur(60, 0)).await;

    // when
    let refusal = platform.bid(&investor_id, &invoice_id, eur(100, 1)).await.unwrap_err();

    // then
    assert_eq!(reason(&refusal), "INSUFFICIENT_FUNDS");
    let [refused] = facts.given(["CommandRefused"]).await;
    assert_eq!(refused.event.subject, format!("investor/{investor_id}"));
    assert_eq!(refused.data["reason"], "INSUFFICIENT_FUNDS");
    let balances = platform.balances(&investor_id, refused.token()).await;
    assert_eq!(balances, [eur(100, 0), eur(0, 0), eur(0, 0)]);
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn what_is_reserved_cannot_be_bid_again() {
    let OnSale { platform, issuer_id, invoice_id, investor_id, .. } = given(eur(60, 0)).await;
    platform.bid(&investor_id, &invoice_id, eur(60, 0)).await.unwrap();
    let second = platform.sell(&issuer_id, eur(40, 1)).await;

    // when
    let refusal = platform.bid(&investor_id, &second.id, eur(40, 1)).await.unwrap_err();

    // then
    assert_eq!(reason(&refusal), "INSUFFICIENT_FUNDS");
    platform.bid(&investor_id, &second.id, eur(40, 0)).await.expect("the rest can be bid");
}

#[tokio::test]
async fn nobody_bids_in_another_currency_than_the_account() {
    let OnSale { platform, mut facts, invoice_id, investor_id, .. } = given(eur(60, 0)).await;

    // when
    let refusal = platform.bid(&investor_id, &invoice_id, money("USD", 60, 0)).await.unwrap_err();

    // then
    assert_eq!(reason(&refusal), "CURRENCY_MISMATCH");
    facts.given(["CommandRefused"]).await;
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn a_bid_in_another_currency_than_the_asking_price_comes_back() {
    let OnSale { platform, mut facts, invoice_id, investor_id, .. } = given(money("USD", 1, 0)).await;

    // when
    let bid = platform.bid(&investor_id, &invoice_id, eur(100, 0)).await.unwrap();

    // then
    let [_, rejected, released] = facts
        .saga(&bid.command_id, ["BidOnInvoicePlaced", "BidOnInvoiceRejected", "InvestorFundsReleased"])
        .await;
    assert_eq!(rejected.text("reason"), "CURRENCY_MISMATCH");
    assert_eq!(platform.balances(&investor_id, released.token()).await[0], eur(100, 0));
}

#[tokio::test]
async fn a_bid_on_an_invoice_that_does_not_exist_comes_back() {
    let OnSale { platform, mut facts, investor_id, .. } = given(eur(60, 0)).await;
    let nowhere = uuid();

    // when
    let bid = platform.bid(&investor_id, &nowhere, eur(60, 0)).await.unwrap();

    // then
    let [placed, refused, released] =
        facts.saga(&bid.command_id, ["BidOnInvoicePlaced", "CommandRefused", "InvestorFundsReleased"]).await;
    assert_eq!(refused.event.subject, format!("invoice/{nowhere}"));
    assert_eq!(refused.data["reason"], "INVOICE_NOT_FOUND");
    assert_eq!(refused.data["command"]["invoice"]["ProcessBid"]["bid_id"], *bid.id);
    assert_eq!(refused.extension("causationid"), placed.extension("recordid"));
    assert_eq!(released.text("kind"), "RELEASE");
    assert_eq!(released.extension("causationid"), refused.extension("recordid"));

    let both = format!("{},{}", refused.token(), released.token());
    assert_eq!(platform.balances(&investor_id, &both).await, [eur(100, 0), eur(0, 0), eur(0, 0)]);
    let shown = platform.bid_at(&bid.id, &both).await;
    assert_eq!((shown.status(), shown.reason.as_str()), (BidStatus::Released, "INVOICE_NOT_FOUND"));
}

#[tokio::test]
async fn nobody_finances_the_own_invoice() {
    let OnSale { platform, mut facts, .. } = given(eur(60, 0)).await;
    let party = uuid();
    platform.register(issuer_registered(&party, "Both")).await;
    platform.register(investor_registered(&party, "Both", eur(100, 0))).await;
    let own = platform.sell(&party, eur(10, 0)).await;
    facts.given(["IssuerCreated", "InvestorCreated", "InvestorFundsAdded", "InvoiceCreated"]).await;

    // when
    let bid = platform.bid(&party, &own.id, eur(10, 0)).await.unwrap();

    // then
    let [_, rejected, released] = facts
        .saga(&bid.command_id, ["BidOnInvoicePlaced", "BidOnInvoiceRejected", "InvestorFundsReleased"])
        .await;
    assert_eq!(rejected.text("reason"), "SELF_FINANCING");
    let both = format!("{},{}", rejected.token(), released.token());
    assert_eq!(platform.balances(&party, &both).await, [eur(100, 0), eur(0, 0), eur(0, 0)]);
    assert_eq!(platform.invoice_at(&own.id, &both).await.status(), InvoiceStatus::Available);
}

#[tokio::test]
async fn a_rejected_bid_does_not_stand_in_the_way_of_the_next() {
    let OnSale { platform, mut facts, invoice_id, investor_id, .. } = given(eur(60, 0)).await;
    let low = platform.bid(&investor_id, &invoice_id, eur(59, 0)).await.unwrap();
    facts
        .saga(&low.command_id, ["BidOnInvoicePlaced", "BidOnInvoiceRejected", "InvestorFundsReleased"])
        .await;

    // when
    let high = platform.bid(&investor_id, &invoice_id, eur(60, 0)).await.unwrap();

    // then
    let [_, financed] = facts.saga(&high.command_id, ["BidOnInvoicePlaced", "InvoiceFinanced"]).await;
    assert_eq!(financed.text("bid_id"), high.id);
    assert_ne!(low.id, high.id);
    assert_eq!(platform.balances(&investor_id, &high.token).await, [eur(40, 0), eur(60, 0), eur(0, 0)]);
}

#[tokio::test]
async fn a_bid_on_a_financed_invoice_comes_back_however_high_it_is() {
    let OnSale { platform, mut facts, invoice_id, investor_id, .. } = given(eur(60, 0)).await;
    let first = platform.bid(&investor_id, &invoice_id, eur(60, 0)).await.unwrap();
    facts.saga(&first.command_id, ["BidOnInvoicePlaced", "InvoiceFinanced"]).await;
    let late = platform.investor(eur(100, 0)).await;
    facts.given(["InvestorCreated", "InvestorFundsAdded"]).await;

    // when
    let bid = platform.bid(&late, &invoice_id, eur(100, 0)).await.unwrap();

    // then
    let [_, rejected, released] = facts
        .saga(&bid.command_id, ["BidOnInvoicePlaced", "BidOnInvoiceRejected", "InvestorFundsReleased"])
        .await;
    assert_eq!(rejected.text("reason"), "INVOICE_NOT_AVAILABLE");
    assert_eq!(platform.balances(&late, released.token()).await, [eur(100, 0), eur(0, 0), eur(0, 0)]);
    let winner = platform.invoice_at(&invoice_id, rejected.token()).await.winning_bid.unwrap();
    assert_eq!(winner.bid_id, first.id);
}
