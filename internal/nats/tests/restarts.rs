//! Servers that go away, come back, or come back as another.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use eventsourcing::ports::{CommandQueue as _, EventBus as _, EventLog as _, QueuePosition};
use eventsourcing::queue::prove;
use eventsourcing::relayer::Relayer;
use eventsourcing::testkit::contract::sample::{append, bundle, id, partition};
use eventsourcing::testkit::memory::MemoryLog;
use eventsourcing::turn::{Trouble, Turn as _};

use super::super::queue::Commands;
use super::super::tails::Tails;
use super::super::{NatsBus, NatsQueue};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reader_is_told_once_that_the_connection_was_made_anew() {
    let (mut server, nats) = ready().await;
    let one = partition(1);
    let (loops, watchers, queue) =
        (NatsBus::for_loops(&nats), NatsBus::for_watchers(&nats), NatsQueue::new(&nats));
    let other = loops.clone();
    publish(&loops, &records(one, 0, 3)).await;
    assert_eq!(queue.enqueue(vec![bundle(one, &[id("a")])]).await, [Ok(())]);
    for bus in [&loops, &other, &watchers] {
        assert_eq!(bus.read(&[from(one, 0)], 10).await.unwrap().len(), 3);
    }
    assert_eq!(queue.read(&[(one, 0)], 10).await.unwrap().len(), 1);
    let bell = loops.bells().hang();
    // In peace: what the bus has not flushed yet, a kill would take along.
    server.stop();
    server.start_again();
    back(&nats).await;
    tokio::time::timeout(ENOUGH, bell.rung()).await.expect("who waits is woken to look again");
    for bus in [&loops, &other] {
        assert!(unavailable(bus.read(&[from(one, 3)], 10).await).contains("the connection was made anew"));
        assert_eq!(bus.read(&[from(one, 0)], 10).await.unwrap(), records(one, 0, 3));
    }
    assert!(unavailable(queue.read(&[(one, 1)], 10).await).contains("the connection was made anew"));
    assert_eq!(queue.read(&[(one, 0)], 10).await.unwrap().len(), 1);
    assert_eq!(watchers.read(&[from(one, 1)], 10).await.unwrap().len(), 2, "watchers prove nothing");
    assert_eq!(watchers.clone().read(&[from(one, 3)], 10).await, Ok(Vec::new()));
}

#[tokio::test]
async fn without_a_server_nothing_waits_long_and_nothing_is_sent_later() {
    let (mut server, nats) = ready().await;
    let (one, queue, bus) = (partition(1), NatsQueue::new(&nats), NatsBus::for_loops(&nats));
    server.kill();
    until("the connection is lost", async || (!nats.is_connected()).then_some(())).await;
    unavailable(queue.enqueue(vec![bundle(one, &[id("a")])]).await.remove(0));
    unavailable(bus.publish(vec![publication(&records(one, 0, 1))]).await.remove(0));
    unavailable(bus.tails(&[one]).await);
    unavailable(queue.purge(&[(one, 5)]).await);
    unavailable(queue.created_at().await);
    unavailable(queue.read(&[(one, 0)], 1).await);
    server.start_again();
    back(&nats).await;
    unavailable(queue.read(&[(one, 0)], 1).await);
    assert!(queue.read(&[(one, 0)], 1).await.unwrap().is_empty(), "what failed was not sent later");
    assert_eq!(bus.tails(&[one]).await.unwrap()[0].last, Sequence::ZERO);
}

