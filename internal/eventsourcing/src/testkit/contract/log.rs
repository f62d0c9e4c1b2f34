//! What every event log promises of a commit: only a partition's owner writes, all of its part or nothing.

use std::sync::Arc;

use crate::partition::{Epoch, Partition, Sequence};
use crate::ports::{
    Commit, EventLog, InboxEntry, LoadRequest, PartitionCommit, PartitionRow, PortError, QueuePosition,
};
use crate::record::Record;

use super::sample::{Owner, aggregate, fact, id, partition, position, refusal, snapshot};
use super::{by_partition, load};

/// The suite of [`EventLog`].
pub async fn event_log<L, F>(make: F)
where
    L: EventLog + Clone,
    F: AsyncFn() -> L,
{
    a_new_partition_is_empty(make().await).await;
    a_takeover_raises_the_epoch_and_nothing_else(make().await).await;
    a_commit_moves_the_row(make().await).await;
    a_part_whose_row_is_another_is_fenced(make().await).await;
    parts_without_facts_are_fenced_too(make().await).await;
    one_fenced_part_does_not_stop_another(make().await).await;
    a_takeover_fences_the_owner_before(make().await).await;
    a_fenced_part_conflicts_with_nothing(make().await).await;
    a_forgotten_queue_fences_its_owner_and_is_begun_anew(make().await).await;
    a_command_has_one_outcome_over_all_partitions(make().await).await;
    a_version_is_written_once(make().await).await;
    load::suite(&make).await;
}

pub(super) async fn row<L: EventLog>(log: &L, partition: Partition) -> PartitionRow {
    let rows = by_partition(log.rows(&[partition]).await.expect("rows can be read"));
    *rows.get(&partition).expect("every partition asked for is answered")
}

pub(super) async fn read_all<L: EventLog>(log: &L, partition: Partition) -> Vec<Arc<Record>> {
    log.read(&[(partition, Sequence::ZERO)], 100_000).await.expect("a log can be read")
}

pub(super) async fn inbox<L: EventLog>(log: &L, parts: &[&PartitionCommit]) -> Vec<InboxEntry> {
    let commands = parts.iter().flat_map(|part| &part.inbox).map(|entry| entry.outcome.command_id).collect();
    log.load(&LoadRequest { commands, ..LoadRequest::default() }).await.expect("a log can be loaded").inbox
}

/// Everything that can be seen of a partition, to compare before and after.
async fn seen<L: EventLog>(log: &L, part: &PartitionCommit) -> impl PartialEq + std::fmt::Debug + use<L> {
    let aggregates = part.records.iter().map(|record| record.aggregate.clone()).collect();
    let snapshots = part.snapshots.iter().map(|snapshot| snapshot.aggregate.clone()).collect();
    let request = LoadRequest { aggregates, references: snapshots, ..LoadRequest::default() };
    let loaded = log.load(&request).await.expect("a log can be loaded");
    let histories: Vec<_> =
        loaded.histories.into_iter().map(|history| (history.snapshot, history.events)).collect();
    let (row, records) = (row(log, part.partition).await, read_all(log, part.partition).await);
    (row, records, inbox(log, &[part]).await, histories)
}

async fn fenced<L: EventLog>(log: &L, part: PartitionCommit) {
    let before = seen(log, &part).await;
    assert_eq!(log.commit(vec![part.clone()]).await, Ok(vec![Commit::Fenced]));
    assert_eq!(seen(log, &part).await, before, "a fenced part writes nothing");
}

async fn a_new_partition_is_empty<L: EventLog>(log: L) {
    let asked = [partition(0), partition(7), partition(15)];
    let empty = PartitionRow { epoch: Epoch::ZERO, head: Sequence::ZERO, position: None };
    let rows = by_partition(log.rows(&asked).await.expect("rows can be read"));
    assert_eq!(rows, asked.into_iter().map(|partition| (partition, empty)).collect());
    assert!(read_all(&log, partition(0)).await.is_empty());
    assert_eq!(log.commit(Vec::new()).await, Ok(Vec::new()));
    assert_eq!(log.take_over(&[]).await, Ok(Vec::new()));
    assert_eq!(log.rows(&[]).await, Ok(Vec::new()));
}

async fn a_takeover_raises_the_epoch_and_nothing_else<L: EventLog>(log: L) {
    let (one, two) = (partition(1), partition(2));
    let mut owner = Owner::take_over(&log, one).await;
    assert!(owner.row.epoch > Epoch::ZERO, "whoever owns a partition has taken it over");
    owner.write(&log, owner.facts(&aggregate(one, 0), 1, 3)).await;
    let rows = by_partition(log.take_over(&[two, one]).await.expect("a takeover"));
    assert_eq!(rows.len(), 2);
    let taken = rows.get(&one).expect("every partition asked for is answered");
    assert!(taken.epoch > owner.row.epoch);
    assert_eq!((taken.head, taken.position), (Sequence::new(3), Some(position(one, 1))));
    assert_eq!(row(&log, one).await, *taken, "what it answers is what is there");
    assert_eq!(row(&log, partition(3)).await.epoch, Epoch::ZERO, "other partitions stay as they are");
}

