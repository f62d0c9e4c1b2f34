//! Who issuers and investors are is told over the bus: once or twice, over another door as well, malformed, or on a
//! stream that was lost. What can never succeed is kept for people.

use std::process::Output;

use async_nats::jetstream;
use async_nats::jetstream::stream::Stream;
use serde_json::{Value, json};

use crate::harness::proto::{CommandState, ListInvestorsRequest, ListIssuersRequest};
use crate::harness::registering::{IntegrationEvent, PublishIntegrationEventsRequest};
use crate::harness::{Platform, Program, cents, eur, in_time, investor_registered, issuer_registered, uuid};
use crate::ledger::{Ledger, connect_raw, outcomes, until};
use crate::parts::{ALL, Parts};

/// What another context says of an issuer.
fn issuer(event_id: &str, issuer_id: &str) -> Value {
    event(event_id, "registering.v1.IssuerRegistered", &json!({ "issuer_id": issuer_id, "name": "Acme" }))
}

/// What another context says of an investor with so many euros.
fn investor(event_id: &str, investor_id: &str, euros: i64) -> Value {
    let balance = json!({ "currency_code": "EUR", "units": euros, "nanos": 0 });
    let data = json!({ "investor_id": investor_id, "name": "Lender", "balance": balance });
    event(event_id, "registering.v1.InvestorRegistered", &data)
}

fn event(event_id: &str, event_type: &str, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": event_id, "source": "/registering", "type": event_type,
        "datacontenttype": "application/json", "data": data,
    })
}

async fn say(nats: &jetstream::Context, kind: &'static str, payload: impl ToString) {
    let name = match kind {
        "issuer" => "IssuerRegistered",
        _ => "InvestorRegistered",
    };
    let subject = format!("registering.events.{kind}.{name}");
    nats.publish(subject, payload.to_string().into()).await.unwrap().await.unwrap();
}

/// Waits until everything that was said is imported, and everything that followed has an outcome: what is said last is.
async fn marked(platform: &Platform, nats: &jetstream::Context) {
    let marker = uuid();
    say(nats, "issuer", issuer(&uuid(), &marker)).await;
    let mut facts = platform.all_facts().await;
    facts.until("IssuerCreated", "issuer_id", &marker).await;
}

/// Runs a client to its end; again where the platform was too busy to answer it, as its user would.
async fn told(client: &Program) -> Output {
    let telling = async {
        loop {
            let output = client.output().await;
            if !String::from_utf8_lossy(&output.stderr).contains("do not answer") {
                return output;
            }
        }
    };
    in_time("the platform answers", telling).await
}

/// The names of all records about somebody, in order.
async fn history(parts: &Parts, id: &str) -> Vec<String> {
    let log = Ledger::open(parts.services()).await.log().await;
    let about = log.values().flatten().filter(|record| record.aggregate.id.to_string() == id);
    about.map(|record| record.event_type.to_string()).collect()
}

/// Every message of a stream: its subject, its headers as text, its payload.
async fn all(nats: &jetstream::Context, name: &str) -> Vec<(String, String, Vec<u8>)> {
    let stream: Stream = nats.get_stream(name).await.unwrap();
    let state = stream.cached_info().state.clone();
    let mut messages = Vec::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let headers = format!("{:?}", message.headers);
        messages.push((message.subject.to_string(), headers, message.payload.to_vec()));
    }
    messages
}

#[tokio::test]
async fn what_is_said_on_the_bus_becomes_issuers_and_investors() {
    // given
    let parts = Parts::start().await;
    let populate = |flags: &'static [&'static str]| {
        let program = parts.services().program(env!("CARGO_BIN_EXE_populate"));
        program
            .set("FINANCING_QUERY_ADDR", parts.address("queries"))
            // It does not need the listener.
            .set("FINANCING_COMMAND_ADDR", "127.0.0.1:1")
            .flags(&["--nats", "--seed", "bus", "--issuers", "3"])
            .flags(flags)
    };

    // when
    let output = told(&populate(&["--investors", "4"])).await;
    let again = told(&populate(&["--investors", "4"])).await;

    // then
    assert!(output.status.success() && again.status.success(), "{output:?} {again:?}");
    assert_eq!(output.stdout, again.stdout, "the same ids");
    let platform = parts.platform().await;
    let issuers = platform.queries().list_issuers(ListIssuersRequest::default()).await.unwrap().into_inner();
    let investors =
        platform.queries().list_investors(ListInvestorsRequest::default()).await.unwrap().into_inner();
    assert_eq!((issuers.issuers.len(), investors.investors.len()), (3, 4));
    for investor in &investors.investors {
        assert_eq!(cents(investor.available.as_ref()), 10_000, "once, though it was said twice");
        assert!(String::from_utf8_lossy(&output.stdout).contains(&investor.id), "{output:?}");
    }

    // and when: the same investors are said to have another balance
    let other = told(&populate(&["--investors", "4", "--balance", "200"])).await;

    // then
    assert!(!other.status.success());
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(message.contains("ALREADY_REGISTERED"), "{message}");
}

