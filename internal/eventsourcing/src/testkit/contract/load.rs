//! What every event log promises of reading: what was committed comes back as it was, in order, and nothing else.

use std::sync::Arc;

use uuid::Uuid;

use crate::model::AggregateRef;
use crate::partition::{Partition, Sequence, Version};
use crate::ports::{
    Beyond, Commit, EventLog, Follows, History, LoadRequest, Loaded, PartitionCommit, PartitionRow,
    StoredEvent,
};
use crate::record::Record;

use super::log::{inbox, read_all};
use super::sample::{
    Owner, TEXTS, aggregate, append, fact, id, inbox_entry, longest_text, partition, refusal, snapshot,
};

pub(super) async fn suite<L: EventLog + Clone>(make: &impl AsyncFn() -> L) {
    what_is_unknown_is_empty(make().await).await;
    the_inbox_remembers_every_outcome(make().await).await;
    a_history_is_an_aggregates_events_in_order(make().await).await;
    a_snapshot_stands_for_the_events_before_it(make().await).await;
    a_reference_exists_once_a_fact_is_committed(make().await).await;
    batches_of_any_size_are_kept(make().await).await;
    much_is_loaded_at_once(make().await).await;
    texts_come_back_as_they_were(make().await).await;
    a_log_is_read_in_pages_in_order(make().await).await;
    what_follows_the_log_is_told_what_is_beyond_its_end(make().await).await;
    another_handle_reads_the_same(make().await).await;
}

async fn load<L: EventLog>(log: &L, request: LoadRequest) -> Loaded {
    let loaded = log.load(&request).await.expect("a log can be loaded");
    assert_eq!(loaded.histories.len(), request.aggregates.len(), "one history for each aggregate");
    loaded
}

async fn history<L: EventLog>(log: &L, aggregate: &AggregateRef, full: bool) -> History {
    let request = LoadRequest { aggregates: vec![aggregate.clone()], full, ..LoadRequest::default() };
    load(log, request).await.histories.remove(0)
}

fn stored(record: &Record) -> StoredEvent {
    StoredEvent {
        version: record.version.expect("a fact"),
        event_type: record.event_type.to_string(),
        schema: record.schema,
        data: record.data.clone(),
    }
}

fn versions(history: &History) -> Vec<u64> {
    history.events.iter().map(|event| event.version.get()).collect()
}

async fn what_is_unknown_is_empty<L: EventLog>(log: L) {
    let loaded = load(
        &log,
        LoadRequest {
            commands: vec![id("a"), id("b")],
            aggregates: vec![aggregate(partition(1), 0), aggregate(partition(2), 0)],
            references: vec![aggregate(partition(3), 0)],
            full: false,
        },
    )
    .await;
    assert!(loaded.inbox.is_empty() && loaded.existing.is_empty());
    assert!(loaded.histories.iter().all(|history| history.snapshot.is_none() && history.events.is_empty()));
    let nothing = load(&log, LoadRequest::default()).await;
    assert!(nothing.inbox.is_empty() && nothing.histories.is_empty() && nothing.existing.is_empty());
}

async fn the_inbox_remembers_every_outcome<L: EventLog>(log: L) {
    let one = partition(1);
    let mut owner = Owner::take_over(&log, one).await;
    let mut records = owner.facts(&aggregate(one, 0), 1, 3);
    records.push(refusal(one, 4, &aggregate(one, 0)));
    let part = owner.part(records);
    owner.commit(&log, part.clone()).await;
    let mut found = inbox(&log, &[&part]).await;
    found.sort_by_key(|entry| entry.outcome.position);
    assert_eq!(found, part.inbox);
    let commands = vec![id("unknown"), part.inbox[2].outcome.command_id];
    let found = load(&log, LoadRequest { commands, ..LoadRequest::default() }).await.inbox;
    assert_eq!(found, part.inbox[2..3], "only what is asked for and known");
}