async fn a_commit_moves_the_row<L: EventLog>(log: L) {
    let one = partition(1);
    let mut owner = Owner::take_over(&log, one).await;
    let first = owner.write(&log, owner.facts(&aggregate(one, 0), 1, 2)).await;
    assert_eq!(row(&log, one).await, owner.row);
    let second = owner.write(&log, vec![refusal(one, owner.next(), &aggregate(one, 0))]).await;
    // A batch of nothing but repeats: it only works the queue off.
    owner.commit(&log, owner.part(Vec::new())).await;
    assert_eq!(row(&log, one).await, owner.row);
    assert_eq!(owner.row.head, Sequence::new(3));
    let index = PartitionCommit {
        position: QueuePosition { index: 41, message: u64::from(u32::MAX) + 7, ..position(one, 9) },
        ..owner.part(owner.facts(&aggregate(one, 0), 3, 1))
    };
    owner.commit(&log, index.clone()).await;
    assert_eq!(row(&log, one).await.position, Some(index.position), "a position is kept as it is");
    let third: Vec<_> = index.records.into_iter().map(Arc::new).collect();
    assert_eq!(read_all(&log, one).await, [first, second, third].concat());
}

async fn a_forgotten_queue_fences_its_owner_and_is_begun_anew<L: EventLog>(log: L) {
    let (one, two) = (partition(1), partition(2));
    let mut owner = Owner::take_over(&log, one).await;
    owner.write(&log, owner.facts(&aggregate(one, 0), 1, 2)).await;
    let mut other = Owner::take_over(&log, two).await;
    other.write(&log, other.facts(&aggregate(two, 0), 1, 1)).await;
    assert_eq!(log.forget_queue(&[one]).await, Ok(()));
    assert_eq!(log.forget_queue(&[]).await, Ok(()));
    let forgotten = row(&log, one).await;
    assert_eq!((forgotten.head, forgotten.position), (Sequence::new(2), None), "the facts stay");
    assert!(forgotten.epoch > owner.row.epoch);
    assert_eq!(row(&log, two).await, other.row, "other partitions stay as they are");
    fenced(&log, owner.part(owner.facts(&aggregate(one, 0), 3, 1))).await;
    let mut successor = Owner::take_over(&log, one).await;
    successor.write(&log, successor.facts(&aggregate(one, 0), 3, 1)).await;
}

/// The row with one thing about it changed, in every way.
fn stale(row: PartitionRow) -> Vec<PartitionRow> {
    let position = row.position.expect("something was worked off");
    let at = |position| PartitionRow { position, ..row };
    vec![
        PartitionRow { epoch: Epoch::new(row.epoch.get() - 1), ..row },
        PartitionRow { epoch: row.epoch.next(), ..row },
        PartitionRow { head: Sequence::new(row.head.get() - 1), ..row },
        PartitionRow { head: row.head.next(), ..row },
        at(None),
        at(Some(QueuePosition { message: position.message + 1, ..position })),
        at(Some(QueuePosition { index: position.index + 1, ..position })),
        at(Some(QueuePosition { created_at: position.created_at + 1, ..position })),
        at(Some(QueuePosition { mark: id("another"), ..position })),
    ]
}

async fn a_part_whose_row_is_another_is_fenced<L: EventLog>(log: L) {
    let one = partition(1);
    let mut owner = Owner::take_over(&log, one).await;
    let before = PartitionRow { position: Some(position(one, 1)), ..owner.row };
    let early = Owner { row: before, ..owner };
    fenced(&log, PartitionCommit { expected: before, ..early.part(early.facts(&aggregate(one, 0), 1, 1)) })
        .await;
    owner.write(&log, owner.facts(&aggregate(one, 0), 1, 2)).await;
    for row in stale(owner.row) {
        let zombie = Owner { partition: one, row };
        let facts = zombie.facts(&aggregate(one, 1), 1, 2);
        let snapshots = vec![snapshot(&aggregate(one, 1), 2)];
        fenced(&log, PartitionCommit { snapshots, ..zombie.part(facts) }).await;
    }
    owner.write(&log, owner.facts(&aggregate(one, 0), 3, 2)).await;
}

async fn parts_without_facts_are_fenced_too<L: EventLog>(log: L) {
    let one = partition(1);
    let mut owner = Owner::take_over(&log, one).await;
    owner.write(&log, owner.facts(&aggregate(one, 0), 1, 2)).await;
    for row in stale(owner.row) {
        let zombie = Owner { partition: one, row };
        fenced(&log, zombie.part(Vec::new())).await;
        fenced(&log, zombie.part(vec![refusal(one, zombie.next(), &aggregate(one, 0))])).await;
    }
}

