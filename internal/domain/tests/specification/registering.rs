//! What the Registering context sends over the bus, and what follows from it.

use domain::financing::{Command, Financing};
use domain::integration::{ACTOR, Registering, command_id};
use domain::investor::{CreateInvestor, InvestorCommand};
use domain::issuer::{CreateIssuer, IssuerCommand};
use eventsourcing::importer::{Translate as _, Translated};
use eventsourcing::model::Model as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::vocabulary::*;

/// Samples that must be understood for ever.
const ISSUER_REGISTERED: &str = include_str!("../../golden/registering.IssuerRegistered.v1.json");
const INVESTOR_REGISTERED: &str = include_str!("../../golden/registering.InvestorRegistered.v1.json");

fn translated(payload: &[u8]) -> Translated<Command> {
    Registering.translate("registering.events.issuer.IssuerRegistered", payload)
}

/// The sample with an attribute changed; `null` takes it away.
fn with(attribute: &str, value: Value) -> String {
    let mut event: Value = serde_json::from_str(ISSUER_REGISTERED).unwrap();
    event[attribute] = value;
    if event[attribute].is_null() {
        event.as_object_mut().unwrap().remove(attribute);
    }
    event.to_string()
}

fn id_of(payload: &str) -> Uuid {
    match translated(payload.as_bytes()) {
        Translated::Command { id, .. } => id,
        other @ (Translated::Ignored | Translated::Malformed(_)) => panic!("no command: {other:?}"),
    }
}

fn is_malformed(payload: &[u8], because: &str) {
    match translated(payload) {
        Translated::Malformed(reason) => assert!(reason.contains(because), "{reason:?} and not {because:?}"),
        other @ (Translated::Ignored | Translated::Command { .. }) => panic!("not malformed: {other:?}"),
    }
}

fn json_of(command: &Command) -> Vec<u8> {
    serde_json::to_vec(command).unwrap()
}

fn create_issuer() -> Command {
    IssuerCommand::CreateIssuer(CreateIssuer { issuer_id: ISSUER, name: name("Acme") }).into()
}

#[test]
fn a_registered_issuer_is_created() {
    let expected = Translated::Command {
        id: command_id("0190163d-8694-739b-aea5-966c26f8ad90".parse().unwrap(), &json_of(&create_issuer())),
        actor: ACTOR.to_owned(),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        command: create_issuer(),
    };
    assert_eq!(translated(ISSUER_REGISTERED.as_bytes()), expected);
}

#[test]
fn a_registered_investor_is_created_with_its_balance() {
    let created = InvestorCommand::CreateInvestor(CreateInvestor {
        investor_id: INVESTOR,
        name: name("Ada"),
        balance: money(1_000),
    });
    match translated(INVESTOR_REGISTERED.as_bytes()) {
        Translated::Command { actor, command, traceparent, .. } => {
            assert_eq!((actor.as_str(), command, traceparent), (ACTOR, created.into(), None));
        }
        other @ (Translated::Ignored | Translated::Malformed(_)) => panic!("no command: {other:?}"),
    }
}

#[test]
fn the_ids_of_commands_stay_over_releases() {
    // The bus is read again from its beginning after a queue was adopted: another id would act twice.
    let ids = [ISSUER_REGISTERED, INVESTOR_REGISTERED].map(|sample| id_of(sample).to_string());
    assert_eq!(ids, ["71345f0a-6a68-5d60-8b41-7aafe0d888cf", "d1835f94-51a5-5862-b24e-7cdf6bb1baed"]);
}

#[test]
fn an_event_is_one_command_however_it_is_written() {
    let id = id_of(ISSUER_REGISTERED);
    assert_eq!(id_of(&with("source", json!("/elsewhere"))), id, "a UUID is unique by itself");
    assert_eq!(id_of(&with("id", json!("0190163D-8694-739B-AEA5-966C26F8AD90"))), id);
    assert_eq!(id_of(&with("time", Value::Null)), id);
    let data = json!({"name": "Acme", "more": true, "issuer_id": ISSUER.to_string()});
    assert_eq!(id_of(&with("data", data)), id);
}

#[test]
fn another_event_or_other_content_is_another_command() {
    let id = id_of(ISSUER_REGISTERED);
    assert_ne!(id_of(&with("id", json!(Uuid::from_u128(1).to_string()))), id);
    let data = json!({"issuer_id": ISSUER.to_string(), "name": "Acme & Co"});
    assert_ne!(id_of(&with("data", data)), id);
}

