//! What is stored, in which order, and what is refused.

use std::borrow::Cow;

use eventsourcing::command::Bundle;
use eventsourcing::ports::CommandQueue as _;
use eventsourcing::relayer::Relayer;
use eventsourcing::testkit::contract::sample::{append, bundle, id, partition};
use eventsourcing::testkit::memory::MemoryLog;
use eventsourcing::turn::{Progress, Turn as _};

use super::super::{NatsBus, NatsQueue};
use super::*;

fn sized(partition: Partition, bytes: usize) -> Bundle {
    Bundle { partition, commands: 1, payload: vec![b'x'; bytes] }
}

#[tokio::test]
async fn a_full_queue_refuses_and_keeps_what_it_has() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    let small = Streams { commands_max_bytes: 1024 * 1024, ..streams() };
    nats.ensure_queues(&small).await.unwrap();
    let queue = NatsQueue::new(&nats);
    let (one, two) = (partition(1), partition(2));
    let bundles = vec![sized(one, 400_000), sized(two, 400_000), sized(one, 400_000), sized(one, 10)];
    let answers = queue.enqueue(bundles).await;
    assert_eq!(answers[..2], [Ok(()), Ok(())]);
    assert!(matches!(answers[2], Err(PortError::Full(_))), "{:?}", answers[2]);
    assert!(matches!(answers[3], Err(PortError::Full(_))), "it would overtake the one before it");
    let kept = queue.read(&[(one, 0), (two, 0)], 10).await.unwrap();
    assert_eq!(kept.iter().map(|message| message.message).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_bundle_that_is_too_large_takes_only_those_behind_it_along() {
    let (_server, nats) = ready().await;
    let queue = NatsQueue::new(&nats);
    let (one, two) = (partition(1), partition(2));
    let large = sized(one, nats.max_payload() + 1);
    let bundles = vec![sized(one, 1), large, sized(one, 2), sized(two, 3), sized(two, 4)];
    let answers = queue.enqueue(bundles).await;
    assert!(matches!(answers[1..3], [Err(PortError::Content(_)), Err(PortError::Content(_))]), "{answers:?}");
    assert!([0, 3, 4].iter().all(|index| answers[*index] == Ok(())), "{answers:?}");
    let sizes = |messages: Vec<eventsourcing::ports::QueuedMessage>| {
        messages.iter().map(|message| message.payload.len()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(queue.read(&[(one, 0)], 10).await.unwrap()), [1]);
    assert_eq!(sizes(queue.read(&[(two, 0)], 10).await.unwrap()), [3, 4]);
}

#[tokio::test]
async fn a_queue_that_was_lost_says_so() {
    let (_server, nats) = ready().await;
    let queue = NatsQueue::new(&nats);
    delete(&nats, "COMMANDS").await;
    let one = partition(1);
    let lost = unavailable(queue.enqueue(vec![bundle(one, &[id("a")])]).await.remove(0));
    assert!(lost.contains("the stream is not there"), "{lost}");
    for lost in [
        unavailable(queue.created_at().await),
        unavailable(queue.message(one, 1).await),
        unavailable(queue.read(&[(one, 0)], 1).await),
    ] {
        assert!(lost.contains("COMMANDS: the stream is not there"), "{lost}");
    }
}

#[tokio::test]
async fn a_record_that_is_too_large_stops_its_publication_before_anything_is_sent() {
    let (_server, nats) = ready().await;
    let bus = NatsBus::for_loops(&nats);
    let (one, two) = (partition(1), partition(2));
    let mut large = records(one, 0, 5);
    let data = format!("\"{}\"", "x".repeat(nats.max_payload()));
    large[3] = Arc::new(Record { data, ..Record::clone(&large[3]) });
    let good = records(two, 0, 5);
    let answers = bus.publish(vec![publication(&large), publication(&good)]).await;
    assert!(matches!(&answers[0], Err(PortError::Content(why)) if why.contains("1-4")), "{answers:?}");
    assert_eq!(answers[1], Ok(()));
    let tails = bus.tails(&[one, two]).await.unwrap();
    assert_eq!((tails[0].last, tails[0].record_id), (Sequence::ZERO, None));
    assert_eq!((tails[1].last, tails[1].record_id), (Sequence::new(5), Some(good[4].record_id)));
}

#[tokio::test]
async fn a_record_as_large_as_the_server_takes_is_published() {
    let (_server, nats) = ready().await;
    let bus = NatsBus::for_loops(&nats);
    let one = partition(1);
    // The largest that is not refused here must not be refused by the server, either.
    let mut most = nats.max_payload();
    loop {
        let mut record = Record::clone(&records(one, 0, 1)[0]);
        record.data = format!("\"{}\"", "x".repeat(most));
        match bus.publish(vec![publication(&[Arc::new(record)])]).await.remove(0) {
            Ok(()) => break,
            Err(PortError::Content(_)) => most -= 16,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(most > nats.max_payload() - 2048);
    assert_eq!(bus.read(&[from(one, 0)], 1).await.unwrap()[0].data.len(), most + 2);
}

#[tokio::test]
async fn what_does_not_belong_on_a_stream_is_refused() {
    let (_server, nats) = ready().await;
    let bus = NatsBus::for_loops(&nats);
    let (one, two) = (partition(1), partition(2));
    let gap = vec![records(one, 0, 1).remove(0), records(one, 2, 1).remove(0)];
    let foreign = Publication { partition: two, ..publication(&records(one, 0, 1)) };
    let early = Publication { expected: Sequence::ZERO, ..publication(&records(one, 1, 1)) };
    for answer in bus.publish(vec![publication(&gap), foreign, early]).await {
        assert!(matches!(answer, Err(PortError::Broken(_))), "{answer:?}");
    }
    let named = Record { event_type: Cow::Borrowed("A.B"), ..Record::clone(&records(one, 0, 1)[0]) };
    let answer = bus.publish(vec![publication(&[Arc::new(named)])]).await.remove(0);
    assert!(matches!(answer, Err(PortError::Content(_))), "{answer:?}");
    publish(&bus, &records(one, 0, 2)).await;
    for expected in [records(one, 0, 3), records(one, 1, 1), records(one, 5, 1)] {
        let answer = bus.publish(vec![publication(&expected)]).await.remove(0);
        assert!(matches!(answer, Err(PortError::Conflict(_))), "{answer:?}");
    }
    assert_eq!(bus.tails(&[one]).await.unwrap()[0].last, Sequence::new(2));
}

#[tokio::test]
async fn a_message_of_somebody_else_breaks_the_stream_for_all_to_see() {
    let (_server, nats) = ready().await;
    let bus = NatsBus::for_loops(&nats);
    let one = partition(1);
    nats.client().request("financing.events.1.thing.Forged", "{}".into()).await.unwrap();
    for broken in [bus.read(&[from(one, 0)], 1).await.map(|_| ()), bus.tails(&[one]).await.map(|_| ())] {
        assert!(matches!(broken, Err(PortError::Broken(_))), "{broken:?}");
    }
}

async fn relay(mut relayer: Relayer<MemoryLog, NatsBus, Here>) {
    while relayer.turn().await.unwrap() != Progress::Idle {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_relayers_that_race_neither_leaves_a_gap_or_a_repeat() {
    let (server, nats) = ready().await;
    let log = MemoryLog::default();
    let partitions: Vec<Partition> = DEPLOYMENT.partitions.all().take(4).collect();
    for partition in &partitions {
        for aggregate in 0..3 {
            append(&log, *partition, aggregate, 700).await;
        }
    }
    let mut racing = Vec::new();
    for nats in [nats.clone(), connected(&server).await] {
        let bus = NatsBus::for_relayer(&nats, streams());
        let relayer = relayer_of(&log, bus, partitions.clone());
        racing.push(tokio::spawn(relay(relayer)));
    }
    for one in racing {
        one.await.unwrap();
    }
    let bus = NatsBus::for_loops(&nats);
    for partition in partitions {
        use eventsourcing::ports::EventLog as _;
        let expected = log.read(&[from(partition, 0)], 10_000).await.unwrap();
        assert_eq!(read_all(&bus, partition, 2100).await, expected);
        assert_eq!(bus.tails(&[partition]).await.unwrap()[0].last, Sequence::new(2100));
    }
}

#[tokio::test]
async fn a_stream_that_was_deleted_is_filled_again_from_the_log() {
    let (_server, nats) = ready().await;
    let (log, one) = (MemoryLog::default(), partition(1));
    let written = append(&log, one, 0, 50).await;
    let bus = NatsBus::for_relayer(&nats, streams());
    let mut relayer = relayer_of(&log, bus.clone(), [one]);
    while relayer.turn().await.unwrap() != Progress::Idle {}
    let reader = NatsBus::for_watchers(&nats);
    assert_eq!(reader.read(&[from(one, 40)], 100).await.unwrap(), written[40..]);

    delete(&nats, "EVENTS_1").await;
    assert!(unavailable(reader.tails(&[one]).await).contains("EVENTS_1"), "only the relayer makes it again");
    relay(relayer_of(&log, bus.clone(), [one])).await;
    assert_eq!(nats.check_events(&streams()).await, Ok(()));
    assert_eq!(NatsBus::for_loops(&nats).read(&[from(one, 0)], 100).await.unwrap(), written);
    assert_eq!(bus.tails(&[one]).await.unwrap()[0].record_id, Some(written[49].record_id));
}

#[tokio::test]
async fn a_stream_whose_messages_were_removed_is_broken_and_not_empty() {
    let (_server, nats) = ready().await;
    let bus = NatsBus::for_relayer(&nats, streams());
    let one = partition(1);
    publish(&bus, &records(one, 0, 3)).await;
    delete(&nats, "EVENTS_1").await;
    let config = json!({"name": "EVENTS_1", "subjects": ["financing.events.1.>"], "first_seq": 100});
    asked(&nats, "STREAM.CREATE.EVENTS_1", &config).await;
    let broken = bus.tails(&[one]).await;
    assert!(matches!(&broken, Err(PortError::Broken(why)) if why.contains("EVENTS_1")), "{broken:?}");
}