async fn a_history_is_an_aggregates_events_in_order<L: EventLog>(log: L) {
    let one = partition(1);
    let (a, b) = (aggregate(one, 0), aggregate(one, 1));
    let namesake = AggregateRef::new("other", a.id);
    let mut owner = Owner::take_over(&log, one).await;
    let first = owner.write(&log, vec![fact(one, 1, &a, 1), fact(one, 2, &b, 1), fact(one, 3, &a, 2)]).await;
    let mut renamed = fact(one, 5, &a, 3);
    (renamed.event_type, renamed.schema) = ("ThingChanged".into(), 7);
    let second = owner
        .write(&log, vec![refusal(one, 4, &a), renamed, fact(one, 6, &namesake, 1), fact(one, 7, &b, 2)])
        .await;
    let request = LoadRequest {
        aggregates: vec![b.clone(), aggregate(one, 2), a.clone(), namesake],
        ..LoadRequest::default()
    };
    let loaded = load(&log, request).await;
    let events: Vec<Vec<StoredEvent>> = loaded.histories.into_iter().map(|history| history.events).collect();
    let of_a = [&first[0], &first[2], &second[1]];
    let expected = vec![
        vec![stored(&first[1]), stored(&second[3])],
        Vec::new(),
        of_a.iter().map(|record| stored(record)).collect(),
        vec![stored(&second[2])],
    ];
    assert_eq!(events, expected, "histories keep the order of the request, events that of the versions");
}

async fn a_snapshot_stands_for_the_events_before_it<L: EventLog>(log: L) {
    let one = partition(1);
    let (a, b) = (aggregate(one, 0), aggregate(one, 1));
    let mut owner = Owner::take_over(&log, one).await;
    owner.write(&log, owner.facts(&a, 1, 2)).await;
    let facts = owner.facts(&a, 3, 2);
    owner.commit(&log, PartitionCommit { snapshots: vec![snapshot(&a, 3)], ..owner.part(facts) }).await;
    let found = history(&log, &a, false).await;
    assert_eq!(found.snapshot, Some(snapshot(&a, 3)));
    assert_eq!(versions(&found), [4]);

    owner.write(&log, owner.facts(&b, 1, 2)).await;
    let facts = owner.facts(&a, 5, 1);
    let snapshots = vec![snapshot(&b, 1), snapshot(&a, 5)];
    owner.commit(&log, PartitionCommit { snapshots, ..owner.part(facts) }).await;
    let found = history(&log, &a, false).await;
    assert_eq!(found.snapshot, Some(snapshot(&a, 5)), "the latest snapshot counts");
    assert!(found.events.is_empty());
    let both = LoadRequest { aggregates: vec![b.clone(), a.clone()], ..LoadRequest::default() };
    let both = load(&log, both).await.histories;
    assert_eq!((both[0].snapshot.clone(), versions(&both[0])), (Some(snapshot(&b, 1)), vec![2]));
    assert_eq!((both[1].snapshot.clone(), versions(&both[1])), (Some(snapshot(&a, 5)), vec![]));

    let full = history(&log, &a, true).await;
    assert_eq!(
        (full.snapshot.clone(), versions(&full)),
        (None, vec![1, 2, 3, 4, 5]),
        "a full replay has no snapshot"
    );
}

async fn a_reference_exists_once_a_fact_is_committed<L: EventLog>(log: L) {
    let one = partition(1);
    let (a, b, refused) = (aggregate(one, 0), aggregate(one, 1), aggregate(one, 2));
    let namesake = AggregateRef::new("other", a.id);
    let references = vec![a.clone(), b.clone(), refused.clone(), namesake];
    let request = LoadRequest { references, ..LoadRequest::default() };
    let mut owner = Owner::take_over(&log, one).await;
    assert!(load(&log, request.clone()).await.existing.is_empty());
    owner.write(&log, vec![refusal(one, 1, &refused)]).await;
    assert!(
        load(&log, request.clone()).await.existing.is_empty(),
        "a refused command brings nothing into being"
    );
    owner.write(&log, vec![fact(one, 2, &a, 1)]).await;
    let zombie = Owner { row: PartitionRow { head: Sequence::new(1), ..owner.row }, ..owner };
    let answer = log.commit(vec![zombie.part(zombie.facts(&b, 1, 1))]).await;
    assert_eq!(answer, Ok(vec![Commit::Fenced]));
    assert_eq!(
        load(&log, request.clone()).await.existing,
        std::slice::from_ref(&a),
        "only what is committed exists"
    );
    owner.write(&log, vec![fact(one, 3, &b, 1), fact(one, 4, &a, 2)]).await;
    let mut existing = load(&log, request).await.existing;
    existing.sort();
    assert_eq!(existing, [a, b], "each once, however many facts it has");
}

