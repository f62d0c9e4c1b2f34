//! A request with a `request_id` may be repeated, at any time: it gets the same ids and acts once.

use futures_util::future::join_all;

use crate::harness::proto::{
    ApproveFinancingRequest, BidOnInvoiceRequest, CommandState, ReverseFinancingRequest, SellInvoiceRequest,
};
use crate::harness::{Platform, eur, information, reason, uuid, wait};

fn sell(issuer_id: &str, request_id: &str) -> SellInvoiceRequest {
    SellInvoiceRequest {
        issuer_id: issuer_id.to_owned(),
        asking_price: eur(1, 0),
        request_id: request_id.to_owned(),
        wait: None,
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_ids_and_acts_once() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let request = sell(&issuer_id, &uuid());
    facts.given(["IssuerCreated"]).await;

    // when
    let once = platform.commands().sell_invoice(request.clone()).await.unwrap().into_inner();
    let again = platform.commands().sell_invoice(request.clone()).await.unwrap().into_inner();
    let waiting = SellInvoiceRequest { wait: wait(), ..request };
    let third = platform.commands().sell_invoice(waiting.clone()).await.unwrap().into_inner();
    let fourth = platform.commands().sell_invoice(waiting).await.unwrap().into_inner();

    // then
    assert_eq!(once, again);
    assert_eq!((&third.invoice_id, &third.command_id), (&once.invoice_id, &once.command_id));
    assert_eq!(third.state(), CommandState::Applied);
    assert_eq!(third, fourth);
    let [created] = facts.saga(&once.command_id, ["InvoiceCreated"]).await;
    assert_eq!((created.text("invoice_id"), created.token()), (&*once.invoice_id, &*third.token));
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn a_repeated_bid_reserves_once() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(10, 0)).await;
    let invoice_id = platform.sell(&issuer_id, eur(10, 0)).await.id;
    facts.given(["IssuerCreated", "InvestorCreated", "InvestorFundsAdded", "InvoiceCreated"]).await;
    let request = BidOnInvoiceRequest {
        investor_id: investor_id.clone(),
        invoice_id,
        amount: eur(4, 0),
        request_id: uuid(),
        wait: wait(),
    };

    // when
    let once = platform.commands().bid_on_invoice(request.clone()).await.unwrap().into_inner();
    facts
        .saga(&once.command_id, ["BidOnInvoicePlaced", "BidOnInvoiceRejected", "InvestorFundsReleased"])
        .await;
    let again = platform.commands().bid_on_invoice(request).await.unwrap().into_inner();

    // then
    assert_eq!(once, again);
    facts.nothing_else(&platform).await;
    let balances = platform.balances(&investor_id, &again.token).await;
    assert_eq!(balances, [eur(10, 0), eur(0, 0), eur(0, 0)]);
}

#[tokio::test]
async fn a_repeated_refusal_is_the_same_refusal_even_when_it_would_be_granted_now() {
    // given
    let platform = Platform::start().await;
    let issuer_id = uuid();
    let request = SellInvoiceRequest { wait: wait(), ..sell(&issuer_id, &uuid()) };
    let once = platform.commands().sell_invoice(request.clone()).await.unwrap_err();
    platform.register(crate::harness::issuer_registered(&issuer_id, "Late")).await;

    // when
    let again = platform.commands().sell_invoice(request).await.unwrap_err();

    // then
    assert_eq!(reason(&once), "ISSUER_NOT_FOUND");
    assert_eq!(information(&once), information(&again));
    platform.sell(&issuer_id, eur(1, 0)).await;
}

