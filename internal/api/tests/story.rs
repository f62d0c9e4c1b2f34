//! Stories and what is stuck, over the wire.

use std::sync::atomic::Ordering;

use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use domain::ids::{InvoiceId, IssuerId};
use domain::story::{
    CommandStory, Ending, Next, RecordStory, SagaView, StoryView, StuckView, Turn, UnreadableStep, Why,
};
use domain::views::InvoiceStatus;
use eventsourcing::environment::Timestamp;
use eventsourcing::model::AggregateRef;

use super::{PATIENT, QuerySide, query_side};
use crate::api::proto::financing::v1;

const INVOICE: Uuid = Uuid::from_u128(0xF);

impl QuerySide {
    fn put_story(&self, story: StoryView) {
        self.shelf.stories.lock().unwrap().insert(INVOICE, story);
    }
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn command(ending: Ending, records: Vec<RecordStory>) -> CommandStory {
    CommandStory {
        id: Uuid::from_u128(1),
        method: Some("ProcessBid".to_owned()),
        target: AggregateRef::new("invoice", INVOICE),
        actor: "policy:process-placed-bid".to_owned(),
        correlation_id: Uuid::from_u128(2),
        causation_id: Uuid::from_u128(3),
        policy: Some("process-placed-bid".to_owned()),
        accepted_at: None,
        ending,
        records,
    }
}

fn record(latency: Option<i64>, data: String) -> RecordStory {
    RecordStory {
        position: "3-118".parse().expect("a position"),
        record_id: Uuid::from_u128(4),
        event_type: "InvoiceFinanced".to_owned(),
        recorded_at: at(5_000_001),
        latency,
        amount: None,
        detail: String::new(),
        data,
    }
}

fn story(commands: Vec<CommandStory>, turn: Turn) -> StoryView {
    let saga = SagaView {
        correlation_id: Uuid::from_u128(2),
        commands,
        began_at: at(5_000_000),
        last_at: at(3_500_000),
        settled: false,
    };
    StoryView {
        invoice_id: InvoiceId::new(INVOICE),
        status: Some(InvoiceStatus::Financed),
        sagas: vec![saga],
        next: vec![Next { turn, since: Some(at(7)) }],
        truncated: true,
    }
}

fn get(invoice_id: &str, token: &str) -> v1::GetStoryRequest {
    v1::GetStoryRequest { invoice_id: invoice_id.to_owned(), token: token.to_owned() }
}

#[tokio::test]
async fn a_story_is_told_whole() {
    let side = query_side(PATIENT).await;
    let why = Why { reason: "INVOICE_NOT_FOUND".to_owned(), message: "there is none".to_owned() };
    let commands = vec![
        command(Ending::Expected { since: at(6_000_000) }, Vec::new()),
        command(Ending::Refused(why), vec![record(Some(-1_500_000), "{}".to_owned())]),
        command(Ending::Applied, vec![record(None, "x".repeat(4096))]),
    ];
    side.put_story(story(commands, Turn::Issuer { issuer_id: IssuerId::new(Uuid::from_u128(9)) }));
    let told = side.client().get_story(get(&INVOICE.to_string(), "")).await.expect("told").into_inner();
    assert_eq!((told.status(), told.truncated), (v1::InvoiceStatus::Financed, true));
    let saga = &told.sagas[0];
    assert!(!saga.settled);
    let took = prost_types::Duration { seconds: -1, nanos: -500_000_000 };
    assert_eq!(saga.took, Some(took), "clocks may differ");
    let [expected, refused, applied] = &saga.commands[..] else { panic!("{saga:?}") };
    assert_eq!(expected.ending(), v1::StoryEnding::Expected);
    assert_eq!(expected.expected_since, Some(prost_types::Timestamp { seconds: 6, nanos: 0 }));
    assert_eq!((refused.ending(), refused.reason.as_str()), (v1::StoryEnding::Refused, "INVOICE_NOT_FOUND"));
    assert_eq!((refused.message.as_str(), refused.records[0].latency), ("there is none", Some(took)));
    assert_eq!(refused.records[0].position, "3-118");
    assert_eq!(refused.records[0].time, Some(prost_types::Timestamp { seconds: 5, nanos: 1_000 }));
    assert_eq!(
        (applied.records[0].latency, applied.records[0].data.as_str()),
        (None, ""),
        "that is too much"
    );
    assert_eq!(told.next[0].turn(), v1::NextTurn::Issuer);
    assert!(told.next[0].sentence.contains(&Uuid::from_u128(9).to_string()), "{:?}", told.next);
    side.served.end().await;
}

#[tokio::test]
async fn nobodys_story_is_not_found() {
    let side = query_side(PATIENT).await;
    let status = side.client().get_story(get(&INVOICE.to_string(), "")).await.expect_err("none");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "there is no such invoice"));
    let status = side.client().get_story(get("nonsense", "")).await.expect_err("malformed");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_story_waits_for_what_its_token_names() {
    let side = query_side(PATIENT).await;
    side.put_story(story(Vec::new(), Turn::Nobody));
    let mut client = side.client();
    let reading = tokio::spawn(async move { client.get_story(get(&INVOICE.to_string(), "3-118")).await });
    while side.shelf.asked.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    assert!(!reading.is_finished());
    side.shelf.seen.store(true, Ordering::SeqCst);
    side.projected.ring();
    assert!(reading.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn what_is_stuck_is_listed_up_to_a_page_and_from_an_age_on() {
    let side = query_side(PATIENT).await;
    let step = |number: u128, since| StuckView {
        command_id: Uuid::from_u128(number),
        method: "ProcessBid".to_owned(),
        target: AggregateRef::new("invoice", INVOICE),
        policy: "process-placed-bid".to_owned(),
        invoice_id: Some(InvoiceId::new(INVOICE)),
        correlation_id: Uuid::from_u128(2),
        since: at(since),
        cause: "3-118".parse().expect("a position"),
        cause_record_id: Uuid::from_u128(3),
        cause_event: "BidOnInvoicePlaced".to_owned(),
    };
    // (The clock of these tests counts from 0: ten seconds ago is the beginning of all time.)
    *side.shelf.stuck.lock().unwrap() = vec![Ok(step(1, 0)), Ok(step(2, 0)), Ok(step(3, 1_000_000_000_000))];
    let list = async |older_than, page_size| {
        let request = v1::ListStuckRequest { older_than, page_size };
        side.client().list_stuck(request).await.map(tonic::Response::into_inner)
    };
    let all = list(None, 0).await.expect("listed");
    assert_eq!((all.steps.len(), all.more), (2, false), "one is too young");
    assert_eq!(all.steps[0].cause_position, "3-118");
    let one = list(Some(prost_types::Duration { seconds: 0, nanos: 0 }), 1).await.expect("listed");
    assert_eq!((one.steps.len(), one.more), (1, true));
    let (command_id, what) = (Uuid::from_u128(4), "its row is torn".to_owned());
    side.shelf.stuck.lock().unwrap().insert(0, Err(UnreadableStep { command_id, since: None, what }));
    let beside = list(None, 0).await.expect("listed").steps;
    let [torn, one, _] = beside.as_slice() else { panic!("beside the others: {beside:?}") };
    assert_eq!(
        (torn.command_id.as_str(), torn.unreadable.as_str()),
        (&*command_id.to_string(), "its row is torn")
    );
    assert_eq!((torn.since, torn.age, one.unreadable.as_str()), (None, None, ""));
    let status = list(Some(prost_types::Duration { seconds: -1, nanos: 0 }), 1).await.expect_err("malformed");
    let details = status.get_details_bad_request().expect("details");
    assert_eq!(details.field_violations[0].field, "older_than");
}
