//! The stream of facts over the wire.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tonic::{Code, Streaming};
use uuid::Uuid;

use eventsourcing::environment::{Doorbell, Stop, Timestamp};
use eventsourcing::model::AggregateRef;
use eventsourcing::partition::{LogPosition, Partition, Sequence, Version};
use eventsourcing::ports::{BusTail, EventBus, PortResult, Publication};
use eventsourcing::record::Record;

use super::{Counting, Limits, PARTITIONS, PATIENT, QuerySide, query_side};
use crate::api::facts::Feed;
use crate::api::proto::financing::v1;

/// A fact that was recorded at this time.
fn fact(partition: u16, sequence: u64, micros: u64) -> Arc<Record> {
    let id = Uuid::from_u128(u128::from(partition));
    Arc::new(Record {
        partition: Partition::from_index(partition),
        sequence: Sequence::new(sequence),
        record_id: Uuid::from_u128(u128::from(micros)),
        recorded_at: Timestamp::from_micros(micros),
        aggregate: AggregateRef::new("issuer", id),
        version: Some(Version::new(sequence)),
        event_type: Cow::Borrowed("IssuerCreated"),
        schema: 1,
        data: "{}".to_owned(),
        command_id: id,
        correlation_id: id,
        causation_id: id,
        actor: "client".to_owned(),
        traceparent: None,
        last_of_command: true,
    })
}

impl QuerySide {
    async fn publish(&self, partition: u16, expected: u64, records: Vec<Arc<Record>>) {
        let partition = Partition::from_index(partition);
        let publication = Publication { partition, expected: Sequence::new(expected), records };
        self.bus.publish(vec![publication]).await.remove(0).expect("published");
    }

    async fn watch(&self, after: &[(u32, u64)]) -> Streaming<v1::WatchFactsResponse> {
        let after = after
            .iter()
            .map(|(partition, sequence)| v1::LogPosition { partition: *partition, sequence: *sequence });
        let request = v1::WatchFactsRequest { after: after.collect(), ..v1::WatchFactsRequest::default() };
        self.client().watch_facts(request).await.expect("a stream").into_inner()
    }
}

/// The positions of the next so many.
async fn next(stream: &mut Streaming<v1::WatchFactsResponse>, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let response = stream.message().await.expect("no error").expect("no end");
        let (fact, position) = (response.fact.expect("a fact"), response.position.expect("a position"));
        assert_eq!(fact.id, format!("{}-{}", position.partition, position.sequence));
        ids.push(fact.id);
    }
    ids
}

#[tokio::test]
async fn facts_come_in_the_order_of_their_partition_and_merged_by_time() {
    let side = query_side(PATIENT).await;
    side.publish(0, 0, vec![fact(0, 1, 10), fact(0, 2, 40)]).await;
    // A clock that went back does not turn the order of a partition round.
    side.publish(1, 0, vec![fact(1, 1, 20), fact(1, 2, 5)]).await;
    side.publish(9, 0, vec![fact(9, 1, 30)]).await;
    let mut stream = side.watch(&[]).await;
    assert_eq!(next(&mut stream, 5).await, ["0-1", "1-1", "1-2", "9-1", "0-2"]);
    side.publish(9, 1, vec![fact(9, 2, 50)]).await;
    assert_eq!(next(&mut stream, 1).await, ["9-2"]);
}

#[tokio::test]
async fn a_fact_is_a_cloud_event() {
    let side = query_side(PATIENT).await;
    side.publish(3, 0, vec![fact(3, 1, 1_700_000_000_000_001)]).await;
    let event = side.watch(&[]).await.message().await.expect("no error").expect("one").fact.expect("a fact");
    assert_eq!((event.source.as_str(), event.spec_version.as_str()), ("/financing", "1.0"));
    assert_eq!(event.r#type, "financing.v1.IssuerCreated");
    assert_eq!(event.subject, format!("issuer/{}", Uuid::from_u128(3)));
    assert_eq!(event.time, Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 1000 }));
    assert_eq!((event.data_content_type.as_str(), event.data.as_str()), ("application/json", "{}"));
    assert_eq!(event.extensions["sequence"], "1");
    assert_eq!(event.extensions["commandlast"], "true");
}

