//! Somebody registers as an investor: there is an account, with what was brought along.

use serde_json::json;

use crate::harness::proto::CommandState;
use crate::harness::registering::{IntegrationEvent, PublishIntegrationEventsRequest};
use crate::harness::{Platform, eur, investor_registered, json as json_of, money, uuid};

#[tokio::test]
async fn an_investor_who_registers_with_a_balance_has_it_available() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let investor_id = uuid();

    // when
    let event = investor_registered(&investor_id, "Lender", eur(99, 95));
    let command_ids = platform.publish(vec![event]).await;

    // then
    let [created, added] = facts.saga(&command_ids[0], ["InvestorCreated", "InvestorFundsAdded"]).await;
    let subject = format!("investor/{investor_id}");
    created.says(&subject, &json!({ "investor_id": investor_id, "name": "Lender", "currency_code": "EUR" }));
    added.says(&subject, &json!({ "investor_id": investor_id, "amount": json_of(eur(99, 95)) }));
    assert_eq!([created.extension("commandlast"), added.extension("commandlast")], ["false", "true"]);
    assert_eq!([created.extension("aggregateversion"), added.extension("aggregateversion")], ["1", "2"]);

    let investor = platform.investor_at(&investor_id, added.token()).await;
    assert_eq!((investor.id, investor.name.as_str()), (investor_id, "Lender"));
    assert_eq!(
        [investor.available, investor.reserved, investor.committed],
        [eur(99, 95), eur(0, 0), eur(0, 0)]
    );
}

#[tokio::test]
async fn an_investor_without_a_balance_gets_no_funds() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let investor_id = uuid();

    // when
    let outcome = platform.register(investor_registered(&investor_id, "Poor", money("JPY", 0, 0))).await;

    // then
    assert_eq!(outcome.state(), CommandState::Applied);
    let [created] = facts.saga(&outcome.id, ["InvestorCreated"]).await;
    assert_eq!((created.text("currency_code"), created.extension("commandlast")), ("JPY", "true"));
    let nothing = money("JPY", 0, 0);
    let balances = platform.balances(&investor_id, &outcome.token).await;
    assert_eq!(balances, [nothing.clone(), nothing.clone(), nothing]);
    facts.nothing_else(&platform).await;
}

#[tokio::test]
async fn the_same_registration_again_adds_no_funds() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let investor_id = uuid();
    let registered = investor_registered(&investor_id, "Lender", eur(100, 0));
    platform.register(registered.clone()).await;

    // when
    let again = platform.register(registered).await;

    // then
    assert_eq!(again.state(), CommandState::Unchanged);
    facts.given(["InvestorCreated", "InvestorFundsAdded", "CommandUnchanged"]).await;
    assert_eq!(platform.balances(&investor_id, &again.token).await[0], eur(100, 0));
}

#[tokio::test]
async fn the_same_id_with_other_content_is_refused() {
    // given
    let platform = Platform::start().await;
    let investor_id = uuid();
    platform.register(investor_registered(&investor_id, "Lender", eur(100, 0))).await;

    for other in [
        investor_registered(&investor_id, "Lender", eur(100, 1)),
        investor_registered(&investor_id, "Lender", money("USD", 100, 0)),
        investor_registered(&investor_id, "Borrower", eur(100, 0)),
    ] {
        // when
        let outcome = platform.register(other.clone()).await;

        // then
        assert_eq!(outcome.state(), CommandState::Refused, "{other:?}");
        assert_eq!(outcome.reason, "ALREADY_REGISTERED", "{other:?}");
        let investor = platform.investor_at(&investor_id, &outcome.token).await;
        assert_eq!((investor.name.as_str(), investor.available), ("Lender", eur(100, 0)));
    }
}

#[tokio::test]
async fn the_same_event_handed_in_twice_adds_funds_once() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let investor_id = uuid();
    let event = Some(investor_registered(&investor_id, "Lender", eur(100, 0)));
    let request =
        PublishIntegrationEventsRequest { events: vec![IntegrationEvent { event, event_id: uuid() }] };

    // when
    let once = platform.integration().publish_integration_events(request.clone()).await.unwrap().into_inner();
    let again = platform.integration().publish_integration_events(request).await.unwrap().into_inner();

    // then
    assert_eq!(once, again);
    let [_, added] = facts.saga(&once.command_ids[0], ["InvestorCreated", "InvestorFundsAdded"]).await;
    facts.nothing_else(&platform).await;
    assert_eq!(platform.balances(&investor_id, added.token()).await[0], eur(100, 0));
}

#[tokio::test]
async fn one_party_may_be_both_issuer_and_investor() {
    // given
    let platform = Platform::start().await;
    let party = uuid();
    let events = vec![
        crate::harness::issuer_registered(&party, "Both"),
        investor_registered(&party, "Both", eur(1, 0)),
    ];

    // when
    let command_ids = platform.publish(events).await;

    // then
    for command_id in &command_ids {
        assert_eq!(platform.outcome(command_id).await.state(), CommandState::Applied);
    }
}
