//! Live queries over the wire.

use std::time::Duration;

use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use domain::currency::Currency;
use domain::ids::InvestorId;
use domain::money::Money;
use domain::views::InvestorView;

use super::{Limits, PATIENT, QuerySide, WatchLimits, query_side};
use crate::api::proto::financing::v1;

/// Nothing happens by itself.
const QUIET: WatchLimits = WatchLimits {
    places: 64,
    heartbeat: Duration::from_hours(1),
    patience: Duration::from_hours(1),
    lasts: Duration::from_hours(2),
    rest: Duration::ZERO,
};

type Message = v1::WatchInvestorsResponse;

impl QuerySide {
    fn change(&self, numbers: impl IntoIterator<Item = u128>, name: &str) {
        let nothing = Money::zero(Currency::EUR);
        let view = |number| InvestorView {
            id: InvestorId::new(Uuid::from_u128(number)),
            name: name.to_owned(),
            available: nothing,
            reserved: nothing,
            committed: nothing,
        };
        self.shelf.changes.lock().unwrap().extend(numbers.into_iter().map(view));
        self.projected.ring();
    }

    async fn watch_investors(&self, resume_token: &str) -> Result<Streaming<Message>, Status> {
        let resume_token = resume_token.to_owned();
        let request = v1::WatchInvestorsRequest { ids: Vec::new(), resume_token };
        Ok(self.client().watch_investors(request).await?.into_inner())
    }
}

async fn watched(limits: WatchLimits) -> QuerySide {
    query_side(Limits { watch: limits, ..PATIENT }).await
}

/// The next message: whom it tells of, and its token.
async fn next(stream: &mut Streaming<Message>) -> (Vec<u128>, String) {
    let message = stream.message().await.expect("no error").expect("no end");
    let numbers = message.changes.iter().map(|row| row.id.parse::<Uuid>().unwrap().as_u128());
    (numbers.collect(), message.resume_token)
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn a_snapshot_comes_first_then_what_changes_as_soon_as_the_bell_rings() {
    let side = watched(QUIET).await;
    side.change([1, 2, 3], "Ada");
    let mut stream = side.watch_investors("").await.expect("a stream");
    assert_eq!(next(&mut stream).await.0, [1, 2]);
    assert_eq!(next(&mut stream).await.0, [3]);
    let told = stream.message().await.expect("no error").expect("no end");
    assert!(told.changes.is_empty() && told.snapshot_complete, "it says that there is nothing more");
    side.change([2], "Bob");
    let news = stream.message().await.expect("no error").expect("no end");
    assert_eq!(news.changes[0].name, "Bob");
    // Whoever has the token goes on behind it.
    side.change([4], "Eve");
    let mut other = side.watch_investors(&news.resume_token).await.expect("a stream");
    assert_eq!(next(&mut other).await.0, [4]);
}

#[tokio::test]
async fn in_silence_a_message_says_that_it_is_alive() {
    let side = watched(WatchLimits { heartbeat: Duration::from_millis(1), ..QUIET }).await;
    let mut stream = side.watch_investors("").await.expect("a stream");
    for _ in 0..5 {
        let (changes, token) = next(&mut stream).await;
        assert!(changes.is_empty() && !token.is_empty());
    }
    assert!(side.environment.slept().contains(&Duration::from_millis(1)));
}

#[tokio::test]
async fn who_does_not_read_is_told_to_resume_and_gives_its_place_back() {
    let limits = WatchLimits { places: 1, patience: Duration::from_millis(20), ..QUIET };
    let side = watched(limits).await;
    // More than a client's window takes.
    let long = "x".repeat(200);
    side.change(0..20_000, &long);
    let mut stream = side.watch_investors("").await.expect("a stream");
    let (_, mut token) = next(&mut stream).await;
    // When it does not read, there is a place again.
    let mut other = loop {
        match side.watch_investors(&token).await {
            Ok(other) => break other,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
    };
    let mut count = 2;
    let status = loop {
        match stream.message().await {
            Ok(message) => {
                let message = message.expect("no end");
                count += message.changes.len() as u128;
                token = message.resume_token;
            }
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "WATCH_TOO_SLOW"), "{status}");
    assert!(count < 20_000, "what nobody took is not kept");
    assert_eq!(next(&mut other).await.0, [2, 3]);
    drop(other);
    // And with the last token it goes on where it was cut off.
    let mut stream = loop {
        match side.watch_investors(&token).await {
            Ok(stream) => break stream,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
    };
    assert_eq!(next(&mut stream).await.0, [count, count + 1]);
}

#[tokio::test]
async fn a_watch_ends_with_the_server_and_does_not_hold_it_up() {
    let side = watched(QUIET).await;
    let mut stream = side.watch_investors("").await.expect("a stream");
    let (_, token) = next(&mut stream).await;
    assert!(!token.is_empty());
    side.served.end().await;
    let status = stream.message().await.expect_err("stopped");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some(), "it is told to come back");
}

#[tokio::test]
async fn a_watch_that_has_lasted_long_enough_is_told_to_resume() {
    let side = watched(WatchLimits { lasts: Duration::from_millis(50), ..QUIET }).await;
    let mut stream = side.watch_investors("").await.expect("a stream");
    next(&mut stream).await;
    let status = stream.message().await.expect_err("over");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "WATCH_EXPIRED"));
}