#[tokio::test]
async fn a_stream_goes_on_behind_what_is_known() {
    let side = query_side(PATIENT).await;
    side.publish(0, 0, vec![fact(0, 1, 1), fact(0, 2, 2)]).await;
    side.publish(1, 0, vec![fact(1, 1, 3)]).await;
    // The third of partition 1 is past its end: nothing comes until the fourth.
    let mut stream = side.watch(&[(0, 1), (1, 3)]).await;
    assert_eq!(next(&mut stream, 1).await, ["0-2"]);
    side.publish(1, 1, vec![fact(1, 2, 4), fact(1, 3, 5), fact(1, 4, 6)]).await;
    assert_eq!(next(&mut stream, 1).await, ["1-4"]);
}

#[tokio::test]
async fn a_long_past_is_merged_and_complete_and_the_present_is_not_forgotten_over_it() {
    let side = query_side(PATIENT).await;
    // Partition 0 has much more than one read, and more than the client's window takes.
    let many: Vec<_> = (1..=20_000).map(|sequence| fact(0, sequence, sequence * 10)).collect();
    side.publish(0, 0, many).await;
    side.publish(1, 0, (1..=10).map(|sequence| fact(1, sequence, sequence * 1000 + 1)).collect()).await;
    let mut stream = side.watch(&[]).await;
    let first = next(&mut stream, 101).await;
    assert_eq!(first.last().map(String::as_str), Some("1-1"), "after a hundred of the other");
    side.publish(7, 0, vec![fact(7, 1, 1)]).await;
    let rest = next(&mut stream, 20_011 - 101).await;
    let of = |partition: &str| {
        let all = first.iter().chain(&rest);
        all.filter_map(|id| id.strip_prefix(partition)?.parse::<u64>().ok()).collect::<Vec<_>>()
    };
    assert_eq!(of("0-"), (1..=20_000).collect::<Vec<_>>());
    assert_eq!(of("1-"), (1..=10).collect::<Vec<_>>());
    let newcomer = rest.iter().position(|id| id == "7-1").expect("it came");
    assert!(newcomer < 15_000, "it came only after {newcomer} others");
}

/// A bus whose reads are answered like this, and then with nothing.
struct Answers(Mutex<VecDeque<Vec<Arc<Record>>>>);

impl EventBus for Answers {
    async fn tails(&self, _partitions: &[Partition]) -> PortResult<Vec<BusTail>> {
        Ok(Vec::new())
    }

    async fn publish(&self, _publications: Vec<Publication>) -> Vec<PortResult<()>> {
        Vec::new()
    }

    async fn read(&self, _: &[(Partition, Sequence)], _: usize) -> PortResult<Vec<Arc<Record>>> {
        Ok(self.0.lock().unwrap().pop_front().unwrap_or_default())
    }

    async fn records(&self, positions: &[LogPosition]) -> PortResult<Vec<Option<Arc<Record>>>> {
        Ok(vec![None; positions.len()])
    }
}

#[tokio::test]
async fn an_effect_does_not_come_before_a_cause_that_was_stored_while_the_bus_was_read() {
    // Partition 0 was read before the cause was stored in it, partition 1 after its effect was.
    let (cause, effect) = (fact(0, 1, 10), fact(1, 1, 20));
    let answers = Answers(Mutex::new([vec![effect], vec![cause]].into()));
    let after = PARTITIONS.all().map(|partition| (partition, Sequence::ZERO)).collect();
    let (_stopper, stop) = Stop::new();
    let (bell, environment) = (Doorbell::default(), Counting::default());
    let mut feed = Feed::new(Arc::new(answers), after, PARTITIONS, bell, environment, stop);
    for micros in [10, 20] {
        let fact = feed.next().await.unwrap_or_else(|_| panic!("there is one more"));
        assert_eq!(fact.recorded_at, Timestamp::from_micros(micros));
    }
}