async fn one_fenced_part_does_not_stop_another<L: EventLog>(log: L) {
    let mut owners = Vec::new();
    for index in 1..=3 {
        owners.push(Owner::take_over(&log, partition(index)).await);
    }
    let new = Owner::take_over(&log, partition(2)).await;
    let parts: Vec<_> =
        owners.iter().map(|owner| owner.part(owner.facts(&aggregate(owner.partition, 0), 1, 5))).collect();
    let answers = log.commit(parts.clone()).await;
    assert_eq!(answers, Ok(vec![Commit::Done, Commit::Fenced, Commit::Done]), "answers keep the order");
    for part in [&parts[0], &parts[2]] {
        assert_eq!(row(&log, part.partition).await, part.row_after());
        assert_eq!(read_all(&log, part.partition).await.len(), 5);
        assert_eq!(inbox(&log, &[part]).await.len(), 5);
    }
    assert_eq!(row(&log, partition(2)).await, new.row);
    assert!(read_all(&log, partition(2)).await.is_empty());
    assert!(inbox(&log, &[&parts[1]]).await.is_empty());
}

async fn a_takeover_fences_the_owner_before<L: EventLog + Clone>(log: L) {
    let other = log.clone();
    let one = partition(1);
    let mut first = Owner::take_over(&log, one).await;
    first.write(&log, first.facts(&aggregate(one, 0), 1, 1)).await;
    let mut second = Owner::take_over(&other, one).await;
    assert_eq!((second.row.head, second.row.position), (first.row.head, first.row.position));
    fenced(&log, first.part(first.facts(&aggregate(one, 0), 2, 1))).await;
    second.write(&other, second.facts(&aggregate(one, 0), 2, 1)).await;
    fenced(&log, first.part(first.facts(&aggregate(one, 0), 2, 1))).await;
    assert_eq!(read_all(&log, one).await, read_all(&other, one).await);
}

async fn a_fenced_part_conflicts_with_nothing<L: EventLog + Clone>(log: L) {
    let one = partition(1);
    let mut first = Owner::take_over(&log, one).await;
    let mut second = Owner::take_over(&log, one).await;
    // The new owner works off what the old one had read: the same commands, the same versions.
    let records = first.facts(&aggregate(one, 0), 1, 3);
    second.write(&log, records.clone()).await;
    fenced(&log, first.part(records)).await;
    // So it is when the answer to a commit was lost and the owner tries it again.
    let part = second.part(second.facts(&aggregate(one, 0), 4, 1));
    second.commit(&log, part.clone()).await;
    fenced(&log, part).await;
    first = Owner::take_over(&log, one).await;
    first.write(&log, first.facts(&aggregate(one, 0), 5, 1)).await;
}

async fn a_command_has_one_outcome_over_all_partitions<L: EventLog>(log: L) {
    let (one, two, three) = (partition(1), partition(2), partition(3));
    let mut first = Owner::take_over(&log, one).await;
    let second = Owner::take_over(&log, two).await;
    let third = Owner::take_over(&log, three).await;
    let known = first.write(&log, first.facts(&aggregate(one, 0), 1, 1)).await[0].command_id;

    let mut repeat = second.facts(&aggregate(two, 0), 1, 3);
    repeat[1].command_id = known;
    let innocent = third.part(third.facts(&aggregate(three, 0), 1, 1));
    let mut within = first.facts(&aggregate(one, 0), 2, 1);
    within[0].command_id = known;
    for records in [second.part(repeat), first.part(within)] {
        let answer = log.commit(vec![innocent.clone(), records.clone()]).await;
        assert!(
            matches!(answer, Err(PortError::Conflict(_))),
            "a known command is a conflict, not {answer:?}"
        );
        for owner in [&first, &second, &third] {
            assert_eq!(row(&log, owner.partition).await, owner.row, "nothing was written, of no part");
        }
        assert!(read_all(&log, two).await.is_empty() && read_all(&log, three).await.is_empty());
        assert!(inbox(&log, &[&innocent]).await.is_empty());
    }
    let found = inbox(&log, &[&first.part(vec![fact(one, 1, &aggregate(one, 0), 1)])]).await;
    assert_eq!(found[0].outcome.position.to_string(), "1-1", "the outcome stays as it was");
    assert_eq!(
        log.commit(vec![innocent]).await,
        Ok(vec![Commit::Done]),
        "without the repeat it goes through"
    );
}

async fn a_version_is_written_once<L: EventLog>(log: L) {
    let one = partition(1);
    let mut owner = Owner::take_over(&log, one).await;
    owner.write(&log, owner.facts(&aggregate(one, 0), 1, 2)).await;
    let part = owner.part(owner.facts(&aggregate(one, 0), 2, 1));
    let answer = log.commit(vec![part.clone()]).await;
    assert!(
        matches!(answer, Err(PortError::Broken(_) | PortError::Conflict(_))),
        "a version that exists is refused by the second net, not answered with {answer:?}"
    );
    assert_eq!(row(&log, one).await, owner.row);
    assert_eq!(read_all(&log, one).await.len(), 2);
    assert!(inbox(&log, &[&part]).await.is_empty());
}
