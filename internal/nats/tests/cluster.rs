//! Several servers that are one: who leads a stream changes, and a server that is silent is not one that is gone.

use eventsourcing::ports::{CommandQueue as _, DeadLetter, DeadLetters as _, EventBus as _};
use eventsourcing::relayer::Relayer;
use eventsourcing::testkit::contract::sample::{append, bundle, id, partition};
use eventsourcing::testkit::memory::MemoryLog;
use eventsourcing::turn::{Progress, Trouble, Turn as _};
use tokio::time::Instant;

use super::super::connect::PATIENCE;
use super::super::{NatsBus, NatsDeadLetters, NatsQueue};
use super::restarts::follow_through;
use super::*;

fn three() -> Streams {
    Streams { replicas: 3, ..streams() }
}

/// Three servers with all streams, and a connection to them.
async fn ready() -> (Vec<NatsServer>, Nats) {
    let servers = NatsServer::cluster(3);
    let urls = servers.iter().map(NatsServer::url).collect();
    let settings = Connect { urls, ..Connect::to("nats://localhost") };
    let nats = until("the servers have found each other", async || connect(&settings).await.ok()).await;
    until("the streams are made", async || {
        nats.ensure_queues(&three()).await.ok()?;
        nats.ensure_events(&three()).await.ok()
    })
    .await;
    (servers, nats)
}

async fn leader(nats: &Nats, stream: &str) -> Option<String> {
    let info = nats.stream_info(stream).await.ok()??;
    info.pointer("/cluster/leader")?.as_str().map(str::to_owned)
}

/// Relays until the bus has all that the log has.
async fn relay(mut relayer: Relayer<MemoryLog, NatsBus, Here>) -> Relayer<MemoryLog, NatsBus, Here> {
    let relaying = async {
        loop {
            match relayer.turn().await {
                Ok(Progress::Idle) => return,
                Ok(Progress::Worked | Progress::Finished) => {}
                Err(Trouble::Retry(_)) => tokio::task::yield_now().await,
                Err(Trouble::Halt(reason)) => panic!("{reason}"),
            }
        }
    };
    tokio::time::timeout(ENOUGH, relaying).await.expect("the bus gets what the log has");
    relayer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leads_a_stream_nothing_is_missing_and_nothing_is_there_twice() {
    let (mut servers, nats) = ready().await;
    let (log, one) = (MemoryLog::default(), partition(1));
    let info = nats.stream_info("EVENTS_1").await.unwrap().unwrap();
    assert_eq!(info["config"]["num_replicas"], 3, "{info}");
    assert_ne!(info["config"]["persist_mode"], "async", "what is acknowledged is on disk: {info}");
    let created = info["created"].clone();
    let reading = tokio::spawn(follow_through(NatsBus::for_loops(&nats), one, 1600));
    let mut relayer = relayer_of(&log, NatsBus::for_relayer(&nats, three()), [one]);

    // Whoever leads is asked to let another.
    for round in 0..3 {
        append(&log, one, round, 400).await;
        let relaying = tokio::spawn(relay(relayer));
        let step_down = async || {
            let asked = nats.request::<Value>("STREAM.LEADER.STEPDOWN.EVENTS_1", &json!({})).await;
            asked.ok()?.ok()
        };
        until("the leader steps down", step_down).await;
        relayer = relaying.await.unwrap();
    }
    // Whoever leads dies.
    let leads = until("somebody leads", async || leader(&nats, "EVENTS_1").await).await;
    append(&log, one, 3, 400).await;
    let relaying = tokio::spawn(relay(relayer));
    let number: usize = leads.trim_start_matches("test-").parse().unwrap();
    servers[number - 1].kill();
    relaying.await.unwrap();

    let (seen, told) = tokio::time::timeout(ENOUGH, reading).await.expect("everything comes").unwrap();
    assert_eq!(seen, log.records(one), "in order, each once");
    println!("{leads} was killed; the reader began anew {told} times");
    servers[number - 1].start_again();
    let again = until("the stream is there", async || nats.stream_info("EVENTS_1").await.ok()?).await;
    assert_eq!(again["created"], created, "it is the same stream, whoever leads it");
}

#[tokio::test]
async fn a_message_that_a_copy_lacks_is_not_missed() {
    let (_servers, nats) = ready().await;
    let (one, queue, bus) = (partition(1), NatsQueue::new(&nats), NatsBus::for_loops(&nats));
    assert_eq!(queue.enqueue(vec![bundle(one, &[id("a")])]).await, [Ok(())]);
    assert!(queue.message(one, 1).await.unwrap().is_some());
    let records = records(one, 0, 20);
    publish(&bus, &records).await;
    // Whichever of the copies answers, and however short a time after.
    let positions: Vec<_> = records.iter().map(|record| record.position()).collect();
    let found = bus.records(&positions).await.unwrap();
    assert!(found.iter().flatten().eq(&records), "{found:?}");
    let began = Instant::now();
    assert!(matches!(queue.message(one, 2).await, Ok(None)), "it was never there");
    assert!(began.elapsed().as_secs() >= 10, "nobody is called because one server says so once");
}

#[tokio::test]
async fn a_dead_letter_that_is_refused_is_kept_already() {
    let (_servers, nats) = ready().await;
    let letters = NatsDeadLetters::new(&nats);
    let letter = || vec![DeadLetter::Command(records(partition(1), 0, 1).remove(0))];
    assert_eq!(letters.keep(letter()).await, Ok(()));
    assert_eq!(letters.keep(letter()).await, Ok(()), "it is there");
    let info = nats.stream_info("DEAD").await.unwrap().unwrap();
    assert_eq!(info["state"]["messages"], 1, "{info}");
}

#[tokio::test]
async fn a_silent_server_costs_one_wait_however_many_wait_for_it() {
    let (server, nats) = super::ready().await;
    let queue = NatsQueue::new(&nats);
    let bundles = (0..8).map(|lane| bundle(partition(lane), &[id("a")])).collect();
    server.signal("STOP");
    let began = Instant::now();
    let answers = queue.enqueue(bundles).await;
    let took = began.elapsed();
    server.signal("CONT");
    assert_eq!(answers.len(), 8);
    for answer in answers {
        unavailable(answer);
    }
    assert!(took < PATIENCE * 2, "it took {took:?}");
}