#[tokio::test]
async fn what_was_proven_over_an_earlier_connection_purges_nothing_over_the_next() {
    let (mut server, nats) = ready().await;
    let (one, queue) = (partition(1), NatsQueue::new(&nats));
    for name in ["a", "b", "c"] {
        assert_eq!(queue.enqueue(vec![bundle(one, &[id(name)])]).await, [Ok(())]);
    }
    assert_eq!(queue.read(&[(one, 0)], 10).await.unwrap().len(), 3);
    server.stop();
    server.start_again();
    back(&nats).await;
    for _ in 0..2 {
        assert!(unavailable(queue.purge(&[(one, 3)]).await).contains("has to be proven again"));
    }
    unavailable(queue.read(&[(one, 0)], 10).await);
    assert_eq!(queue.read(&[(one, 0)], 10).await.unwrap().len(), 3, "nothing was purged");
    assert_eq!(queue.purge(&[(one, 3)]).await, Ok(()), "who was told may purge again");
    assert_eq!(queue.read(&[(one, 0)], 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_done_under_a_proof_is_not_gone_on_with_behind_another_connection() {
    let (mut server, nats) = ready().await;
    let tails = Tails::new(nats.clone(), Commands, true);
    let (go, may_go) = tokio::sync::oneshot::channel::<()>();
    let gone_on = AtomicBool::new(false);
    let doing = tails.while_proven(async {
        may_go.await.unwrap();
        gone_on.store(true, Ordering::Relaxed);
        Ok(())
    });
    let turning = async {
        server.stop();
        server.start_again();
        back(&nats).await;
        // Nobody may be there to hear it any more.
        let _given_up = go.send(());
    };
    let (done, ()) = tokio::join!(doing, turning);
    unavailable(done);
    assert!(!gone_on.load(Ordering::Relaxed));
}

/// A reader as a loop is: it forgets where it is on an error, and begins where it has stored.
pub(super) async fn follow_through(
    bus: NatsBus,
    partition: Partition,
    count: u64,
) -> (Vec<Arc<Record>>, u32) {
    let mut seen: Vec<Arc<Record>> = Vec::new();
    let mut told = 0;
    let bell = bus.bells().hang();
    while (seen.len() as u64) < count {
        match bus.read(&[from(partition, seen.len() as u64)], 100).await {
            Ok(read) if read.is_empty() => {
                // As the loops do: a bell that is lost costs a poll.
                let _poll = tokio::time::timeout(Duration::from_millis(100), bell.rung()).await;
            }
            Ok(read) => seen.extend(read),
            Err(PortError::Unavailable(why)) => {
                told += u32::from(why.contains("the connection was made anew"));
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (seen, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_publish_and_read_leaves_no_gap() {
    let (mut server, nats) = ready().await;
    let (log, one) = (MemoryLog::default(), partition(1));
    let reading = tokio::spawn(follow_through(NatsBus::for_loops(&nats), one, 4000));
    let bus = NatsBus::for_relayer(&connected(&server).await, streams());
    let mut relayer = relayer_of(&log, bus.clone(), [one]);
    for round in 0..4 {
        append(&log, one, round, 1000).await;
        let relaying = tokio::spawn(async move {
            // Retries are what the relayer's driver does.
            for _ in 0..3 {
                let _trouble = relayer.turn().await;
            }
            relayer
        });
        server.kill();
        server.start_again();
        relayer = relaying.await.unwrap();
    }
    until("everything is published", async || {
        let _retried = relayer_turn(&mut relayer_of(&log, bus.clone(), [one])).await;
        bus.tails(&[one]).await.is_ok_and(|tails| tails[0].last == Sequence::new(4000)).then_some(())
    })
    .await;
    let (seen, told) =
        tokio::time::timeout(ENOUGH, reading).await.expect("the reader comes to the end").unwrap();
    assert_eq!(seen, log.read(&[from(one, 0)], 10_000).await.unwrap());
    assert!((1..=4).contains(&told), "told {told} times of 4");
}

async fn relayer_turn(relayer: &mut Relayer<MemoryLog, NatsBus, Here>) -> Result<(), Trouble> {
    relayer.turn().await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundles_keep_their_order_when_the_server_is_killed_under_them() {
    let (mut server, nats) = ready().await;
    let queue = NatsQueue::new(&nats);
    let partitions = [partition(1), partition(2)];
    let enqueuing = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut stored = [0_u64; 2];
            while stored != [300, 300] {
                let next: Vec<(usize, u64)> =
                    [0, 1].into_iter().flat_map(|place| (1..=5).map(move |more| (place, more))).collect();
                let bundles = next
                    .iter()
                    .map(|(place, more)| {
                        let number = (stored[*place] + more).min(300);
                        bundle(partitions[*place], &[Uuid::from_u128(number.into())])
                    })
                    .collect();
                let answers = queue.enqueue(bundles).await;
                for ((place, _), answer) in next.iter().zip(&answers) {
                    stored[*place] = (stored[*place] + u64::from(answer.is_ok())).min(300);
                }
                for place in [0, 1] {
                    let own = &answers[place * 5..place * 5 + 5];
                    assert!(own.is_sorted_by_key(Result::is_err), "behind a failure all fail: {own:?}");
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..3 {
        server.kill();
        server.start_again();
        back(&nats).await;
    }
    tokio::time::timeout(ENOUGH, enqueuing).await.expect("everything is stored").unwrap();
    let queue = NatsQueue::new(&nats);
    for partition in partitions {
        let messages = queue.read(&[(partition, 0)], 100_000).await.unwrap();
        let mut last = 0;
        for message in messages {
            let slots = eventsourcing::command::unpack(partition, message.message, &message.payload);
            let number = u64::try_from(slots[0].command_id().as_u128()).unwrap();
            assert!(number <= last + 1, "{number} comes after {last}: one was overtaken");
            last = last.max(number);
        }
        assert_eq!(last, 300);
    }
}

/// Where a worker stands that has worked off this message, whose first command has this id.
async fn position(queue: &NatsQueue, message: u64, first: &str) -> QueuePosition {
    let created_at = queue.created_at().await.unwrap();
    let stored = queue.message(partition(1), message).await.unwrap().expect("it is there");
    QueuePosition { created_at, message, mark: stored.mark(id(first)), index: 0 }
}

async fn halted(queue: &NatsQueue, position: QueuePosition) -> String {
    match prove(queue, partition(1), position).await {
        Err(Trouble::Halt(why)) => why,
        other => panic!("{other:?} is no halt"),
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_was_restored_to_an_earlier_state_halts_its_reader() {
    let (mut server, nats) = ready().await;
    let (queue, one) = (NatsQueue::new(&nats), partition(1));
    assert_eq!(queue.enqueue(vec![bundle(one, &[id("a")])]).await, [Ok(())]);
    server.stop();
    let saved = tempfile::tempdir().unwrap();
    copy(&server.store(), saved.path());
    server.start_again();
    back(&nats).await;
    assert_eq!(queue.enqueue(vec![bundle(one, &[id("b")]), bundle(one, &[id("c")])]).await, [Ok(()), Ok(())]);
    unavailable(queue.read(&[(one, 0)], 10).await);
    assert_eq!(queue.read(&[(one, 0)], 10).await.unwrap().len(), 3);
    let at = position(&queue, 3, "c").await;
    prove(&queue, one, at).await.unwrap();

    server.stop();
    std::fs::remove_dir_all(server.store()).unwrap();
    copy(saved.path(), &server.store());
    server.start_again();
    back(&nats).await;
    unavailable(queue.read(&[(one, 3)], 10).await);
    assert!(halted(&queue, at).await.contains("the message is missing"));
    // And when others have come in the meantime, under the same numbers.
    assert_eq!(queue.enqueue(vec![bundle(one, &[id("d")]), bundle(one, &[id("e")])]).await, [Ok(()), Ok(())]);
    assert!(halted(&queue, at).await.contains("the message is another"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_was_lost_and_made_anew_halts_its_reader_though_the_connection_stays() {
    let (_server, nats) = ready().await;
    let (queue, one) = (NatsQueue::new(&nats), partition(1));
    assert_eq!(queue.enqueue(vec![bundle(one, &[id("a")])]).await, [Ok(())]);
    let at = position(&queue, 1, "a").await;
    assert!(queue.read(&[(one, 1)], 10).await.unwrap().is_empty());
    delete(&nats, "COMMANDS").await;
    nats.ensure_queues(&streams()).await.unwrap();
    // Nothing more comes from the stream that is gone: the follower notices, and the reader is told.
    let told = until("the reader is told", async || {
        let bell = queue.bells().hang();
        match queue.read(&[(one, 1)], 10).await {
            Err(PortError::Unavailable(why)) => Some(why),
            Ok(read) if read.is_empty() => {
                bell.rung().await;
                None
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert!(told.contains("has to be proven again"), "{told}");
    assert!(halted(&queue, at).await.contains("the stream was created anew"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_the_bus_lost_is_published_again_with_the_same_numbers() {
    let (mut server, nats) = ready().await;
    let (log, one) = (MemoryLog::default(), partition(1));
    let bus = NatsBus::for_relayer(&nats, streams());
    append(&log, one, 0, 10).await;
    relayer_of(&log, bus.clone(), [one]).turn().await.unwrap();
    server.stop();
    let saved = tempfile::tempdir().unwrap();
    copy(&server.store(), saved.path());
    server.start_again();
    back(&nats).await;
    append(&log, one, 1, 10).await;
    let mut relayer = relayer_of(&log, bus.clone(), [one]);
    relayer.turn().await.unwrap();
    let reader = NatsBus::for_watchers(&nats);
    let all = log.read(&[from(one, 0)], 100).await.unwrap();
    assert_eq!(reader.read(&[from(one, 0)], 100).await.unwrap(), all);

    server.stop();
    std::fs::remove_dir_all(server.store()).unwrap();
    copy(saved.path(), &server.store());
    server.start_again();
    back(&nats).await;
    assert_eq!(bus.tails(&[one]).await.unwrap()[0].last, Sequence::new(10));
    assert!(reader.read(&[from(one, 20)], 100).await.unwrap().is_empty(), "who is ahead waits");
    append(&log, one, 2, 5).await;
    let watching = tokio::spawn({
        let reader = reader.clone();
        async move { follow_from(reader, one, 20, 5).await }
    });
    until("the tail is there again", async || {
        let _conflict = relayer.turn().await;
        bus.tails(&[one]).await.is_ok_and(|tails| tails[0].last == Sequence::new(25)).then_some(())
    })
    .await;
    let all = log.read(&[from(one, 0)], 100).await.unwrap();
    assert_eq!(reader.read(&[from(one, 0)], 100).await.unwrap(), all);
    assert_eq!(tokio::time::timeout(ENOUGH, watching).await.unwrap().unwrap(), all[20..]);
}

async fn follow_from(bus: NatsBus, partition: Partition, after: u64, count: usize) -> Vec<Arc<Record>> {
    let mut seen = Vec::new();
    let bell = bus.bells().hang();
    while seen.len() < count {
        let read = bus.read(&[from(partition, after + seen.len() as u64)], 100).await.unwrap();
        if read.is_empty() {
            bell.rung().await;
        }
        seen.extend(read);
    }
    seen
}