#[tokio::test]
async fn a_watch_ends_at_the_clients_deadline() {
    let side = watched(QUIET).await;
    let mut request = Request::new(v1::WatchInvestorsRequest::default());
    request.set_timeout(Duration::from_secs(1));
    let mut stream = side.client().watch_investors(request).await.expect("a stream").into_inner();
    next(&mut stream).await;
    assert_eq!(stream.message().await.expect_err("the deadline").code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_client_that_goes_gives_its_place_back() {
    // Its places are its own: there is none for those who wait, and none for streams of facts.
    let side =
        query_side(Limits { streams: 0, waits: 0, watch: WatchLimits { places: 1, ..QUIET }, ..PATIENT })
            .await;
    let mut stream = side.watch_investors("").await.expect("a stream");
    next(&mut stream).await;
    let status = side.watch_investors("").await.expect_err("shed");
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(stream);
    while let Err(status) = side.watch_investors("").await {
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
}

#[tokio::test]
async fn who_cannot_go_on_is_told_to_begin_again() {
    let side = watched(QUIET).await;
    // When it is begun,
    let request = v1::WatchInvoicesRequest::default();
    let status = side.client().watch_invoices(request).await.expect_err("astray");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "WATCH_TOKEN_ASTRAY"));
    // or later.
    let request = v1::WatchBidsRequest::default();
    let mut stream = side.client().watch_bids(request).await.expect("a stream").into_inner();
    let status = stream.message().await.expect_err("too far behind");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "WATCH_TOO_FAR_BEHIND"));
}

#[tokio::test]
async fn a_token_is_good_for_its_watch_only() {
    let side = watched(QUIET).await;
    let mut stream = side.watch_investors("").await.expect("a stream");
    let (_, token) = next(&mut stream).await;
    let one = Uuid::from_u128(1).to_string();
    let narrower = v1::WatchInvestorsRequest { ids: vec![one.clone()], resume_token: token.clone() };
    let other = v1::WatchBidsRequest { resume_token: token.clone(), ..v1::WatchBidsRequest::default() };
    let refused = [
        side.client().watch_investors(narrower).await.map(drop).expect_err("other filters"),
        side.client().watch_bids(other).await.map(drop).expect_err("another method"),
        side.watch_investors("nonsense").await.map(drop).expect_err("nonsense"),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::InvalidArgument);
        let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
        assert_eq!(violations[0].field, "resume_token");
    }
    // The order of the ids, and how they are written, does not matter.
    let two = Uuid::from_u128(0xAB).to_string();
    let ids = |ids: [&str; 2]| ids.map(ToOwned::to_owned).to_vec();
    let request = v1::WatchInvestorsRequest { ids: ids([&one, &two]), resume_token: String::new() };
    let mut stream = side.client().watch_investors(request).await.expect("a stream").into_inner();
    let (_, resume_token) = next(&mut stream).await;
    let request = v1::WatchInvestorsRequest { ids: ids([&two.to_uppercase(), &one]), resume_token };
    side.client().watch_investors(request).await.expect("the same filters");
}

#[tokio::test]
async fn ids_are_checked() {
    let side = watched(QUIET).await;
    let refused = async |ids: Vec<String>| {
        let request = v1::WatchInvestorsRequest { ids, resume_token: String::new() };
        let status = side.client().watch_investors(request).await.map(drop).expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        status.get_details_bad_request().expect("a BadRequest").field_violations[0].field.clone()
    };
    let id = Uuid::from_u128(1).to_string();
    assert_eq!(refused(vec![id.clone(), "x".to_owned()]).await, "ids[1]");
    assert_eq!(refused(vec![String::new()]).await, "ids[0]");
    assert_eq!(refused(vec![id; 101]).await, "ids");
}
