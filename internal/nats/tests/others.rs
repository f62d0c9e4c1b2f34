//! Replies, wake-ups, dead letters and registrations.

use eventsourcing::desk::Desk;
use eventsourcing::environment::{Doorbells, Stop};
use eventsourcing::outcome::{Fingerprint, Reply};
use eventsourcing::ports::{
    CommandQueue as _, DeadLetter, DeadLetters as _, ForeignEvents as _, ForeignLetters as _, ForeignMessage,
    ForeignPosition, Replies as _,
};

use super::super::queue::{Which, stored};
use super::super::{
    NatsDeadLetters, NatsError, NatsForeignEvents, NatsQueue, NatsReplies, Wake, reply_address,
};
use super::*;

#[tokio::test]
async fn a_reply_reaches_the_desk_that_it_is_addressed_to() {
    let server = NatsServer::start();
    let (here, there) = (connected(&server).await, connected(&server).await);
    let (stopper, stop) = Stop::new();
    let desk = Desk::new(&reply_address(Uuid::from_u128(1)));
    let receiving = tokio::spawn(here.receive(desk.clone(), stop).await.unwrap());
    // What is subscribed to is known when the server has answered what was asked after it.
    back(&here).await;
    let command_id = Uuid::from_u128(2);
    let reply = Reply::Reused { command_id };
    let expectation = desk.expect(command_id);
    let astray = ["somewhere.else".to_owned(), "financing.commands.1".to_owned(), reply_address(Uuid::nil())];
    let mut replies: Vec<(String, Reply)> =
        astray.into_iter().map(|address| (address, reply.clone())).collect();
    replies.push((expectation.address(), reply.clone()));
    NatsReplies::new(&there).send(replies).await;
    let received = tokio::time::timeout(ENOUGH, expectation.reply()).await.expect("the reply comes");
    assert_eq!(received, Some(reply));
    stopper.stop();
    receiving.await.unwrap();
}

#[tokio::test]
async fn replies_to_a_server_that_takes_nothing_are_dropped_and_nobody_waits() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    server.signal("STOP");
    // More than fits between us and it.
    let count = 20_000;
    let address = format!("{}.{}", reply_address(Uuid::from_u128(1)), "x".repeat(3500));
    let reply = Reply::Reused { command_id: Uuid::from_u128(2) };
    let replies = vec![(address, reply); count];
    tokio::time::timeout(ENOUGH, NatsReplies::new(&nats).send(replies)).await.expect("it ends");
    let sent = nats.client().statistics().out_messages.load(std::sync::atomic::Ordering::Relaxed);
    assert!(sent < count as u64, "everything was sent, so nothing was tried here");
    // Nor does anybody wait for ever who asks for an answer.
    let (queue, bus) = (NatsQueue::new(&nats), NatsBus::for_watchers(&nats));
    let beginning = [from(Partition::from_index(0), 0)];
    let asked = async { tokio::join!(queue.created_at(), bus.read(&beginning, 1)) };
    let (created_at, read) = tokio::time::timeout(ENOUGH, asked).await.expect("they end");
    unavailable(created_at);
    unavailable(read);
    server.signal("CONT");
}

#[tokio::test]
async fn a_desk_that_nobody_sends_to_is_refused() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    for address in ["here", "financing.replies.>", ""] {
        let (_stopper, stop) = Stop::new();
        let refused = nats.receive(Desk::new(address), stop).await.err();
        assert!(matches!(refused, Some(NatsError::Settings(_))), "{address}");
    }
}