#[tokio::test]
async fn an_effect_waits_for_a_cause_that_the_bus_shows_later() {
    // Recorded by a machine whose clock is behind, and read several times before its cause arrives.
    let cause = fact(0, 1, 20);
    let effect = Record { causation_id: cause.record_id, ..(*fact(1, 1, 10)).clone() };
    let other = fact(2, 1, 30);
    let answers = vec![vec![Arc::new(effect)], vec![], vec![other], vec![], vec![cause]];
    let answers = Answers(Mutex::new(answers.into()));
    let after = PARTITIONS.all().map(|partition| (partition, Sequence::ZERO)).collect();
    let (_stopper, stop) = Stop::new();
    let (bell, environment) = (Doorbell::default(), Counting::default());
    let mut feed = Feed::new(Arc::new(answers), after, PARTITIONS, bell, environment, stop);
    for micros in [30, 20, 10] {
        let fact = feed.next().await.unwrap_or_else(|_| panic!("there is one more"));
        assert_eq!(fact.recorded_at, Timestamp::from_micros(micros));
    }
}

#[tokio::test]
async fn an_effect_whose_cause_lies_before_the_beginning_is_sent_all_the_same() {
    let old = Record { causation_id: Uuid::from_u128(999), ..(*fact(1, 1, 10)).clone() };
    let answers = Answers(Mutex::new([vec![Arc::new(old)]].into()));
    let after = PARTITIONS.all().map(|partition| (partition, Sequence::ZERO)).collect();
    let (_stopper, stop) = Stop::new();
    let environment = Counting::default();
    environment.count.store(5_000_000, std::sync::atomic::Ordering::Relaxed);
    let mut feed =
        Feed::new(Arc::new(answers), after, PARTITIONS, Doorbell::default(), environment.clone(), stop);
    assert!(feed.next().await.is_ok());
    assert!(environment.slept().is_empty(), "what is old is not held back");
}

#[tokio::test]
async fn places_that_do_not_exist_are_refused() {
    let side = query_side(PATIENT).await;
    let after =
        [(16, 0), (3, 1), (3, 2)].map(|(partition, sequence)| v1::LogPosition { partition, sequence });
    let request = v1::WatchFactsRequest { after: after.to_vec(), ..v1::WatchFactsRequest::default() };
    let status = side.client().watch_facts(request).await.expect_err("malformed");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_ends_with_the_server_and_does_not_hold_it_up() {
    let side = query_side(PATIENT).await;
    side.publish(0, 0, vec![fact(0, 1, 1)]).await;
    let mut stream = side.watch(&[]).await;
    assert_eq!(next(&mut stream, 1).await, ["0-1"]);
    side.served.end().await;
    assert_eq!(stream.message().await.expect_err("stopped").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_gives_its_place_back() {
    // Its places are its own: there is none for those who wait.
    let side = query_side(Limits { streams: 1, waits: 0, ..PATIENT }).await;
    side.publish(0, 0, vec![fact(0, 1, 1)]).await;
    let mut stream = side.watch(&[]).await;
    assert_eq!(next(&mut stream, 1).await, ["0-1"]);
    let request = v1::WatchFactsRequest::default;
    let status = side.client().watch_facts(request()).await.expect_err("shed");
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(stream);
    while let Err(status) = side.client().watch_facts(request()).await {
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
}

#[tokio::test]
async fn a_stream_ends_at_the_clients_deadline() {
    let side = query_side(PATIENT).await;
    side.publish(0, 0, vec![fact(0, 1, 10)]).await;
    let mut request = tonic::Request::new(v1::WatchFactsRequest::default());
    request.set_timeout(std::time::Duration::from_secs(1));
    let mut stream = side.client().watch_facts(request).await.expect("a stream").into_inner();
    assert_eq!(next(&mut stream, 1).await, ["0-1"]);
    let status = stream.message().await.expect_err("the deadline");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}
