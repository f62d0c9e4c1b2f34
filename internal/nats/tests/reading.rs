//! Reading from any position.

use eventsourcing::ports::{CommandQueue as _, EventBus as _};
use eventsourcing::testkit::contract::sample::{bundle, id, partition};

use super::super::{NatsBus, NatsQueue};
use super::*;

/// Waits until a follower follows: a read of the end is then answered from memory, and what comes rings.
async fn followed(bus: &NatsBus, nats: &Nats, partition: Partition, after: u64) {
    let consumers = format!("CONSUMER.NAMES.EVENTS_{partition}");
    until("a follower", async || {
        assert_eq!(bus.read(&[from(partition, after)], 1).await.map(|read| read.len()), Ok(0));
        let names = asked(nats, &consumers, &json!({})).await;
        (!names["consumers"].as_array()?.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_published_elsewhere_rings_and_is_there() {
    let (server, nats) = ready().await;
    let (reader, writer) = (NatsBus::for_loops(&nats), NatsBus::for_loops(&connected(&server).await));
    let one = partition(1);
    followed(&reader, &nats, one, 0).await;
    for at in 0..20 {
        let bell = reader.bells().hang();
        publish(&writer, &records(one, at, 1)).await;
        tokio::time::timeout(ENOUGH, bell.rung()).await.expect("the bell rings");
        let read = until("the record", async || {
            let read = reader.read(&[from(one, at)], 10).await.unwrap();
            (!read.is_empty()).then_some(read)
        });
        assert_eq!(read.await, records(one, at, 1));
    }
}

#[tokio::test]
async fn an_idle_reader_asks_the_server_nothing() {
    let (_server, nats) = ready().await;
    let reader = NatsBus::for_loops(&nats);
    let one = partition(1);
    followed(&reader, &nats, one, 0).await;
    until("a window that answers", async || {
        let before = nats.client().statistics().out_messages.load(std::sync::atomic::Ordering::Relaxed);
        for _ in 0..100 {
            assert!(reader.read(&[from(one, 0)], 10).await.unwrap().is_empty());
        }
        let after = nats.client().statistics().out_messages.load(std::sync::atomic::Ordering::Relaxed);
        (before == after).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_falls_out_of_the_window_goes_on_without_a_gap() {
    let (server, nats) = ready().await;
    let (reader, writer) =
        (NatsBus::for_loops(&nats), NatsBus::for_relayer(&connected(&server).await, streams()));
    let one = partition(1);
    publish(&writer, &records(one, 0, 5)).await;
    assert_eq!(reader.read(&[from(one, 0)], 10).await.unwrap().len(), 5);
    followed(&reader, &nats, one, 5).await;
    // More than a window holds.
    for at in 0..10 {
        publish(&writer, &records(one, 5 + at * 1000, 1000)).await;
    }
    let mut at = 5;
    while at < 10_005 {
        let read = reader.read(&[from(one, at)], 700).await.unwrap();
        assert_eq!(sequences(&read), (at + 1..=(at + 700).min(10_005)).collect::<Vec<_>>());
        at += read.len() as u64;
    }
    assert!(reader.read(&[from(one, at)], 700).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_at_many_positions_share_one_follower() {
    let (server, nats) = ready().await;
    let (reader, writer) = (NatsBus::for_watchers(&nats), NatsBus::for_loops(&connected(&server).await));
    let one = partition(1);
    publish(&writer, &records(one, 0, 500)).await;
    let watching: Vec<_> = (0..10_u64)
        .map(|watcher| {
            let reader = reader.clone();
            tokio::spawn(async move {
                let mut at = watcher * 50;
                let bell = reader.bells().hang();
                while at < 1500 {
                    let read =
                        reader.read(&[from(one, at)], 30 + usize::try_from(watcher).unwrap()).await.unwrap();
                    if read.is_empty() {
                        bell.rung().await;
                        continue;
                    }
                    assert_eq!(read[0].sequence.get(), at + 1);
                    assert_eq!(sequences(&read), (at + 1..=at + read.len() as u64).collect::<Vec<_>>());
                    at += read.len() as u64;
                }
            })
        })
        .collect();
    followed(&reader, &nats, one, 500).await;
    for at in 0..100 {
        publish(&writer, &records(one, 500 + at * 10, 10)).await;
    }
    for watcher in watching {
        tokio::time::timeout(ENOUGH, watcher).await.expect("every watcher comes to the end").unwrap();
    }
    let names = asked(&nats, "CONSUMER.NAMES.EVENTS_1", &json!({})).await;
    assert_eq!(names["consumers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_watcher_far_ahead_of_the_stream_slows_nobody() {
    let (server, nats) = ready().await;
    let (reader, writer) = (NatsBus::for_watchers(&nats), NatsBus::for_loops(&connected(&server).await));
    let (one, ahead) = (partition(1), 1_000_000_000);
    publish(&writer, &records(one, 0, 5)).await;
    followed(&reader, &nats, one, ahead).await;
    until("a window that answers both", async || {
        let before = nats.client().statistics().out_messages.load(std::sync::atomic::Ordering::Relaxed);
        for _ in 0..100 {
            for after in [ahead, 5] {
                assert!(reader.read(&[from(one, after)], 10).await.unwrap().is_empty());
            }
        }
        let after = nats.client().statistics().out_messages.load(std::sync::atomic::Ordering::Relaxed);
        (before == after).then_some(())
    })
    .await;
    let bell = reader.bells().hang();
    publish(&writer, &records(one, 5, 1)).await;
    tokio::time::timeout(ENOUGH, bell.rung()).await.expect("the bell rings");
    assert_eq!(reader.read(&[from(one, 5)], 10).await.unwrap(), records(one, 5, 1));
    assert!(reader.read(&[from(one, ahead)], 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_that_is_missing_holds_up_no_other_and_its_reader_is_told() {
    let (_server, nats) = ready().await;
    let bus = NatsBus::for_loops(&nats);
    let (one, two) = (partition(1), partition(2));
    publish(&bus, &records(one, 0, 3)).await;
    publish(&bus, &records(two, 0, 3)).await;
    delete(&nats, "EVENTS_1").await;
    let both = |two_at: u64| [from(one, 0), from(two, two_at)];
    for _ in 0..2 {
        assert_eq!(bus.read(&both(0), 100).await.unwrap(), records(two, 0, 3));
        assert!(unavailable(bus.read(&both(3), 100).await).contains("has to be proven again"));
    }
    for _ in 0..2 {
        assert!(unavailable(bus.read(&both(3), 100).await).contains("EVENTS_1: the stream is not there"));
    }
    let watcher = NatsBus::for_watchers(&nats);
    for _ in 0..2 {
        assert_eq!(watcher.read(&both(0), 100).await.unwrap(), records(two, 0, 3));
    }
}

#[tokio::test]
async fn partitions_are_served_in_the_order_of_the_request_wherever_they_are_read_from() {
    let (_server, nats) = ready().await;
    let bus = NatsBus::for_loops(&nats);
    let (one, two, three) = (partition(1), partition(2), partition(3));
    followed(&bus, &nats, two, 0).await;
    for partition in [one, two, three] {
        publish(&bus, &records(partition, 0, 20)).await;
    }
    let read = bus.read(&[from(one, 0), from(two, 0), from(three, 0)], 50).await.unwrap();
    let count = |of: Partition| read.iter().filter(|record| record.partition == of).count();
    assert_eq!(read.len(), 50);
    assert_eq!(count(two), 20);
    let read = bus.read(&[from(two, 0), from(three, 15)], 22).await.unwrap();
    assert_eq!(sequences(&read), (1..=20).chain(16..=17).collect::<Vec<_>>());
    let read = bus.read(&[from(three, 0)], 10).await.unwrap();
    assert_eq!(sequences(&read), (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn large_records_come_in_several_pages() {
    let (_server, nats) = ready().await;
    let writer = NatsBus::for_loops(&nats);
    let one = partition(1);
    let data = format!("\"{}\"", "x".repeat(700_000));
    let large: Vec<Arc<Record>> = records(one, 0, 30)
        .iter()
        .map(|record| Arc::new(Record { data: data.clone(), ..Record::clone(record) }))
        .collect();
    publish(&writer, &large).await;
    let reader = NatsBus::for_watchers(&nats);
    assert_eq!(read_all(&reader, one, 30).await, large);
}

#[tokio::test]
async fn a_purge_reaches_what_is_remembered() {
    let (_server, nats) = ready().await;
    let queue = NatsQueue::new(&nats);
    let one = partition(1);
    assert!(queue.read(&[(one, 0)], 10).await.unwrap().is_empty());
    for name in ["a", "b", "c"] {
        assert_eq!(queue.enqueue(vec![bundle(one, &[id(name)])]).await, [Ok(())]);
    }
    assert_eq!(queue.read(&[(one, 0)], 10).await.unwrap().len(), 3);
    queue.purge(&[(one, 3)]).await.unwrap();
    let left = queue.read(&[(one, 0)], 10).await.unwrap();
    assert_eq!(left.iter().map(|message| message.message).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn nobody_follows_for_a_handle_that_is_gone() {
    let (_server, nats) = ready().await;
    let bus = NatsBus::for_loops(&nats);
    let one = partition(1);
    followed(&bus, &nats, one, 0).await;
    drop(bus);
    // The server keeps it for a while, for nobody.
    until("nobody listens", async || {
        let names = asked(&nats, "CONSUMER.NAMES.EVENTS_1", &json!({})).await;
        let Some(name) = names["consumers"].as_array()?.first() else { return Some(()) };
        let consumer = format!("CONSUMER.INFO.EVENTS_1.{}", name.as_str()?);
        let info = nats.request::<Value>(&consumer, &json!({})).await.unwrap();
        info.is_ok_and(|info| info["push_bound"] != json!(true)).then_some(())
    })
    .await;
}