#[test]
fn an_id_that_is_no_uuid_counts_together_with_its_source() {
    let sent = |id: &str, source: &str| {
        let mut event: Value = serde_json::from_str(ISSUER_REGISTERED).unwrap();
        (event["id"], event["source"]) = (json!(id), json!(source));
        id_of(&event.to_string())
    };
    assert_eq!(sent("4711", "/a"), sent("4711", "/a"));
    assert_ne!(sent("4711", "/a"), sent("4711", "/b"));
    assert_ne!(sent("4711", "/a"), sent("4712", "/a"));
    assert_ne!(sent("a", "b/"), sent("/a", "b"), "where one ends and the other begins matters");
    let nil = Uuid::nil().to_string();
    assert_ne!(sent(&nil, "/a"), sent(&nil, "/b"), "nil says nothing");
    let braced = "{0190163d-8694-739b-aea5-966c26f8ad90}";
    assert_ne!(sent(braced, "/a"), sent(braced, "/b"), "only the usual form is a UUID, as in gRPC");
}

#[test]
fn what_is_of_an_unknown_type_is_ignored_whatever_else_it_says() {
    for unknown in ["registering.v1.IssuerRenamed", "registering.v2.IssuerRegistered", "x", ""] {
        assert_eq!(translated(with("type", json!(unknown)).as_bytes()), Translated::Ignored);
    }
    let large = format!(r#"{{"type":"x","id":7,"data":"{}"}}"#, "x".repeat(100_000));
    assert_eq!(translated(large.as_bytes()), Translated::Ignored);
}

#[test]
fn what_is_no_cloud_event_is_malformed() {
    for payload in [&b""[..], b"not JSON", b"\xff\xfe", b"[]", b"7", b"null", br#"{"type":7}"#] {
        is_malformed(payload, "not a CloudEvent");
    }
    is_malformed(b"{}", "no type");
    is_malformed(with("type", Value::Null).as_bytes(), "no type");
    for version in [Value::Null, json!("0.3")] {
        is_malformed(with("specversion", version).as_bytes(), "specversion");
    }
    is_malformed(with("specversion", json!(1.0)).as_bytes(), "not a CloudEvent");
    for attribute in ["id", "source"] {
        let because = format!("no {attribute}");
        is_malformed(with(attribute, Value::Null).as_bytes(), &because);
        is_malformed(with(attribute, json!("")).as_bytes(), &because);
        is_malformed(with(attribute, json!(7)).as_bytes(), "not a CloudEvent");
        assert!(matches!(
            translated(with(attribute, json!("ü".repeat(256))).as_bytes()),
            Translated::Command { .. }
        ));
        is_malformed(with(attribute, json!("ü".repeat(257))).as_bytes(), "more than 256 characters");
        is_malformed(with(attribute, json!("a\u{0}b")).as_bytes(), "control characters");
    }
    is_malformed(with("data", Value::Null).as_bytes(), "no data");
}

#[test]
fn what_does_not_say_who_was_registered_is_malformed() {
    let issuer_id = ISSUER.to_string();
    for data in [
        json!("data"),
        json!({}),
        json!({"issuer_id": issuer_id}),
        json!({"issuer_id": "1", "name": "Acme"}),
        json!({"issuer_id": issuer_id, "name": ""}),
        json!({"issuer_id": issuer_id, "name": "a\u{0}"}),
        json!({"issuer_id": issuer_id, "name": "a".repeat(257)}),
    ] {
        is_malformed(with("data", data).as_bytes(), "malformed registering.v1.IssuerRegistered");
    }
    let nil = json!({"issuer_id": Uuid::nil().to_string(), "name": "Acme"});
    is_malformed(with("data", nil).as_bytes(), "nil UUID");
    for wrong in [r#""units":-1"#, r#""units":10.5"#, r#""units":9223372036854775807"#] {
        let payload = INVESTOR_REGISTERED.replace(r#""units":10"#, wrong);
        is_malformed(payload.as_bytes(), "malformed registering.v1.InvestorRegistered");
    }
    let finer = INVESTOR_REGISTERED.replace(r#""nanos":0"#, r#""nanos":1"#);
    is_malformed(finer.as_bytes(), "malformed registering.v1.InvestorRegistered");
}

#[test]
fn what_is_larger_than_a_request_may_be_is_malformed() {
    let with_padding = |length: usize| with("padding", json!("x".repeat(length)));
    let room = 64 * 1024 - with_padding(0).len();
    assert_eq!(id_of(&with_padding(room)), id_of(ISSUER_REGISTERED));
    is_malformed(with_padding(room + 1).as_bytes(), "larger than 65536 bytes");
}

#[test]
fn a_broken_trace_context_is_left_out() {
    for broken in [json!("00-1-2-3"), json!(7), Value::Null] {
        match translated(with("traceparent", broken).as_bytes()) {
            Translated::Command { traceparent, command, .. } => {
                assert_eq!((traceparent, Financing::method(&command)), (None, "CreateIssuer"));
            }
            other @ (Translated::Ignored | Translated::Malformed(_)) => panic!("no command: {other:?}"),
        }
    }
}
