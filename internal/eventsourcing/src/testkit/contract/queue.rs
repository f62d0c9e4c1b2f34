//! What every command queue promises: order within a partition, positions that stay, and nothing lost before it is
//! purged.

use uuid::Uuid;

use crate::partition::Partition;
use crate::ports::{CommandQueue, QueuedMessage};

use super::sample::{bundle, id, partition};

/// The suite of [`CommandQueue`].
pub async fn command_queue<Q, F>(make: F)
where
    Q: CommandQueue + Clone,
    F: AsyncFn() -> Q,
{
    an_empty_queue_answers_with_nothing(make().await).await;
    bundles_come_back_as_they_were_and_in_order(make().await).await;
    partitions_are_read_apart_from_each_other(make().await).await;
    a_read_goes_on_where_the_last_one_ended(make().await).await;
    a_message_is_found_by_its_number_in_its_partition_only(make().await).await;
    a_purge_spares_the_message_and_the_other_partitions(make().await).await;
    numbers_grow_past_those_that_were_purged(make().await).await;
    the_creation_time_stays(make().await).await;
    every_way_to_a_message_says_when_it_was_stored(make().await).await;
    two_handles_share_one_queue(make().await).await;
}

async fn enqueue<Q: CommandQueue>(queue: &Q, partition: Partition, names: &[&str]) {
    for name in names {
        let answers = queue.enqueue(vec![bundle(partition, &[id(name)])]).await;
        assert_eq!(answers, [Ok(())], "a bundle is stored");
    }
}

async fn read<Q: CommandQueue>(queue: &Q, after: &[(Partition, u64)], limit: usize) -> Vec<QueuedMessage> {
    let messages = queue.read(after, limit).await.expect("a queue can be read");
    assert!(messages.len() <= limit, "a read keeps to its limit");
    messages
}

fn payload(partition: Partition, names: &[&str]) -> Vec<u8> {
    let ids: Vec<Uuid> = names.iter().map(|name| id(name)).collect();
    bundle(partition, &ids).payload
}

async fn every_way_to_a_message_says_when_it_was_stored<Q: CommandQueue + Clone>(queue: Q) {
    let one = partition(1);
    enqueue(&queue, one, &["a", "b"]).await;
    let first = read(&queue, &[(one, 0)], 10).await;
    // Read on from where the reader follows, by another handle from the beginning, and by number.
    enqueue(&queue, one, &["c"]).await;
    let mut read_on = first.clone();
    while read_on.len() < 3 {
        let last = read_on.last().map_or(0, |message| message.message);
        read_on.extend(read(&queue, &[(one, last)], 10).await);
    }
    let again = read(&queue.clone(), &[(one, 0)], 10).await;
    for (one_way, another) in read_on.iter().zip(&again) {
        let found = queue.message(one, one_way.message).await.expect("a lookup").expect("it is there");
        let times = [one_way.stored_at, another.stored_at, found.stored_at];
        assert_eq!(times, [times[0]; 3], "message {}", one_way.message);
        assert_eq!(found.mark(id("x")), another.mark(id("x")));
    }
    let times: Vec<u64> = read_on.iter().map(|message| message.stored_at).collect();
    assert!(times.iter().all(|time| *time == 0) || times.is_sorted(), "{times:?}");
}

async fn an_empty_queue_answers_with_nothing<Q: CommandQueue>(queue: Q) {
    assert!(read(&queue, &[(partition(0), 0), (partition(1), 0)], 10).await.is_empty());
    assert!(read(&queue, &[], 10).await.is_empty());
    assert!(queue.message(partition(0), 1).await.expect("a lookup").is_none());
    assert_eq!(queue.purge(&[(partition(0), 5)]).await, Ok(()));
    assert!(queue.enqueue(Vec::new()).await.is_empty());
}

async fn bundles_come_back_as_they_were_and_in_order<Q: CommandQueue>(queue: Q) {
    let one = partition(1);
    let answers = queue
        .enqueue(vec![bundle(one, &[id("a"), id("b")]), bundle(one, &[id("c")]), bundle(one, &[id("d")])])
        .await;
    assert_eq!(answers, [Ok(()), Ok(()), Ok(())]);
    enqueue(&queue, one, &["e"]).await;
    let messages = read(&queue, &[(one, 0)], 10).await;
    let payloads: Vec<&[u8]> = messages.iter().map(|message| &*message.payload).collect();
    let expected: Vec<Vec<u8>> =
        [&["a", "b"][..], &["c"], &["d"], &["e"]].iter().map(|names| payload(one, names)).collect();
    assert_eq!(payloads, expected);
    assert!(messages.iter().all(|message| message.partition == one));
    assert!(messages[0].message > 0, "numbers begin after 0");
    assert!(messages.is_sorted_by(|a, b| a.message < b.message), "numbers grow");
}

async fn partitions_are_read_apart_from_each_other<Q: CommandQueue>(queue: Q) {
    let (one, two, three) = (partition(1), partition(2), partition(3));
    let names: Vec<String> = (0..30).map(|number| format!("command {number}")).collect();
    let bundles = names
        .iter()
        .enumerate()
        .map(|(number, name)| bundle([one, two, three][number % 3], &[id(name)]))
        .collect::<Vec<_>>();
    assert!(queue.enqueue(bundles).await.iter().all(Result::is_ok));
    let messages = read(&queue, &[(one, 0), (three, 0)], 100).await;
    assert_eq!(messages.len(), 20, "a partition that was not asked for is not read");
    for (offset, partition) in [(0, one), (2, three)] {
        let payloads: Vec<&[u8]> = messages
            .iter()
            .filter(|message| message.partition == partition)
            .map(|message| &*message.payload)
            .collect();
        let expected: Vec<Vec<u8>> =
            names.iter().skip(offset).step_by(3).map(|name| payload(partition, &[name])).collect();
        assert_eq!(payloads, expected);
    }
}