#[tokio::test]
async fn another_request_with_the_same_request_id_is_refused() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let request_id = uuid();
    let first = SellInvoiceRequest { wait: wait(), ..sell(&issuer_id, &request_id) };
    let sold = platform.commands().sell_invoice(first.clone()).await.unwrap().into_inner();
    facts.given(["IssuerCreated", "InvoiceCreated"]).await;

    // when
    let other_price = SellInvoiceRequest { asking_price: eur(2, 0), ..first.clone() };
    let price = platform.commands().sell_invoice(other_price.clone()).await.unwrap_err();
    let approve =
        ApproveFinancingRequest { invoice_id: uuid(), request_id: request_id.clone(), wait: wait() };
    let approval = platform.commands().approve_financing(approve).await.unwrap_err();
    let bid = BidOnInvoiceRequest {
        investor_id: uuid(),
        invoice_id: uuid(),
        amount: eur(1, 0),
        request_id: request_id.clone(),
        wait: wait(),
    };
    let bid = platform.commands().bid_on_invoice(bid).await.unwrap_err();
    let unwaited = SellInvoiceRequest { wait: None, ..other_price };
    let unwaited = platform.commands().sell_invoice(unwaited).await.unwrap().into_inner();

    // then
    for refusal in [&price, &approval, &bid] {
        let information = information(refusal);
        assert_eq!(information.reason, "REQUEST_ID_REUSED", "{refusal}");
        assert_eq!(information.metadata["command_id"], sold.command_id);
    }
    assert_eq!(unwaited.command_id, sold.command_id);
    facts.nothing_else(&platform).await;
    assert_eq!(platform.invoice_at(&sold.invoice_id, &sold.token).await.asking_price, eur(1, 0));
    let again = platform.commands().sell_invoice(first).await.unwrap().into_inner();
    assert_eq!(again, sold, "the first request still gets its answer");
}

#[tokio::test]
async fn approving_and_reversing_with_one_request_id_does_one_of_them() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(1, 0)).await;
    let invoice_id = platform.sell(&issuer_id, eur(1, 0)).await.id;
    let bid = platform.bid(&investor_id, &invoice_id, eur(1, 0)).await.unwrap();
    facts.until("InvoiceFinanced", "bid_id", &bid.id).await;
    let request_id = uuid();

    // when
    let approve = ApproveFinancingRequest {
        invoice_id: invoice_id.clone(),
        request_id: request_id.clone(),
        wait: wait(),
    };
    let approved = platform.commands().approve_financing(approve.clone()).await.unwrap().into_inner();
    let reverse = ReverseFinancingRequest { invoice_id, request_id, wait: wait() };
    let reversal = platform.commands().reverse_financing(reverse).await.unwrap_err();
    let again = platform.commands().approve_financing(approve).await.unwrap().into_inner();

    // then
    assert_eq!(reason(&reversal), "REQUEST_ID_REUSED");
    assert_eq!(approved, again);
    facts.saga(&approved.command_id, ["InvoiceApproved", "InvestorFundsCommitted"]).await;
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn a_request_is_a_repeat_after_a_crash_as_well() {
    // given
    let platform = Platform::alone().await;
    let issuer_id = platform.issuer().await;
    let refused = SellInvoiceRequest { wait: wait(), ..sell(&uuid(), &uuid()) };
    let refusal = platform.commands().sell_invoice(refused.clone()).await.unwrap_err();
    let request = SellInvoiceRequest { wait: wait(), ..sell(&issuer_id, &uuid()) };
    let sold = platform.commands().sell_invoice(request.clone()).await.unwrap().into_inner();

    // when
    let home = platform.kill().await;
    let platform = Platform::start_in(home, &[]).await;

    // then
    let again = platform.commands().sell_invoice(request.clone()).await.unwrap().into_inner();
    assert_eq!(again, sold);
    let refused_again = platform.commands().sell_invoice(refused).await.unwrap_err();
    assert_eq!(information(&refused_again), information(&refusal));
    let other = SellInvoiceRequest { asking_price: eur(2, 0), ..request };
    let reused = platform.commands().sell_invoice(other).await.unwrap_err();
    assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    let mut facts = platform.facts().await;
    facts.given(["IssuerCreated", "CommandRefused", "InvoiceCreated"]).await;
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn twenty_at_once_act_once() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    facts.given(["IssuerCreated"]).await;
    let request_id = uuid();

    // when
    let calls = (0..20).map(|number| {
        let wait = if number % 2 == 0 { wait() } else { None };
        let request = SellInvoiceRequest { wait, ..sell(&issuer_id, &request_id) };
        let mut commands = platform.commands();
        async move { commands.sell_invoice(request).await.unwrap().into_inner() }
    });
    let answers = join_all(calls).await;

    // then
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.invoice_id, answers[0].invoice_id);
        assert_eq!(answer.command_id, answers[0].command_id);
        let expected = if number % 2 == 0 { CommandState::Applied } else { CommandState::Unspecified };
        assert_eq!(answer.state(), expected);
    }
    facts.saga(&answers[0].command_id, ["InvoiceCreated"]).await;
    facts.nothing_else(&platform).await;
}