async fn batches_of_any_size_are_kept<L: EventLog>(log: L) {
    let one = partition(1);
    let mut owner = Owner::take_over(&log, one).await;
    let mut records: Vec<Arc<Record>> = Vec::new();
    for (number, size) in (0..).zip([1, 7, 129, 1000, 2, 64, 500]) {
        let facts = owner.facts(&aggregate(one, number), 1, size);
        let part = owner.part(facts);
        owner.commit(&log, part.clone()).await;
        assert_eq!(inbox(&log, &[&part]).await.len(), part.inbox.len());
        let of_one = history(&log, &aggregate(one, number), false).await;
        assert_eq!(of_one.events, part.records.iter().map(stored).collect::<Vec<_>>());
        records.extend(part.records.into_iter().map(Arc::new));
    }
    assert_eq!(read_all(&log, one).await, records);
}

async fn much_is_loaded_at_once<L: EventLog>(log: L) {
    let one = partition(1);
    let mut owner = Owner::take_over(&log, one).await;
    let aggregates: Vec<_> = (0..700).map(|number| aggregate(one, number)).collect();
    let records: Vec<_> =
        (1..).zip(&aggregates).map(|(sequence, aggregate)| fact(one, sequence, aggregate, 1)).collect();
    let part = owner.part(records);
    let mut commands: Vec<Uuid> = part.inbox.iter().map(|entry| entry.outcome.command_id).collect();
    commands.extend((0..700).map(|number| id(&format!("unknown {number}"))));
    owner.commit(&log, part).await;
    let mut references = aggregates.clone();
    references.extend((700..1400).map(|number| aggregate(one, number)));
    let loaded = load(&log, LoadRequest { commands, aggregates, references, full: false }).await;
    assert_eq!((loaded.inbox.len(), loaded.existing.len()), (700, 700));
    assert!(loaded.histories.iter().all(|history| versions(history) == [1]));
}

async fn texts_come_back_as_they_were<L: EventLog>(log: L) {
    let one = partition(1);
    let longest = longest_text();
    let texts: Vec<&str> = TEXTS.iter().copied().chain([longest.as_str()]).collect();
    let mut owner = Owner::take_over(&log, one).await;
    let mut records = Vec::new();
    let mut entries = Vec::new();
    let mut snapshots = Vec::new();
    for (sequence, text) in (1..).zip(texts) {
        let number = u32::try_from(sequence).expect("a few");
        let mut record = fact(one, sequence, &aggregate(one, number), 1);
        text.clone_into(&mut record.actor);
        record.data = serde_json::json!({ "text": text }).to_string();
        record.traceparent = (sequence % 2 == 0).then(|| text.to_owned());
        record.last_of_command = sequence % 3 != 0;
        let mut entry = inbox_entry(&record);
        entry.outcome.verdict =
            crate::outcome::Verdict::Dead { reason: "UNDECODABLE".to_owned(), message: text.to_owned() };
        let mut snapshot = snapshot(&record.aggregate, 1);
        snapshot.state.data.clone_from(&record.data);
        records.push(record);
        entries.push(entry);
        snapshots.push(snapshot);
    }
    let part = PartitionCommit { inbox: entries, snapshots, ..owner.part(records) };
    owner.commit(&log, part.clone()).await;
    let expected: Vec<_> = part.records.iter().cloned().map(Arc::new).collect();
    assert_eq!(read_all(&log, one).await, expected);
    let mut found = inbox(&log, &[&part]).await;
    found.sort_by_key(|entry| entry.outcome.position);
    assert_eq!(found, part.inbox);
    for (record, snapshot) in part.records.iter().zip(part.snapshots) {
        assert_eq!(history(&log, &record.aggregate, false).await.snapshot, Some(snapshot));
        assert_eq!(history(&log, &record.aggregate, true).await.events, [stored(record)]);
    }
}