async fn a_read_goes_on_where_the_last_one_ended<Q: CommandQueue>(queue: Q) {
    let (one, two) = (partition(1), partition(2));
    for name in ["a", "b", "c", "d", "e"] {
        enqueue(&queue, one, &[name]).await;
        enqueue(&queue, two, &[name]).await;
    }
    let mut after = [(one, 0), (two, 0)];
    let mut seen: Vec<(Partition, Vec<u8>)> = Vec::new();
    loop {
        let messages = read(&queue, &after, 3).await;
        if messages.is_empty() {
            break;
        }
        for message in messages {
            let place = after.iter_mut().find(|(partition, _)| *partition == message.partition);
            let (_, last) = place.expect("only what was asked for is read");
            assert!(message.message > *last, "nothing is read twice");
            *last = message.message;
            seen.push((message.partition, message.payload.to_vec()));
        }
    }
    for partition in [one, two] {
        let payloads: Vec<&Vec<u8>> =
            seen.iter().filter(|(of, _)| *of == partition).map(|(_, payload)| payload).collect();
        let expected: Vec<Vec<u8>> =
            ["a", "b", "c", "d", "e"].iter().map(|name| payload(partition, &[name])).collect();
        assert_eq!(payloads, expected.iter().collect::<Vec<_>>());
    }
}

async fn a_message_is_found_by_its_number_in_its_partition_only<Q: CommandQueue>(queue: Q) {
    let (one, two) = (partition(1), partition(2));
    enqueue(&queue, one, &["a", "b"]).await;
    enqueue(&queue, two, &["c"]).await;
    for message in read(&queue, &[(one, 0), (two, 0)], 10).await {
        let found =
            queue.message(message.partition, message.message).await.expect("a lookup").expect("it is there");
        assert_eq!(
            (found.partition, found.message, &found.payload),
            (message.partition, message.message, &message.payload)
        );
    }
    let last = read(&queue, &[(one, 0)], 10).await.last().expect("two messages").message;
    assert!(queue.message(two, last).await.expect("a lookup").is_none(), "it is another partition's");
    assert!(queue.message(one, last + 1000).await.expect("a lookup").is_none());
}

async fn a_purge_spares_the_message_and_the_other_partitions<Q: CommandQueue>(queue: Q) {
    let (one, two) = (partition(1), partition(2));
    for name in ["a", "b", "c", "d"] {
        enqueue(&queue, one, &[name]).await;
        enqueue(&queue, two, &[name]).await;
    }
    let before = read(&queue, &[(one, 0)], 10).await;
    assert_eq!(queue.purge(&[(one, before[2].message)]).await, Ok(()));
    let left = read(&queue, &[(one, 0)], 10).await;
    let numbers =
        |messages: &[QueuedMessage]| messages.iter().map(|message| message.message).collect::<Vec<_>>();
    assert_eq!(
        numbers(&left),
        numbers(&before[2..]),
        "what stands before the message is gone, the message stays"
    );
    assert!(queue.message(one, before[1].message).await.expect("a lookup").is_none());
    assert!(queue.message(one, before[2].message).await.expect("a lookup").is_some());
    assert_eq!(read(&queue, &[(two, 0)], 10).await.len(), 4, "another partition's messages stay");
    assert_eq!(queue.purge(&[(one, before[2].message)]).await, Ok(()), "a purge may be repeated");
    assert_eq!(read(&queue, &[(one, before[2].message)], 10).await.len(), 1);
}

async fn numbers_grow_past_those_that_were_purged<Q: CommandQueue>(queue: Q) {
    let one = partition(1);
    enqueue(&queue, one, &["a", "b", "c"]).await;
    let last = read(&queue, &[(one, 0)], 10).await[2].message;
    assert_eq!(queue.purge(&[(one, last + 1)]).await, Ok(()));
    assert!(read(&queue, &[(one, 0)], 10).await.is_empty());
    enqueue(&queue, one, &["d"]).await;
    let messages = read(&queue, &[(one, last)], 10).await;
    assert_eq!(
        messages.len(),
        1,
        "a number is never given twice, so a reader behind the purge misses nothing"
    );
    assert!(messages[0].message > last);
}

async fn the_creation_time_stays<Q: CommandQueue>(queue: Q) {
    let created_at = queue.created_at().await.expect("a creation time");
    assert!(created_at > 0);
    enqueue(&queue, partition(1), &["a"]).await;
    assert_eq!(queue.purge(&[(partition(1), 1_000_000)]).await, Ok(()));
    assert_eq!(queue.created_at().await, Ok(created_at));
}

async fn two_handles_share_one_queue<Q: CommandQueue + Clone>(queue: Q) {
    let other = queue.clone();
    enqueue(&queue, partition(1), &["a"]).await;
    enqueue(&other, partition(1), &["b"]).await;
    for handle in [&queue, &other] {
        let payloads: Vec<Vec<u8>> = read(handle, &[(partition(1), 0)], 10)
            .await
            .iter()
            .map(|message| message.payload.to_vec())
            .collect();
        assert_eq!(payloads, [payload(partition(1), &["a"]), payload(partition(1), &["b"])]);
    }
    assert_eq!(queue.created_at().await, other.created_at().await);
}
