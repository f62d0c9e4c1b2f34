//! What every event bus promises: the n-th message of a partition's stream is the n-th record of that partition of
//! the log, and nothing else can be published there.

use std::sync::Arc;

use crate::partition::{LogPosition, Partition, Sequence};
use crate::ports::{BusTail, EventBus, EventLog, Publication};
use crate::record::Record;

use super::sample::{Owner, TEXTS, aggregate, append, fact, id, longest_text, partition, refusal};

/// The suite of [`EventBus`]. A bus may be a view of a log, so every record is committed to that log first.
pub async fn event_bus<L, B, F>(make: F)
where
    L: EventLog,
    B: EventBus + Clone,
    F: AsyncFn() -> (L, B),
{
    an_empty_stream_ends_at_zero(make().await).await;
    what_is_committed_is_on_the_bus_only_when_it_is_published(make().await).await;
    records_come_back_as_they_were(make().await).await;
    an_unexpected_last_sequence_is_refused(make().await).await;
    one_refusal_does_not_stop_another_partition(make().await).await;
    a_stream_is_read_in_pages_in_order_and_without_gaps(make().await).await;
    records_are_found_where_they_stand(make().await).await;
    of_two_relayers_one_publishes(make().await).await;
    a_second_relayer_goes_on_and_the_first_is_refused(make().await).await;
}

fn publication(records: &[Arc<Record>]) -> Publication {
    let first = records.first().expect("records to publish");
    Publication {
        partition: first.partition,
        expected: Sequence::new(first.sequence.get() - 1),
        records: records.to_vec(),
    }
}

async fn publish<B: EventBus>(bus: &B, records: &[Arc<Record>]) {
    assert_eq!(bus.publish(vec![publication(records)]).await, [Ok(())], "what follows the last is published");
}

async fn refused<B: EventBus>(bus: &B, publication: Publication) {
    let before = tail(bus, publication.partition).await;
    let answers = bus.publish(vec![publication]).await;
    assert_eq!(answers.len(), 1, "one answer a publication");
    assert!(answers[0].is_err(), "an unexpected last sequence is refused");
    assert_eq!(tail(bus, before.partition).await, before, "what is refused is not there");
}

async fn tail<B: EventBus>(bus: &B, partition: Partition) -> BusTail {
    let tails = bus.tails(&[partition]).await.expect("a bus knows its tails");
    assert_eq!(tails.len(), 1, "every partition asked for is answered");
    assert_eq!(tails[0].partition, partition);
    tails[0]
}

fn tail_at(record: &Record) -> BusTail {
    BusTail { partition: record.partition, last: record.sequence, record_id: Some(record.record_id) }
}

async fn read<B: EventBus>(bus: &B, after: &[(Partition, Sequence)], limit: usize) -> Vec<Arc<Record>> {
    let records = bus.read(after, limit).await.expect("a bus can be read");
    assert!(records.len() <= limit, "a read keeps to its limit");
    records
}

async fn an_empty_stream_ends_at_zero<L: EventLog, B: EventBus>((_log, bus): (L, B)) {
    let nothing = BusTail { partition: partition(1), last: Sequence::ZERO, record_id: None };
    assert_eq!(tail(&bus, partition(1)).await, nothing);
    assert!(read(&bus, &[(partition(1), Sequence::ZERO)], 10).await.is_empty());
    assert!(read(&bus, &[], 10).await.is_empty());
    assert!(bus.publish(Vec::new()).await.is_empty());
}

async fn what_is_committed_is_on_the_bus_only_when_it_is_published<L: EventLog, B: EventBus>(
    (log, bus): (L, B),
) {
    let one = partition(1);
    let records = append(&log, one, 0, 5).await;
    assert!(read(&bus, &[(one, Sequence::ZERO)], 10).await.is_empty(), "committed is not published");
    assert_eq!(tail(&bus, one).await.last, Sequence::ZERO);
    publish(&bus, &records[..2]).await;
    assert_eq!(read(&bus, &[(one, Sequence::ZERO)], 10).await, records[..2]);
    assert_eq!(tail(&bus, one).await, tail_at(&records[1]));
    publish(&bus, &records[2..]).await;
    assert_eq!(read(&bus, &[(one, Sequence::ZERO)], 10).await, records);
    assert_eq!(tail(&bus, one).await, tail_at(&records[4]));
}

async fn records_come_back_as_they_were<L: EventLog, B: EventBus>((log, bus): (L, B)) {
    let mut owner = Owner::take_over(&log, partition(2)).await;
    let longest = longest_text();
    let texts: Vec<&str> = TEXTS.iter().copied().chain([longest.as_str()]).collect();
    let mut records = Vec::new();
    for (sequence, text) in (1..).zip(texts) {
        let mut record = fact(partition(2), sequence, &aggregate(partition(2), 0), sequence);
        text.clone_into(&mut record.actor);
        record.data = serde_json::json!({ "text": text }).to_string();
        record.traceparent = (sequence % 2 == 0).then(|| text.to_owned());
        record.last_of_command = sequence % 3 != 0;
        records.push(record);
    }
    let next = u64::try_from(records.len()).expect("a few") + 1;
    records.push(refusal(partition(2), next, &aggregate(partition(2), 1)));
    let records = owner.write(&log, records).await;
    publish(&bus, &records).await;
    assert_eq!(read(&bus, &[(partition(2), Sequence::ZERO)], 100).await, records);
}