#[tokio::test]
async fn an_event_acts_once_through_whichever_doors_it_comes() {
    // given
    let parts = Parts::start().await;
    let (platform, nats) = (parts.platform().await, connect_raw(parts.services()).await);
    let (event_id, investor_id, issuer_id) = (uuid(), uuid(), uuid());

    // when: twice over the bus, once over gRPC, and once more over the bus
    for _ in 0..2 {
        say(&nats, "investor", investor(&event_id, &investor_id, 75)).await;
    }
    marked(&platform, &nats).await;
    let event = Some(investor_registered(&investor_id, "Lender", eur(75, 0)));
    let events = vec![IntegrationEvent { event, event_id: event_id.clone() }];
    let request = PublishIntegrationEventsRequest { events };
    let answer = platform.integration().publish_integration_events(request).await.unwrap().into_inner();
    let outcome = platform.outcome(&answer.command_ids[0]).await;
    assert_eq!(outcome.state(), CommandState::Applied, "it is the command of the first time");
    say(&nats, "investor", investor(&event_id, &investor_id, 75)).await;
    // The other way round, too: first over gRPC.
    let event = Some(issuer_registered(&issuer_id, "Acme"));
    let events = vec![IntegrationEvent { event, event_id: event_id.clone() }];
    let request = PublishIntegrationEventsRequest { events };
    platform.integration().publish_integration_events(request).await.unwrap();
    say(&nats, "issuer", issuer(&event_id, &issuer_id)).await;
    marked(&platform, &nats).await;

    // then
    assert_eq!(history(&parts, &investor_id).await, ["InvestorCreated", "InvestorFundsAdded"]);
    assert_eq!(history(&parts, &issuer_id).await, ["IssuerCreated"]);

    // and when: it comes as another event, with the same content and with another
    say(&nats, "investor", investor(&uuid(), &investor_id, 75)).await;
    say(&nats, "investor", investor(&uuid(), &investor_id, 76)).await;
    marked(&platform, &nats).await;

    // then
    let names = history(&parts, &investor_id).await;
    assert_eq!(names[2..], ["CommandUnchanged", "CommandRefused"]);
    let mut facts = platform.all_facts().await;
    let refused = facts.until("CommandRefused", "reason", "ALREADY_REGISTERED").await;
    assert_eq!(refused.event.subject, format!("investor/{investor_id}"));
    let balances = platform.balances(&investor_id, refused.token()).await;
    assert_eq!(balances, [eur(75, 0), eur(0, 0), eur(0, 0)]);
}