#[tokio::test]
async fn a_ring_is_heard_by_everybody_who_listens_to_its_topic() {
    let server = NatsServer::start();
    let (here, there) = (connected(&server).await, connected(&server).await);
    let (stopper, stop) = Stop::new();
    let mut heard = Vec::new();
    let mut listening = Vec::new();
    for (nats, topic) in [(&here, Wake::Committed), (&there, Wake::Committed), (&there, Wake::Projected)] {
        let bells = Doorbells::default();
        heard.push(bells.hang());
        listening.push(tokio::spawn(nats.listen(topic, bells, stop.clone()).await.unwrap()));
    }
    for nats in [&here, &there] {
        back(nats).await;
    }
    for _ in 0..1000 {
        here.ring(Wake::Committed);
    }
    for bell in &heard[..2] {
        tokio::time::timeout(ENOUGH, bell.rung()).await.expect("the bell rings");
    }
    let sent = here.client().statistics().out_messages.load(std::sync::atomic::Ordering::Relaxed);
    assert!(sent < 500, "{sent} messages for 1000 rings: those that come too fast are one");
    there.ring(Wake::Projected);
    tokio::time::timeout(ENOUGH, heard[2].rung()).await.expect("the bell rings");
    stopper.stop();
    for one in listening {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn a_dead_message_as_large_as_may_be_is_kept_shortened() {
    let (_server, nats) = ready().await;
    let payload: Arc<[u8]> = vec![b'x'; nats.max_payload()].into();
    let position = ForeignPosition { created_at: 7, message: 9, fingerprint: Fingerprint::of(&payload) };
    let subject = "registering.events.issuer.IssuerRegistered".to_owned();
    let message = ForeignMessage { message: 9, subject, payload };
    let reason = format!("no JSON:\r\n{}", "ü".repeat(5000));
    let letter = DeadLetter::Foreign { position, message, reason };
    assert_eq!(NatsDeadLetters::new(&nats).keep(vec![letter]).await, Ok(()));
    let kept = stored(&nats, "DEAD", Which::Last("financing.dead.registering.7-9".to_owned()))
        .await
        .unwrap()
        .unwrap();
    assert!(kept.payload.len() > nats.max_payload() - 4096);
    let full = nats.max_payload().to_string();
    assert_eq!(kept.headers.get("financing-shortened-from").unwrap().as_str(), full);
    assert!(kept.headers.get("financing-reason").unwrap().as_str().starts_with("no JSON:  ü"));
}

#[tokio::test]
async fn large_dead_messages_come_in_several_pages() {
    let (_server, nats) = ready().await;
    let letters = NatsDeadLetters::new(&nats);
    let large = |message: u64| {
        let payload: Arc<[u8]> = vec![b'x'; 900 * 1024].into();
        let position = ForeignPosition { created_at: 7, message, fingerprint: Fingerprint::of(&payload) };
        let subject = "registering.events.issuer.IssuerRegistered".to_owned();
        let message = ForeignMessage { message, subject, payload };
        DeadLetter::Foreign { position, message, reason: "no JSON".to_owned() }
    };
    for message in 1..=12 {
        assert_eq!(letters.keep(vec![large(message)]).await, Ok(()));
    }
    let (mut after, mut pages) = (0, Vec::new());
    loop {
        let page = letters.foreign(after, 100).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.number;
        pages.push(page.iter().map(|letter| letter.position.message).collect::<Vec<_>>());
    }
    assert!(pages.len() > 1 && pages.iter().all(|page| page.len() < 11), "{pages:?}");
    assert_eq!(pages.concat(), (1..=12).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_registration_is_published_once_under_its_id() {
    let (_server, nats) = ready().await;
    let event = |id: &str| {
        let subject = "registering.events.issuer.IssuerRegistered".to_owned();
        (subject, json!({"specversion": "1.0", "id": id}).to_string().into_bytes())
    };
    let numbers = nats.publish_registered(vec![event("a"), event("b"), event("a")]).await;
    assert_eq!(numbers, Ok(vec![1, 2, 1]));
    let events = NatsForeignEvents::new(&nats);
    let read = events.read(0, 10).await.unwrap();
    assert_eq!(read.iter().map(|message| message.message).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(&*read[0].payload, event("a").1);
    let (subject, _) = event("a");
    for wrong in [
        (subject.clone(), b"{}".to_vec()),
        (subject.clone(), b"no JSON".to_vec()),
        (subject, br#"{"id":"a\r\nb"}"#.to_vec()),
        ("financing.commands.1".to_owned(), event("a").1),
    ] {
        let refused = nats.publish_registered(vec![wrong]).await;
        assert!(matches!(refused, Err(PortError::Content(_))), "{refused:?}");
    }
}