async fn an_unexpected_last_sequence_is_refused<L: EventLog, B: EventBus>((log, bus): (L, B)) {
    let one = partition(1);
    let records = append(&log, one, 0, 9).await;
    refused(&bus, publication(&records[1..3])).await;
    publish(&bus, &records[..3]).await;
    refused(&bus, publication(&records[..3])).await;
    refused(&bus, publication(&records[..5])).await;
    refused(&bus, publication(&records[2..5])).await;
    refused(&bus, publication(&records[4..])).await;
    publish(&bus, &records[3..]).await;
    assert_eq!(
        read(&bus, &[(one, Sequence::ZERO)], 100).await,
        records,
        "nothing is skipped, nothing is there twice"
    );
}

async fn one_refusal_does_not_stop_another_partition<L: EventLog, B: EventBus>((log, bus): (L, B)) {
    let mut all = Vec::new();
    for index in 1..=3 {
        all.push(append(&log, partition(index), 0, 4).await);
    }
    let publications = vec![publication(&all[0]), publication(&all[1][1..]), publication(&all[2])];
    let answers = bus.publish(publications).await;
    assert_eq!(
        answers.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true],
        "answers keep the order"
    );
    let asked = [partition(3), partition(2), partition(1)];
    let mut tails = bus.tails(&asked).await.expect("a bus knows its tails");
    tails.sort_by_key(|tail| tail.partition);
    let nothing = BusTail { partition: partition(2), last: Sequence::ZERO, record_id: None };
    assert_eq!(tails, [tail_at(&all[0][3]), nothing, tail_at(&all[2][3])]);
}

async fn a_stream_is_read_in_pages_in_order_and_without_gaps<L: EventLog, B: EventBus>((log, bus): (L, B)) {
    let one = append(&log, partition(1), 0, 129).await;
    let two = append(&log, partition(2), 0, 40).await;
    let three = append(&log, partition(3), 0, 7).await;
    let batches = one.chunks(50).chain(two.chunks(7)).chain(three.chunks(7));
    for records in batches {
        publish(&bus, records).await;
    }
    let mut after = [(partition(1), Sequence::new(5)), (partition(2), Sequence::ZERO)];
    let mut seen = Vec::new();
    loop {
        let records = read(&bus, &after, 20).await;
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
    let expected: Vec<_> = one[5..].iter().chain(&two).cloned().collect();
    assert_eq!(seen, expected);
}

async fn records_are_found_where_they_stand<L: EventLog, B: EventBus>((log, bus): (L, B)) {
    let one = append(&log, partition(1), 0, 300).await;
    let two = append(&log, partition(2), 0, 5).await;
    publish(&bus, &one[..290]).await;
    publish(&bus, &two[..3]).await;
    let at = |partition, sequence| LogPosition { partition, sequence: Sequence::new(sequence) };
    assert_eq!(bus.records(&[]).await, Ok(Vec::new()));
    let asked = [
        at(partition(1), 290),
        at(partition(2), 3),
        at(partition(1), 0),
        at(partition(1), 7),
        at(partition(2), 4),
        at(partition(1), 7),
        at(partition(1), 291),
        at(partition(1), 1),
        at(partition(3), 1),
        at(partition(2), u64::from(u32::MAX)),
    ];
    let there = |record: &Arc<Record>| Some(Arc::clone(record));
    let expected = [
        there(&one[289]),
        there(&two[2]),
        None,
        there(&one[6]),
        None,
        there(&one[6]),
        None,
        there(&one[0]),
        None,
        None,
    ];
    assert_eq!(bus.records(&asked).await.as_deref(), Ok(&expected[..]), "one answer a position, in order");
    let all: Vec<LogPosition> = (1..=290).rev().map(|sequence| at(partition(1), sequence)).collect();
    let found = bus.records(&all).await.expect("a bus can be read");
    assert_eq!(found, one[..290].iter().rev().map(there).collect::<Vec<_>>(), "however many are asked for");
}

async fn of_two_relayers_one_publishes<L: EventLog, B: EventBus + Clone>((log, bus): (L, B)) {
    let other = bus.clone();
    let records = append(&log, partition(1), 0, 6).await;
    publish(&bus, &records[..4]).await;
    refused(&other, publication(&records[..2])).await;
    publish(&other, &records[4..]).await;
    assert_eq!(read(&bus, &[(partition(1), Sequence::ZERO)], 10).await, records);
    assert_eq!(tail(&bus, partition(1)).await.record_id, Some(id("record 1-6")));
}

async fn a_second_relayer_goes_on_and_the_first_is_refused<L: EventLog, B: EventBus + Clone>(
    (log, bus): (L, B),
) {
    let other = bus.clone();
    let records = append(&log, partition(1), 0, 9).await;
    publish(&bus, &records[..3]).await;
    // The second asks where the stream ends, and goes on there.
    assert_eq!(tail(&other, partition(1)).await, tail_at(&records[2]));
    publish(&other, &records[3..5]).await;
    // The first remembers another end: it neither repeats what the second has published nor leaves anything out.
    refused(&bus, publication(&records[3..4])).await;
    refused(&bus, publication(&records[3..])).await;
    publish(&other, &records[5..7]).await;
    assert_eq!(tail(&bus, partition(1)).await, tail_at(&records[6]), "whoever asks again may go on");
    publish(&bus, &records[7..]).await;
    assert_eq!(read(&other, &[(partition(1), Sequence::ZERO)], 10).await, records);
}