#[tokio::test]
async fn what_is_malformed_is_kept_for_people_and_holds_nobody_up() {
    // given
    let parts = Parts::start().await;
    let (platform, nats) = (parts.platform().await, connect_raw(parts.services()).await);
    let investor_id = uuid();
    let negative = investor(&uuid(), &investor_id, -1).to_string();
    let nameless =
        event(&uuid(), "registering.v1.IssuerRegistered", &json!({ "issuer_id": uuid() })).to_string();
    let malformed =
        ["no JSON", "[]", r#"{"specversion":"1.0"}"#, negative.as_str(), nameless.as_str(), r#"{"type":7}"#];

    // when
    say(&nats, "issuer", event(&uuid(), "registering.v1.IssuerRenamed", &json!({ "name": "Other" }))).await;
    for payload in malformed {
        say(&nats, "investor", payload).await;
    }
    say(&nats, "investor", investor(&uuid(), &investor_id, 5)).await;
    marked(&platform, &nats).await;

    // then
    assert_eq!(history(&parts, &investor_id).await, ["InvestorCreated", "InvestorFundsAdded"]);
    let letters = all(&nats, "DEAD").await;
    let payloads: Vec<&[u8]> = letters.iter().map(|(_, _, payload)| payload.as_slice()).collect();
    assert_eq!(payloads, malformed.map(str::as_bytes), "as they came, and what is unknown is not among them");
    for (subject, headers, _) in &letters {
        assert!(subject.starts_with("financing.dead.registering."), "{subject}");
        assert!(headers.contains("financing-reason") && headers.contains("financing-message"), "{headers}");
    }
    let (_, headers, _) = &letters[4];
    assert!(headers.contains("missing field `name`"), "says what is wrong: {headers}");
    println!("{} dead letters", letters.len());
}

#[tokio::test]
async fn what_is_malformed_is_looked_after_through_the_door_of_the_policies() {
    // given
    let mut parts = Parts::start().await;
    let (platform, nats) = (parts.platform().await, connect_raw(parts.services()).await);
    let payload = b"\x1b[31mno registration \xff".as_slice();
    let subject = "registering.events.investor.InvestorRegistered";
    nats.publish(subject, payload.into()).await.unwrap().await.unwrap();
    marked(&platform, &nats).await;
    let door = parts.process("policies").says("admin on ").await;
    let dead = async |parts: &Parts, door: &str, code: i32, arguments: &[&str]| {
        let output = parts.operate(&[&["dead"], arguments, &["--admin-addr", door]].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        output.stdout
    };
    let text = |said: Vec<u8>| String::from_utf8(said).unwrap();

    // then
    let listed = text(dead(&parts, &door, 0, &["list"]).await);
    for words in ["OPEN", "MALFORMED: ", subject, "1 dead letter\n"] {
        assert!(listed.contains(words), "{words:?} in {listed}");
    }
    let id = &listed[..36];
    assert_eq!(dead(&parts, &door, 0, &["show", id, "--payload"]).await, payload, "byte for byte");
    let refused = text(dead(&parts, &door, 2, &["retry", id]).await);
    assert!(refused.ends_with("(NOT_RETRYABLE)\n"), "{refused}");

    // when
    dead(&parts, &door, 0, &["discard", id, "--reason", "told by telephone", "--actor", "ada"]).await;
    parts.kill("policies").await;
    parts.run(&["policies"]).await;

    // then
    let door = parts.process("policies").says("admin on ").await;
    let refused = text(dead(&parts, &door, 2, &["retry", id]).await);
    assert!(refused.ends_with("(DEAD_LETTER_DISCARDED)\n"), "{refused}");
    let shown = text(dead(&parts, &door, 0, &["show", id]).await);
    assert!(shown.contains("discarded by ada: told by telephone"), "{shown}");
    let verified = parts.operate(&["verify"]).await;
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    parts.stop(&ALL).await;
}

#[tokio::test]
async fn a_stream_of_registrations_that_was_lost_is_imported_again_when_somebody_says_so() {
    // given
    let mut parts = Parts::start().await;
    let (platform, nats) = (parts.platform().await, connect_raw(parts.services()).await);
    let (event_id, investor_id) = (uuid(), uuid());
    say(&nats, "investor", investor(&event_id, &investor_id, 10)).await;
    say(&nats, "investor", "malformed").await;
    marked(&platform, &nats).await;
    let before = outcomes(&Ledger::open(parts.services()).await.log().await).len();

    // when
    nats.delete_stream("REGISTERING").await.unwrap();
    parts.stop(&["listener"]).await;
    parts.run(&["listener"]).await;
    nats.get_stream("REGISTERING").await.expect("it was made anew");
    say(&nats, "investor", investor(&event_id, &investor_id, 10)).await;

    // then
    parts.gives_up("policies", &["registering", "lost or", "`financing queue adopt`"]).await;
    parts.begin("policies", &parts.program("policies"));
    parts.gives_up("policies", &["`financing queue adopt`"]).await;
    parts.stop(&["worker"]).await;
    let said = parts.adopt().await;
    assert!(said.contains("other context's stream: from the beginning"), "{said}");
    parts.run(&["worker", "policies"]).await;
    let platform = parts.platform().await;
    marked(&platform, &nats).await;
    let log = Ledger::open(parts.services()).await.log().await;
    assert_eq!(outcomes(&log).len(), before + 1, "the marker is new, and nothing else");
    assert_eq!(history(&parts, &investor_id).await, ["InvestorCreated", "InvestorFundsAdded"]);
    parts.stop(&ALL).await;
}

#[tokio::test]
async fn a_command_that_can_never_succeed_is_dead_and_kept_once_for_people() {
    // given
    let mut parts = Parts::start().await;
    let (platform, nats) = (parts.platform().await, connect_raw(parts.services()).await);
    let letters = async || all(&nats, "DEAD").await.len();

    // when
    let rounds = 6;
    for round in 0..rounds {
        let payload = format!(r#"[{{"nonsense":{round}}}]"#);
        nats.publish("financing.commands.3", payload.into()).await.unwrap().await.unwrap();
        // Before, while, or after it is copied.
        if round % 2 == 1 {
            until("the first are kept", async || letters().await >= round).await;
        }
        parts.kill("policies").await;
        parts.run(&["policies"]).await;
    }
    // Policies that begin anew find all of them again.
    until("all are kept", async || letters().await >= rounds).await;
    parts.stop(&["worker", "policies"]).await;
    parts.adopt().await;
    parts.run(&["worker", "policies"]).await;
    platform.issuer().await;
    let checkpoints = async || {
        let behind = "SELECT count(*) FROM partitions p LEFT JOIN checkpoints c USING (partition) \
                      WHERE p.head <> coalesce(c.sequence, 0)";
        parts.services().commands.psql(behind).trim() == "0"
    };
    until("the policies have read everything again", checkpoints).await;

    // then
    let dead = all(&nats, "DEAD").await;
    assert_eq!(dead.len(), rounds, "each is kept once");
    let on_bus = Ledger::open(parts.services()).await.bus().await;
    let records: Vec<_> =
        on_bus.values().flatten().filter(|record| record.event_type == "CommandDead").collect();
    assert_eq!(records.len(), rounds, "each died once");
    for (record, (subject, _, payload)) in records.iter().zip(&dead) {
        assert_eq!(*subject, format!("financing.dead.commands.{}", record.record_id));
        assert!(record.data.contains("UNDECODABLE") && record.data.contains("nonsense"), "{}", record.data);
        let letter: Value = serde_json::from_slice(payload).unwrap();
        assert_eq!(letter["type"], "financing.v1.CommandDead");
    }
    println!("{rounds} dead commands, each kept once, while the policies were killed {rounds} times");
}
