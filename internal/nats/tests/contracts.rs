//! The contracts of the ports.

use std::sync::Arc;

use async_nats::HeaderMap;
use eventsourcing::outcome::Fingerprint;
use eventsourcing::ports::{
    DeadLetter, DeadLetters as _, ForeignLetters as _, ForeignMessage, ForeignPosition,
};
use eventsourcing::testkit::contract;
use eventsourcing::testkit::memory::MemoryLog;

use super::super::event::decode;
use super::super::publish::{self, Outgoing};
use super::super::queue::{Which, stored};
use super::super::streams::DEAD;
use super::super::{NatsBus, NatsDeadLetters, NatsDepth, NatsForeignEvents, NatsQueue};
use super::*;

#[tokio::test]
async fn the_queue_keeps_its_contract() {
    let (_server, nats) = ready().await;
    contract::command_queue(async || {
        fresh(&nats).await;
        NatsQueue::new(&nats)
    })
    .await;
}

#[tokio::test]
async fn what_waits_is_counted_as_promised() {
    let (_server, nats) = ready().await;
    contract::waiting(async || {
        fresh(&nats).await;
        (NatsQueue::new(&nats), NatsDepth::new(&nats))
    })
    .await;
}

#[tokio::test]
async fn the_bus_keeps_its_contract() {
    let (_server, nats) = ready().await;
    contract::event_bus(async || {
        fresh(&nats).await;
        (MemoryLog::default(), NatsBus::for_loops(&nats))
    })
    .await;
    contract::event_bus(async || {
        fresh(&nats).await;
        (MemoryLog::default(), NatsBus::for_watchers(&nats))
    })
    .await;
}

#[tokio::test]
async fn foreign_events_keep_their_contract() {
    let (_server, nats) = ready().await;
    let make = async || {
        fresh(&nats).await;
        let events = NatsForeignEvents::new(&nats);
        let (nats, reader) = (nats.clone(), events.clone());
        let publish = async move |subject: String, payload: Vec<u8>| {
            let message = Outgoing { subject, headers: HeaderMap::new(), payload: payload.into() };
            let stored = publish::publish(&nats, vec![message]).await.remove(0).unwrap();
            // Somebody else's, so nothing but the follower says that it is there: the reader is told to wait for it.
            reader.is_told_of(stored);
        };
        (events, publish)
    };
    let subjects =
        ["registering.events.issuer.IssuerRegistered", "registering.events.investor.InvestorRegistered"];
    contract::foreign_events(make, subjects).await;
}

#[tokio::test]
async fn dead_letters_keep_their_contract() {
    let (_server, nats) = ready().await;
    let make = async || {
        fresh(&nats).await;
        NatsDeadLetters::new(&nats)
    };
    let kept = async |_: &NatsDeadLetters| {
        let mut letters = Vec::new();
        let mut number = 1;
        while let Some(message) = stored(&nats, DEAD, Which::Number(number)).await.unwrap() {
            letters.push(letter(&message));
            number += 1;
        }
        letters
    };
    contract::dead_letters(make, kept, "registering.events.issuer.IssuerRegistered").await;
}

#[tokio::test]
async fn the_dead_letters_of_other_contexts_keep_their_contract() {
    let (_server, nats) = ready().await;
    let make = async || {
        fresh(&nats).await;
        NatsDeadLetters::new(&nats)
    };
    contract::foreign_letters(make, "registering.events.issuer.IssuerRegistered").await;
}

#[tokio::test]
async fn what_was_kept_and_cannot_be_read_hides_no_other() {
    let (_server, nats) = ready().await;
    fresh(&nats).await;
    let letters = NatsDeadLetters::new(&nats);
    let malformed = |number| {
        let (created_at, fingerprint) = (7, Fingerprint::of(b"{"));
        let position = ForeignPosition { created_at, message: number, fingerprint };
        let subject = "registering.events.issuer.IssuerRegistered".to_owned();
        let message = ForeignMessage { message: number, subject, payload: Arc::from(&b"{"[..]) };
        DeadLetter::Foreign { position, message, reason: "malformed".to_owned() }
    };
    letters.keep(vec![malformed(1)]).await.unwrap();
    // Somebody has written there who does not know how.
    for subject in ["financing.dead.registering.7-2", "financing.dead.registering.nothing"] {
        let message =
            Outgoing { subject: subject.to_owned(), headers: HeaderMap::new(), payload: "noise".into() };
        publish::publish(&nats, vec![message]).await.remove(0).unwrap();
    }
    letters.keep(vec![malformed(3)]).await.unwrap();

    let found = letters.foreign(0, 10).await.unwrap();

    let places: Vec<_> =
        found.iter().map(|one| (one.number, one.position.created_at, one.position.message)).collect();
    assert_eq!(places, [(1, 7, 1), (2, 7, 2), (3, 0, 3), (4, 7, 3)]);
    for unreadable in &found[1..3] {
        assert_eq!((&*unreadable.message.payload, unreadable.whole), (&b"noise"[..], false));
        assert!(unreadable.reason.starts_with("what was kept of it cannot be read"), "{}", unreadable.reason);
    }
    assert!(found[3].whole && found[3].reason == "malformed");
}

/// What a person reads in DEAD.
fn letter(message: &async_nats::jetstream::message::StreamMessage) -> DeadLetter {
    if message.subject.starts_with("financing.dead.commands.") {
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let place = |name: &str| event[name].as_str().unwrap().parse::<u64>().unwrap();
        let partition = Partition::from_index(u16::try_from(place("partition")).unwrap());
        let record = decode(partition, place("sequence"), &message.payload).unwrap();
        assert_eq!(message.subject.as_str(), format!("financing.dead.commands.{}", record.record_id));
        return DeadLetter::Command(record);
    }
    let header = |name: &str| message.headers.get(name).unwrap().as_str().to_owned();
    let payload: Arc<[u8]> = Arc::from(&*message.payload);
    let number = header("financing-message").parse().unwrap();
    DeadLetter::Foreign {
        position: ForeignPosition {
            created_at: header("financing-stream-created-at").parse().unwrap(),
            message: number,
            fingerprint: fingerprint(&header("financing-sha256")),
        },
        message: ForeignMessage { message: number, subject: header("financing-subject"), payload },
        reason: header("financing-reason"),
    }
}

fn fingerprint(hex: &str) -> Fingerprint {
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    Fingerprint(bytes)
}
