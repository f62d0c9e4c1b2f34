//! A business registers: it becomes an issuer.

use serde_json::json;

use crate::harness::proto::{CommandState, GetIssuerRequest};
use crate::harness::registering::{IntegrationEvent, PublishIntegrationEventsRequest};
use crate::harness::{Platform, issuer_registered, uuid};

#[tokio::test]
async fn a_business_that_registers_becomes_an_issuer() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = uuid();

    // when
    let command_ids = platform.publish(vec![issuer_registered(&issuer_id, "Acme & Söhne")]).await;

    // then
    let [created] = facts.saga(&command_ids[0], ["IssuerCreated"]).await;
    created.says(&format!("issuer/{issuer_id}"), &json!({ "issuer_id": issuer_id, "name": "Acme & Söhne" }));
    assert_eq!(created.extension("aggregateversion"), "1");
    assert_eq!(created.extension("commandlast"), "true");
    assert_eq!(created.extension("actor"), "registering");

    let request = GetIssuerRequest { issuer_id: issuer_id.clone(), token: created.token().to_owned() };
    let issuer = platform.queries().get_issuer(request).await.unwrap().into_inner().issuer.unwrap();
    assert_eq!((issuer.id, issuer.name.as_str()), (issuer_id, "Acme & Söhne"));
}

#[tokio::test]
async fn the_same_registration_again_changes_nothing() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let registered = issuer_registered(&uuid(), "Acme");
    platform.register(registered.clone()).await;

    // when
    let again = platform.register(registered).await;

    // then
    assert_eq!(again.state(), CommandState::Unchanged);
    let [_, unchanged] = facts.given(["IssuerCreated", "CommandUnchanged"]).await;
    assert_eq!(unchanged.extension("commandid"), again.id);
    assert_eq!(unchanged.token(), again.token);
    assert_eq!(unchanged.data["method"], "CreateIssuer");
}

#[tokio::test]
async fn the_same_id_with_another_name_is_refused() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let issuer_id = uuid();
    platform.register(issuer_registered(&issuer_id, "Acme")).await;

    // when
    let again = platform.register(issuer_registered(&issuer_id, "Emca")).await;

    // then
    assert_eq!((again.state(), again.reason.as_str()), (CommandState::Refused, "ALREADY_REGISTERED"));
    assert!(again.message.contains(&issuer_id), "{}", again.message);
    let [_, refused] = facts.given(["IssuerCreated", "CommandRefused"]).await;
    assert_eq!(refused.data["reason"], "ALREADY_REGISTERED");
    assert_eq!(refused.data["command"]["issuer"]["CreateIssuer"]["name"], "Emca");

    let request = GetIssuerRequest { issuer_id, token: again.token };
    let issuer = platform.queries().get_issuer(request).await.unwrap().into_inner().issuer.unwrap();
    assert_eq!(issuer.name, "Acme");
}

#[tokio::test]
async fn the_same_event_handed_in_twice_acts_once() {
    // given
    let platform = Platform::start().await;
    let mut facts = platform.facts().await;
    let event = IntegrationEvent { event: Some(issuer_registered(&uuid(), "Acme")), event_id: uuid() };
    let request = PublishIntegrationEventsRequest { events: vec![event.clone(), event] };

    // when
    let once = platform.integration().publish_integration_events(request.clone()).await.unwrap().into_inner();
    let again = platform.integration().publish_integration_events(request).await.unwrap().into_inner();

    // then
    assert_eq!(once.command_ids[0], once.command_ids[1]);
    assert_eq!(once, again);
    facts.saga(&once.command_ids[0], ["IssuerCreated"]).await;
    facts.nothing_else(&platform).await;
}
