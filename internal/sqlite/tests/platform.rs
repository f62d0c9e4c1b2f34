//! Log, queue and bus: fences, histories, memory, two stores on one file.

use super::*;

#[tokio::test]
async fn what_is_written_is_not_changed_or_deleted() {
    let directory = temporary();
    let store = alone(directory.path()).await;
    append(&store.log(), partition(1), 0, 1).await;
    for sql in [
        "UPDATE records SET data = '{}'",
        "DELETE FROM records",
        "UPDATE inbox SET verdict = '{}'",
        "DELETE FROM inbox",
    ] {
        let refused = change(directory.path(), sql).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
}

#[tokio::test]
async fn a_stale_part_is_fenced_and_the_others_are_committed() {
    let directory = temporary();
    let log = alone(directory.path()).await.log();
    let mut owners = Vec::new();
    for index in 0..5 {
        let mut owner = Owner::take_over(&log, partition(index)).await;
        owner.write(&log, owner.facts(&aggregate(partition(index), 0), 1, 2)).await;
        owners.push(owner);
    }
    let mut parts: Vec<_> =
        owners.iter().map(|owner| owner.part(owner.facts(&aggregate(owner.partition, 0), 3, 1))).collect();
    // An older owner's epoch; a position that was passed; a position that the first owner never had.
    log.take_over(&[partition(1)]).await.unwrap();
    parts[2].expected.position.as_mut().unwrap().index = 9;
    parts[3].expected.position = None;
    // Only the position moves.
    parts[4].records.clear();
    parts[4].inbox.clear();
    parts[4].snapshots.push(snapshot(&aggregate(partition(4), 0), 2));
    let answers = log.commit(parts.clone()).await.unwrap();
    assert_eq!(answers, [Commit::Done, Commit::Fenced, Commit::Fenced, Commit::Fenced, Commit::Done]);
    let after: Vec<_> = (0..5).map(|index| from(partition(index), 0)).collect();
    let heads: Vec<u64> = log
        .rows(&after.iter().map(|(partition, _)| *partition).collect::<Vec<_>>())
        .await
        .unwrap()
        .iter()
        .map(|(_, row)| row.head.get())
        .collect();
    assert_eq!(heads, [3, 2, 2, 2, 2]);
    assert_eq!(log.read(&after, 100).await.unwrap().len(), 11);
    assert_eq!(log.rows(&[partition(4)]).await.unwrap()[0].1, parts[4].row_after());
    // The same once more: a stale head.
    assert_eq!(log.commit(vec![parts[0].clone()]).await.unwrap(), [Commit::Fenced]);
}

#[tokio::test]
async fn a_command_id_that_was_stored_elsewhere_is_a_conflict_and_a_taken_version_is_not() {
    let directory = temporary();
    let log = alone(directory.path()).await.log();
    let first = append(&log, partition(1), 0, 1).await;
    let owner = Owner::take_over(&log, partition(2)).await;
    let mut part = owner.part(owner.facts(&aggregate(partition(2), 0), 1, 1));
    part.inbox[0].outcome.command_id = first[0].command_id;
    assert!(matches!(log.commit(vec![part]).await, Err(PortError::Conflict(_))));
    let part = owner.part(owner.facts(&first[0].aggregate, 1, 1));
    assert!(matches!(log.commit(vec![part]).await, Err(PortError::Broken(_))));
    assert!(log.read(&[from(partition(2), 0)], 10).await.unwrap().is_empty(), "nothing of it is there");
    let part = owner.part(owner.facts(&aggregate(partition(2), 0), 2, 1));
    let mut gap = part.clone();
    gap.records[0].sequence = Sequence::new(5);
    assert!(log.commit(vec![gap]).await.is_err(), "sequences follow the head");
    assert_eq!(log.commit(vec![part]).await.unwrap(), [Commit::Done]);
}

#[tokio::test]
async fn a_full_history_leaves_the_snapshot_alone() {
    let directory = temporary();
    let log = alone(directory.path()).await.log();
    let one = partition(1);
    let mut owner = Owner::take_over(&log, one).await;
    let mut part = owner.part(owner.facts(&aggregate(one, 0), 1, 300));
    part.snapshots.push(snapshot(&aggregate(one, 0), 200));
    owner.commit(&log, part).await;
    let request = LoadRequest { aggregates: vec![aggregate(one, 0)], ..LoadRequest::default() };
    let loaded = EventLog::load(&log, &request).await.unwrap();
    assert_eq!((loaded.histories[0].snapshot.is_some(), loaded.histories[0].events.len()), (true, 100));
    let loaded = EventLog::load(&log, &LoadRequest { full: true, ..request }).await.unwrap();
    assert_eq!((loaded.histories[0].snapshot.is_some(), loaded.histories[0].events.len()), (false, 300));
}

#[tokio::test]
async fn a_reader_far_behind_gets_everything_and_every_partition_its_share() {
    let directory = temporary();
    let written = {
        let store = alone(directory.path()).await;
        let written = append(&store.log(), partition(1), 0, 1000).await;
        append(&store.log(), partition(2), 0, 3).await;
        store.close().await;
        written
    };
    // Nothing of it is in memory now; what comes is.
    let log = alone(directory.path()).await.log();
    let mut owner = Owner::take_over(&log, partition(1)).await;
    let more = owner.write(&log, owner.facts(&aggregate(partition(1), 0), 1001, 10)).await;
    let (mut at, mut seen) = (0, Vec::new());
    while at < 1010 {
        let found = log.read(&[from(partition(1), at), from(partition(2), 0)], 64).await.unwrap();
        assert!(found.len() <= 64);
        let others = found.iter().filter(|record| record.partition == partition(2)).count();
        assert_eq!(others, 3, "a long partition does not starve a short one");
        seen.extend(found.into_iter().filter(|record| record.partition == partition(1)));
        at = seen.last().unwrap().sequence.get();
    }
    assert_eq!(seen, [written, more].concat());
}

#[tokio::test]
async fn two_stores_on_one_directory_see_each_others_commits() {
    let directory = temporary();
    let (left, right) = (shared(directory.path()).await, shared(directory.path()).await);
    let one = partition(1);
    let mut owner = Owner::take_over(&left.log(), one).await;
    for round in 0..5_u64 {
        // Each writes what the other must see, alternately, so that neither's memory is without gaps.
        let log = if round % 2 == 0 { left.log() } else { right.log() };
        let records = owner.write(&log, owner.facts(&aggregate(one, 0), 1 + round * 2, 2)).await;
        let bus = if round % 2 == 0 { right.bus() } else { left.bus() };
        let publication = Publication { partition: one, expected: Sequence::new(round * 2), records };
        assert_eq!(bus.publish(vec![publication]).await, [Ok(())]);
        let queue = if round % 2 == 0 { left.queue() } else { right.queue() };
        assert_eq!(queue.enqueue(vec![bundle(one, &[id(&round.to_string())])]).await, [Ok(())]);
    }
    for store in [&left, &right] {
        for after in 0..=10 {
            let expected: Vec<u64> = (after + 1..=10).collect();
            let mut log = Vec::new();
            let mut bus = Vec::new();
            // A read may stop where the memory stops; the next goes on.
            for _ in 0..10 {
                let at = log.last().copied().unwrap_or(after);
                log.extend(sequences(&store.log().read(&[from(one, at)], 100).await.unwrap()));
                let at = bus.last().copied().unwrap_or(after);
                bus.extend(sequences(&store.bus().read(&[from(one, at)], 100).await.unwrap()));
            }
            assert_eq!((&log, &bus), (&expected, &expected));
        }
        let mut messages = Vec::new();
        for _ in 0..10 {
            let at = messages.last().copied().unwrap_or(0);
            let found = store.queue().read(&[(one, at)], 100).await.unwrap();
            messages.extend(found.iter().map(|message| message.message));
        }
        assert_eq!(messages, [1, 2, 3, 4, 5]);
    }
}

#[tokio::test]
async fn after_a_commit_in_doubt_the_file_is_asked() {
    let directory = temporary();
    let store = alone(directory.path()).await;
    append(&store.log(), partition(1), 0, 1).await;
    // A commit that happened and was not acknowledged.
    let other = shared(directory.path()).await;
    let owner = Owner::take_over(&other.log(), partition(1)).await;
    let part = owner.part(owner.facts(&aggregate(partition(1), 0), 2, 1));
    assert_eq!(other.log().commit(vec![part]).await.unwrap(), [Commit::Done]);
    store.log().0.memory.doubt();
    assert_eq!(sequences(&store.log().read(&[from(partition(1), 0)], 10).await.unwrap()), [1, 2]);
}

#[tokio::test]
async fn a_full_queue_refuses_until_commands_are_worked_off() {
    let directory = temporary();
    let lock = DirectoryLock::acquire(directory.path()).unwrap();
    let store =
        PlatformStore::open_with(directory.path(), Access::Alone(lock), &DEPLOYMENT, 100).await.unwrap();
    let (one, two) = (partition(1), partition(2));
    let of = |partition, bytes| Bundle { partition, commands: 1, payload: vec![b' '; bytes] };
    let queue = store.queue();
    let answers = queue.enqueue(vec![of(one, 60), of(one, 60), of(one, 10), of(two, 40)]).await;
    assert!(answers[0].is_ok() && answers[3].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(PortError::Full(_))));
    assert!(matches!(answers[2], Err(PortError::Full(_))), "it may not overtake the one before it");
    assert!(matches!(queue.enqueue(vec![of(two, 1)]).await[..], [Err(PortError::Full(_))]));
    // The worker passes the first message: it need not be purged for that.
    let log = store.log();
    let mut owner = Owner::take_over(&log, one).await;
    let mut part = owner.part(owner.facts(&aggregate(one, 0), 1, 1));
    part.position.message = 2;
    owner.commit(&log, part).await;
    assert_eq!(queue.enqueue(vec![of(two, 60)]).await, [Ok(())]);
    assert!(matches!(queue.enqueue(vec![of(two, 1)]).await[..], [Err(PortError::Full(_))]));
}

