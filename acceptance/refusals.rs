//! What a client is told of the outcome: with `wait` the outcome itself, without it just the ids.

use crate::harness::proto::{
    BidOnInvoiceRequest, CommandState, GetCommandRequest, SellInvoiceRequest, WaitCommandRequest,
};
use crate::harness::{Platform, eur, information, money, uuid, wait};

#[tokio::test]
async fn every_refusal_carries_its_reason_the_ids_and_a_token() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = platform.issuer().await;
    let investor_id = platform.investor(eur(10, 0)).await;
    let invoice_id = platform.sell(&issuer_id, eur(5, 0)).await.id;
    let sell = |issuer_id: String| {
        let request = SellInvoiceRequest {
            issuer_id,
            asking_price: eur(1, 0),
            request_id: String::new(),
            wait: wait(),
        };
        let mut commands = platform.commands();
        async move { commands.sell_invoice(request).await.unwrap_err() }
    };

    // when
    let refusals = [
        ("ISSUER_NOT_FOUND", "invoice_id", sell(uuid()).await),
        ("INVESTOR_NOT_FOUND", "bid_id", platform.bid(&uuid(), &invoice_id, eur(5, 0)).await.unwrap_err()),
        (
            "INSUFFICIENT_FUNDS",
            "bid_id",
            platform.bid(&investor_id, &invoice_id, eur(10, 1)).await.unwrap_err(),
        ),
        (
            "CURRENCY_MISMATCH",
            "bid_id",
            platform.bid(&investor_id, &invoice_id, money("USD", 5, 0)).await.unwrap_err(),
        ),
        ("INVOICE_NOT_FOUND", "", platform.approve(&uuid()).await.unwrap_err()),
        ("INVOICE_NOT_FOUND", "", platform.reverse(&uuid()).await.unwrap_err()),
        ("INVOICE_NOT_FINANCED", "", platform.approve(&invoice_id).await.unwrap_err()),
        ("INVOICE_NOT_FINANCED", "", platform.reverse(&invoice_id).await.unwrap_err()),
    ];

    // then
    facts.given(["IssuerCreated", "InvestorCreated", "InvestorFundsAdded", "InvoiceCreated"]).await;
    for (reason, made, status) in refusals {
        let information = information(&status);
        assert_eq!(information.reason, reason, "{status}");
        let [refused] = facts.saga(&information.metadata["command_id"], ["CommandRefused"]).await;
        assert_eq!(refused.data["reason"], reason);
        assert_eq!(refused.data["message"], status.message());
        assert_eq!(information.metadata["token"], refused.token());
        assert!(made.is_empty() || information.metadata[made].len() == 36, "{information:?}");

        let outcome = platform.outcome(&information.metadata["command_id"]).await;
        assert_eq!((outcome.state(), outcome.reason.as_str()), (CommandState::Refused, reason));
        assert_eq!((outcome.message.as_str(), outcome.token.as_str()), (status.message(), refused.token()));
    }
}

#[tokio::test]
async fn a_wait_that_ends_first_gives_pending_or_the_outcome() {
    // given
    let platform = Platform::start().await;
    let issuer_id = platform.issuer().await;

    for nanos in [0, 1, 1_000, 1_000_000] {
        // when
        let request = SellInvoiceRequest {
            issuer_id: issuer_id.clone(),
            asking_price: eur(1, 0),
            request_id: String::new(),
            wait: Some(prost_types::Duration { seconds: 0, nanos }),
        };
        let sold = platform.commands().sell_invoice(request).await.unwrap().into_inner();

        // then
        let is_pending = sold.state() == CommandState::Pending;
        assert!(is_pending || sold.state() == CommandState::Applied, "{sold:?}");
        assert_eq!(sold.token.is_empty(), is_pending, "{sold:?}");
        let outcome = platform.outcome(&sold.command_id).await;
        assert_eq!(outcome.state(), CommandState::Applied);
        assert!(is_pending || outcome.token == sold.token);
        assert_eq!(platform.invoice_at(&sold.invoice_id, &outcome.token).await.id, sold.invoice_id);
    }
}

#[tokio::test]
async fn without_a_wait_there_are_just_the_ids() {
    // given
    let platform = Platform::start().await;
    let investor_id = platform.investor(eur(1, 0)).await;

    // when
    let request = BidOnInvoiceRequest {
        investor_id,
        invoice_id: uuid(),
        amount: eur(2, 0),
        request_id: String::new(),
        wait: None,
    };
    let bid = platform.commands().bid_on_invoice(request).await.unwrap().into_inner();

    // then
    assert_eq!((bid.state(), bid.token.as_str()), (CommandState::Unspecified, ""));
    assert_eq!((bid.bid_id.len(), bid.command_id.len()), (36, 36));
    let outcome = platform.outcome(&bid.command_id).await;
    assert_eq!((outcome.state(), outcome.reason.as_str()), (CommandState::Refused, "INSUFFICIENT_FUNDS"));
    assert!(outcome.message.contains("2.00 EUR") && outcome.message.contains("1.00 EUR"), "{outcome:?}");

    let request = GetCommandRequest { command_id: bid.command_id, token: outcome.token.clone() };
    let asked = platform.queries().get_command(request).await.unwrap().into_inner().command;
    assert_eq!(asked, Some(outcome));
}

#[tokio::test]
async fn a_command_without_an_outcome_is_pending() {
    // given
    let platform = Platform::start().await;
    let command_id = uuid();

    // when
    let request = WaitCommandRequest {
        command_id: command_id.clone(),
        wait: Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 }),
    };
    let waited = platform.queries().wait_command(request).await.unwrap().into_inner().command.unwrap();
    let request = GetCommandRequest { command_id: command_id.clone(), token: String::new() };
    let asked = platform.queries().get_command(request).await.unwrap().into_inner().command.unwrap();

    // then
    assert_eq!((waited.state(), waited.token.as_str()), (CommandState::Pending, ""));
    assert_eq!(waited.id, command_id);
    assert_eq!(asked, waited);
}
