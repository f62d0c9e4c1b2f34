//! SIGTERM: the platform stops taking work, finishes what it has, and ends; a second one ends it at once.

use futures_util::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::crash::{has_lost_nothing, settle};
use crate::harness::proto::{
    CommandState, SellInvoiceRequest, SellInvoiceResponse, WaitCommandRequest, WatchFactsRequest,
};
use crate::harness::{Home, Load, Platform, eur, in_time, uuid};

#[tokio::test]
async fn a_stop_under_load_loses_nothing_that_was_accepted() {
    // given
    let platform = Platform::alone().await;
    let load = Load::prepare(&platform, 12).await;

    // when
    let harm = async {
        load.accepted(80).await;
        platform.signal("-TERM").await;
    };
    load.against(&platform, 8, harm).await;
    let (status, home) = platform.ended().await;

    // then
    assert_eq!(status, Some(0));
    let platform = Platform::start_in(home, &[]).await;
    has_lost_nothing(&platform, &load).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
}

#[tokio::test]
async fn an_interrupt_stops_it_as_well() {
    let platform = Platform::alone().await;
    platform.signal("-INT").await;
    let (status, _) = platform.ended().await;
    assert_eq!(status, Some(0));
}

/// The platform would wait an hour for calls under way, so it ends in time only when these do not count.
const AN_HOUR: [&str; 2] = ["--grace-seconds", "3600"];

#[tokio::test]
async fn who_only_watches_does_not_hold_the_stop_up() {
    // given
    let platform = Platform::start_in(Home::new(), &AN_HOUR).await;
    let mut facts = platform.queries().watch_facts(WatchFactsRequest::default()).await.unwrap().into_inner();
    platform.issuer().await;
    in_time("the first fact", facts.message()).await.unwrap().expect("the stream is open");
    let mut queries = platform.queries();
    let waiting = tokio::spawn(async move {
        let wait = Some(prost_types::Duration { seconds: 300, nanos: 0 });
        queries.wait_command(WaitCommandRequest { command_id: uuid(), wait }).await
    });
    let mut health = watch_health(&platform).await;
    assert_eq!(health.next().await.unwrap().unwrap().status(), ServingStatus::Serving);

    // when
    platform.signal("-TERM").await;

    // then
    let last = in_time("health says so", health.next()).await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    let end = in_time("the stream ends", facts.message()).await;
    assert!(end.as_ref().is_err_and(|status| status.code() == Code::Unavailable), "{end:?}");
    let waited = in_time("the wait ends", waiting).await.unwrap();
    match waited {
        Ok(answer) => assert_eq!(answer.into_inner().command.unwrap().state(), CommandState::Pending),
        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
    }
    let (status, _) = platform.ended().await;
    assert_eq!(status, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    // given
    let platform = Platform::start_in(Home::new(), &AN_HOUR).await;
    let mut health = watch_health(&platform).await;
    let half_sent = half_sent_call(&platform);
    platform.signal("-TERM").await;
    while in_time("health says so", health.next()).await.unwrap().unwrap().status() == ServingStatus::Serving
    {
    }

    // when
    platform.signal("-TERM").await;

    // then
    let (status, home) = platform.ended().await;
    assert_ne!(status, Some(0), "an abort is no orderly end");
    half_sent.abort();
    let platform = Platform::start_in(home, &[]).await;
    platform.sell(&platform.issuer().await, eur(1, 0)).await;
}

async fn watch_health(platform: &Platform) -> tonic::Streaming<tonic_health::pb::HealthCheckResponse> {
    let mut client = HealthClient::new(platform.query_channel());
    client.watch(HealthCheckRequest::default()).await.unwrap().into_inner()
}

/// A call whose request never ends: one that is under way for as long as the platform lets it.
fn half_sent_call(platform: &Platform) -> tokio::task::JoinHandle<()> {
    let mut client = tonic::client::Grpc::new(platform.command_channel());
    tokio::spawn(async move {
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<SellInvoiceRequest, SellInvoiceResponse>::default();
        let path =
            tonic::codegen::http::uri::PathAndQuery::from_static("/financing.v1.CommandService/SellInvoice");
        let never = tonic::Request::new(futures_util::stream::pending());
        let answer = client.client_streaming(never, path, codec).await;
        assert!(answer.is_err());
    })
}