async fn a_log_is_read_in_pages_in_order<L: EventLog>(log: L) {
    let one = append(&log, partition(1), 0, 129).await;
    let two = append(&log, partition(2), 0, 40).await;
    append(&log, partition(3), 0, 7).await;
    let from =
        [(partition(2), Sequence::ZERO), (partition(1), Sequence::new(5)), (partition(4), Sequence::ZERO)];
    for limit in [1, 7, 20, 1000] {
        let seen = paged(&log, from.to_vec(), limit).await;
        let expected: Vec<_> = one[5..].iter().chain(&two).cloned().collect();
        assert_eq!(seen, expected);
    }
    let past = log.read(&[(partition(1), Sequence::new(129)), (partition(2), Sequence::new(1000))], 10).await;
    assert_eq!(past, Ok(Vec::new()), "past the end there is nothing");
    assert_eq!(log.read(&[], 10).await, Ok(Vec::new()));
}

async fn what_follows_the_log_is_told_what_is_beyond_its_end<L: EventLog>(log: L) {
    let one = append(&log, partition(1), 0, 5).await;
    let two = append(&log, partition(2), 0, 3).await;
    let beyond = async |ends: &[(u16, u64, bool)], limit| {
        let follows = |(index, last, proven): &(u16, u64, bool)| Follows {
            partition: partition(*index),
            last: Sequence::new(*last),
            proven: *proven,
        };
        let ends: Vec<Follows> = ends.iter().map(follows).collect();
        log.beyond(&ends, limit).await.expect("a log can be read")
    };
    let told = |heads: &[(u16, u64)], records: &[&[Arc<Record>]]| Beyond {
        heads: heads.iter().map(|(index, head)| (partition(*index), Sequence::new(*head))).collect(),
        records: records.concat(),
    };
    assert_eq!(beyond(&[], 10).await, Beyond::default());
    let nothing = beyond(&[(1, 5, true), (2, 3, true), (3, 0, true)], 10).await;
    assert_eq!(nothing, Beyond::default(), "of ends that are the log's own there is nothing to tell");
    let proofs = beyond(&[(2, 3, false), (3, 0, false), (1, 5, true)], 10).await;
    assert_eq!(proofs, told(&[(2, 3), (3, 0)], &[&two[2..]]), "what has to be proven comes with its proof");
    let more = beyond(&[(2, 0, true), (1, 2, true)], 10).await;
    assert_eq!(more, told(&[(2, 3), (1, 5)], &[&two, &one[1..]]), "in the order of the request");
    // Who is served first is the store's own affair; each is served from its end on.
    let full = beyond(&[(1, 2, true), (2, 1, true)], 3).await;
    assert_eq!((full.heads, full.records.len()), (more.heads.iter().rev().copied().collect(), 3));
    let of = |index| full.records.iter().filter(move |record| record.partition == partition(index));
    assert!(of(1).eq(one[1..].iter().take(of(1).count())), "no gap");
    assert!(of(2).eq(two.iter().take(of(2).count())), "no gap");
    let ahead = beyond(&[(1, 6, true), (2, 9, false), (3, 1, true)], 10).await;
    assert_eq!(ahead, told(&[(1, 5), (2, 3), (3, 0)], &[]), "of an end that the log does not have, its own");
}

async fn paged<L: EventLog>(
    log: &L,
    mut after: Vec<(Partition, Sequence)>,
    limit: usize,
) -> Vec<Arc<Record>> {
    let mut seen = Vec::new();
    loop {
        let records = log.read(&after, limit).await.expect("a log can be read");
        assert!(records.len() <= limit, "a read keeps to its limit");
        if records.is_empty() {
            break;
        }
        for record in records {
            let place = after.iter_mut().find(|(partition, _)| *partition == record.partition);
            let (_, last) = place.expect("only what was asked for is read");
            assert_eq!(record.sequence, last.next(), "no gap, nothing twice");
            *last = record.sequence;
            seen.push(record);
        }
    }
    seen.sort_by_key(|record| record.position());
    seen
}

async fn another_handle_reads_the_same<L: EventLog + Clone>(log: L) {
    let other = log.clone();
    let records = append(&log, partition(1), 0, 3).await;
    assert_eq!(read_all(&other, partition(1)).await, records);
    let found = history(&other, &aggregate(partition(1), 0), false).await;
    assert_eq!(found.events.last().map(|event| event.version), Some(Version::new(3)));
}
