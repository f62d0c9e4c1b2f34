use std::sync::Arc;

use super::*;
use crate::partition::Sequence;
use crate::ports::{CommandQueue, EventBus, EventLog, PartitionCommit, Publication};
use crate::queue::prove;
use crate::record::Record;
use crate::testkit::contract::sample::{
    Owner, aggregate, append, bundle, fact, id, partition, position, snapshot,
};
use crate::testkit::world::World;
use crate::turn::Trouble;

fn run<F: Future + 'static>(future: F) -> F::Output {
    World::new(1).block_on(future, 100_000).unwrap()
}

#[test]
fn a_log_in_memory_refuses_what_would_break_an_invariant() {
    run(async {
        let (one, log) = (partition(1), MemoryLog::default());
        let a = aggregate(one, 0);
        let mut owner = Owner::take_over(&log, one).await;
        owner.write(&log, owner.facts(&a, 1, 2)).await;
        let next = || owner.facts(&a, 3, 1);
        let whole = owner.part(next());
        let broken: Vec<(&str, PartitionCommit)> = vec![
            ("a gap in the sequences", owner.part(vec![fact(one, 4, &a, 3)])),
            ("a sequence twice", owner.part(vec![Record { command_id: id("new"), ..fact(one, 2, &a, 3) }])),
            ("a gap in the versions", owner.part(owner.facts(&a, 4, 1))),
            ("a version twice", owner.part(owner.facts(&a, 2, 1))),
            ("another partition's record", owner.part(vec![fact(partition(2), 3, &a, 3)])),
            ("no outcome", PartitionCommit { inbox: Vec::new(), ..whole.clone() }),
            ("an outcome without a record", PartitionCommit { records: Vec::new(), ..whole.clone() }),
            ("a step back", PartitionCommit { position: position(one, 0), ..whole.clone() }),
            ("a snapshot ahead", PartitionCommit { snapshots: vec![snapshot(&a, 4)], ..whole.clone() }),
        ];
        let before = (log.all_records(), log.row(one), log.inbox());
        for (what, part) in broken {
            let answer = log.commit(vec![part]).await;
            assert!(matches!(answer, Err(PortError::Broken(_))), "{what}: {answer:?}");
            assert_eq!((log.all_records(), log.row(one), log.inbox()), before, "{what}");
        }
        assert!(matches!(log.commit(vec![whole.clone(), whole.clone()]).await, Err(PortError::Broken(_))));
        log.refuse_content(Some("1-3"));
        assert!(matches!(log.commit(vec![whole.clone()]).await, Err(PortError::Content(_))));
        log.refuse_content(None);
        owner.commit(&log, whole).await;
    });
}

#[test]
fn a_bus_keeps_its_own_copy() {
    run(async {
        let (one, log, bus) = (partition(1), MemoryLog::default(), MemoryBus::default());
        let early = log.save();
        let records = append(&log, one, 0, 5).await;
        let publication = |from: u64, records: &[Arc<_>]| Publication {
            partition: one,
            expected: Sequence::new(from),
            records: records.to_vec(),
        };
        let gap: Vec<_> = [&records[0], &records[2]].into_iter().cloned().collect();
        assert!(matches!(bus.publish(vec![publication(0, &gap)]).await[0], Err(PortError::Broken(_))));
        assert_eq!(bus.publish(vec![publication(0, &records)]).await, [Ok(())]);
        log.restore(early);
        assert_eq!((log.records(one).len(), bus.stream(one).len()), (0, 5), "the log is behind the bus");
        bus.truncate(one, Sequence::new(2));
        assert_eq!(bus.stream(one), records[..2], "the bus lost its end");
        assert_eq!(bus.publish(vec![publication(2, &records[2..])]).await, [Ok(())]);
    });
}

#[test]
fn a_queue_that_was_tampered_with_is_not_the_one_that_is_remembered() {
    run(async {
        let (one, queue) = (partition(1), MemoryQueue::new(5));
        let empty = queue.save();
        queue.enqueue(vec![bundle(one, &[id("a")]), bundle(one, &[id("b")])]).await;
        let stored = queue.message(one, 2).await.unwrap().unwrap();
        let mark = stored.mark(id("b"));
        let position = crate::ports::QueuePosition { created_at: 5, message: 2, mark, index: 0 };
        assert!(prove(&queue, one, position).await.is_ok());
        let whole = queue.save();
        let halts = async |what: &str| {
            let answer = prove(&queue, one, position).await;
            assert!(matches!(answer, Err(Trouble::Halt(_))), "{what}: {answer:?}");
            queue.restore(whole.clone());
        };
        assert!(queue.overwrite(one, 2, b"garbage"));
        halts("overwritten").await;
        assert!(queue.lose(one, 2) && !queue.lose(one, 2));
        halts("lost").await;
        queue.recreate(6);
        queue.push(one, &bundle(one, &[id("a")]).payload);
        queue.push(one, &bundle(one, &[id("b")]).payload);
        halts("created anew").await;
        queue.restore(empty.clone());
        queue.push(one, b"[]");
        assert_eq!(queue.push(one, b"[]"), 2, "a restore forgets which numbers were given");
        halts("restored").await;
        queue.restore(empty.clone());
        queue.push(one, &bundle(one, &[id("a")]).payload);
        queue.push(one, &bundle(one, &[id("b")]).payload);
        halts("restored, and the same stored again").await;
        assert!(prove(&queue, one, position).await.is_ok());
    });
}
