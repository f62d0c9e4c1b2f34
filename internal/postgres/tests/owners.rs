//! The log: fences, locks, what is refused, histories.

use super::*;

/// Somebody waits for a lock in this session's database.
const SOMEBODY_WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
     AND wait_event_type = 'Lock')";

#[tokio::test]
async fn what_is_written_is_not_changed_or_deleted() {
    let database = services().database();
    append(&log(&database).await, partition(1), 0, 1).await;
    let mut session = owner(&database).session().await.unwrap();
    for sql in [
        "UPDATE records SET data = '{}'",
        "DELETE FROM records",
        "DELETE FROM records WHERE false",
        "TRUNCATE records",
        "UPDATE inbox SET verdict = '{}'",
        "DELETE FROM inbox",
        "TRUNCATE inbox",
        "TRUNCATE snapshots, inbox",
    ] {
        let refused = session.execute(sql).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
    for sql in ["DELETE FROM records", "UPDATE inbox SET verdict = '{}'"] {
        let refused = database.psql(&format!(
            "SET session_replication_role = replica; DO $$ BEGIN {sql}; RAISE 'it was done'; \
             EXCEPTION WHEN OTHERS THEN PERFORM set_config('tests.said', SQLERRM, false); END $$; \
             SELECT current_setting('tests.said')"
        ));
        assert!(refused.contains("append-only"), "the superuser with triggers off: {refused}");
    }
}

#[tokio::test]
async fn an_owner_that_waited_for_its_successor_is_fenced() {
    let database = services().database();
    let log = log(&database).await;
    let (one, two) = (partition(1), partition(2));
    let mut zombie = Owner::take_over(&log, one).await;
    zombie.write(&log, zombie.facts(&aggregate(one, 0), 1, 1)).await;
    let mut innocent = Owner::take_over(&log, two).await;
    let part = zombie.part(zombie.facts(&aggregate(one, 0), 2, 1));
    let before = log.rows(&[one]).await.unwrap()[0].1;

    // given a successor whose takeover is not committed yet, and which has worked off the same command
    let mut successor = owner(&database).session().await.unwrap();
    successor.execute("BEGIN").await.unwrap();
    successor.execute("UPDATE partitions SET epoch = epoch + 1 WHERE partition = 1").await.unwrap();
    let known = Values::default().and(part.inbox[0].outcome.command_id).unwrap();
    let inbox = "INSERT INTO inbox VALUES ($1, 1, 2, '', '')";
    successor.rows(inbox, known).await.unwrap();

    // when the old owner commits, with another partition beside it, and has to wait
    let other = innocent.part(innocent.facts(&aggregate(two, 0), 1, 2));
    let commit = tokio::spawn({
        let (log, parts) = (log.clone(), vec![part, other.clone()]);
        async move { log.commit(parts).await }
    });
    let mut observer = owner(&database).session().await.unwrap();
    until(&mut observer, SOMEBODY_WAITS).await;
    successor.execute("COMMIT").await.unwrap();

    // then it is fenced, and conflicts with nothing; and the other partition is committed
    assert_eq!(commit.await.unwrap(), Ok(vec![Commit::Fenced, Commit::Done]));
    innocent.row = other.row_after();
    assert_eq!(log.rows(&[two]).await.unwrap()[0].1, innocent.row);
    let after = log.rows(&[one]).await.unwrap()[0].1;
    assert_eq!(
        (after.epoch, after.head, after.position),
        (before.epoch.next(), before.head, before.position)
    );
    assert_eq!(log.read(&[from(one, 0)], 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_owner_that_waited_for_a_takeover_that_failed_goes_on() {
    let database = services().database();
    let log = log(&database).await;
    let one = partition(1);
    let owner_of_one = Owner::take_over(&log, one).await;
    let mut other = owner(&database).session().await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("UPDATE partitions SET epoch = epoch + 1 WHERE partition = 1").await.unwrap();
    let commit = tokio::spawn({
        let (log, part) = (log.clone(), owner_of_one.part(owner_of_one.facts(&aggregate(one, 0), 1, 1)));
        async move { log.commit(vec![part]).await }
    });
    let mut observer = owner(&database).session().await.unwrap();
    until(&mut observer, SOMEBODY_WAITS).await;
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(commit.await.unwrap(), Ok(vec![Commit::Done]));
}

#[tokio::test]
async fn whoever_is_paused_while_it_holds_a_partition_loses_it_within_five_seconds() {
    let database = services().database();
    let log = log(&database).await;
    let one = partition(1);
    let zombie = Owner::take_over(&log, one).await;
    // given a process that stands still in the middle of a transaction, with the partition's row locked
    let mut paused = owner(&database).session().await.unwrap();
    paused.execute("BEGIN").await.unwrap();
    paused.execute("SELECT * FROM partitions WHERE partition = 1 FOR UPDATE").await.unwrap();
    // when another takes the partition over, as often as it has to
    let takeover = async {
        loop {
            match log.take_over(&[one]).await {
                Ok(rows) => break rows[0].1,
                Err(error) => assert!(matches!(error, PortError::Unavailable(_)), "{error}"),
            }
        }
    };
    let row = tokio::time::timeout(Duration::from_secs(5), takeover).await.expect("within five seconds");
    let mut successor = Owner { partition: one, row };
    successor.write(&log, successor.facts(&aggregate(one, 0), 1, 1)).await;
    // then the one that was paused is refused, on its connection and on any other
    let refused = paused.execute("UPDATE partitions SET head = 99 WHERE partition = 1").await.unwrap_err();
    assert!(refused.retryable(), "{refused}");
    assert!(paused.execute("COMMIT").await.is_err(), "its connection is gone");
    let part = zombie.part(zombie.facts(&aggregate(one, 0), 1, 1));
    assert_eq!(log.commit(vec![part]).await, Ok(vec![Commit::Fenced]));
    assert_eq!(log.rows(&[one]).await.unwrap()[0].1, successor.row);
}

#[tokio::test]
async fn many_owners_and_takeovers_at_once_leave_a_log_without_gaps() {
    let database = services().database();
    let (log, other) = (log(&database).await, log(&database).await);
    let all: Vec<Partition> = (0..4).map(partition).collect();
    let work = async |log: PostgresLog, worker: u32, reversed: bool| {
        let mut done = 0;
        for _ in 0..15 {
            let mut asked = all.clone();
            if reversed {
                asked.reverse();
            }
            let rows = log.take_over(&asked).await.unwrap();
            let owners = rows.into_iter().map(|(partition, row)| Owner { partition, row });
            let parts: Vec<_> = owners
                .map(|owner| {
                    let mut records = owner.facts(&aggregate(owner.partition, worker), 0, 2);
                    for record in &mut records {
                        // Outcomes only: versions are another net.
                        record.version = None;
                    }
                    owner.part(records)
                })
                .collect();
            match log.commit(parts).await {
                Ok(commits) => done += commits.iter().filter(|commit| **commit == Commit::Done).count(),
                // The successor has committed the same sample commands meanwhile.
                Err(PortError::Conflict(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        done
    };
    let (a, b, c) =
        tokio::join!(work(log.clone(), 1, false), work(other.clone(), 2, true), work(log.clone(), 3, true));
    let mut records = 0;
    for partition in all {
        let found = log.read(&[from(partition, 0)], 1000).await.unwrap();
        let head = log.rows(&[partition]).await.unwrap()[0].1.head;
        assert_eq!(found.len() as u64, head.get());
        records += found.len();
    }
    assert!(a + b + c > 0);
    assert_eq!(records, 2 * (a + b + c));
}

/// Even when it is compressed.
fn longer_than_an_index_entry() -> String {
    (0..1000).map(|number| id(&format!("{number}")).to_string()).collect()
}

#[tokio::test]
async fn what_cannot_be_stored_is_said_to_be_the_contents_fault() {
    let database = services().database();
    let log = log(&database).await;
    let one = partition(1);
    let owner = Owner::take_over(&log, one).await;
    let with = |change: fn(&mut Record)| {
        let mut records = owner.facts(&aggregate(one, 0), 1, 2);
        change(&mut records[1]);
        owner.part(records)
    };
    for part in [
        with(|record| record.actor = "a\0b".to_owned()),
        with(|record| record.data = "{\"a\":\"\0\"}".to_owned()),
        with(|record| record.version = Some(eventsourcing::partition::Version::new(u64::MAX))),
        with(|record| record.aggregate.kind = longer_than_an_index_entry().into()),
    ] {
        let refused = log.commit(vec![part]).await;
        assert!(matches!(refused, Err(PortError::Content(_))), "{refused:?}");
    }
    let step = CheckpointMove { partition: one, from: Sequence::ZERO, to: Sequence::new(1) };
    let refused = Checkpoints::advance(&log, "a\0b", &[step]).await;
    assert!(matches!(refused, Err(PortError::Content(_))), "{refused:?}");
    assert_eq!(log.rows(&[one]).await.unwrap()[0].1, owner.row, "nothing happened");
    assert_eq!(log.commit(vec![with(|_| {})]).await, Ok(vec![Commit::Done]));
}

#[tokio::test]
async fn a_part_that_contradicts_itself_or_another_is_not_tried() {
    let database = services().database();
    let log = log(&database).await;
    let one = partition(1);
    let owner = Owner::take_over(&log, one).await;
    let part = owner.part(owner.facts(&aggregate(one, 0), 1, 2));
    let mut gap = part.clone();
    gap.records[0].sequence = Sequence::new(5);
    for parts in [vec![gap], vec![part.clone(), part.clone()]] {
        let refused = log.commit(parts).await;
        assert!(matches!(refused, Err(PortError::Broken(_))), "{refused:?}");
    }
    // Of two snapshots of one aggregate the later counts.
    let mut part = part;
    part.snapshots = vec![snapshot(&aggregate(one, 0), 1), snapshot(&aggregate(one, 0), 2)];
    assert_eq!(log.commit(vec![part]).await, Ok(vec![Commit::Done]));
    let request = LoadRequest { aggregates: vec![aggregate(one, 0)], ..LoadRequest::default() };
    let loaded = EventLog::load(&log, &request).await.unwrap();
    assert_eq!(loaded.histories[0].snapshot, Some(snapshot(&aggregate(one, 0), 2)));
}

#[tokio::test]
async fn the_first_partitions_of_a_request_are_served_first() {
    let database = services().database();
    let log = log(&database).await;
    append(&log, partition(1), 0, 300).await;
    append(&log, partition(2), 0, 20).await;
    append(&log, partition(3), 0, 20).await;
    let places = async |after: &[(Partition, Sequence)], limit| -> Vec<(u16, u64)> {
        let records = log.read(after, limit).await.unwrap();
        records.iter().map(|record| (record.partition.index(), record.sequence.get())).collect()
    };
    let (one, two, three) = (partition(1), partition(2), partition(3));
    let found = places(&[from(three, 18), from(one, 290), from(two, 0)], 15).await;
    let expected: Vec<_> =
        (19..=20).map(|n| (3, n)).chain((291..=300).map(|n| (1, n))).chain((1..=3).map(|n| (2, n))).collect();
    assert_eq!(found, expected);
    let found = places(&[from(one, 0), from(two, 0)], 10).await;
    assert_eq!(found, (1..=10).map(|n| (1, n)).collect::<Vec<_>>());
    assert_eq!(places(&[from(one, 500), from(two, 19)], 10).await, [(2, 20)]);
}

#[tokio::test]
async fn a_gap_is_never_answered() {
    let database = services().database();
    let log = log(&database).await;
    append(&log, partition(1), 0, 5).await;
    database.psql(
        "ALTER TABLE records DISABLE TRIGGER ALL; DELETE FROM records WHERE sequence = 3; \
         ALTER TABLE records ENABLE ALWAYS TRIGGER records_are_append_only",
    );
    let broken = log.read(&[from(partition(1), 0)], 10).await;
    assert!(matches!(&broken, Err(PortError::Broken(text)) if text.contains("1-4")), "{broken:?}");
}
