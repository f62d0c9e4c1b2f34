//! What every event log promises of its dead letters: each CommandDead record is found, and nothing else.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::AggregateRef;
use crate::partition::{LogPosition, Partition};
use crate::ports::{Commit, DeadCommands, DeadQuery, EventLog};
use crate::record::{COMMAND_DEAD, DEAD_LETTER_DISCARDED, Record};

use super::sample::{Owner, aggregate, fact, id, partition, refusal};

/// The suite of [`DeadCommands`].
pub async fn dead_commands<L: EventLog + DeadCommands + Clone>(make: impl AsyncFn() -> L) {
    a_log_without_dead_commands_has_none(make().await).await;
    dead_commands_are_found_in_pages_in_order(make().await).await;
    what_is_asked_for_is_found_and_nothing_else(make().await).await;
    what_was_not_committed_is_not_found(make().await).await;
}

fn dead(partition: Partition, sequence: u64, aggregate: &AggregateRef) -> Record {
    Record {
        version: None,
        event_type: Cow::Borrowed(COMMAND_DEAD),
        data: r#"{"reason":"UNDECODABLE","message":"it's no \"command\" 🧾","command":{"a":1}}"#.to_owned(),
        traceparent: sequence.is_multiple_of(2).then(|| "00-0af7651916cd43dd-b7ad6b71-01".to_owned()),
        ..fact(partition, sequence, aggregate, 0)
    }
}

async fn read<L: DeadCommands>(log: &L, query: DeadQuery) -> Vec<Arc<Record>> {
    log.dead(&query).await.expect("dead commands can be read")
}

fn all(limit: usize) -> DeadQuery {
    DeadQuery { limit, ..DeadQuery::default() }
}

async fn a_log_without_dead_commands_has_none<L: EventLog + DeadCommands>(log: L) {
    assert!(read(&log, all(10)).await.is_empty());
    let one = partition(1);
    let a = aggregate(one, 0);
    // A fact of that name is a fact, and a discarded letter is not a dead command.
    let namesake = Record { event_type: Cow::Borrowed(COMMAND_DEAD), ..fact(one, 2, &a, 2) };
    let discarded = Record { event_type: Cow::Borrowed(DEAD_LETTER_DISCARDED), ..dead(one, 4, &a) };
    let mut owner = Owner::take_over(&log, one).await;
    owner.write(&log, vec![fact(one, 1, &a, 1), namesake, refusal(one, 3, &a), discarded]).await;
    assert!(read(&log, all(10)).await.is_empty());
}

/// Three partitions with facts and dead commands; answers with the dead ones, in order.
async fn some<L: EventLog>(log: &L) -> Vec<Arc<Record>> {
    let mut expected = Vec::new();
    for index in [2, 0, 1] {
        let here = partition(index);
        let (a, b) = (aggregate(here, 0), aggregate(here, 1));
        let mut owner = Owner::take_over(log, here).await;
        let records = vec![
            dead(here, 1, &a),
            fact(here, 2, &a, 1),
            dead(here, 3, &b),
            refusal(here, 4, &a),
            dead(here, 5, &a),
        ];
        expected
            .extend(owner.write(log, records).await.into_iter().filter(|one| one.event_type == COMMAND_DEAD));
    }
    expected.sort_by_key(|record: &Arc<Record>| record.position());
    expected
}

async fn dead_commands_are_found_in_pages_in_order<L: EventLog + DeadCommands + Clone>(log: L) {
    let expected = some(&log).await;
    assert_eq!(read(&log.clone(), all(1000)).await, expected, "whole, in order, by any handle");
    assert!(read(&log, all(0)).await.is_empty());
    for limit in [1, 2, 4] {
        let (mut after, mut found): (Option<LogPosition>, Vec<Arc<Record>>) = (None, Vec::new());
        loop {
            let page = read(&log, DeadQuery { after, ..all(limit) }).await;
            assert!(page.len() <= limit, "a read keeps to its limit");
            let Some(last) = page.last() else { break };
            after = Some(last.position());
            found.extend(page);
        }
        assert_eq!(found, expected, "in pages of {limit}");
    }
}

async fn what_is_asked_for_is_found_and_nothing_else<L: EventLog + DeadCommands>(log: L) {
    let expected = some(&log).await;
    let target = aggregate(partition(1), 0);
    let of_target: Vec<Arc<Record>> =
        expected.iter().filter(|record| record.aggregate == target).cloned().collect();
    assert_eq!(of_target.len(), 2);
    let query = DeadQuery { aggregate: Some(target.clone()), ..all(10) };
    assert_eq!(read(&log, query.clone()).await, of_target);
    let behind = DeadQuery { after: Some(of_target[0].position()), ..query };
    assert_eq!(read(&log, behind).await, of_target[1..]);
    let namesake = AggregateRef::new("other", target.id);
    assert!(read(&log, DeadQuery { aggregate: Some(namesake), ..all(10) }).await.is_empty());
    let wanted = &expected[4];
    let one = DeadQuery { record_id: Some(wanted.record_id), ..all(10) };
    assert_eq!(read(&log, one.clone()).await, std::slice::from_ref(wanted));
    assert!(read(&log, DeadQuery { aggregate: Some(aggregate(partition(9), 0)), ..one }).await.is_empty());
    let fact = DeadQuery { record_id: Some(id("record 1-2")), ..all(10) };
    assert!(read(&log, fact).await.is_empty(), "a fact is no dead command");
}

async fn what_was_not_committed_is_not_found<L: EventLog + DeadCommands>(log: L) {
    let one = partition(1);
    let zombie = Owner::take_over(&log, one).await;
    Owner::take_over(&log, one).await;
    let answer = log.commit(vec![zombie.part(vec![dead(one, 1, &aggregate(one, 0))])]).await;
    assert_eq!(answer, Ok(vec![Commit::Fenced]));
    assert!(read(&log, all(10)).await.is_empty());
}