#[tokio::test]
async fn the_bus_takes_only_records_that_the_log_has() {
    let directory = temporary();
    let store = alone(directory.path()).await;
    let one = partition(1);
    let records = append(&store.log(), one, 0, 3).await;
    let mut foreign = Record::clone(&records[0]);
    foreign.record_id = id("of another log");
    let publish = async |records: &[Arc<Record>]| {
        let publication = Publication { partition: one, expected: Sequence::ZERO, records: records.to_vec() };
        store.bus().publish(vec![publication]).await.remove(0)
    };
    assert!(matches!(publish(&[Arc::new(foreign)]).await, Err(PortError::Conflict(_))));
    let gap = [Arc::clone(&records[0]), Arc::clone(&records[2])];
    assert!(matches!(publish(&gap).await, Err(PortError::Conflict(_))));
    assert_eq!(publish(&records).await, Ok(()));
    assert!(matches!(publish(&records).await, Err(PortError::Conflict(_))), "once");
}

#[tokio::test]
async fn bells_ring_after_the_commit() {
    let directory = temporary();
    let store = alone(directory.path()).await;
    let models = models(directory.path()).await;
    let signals = store.signals().clone();
    let bells =
        [&signals.commands, &signals.records, &signals.relayed, models.projected()].map(Doorbells::hang);
    let one = partition(1);
    store.queue().enqueue(vec![bundle(one, &[id("a")])]).await.remove(0).unwrap();
    bells[0].rung().await;
    let records = append(&store.log(), one, 0, 1).await;
    bells[1].rung().await;
    let publication = Publication { partition: one, expected: Sequence::ZERO, records };
    store.bus().publish(vec![publication]).await.remove(0).unwrap();
    bells[2].rung().await;
    let checkpoint = CheckpointMove { partition: one, from: Sequence::ZERO, to: Sequence::new(1) };
    models
        .apply(vec![ProjectionStep { checkpoint, record_id: id("record"), changes: Vec::new() }])
        .await
        .unwrap();
    bells[3].rung().await;
}

#[tokio::test]
async fn watchers_that_stand_still_hold_up_nobody() {
    // given a log that is in no memory, and far more watchers than connections, each stopped in the middle of a read
    let directory = temporary();
    let one = partition(1);
    let store = alone(directory.path()).await;
    let records = append(&store.log(), one, 0, 20).await;
    let publication = Publication { partition: one, expected: Sequence::ZERO, records };
    store.bus().publish(vec![publication]).await.remove(0).unwrap();
    store.close().await;
    drop(store);
    let store = alone(directory.path()).await;
    let (bus, after) = (store.watched_bus(), [(one, Sequence::ZERO)]);
    let mut standing: Vec<_> = (0..50).map(|_| Box::pin(bus.read(&after, 10))).collect();
    for watcher in &mut standing {
        assert!(matches!(futures_util::poll!(watcher.as_mut()), Poll::Pending));
    }
    // then a loop reads, another watcher reads, and the store closes
    assert_eq!(store.bus().read(&after, 10).await.unwrap().len(), 10);
    assert_eq!(bus.read(&after, 10).await.unwrap().len(), 10);
    store.close().await;
}
