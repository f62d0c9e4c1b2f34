//! The command side over the wire.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, stream};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use eventsourcing::command::{Envelope, Slot};
use eventsourcing::listener::ListenerLimits;
use eventsourcing::testkit::memory::{Call, Fault, MemoryQueue};

use super::{CommandSide, Limits, PARTITIONS, PATIENT, command_side, queueing, working};
use crate::api::proto::financing::v1;
use crate::api::proto::financing::v1::command_service_client::CommandServiceClient;
use crate::api::proto::registering::v1 as registering;
use crate::api::proto::registering::v1::integration_event::Event;
use crate::api::proto::registering::v1::integration_service_client::IntegrationServiceClient;

const ISSUER: &str = "0190163d-8694-739b-aea5-966c26f8ad90";
const REQUEST: &str = "6f6d0d3e-58f5-4b3e-9a29-2a5d0a9e1f00";

fn eur(units: i64) -> v1::Money {
    v1::Money { currency_code: "EUR".to_owned(), units, nanos: 0 }
}

const fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn sell(units: i64) -> v1::SellInvoiceRequest {
    v1::SellInvoiceRequest {
        issuer_id: ISSUER.to_owned(),
        asking_price: Some(eur(units)),
        ..Default::default()
    }
}

fn registered(event_id: &str) -> registering::IntegrationEvent {
    registering::IntegrationEvent {
        event: Some(Event::IssuerRegistered(registering::IssuerRegistered {
            issuer_id: ISSUER.to_owned(),
            name: "Ada".to_owned(),
        })),
        event_id: event_id.to_owned(),
    }
}

impl CommandSide {
    fn commands(&self) -> CommandServiceClient<tonic::transport::Channel> {
        CommandServiceClient::new(self.served.channel.clone())
    }

    async fn publish(&self, events: Vec<registering::IntegrationEvent>) -> Result<Vec<String>, Status> {
        let mut client = IntegrationServiceClient::new(self.served.channel.clone());
        let request = registering::PublishIntegrationEventsRequest { events };
        client.publish_integration_events(request).await.map(|reply| reply.into_inner().command_ids)
    }

    /// Every command in the queue.
    fn queued(&self) -> Vec<Envelope> {
        let slots = PARTITIONS.all().flat_map(|partition| self.queue.commands(partition));
        slots
            .map(|slot| match slot {
                Slot::Envelope(envelope) => *envelope,
                Slot::Unreadable { reason, .. } => panic!("unreadable: {reason}"),
            })
            .collect()
    }
}

fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_details_bad_request().expect("a BadRequest");
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn an_outcome_comes_with_a_token() {
    let side = working().await;
    side.publish(vec![registered("")]).await.expect("stored");
    let mut client = side.commands();
    // The issuer's creation is queued, but may not be decided yet: selling is retried by the client.
    let reply = loop {
        match client.sell_invoice(v1::SellInvoiceRequest { wait: Some(seconds(20)), ..sell(100) }).await {
            Ok(reply) => break reply.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}"),
        }
    };
    assert_eq!(reply.state(), v1::CommandState::Applied);
    let id: Uuid = reply.invoice_id.parse().expect("a UUID");
    let partition = PARTITIONS.partition_of(id);
    assert_eq!(
        reply.token,
        format!("{partition}-{}", side.log.records(partition).last().expect("one").sequence)
    );
    side.served.end().await;
}

#[tokio::test]
async fn a_refusal_is_an_error_with_reason_ids_and_token() {
    let side = working().await;
    let request =
        v1::SellInvoiceRequest { wait: Some(seconds(20)), request_id: REQUEST.to_owned(), ..sell(100) };
    let status = side.commands().sell_invoice(request).await.expect_err("no such issuer");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("ISSUER_NOT_FOUND", "financing"));
    let namespace: Uuid = REQUEST.parse().expect("a UUID");
    assert_eq!(info.metadata["command_id"], Uuid::new_v5(&namespace, b"command").to_string());
    assert_eq!(info.metadata["invoice_id"], Uuid::new_v5(&namespace, b"invoice").to_string());
    assert!(info.metadata["token"].ends_with("-1"), "{info:?}");
}

#[tokio::test]
async fn a_repeat_gets_the_same_ids_and_another_request_does_not_pass_for_one() {
    let side = working().await;
    let request = |units| v1::SellInvoiceRequest { request_id: REQUEST.to_owned(), ..sell(units) };
    let first = side.commands().sell_invoice(request(100)).await.expect("stored").into_inner();
    let again = side.commands().sell_invoice(request(100)).await.expect("stored").into_inner();
    assert_eq!(first, again);
    assert_eq!((first.state(), first.token.as_str()), (v1::CommandState::Unspecified, ""));
    let other = v1::SellInvoiceRequest { wait: Some(seconds(20)), ..request(200) };
    let status = side.commands().sell_invoice(other).await.expect_err("reused");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.reason, "REQUEST_ID_REUSED");
    assert_eq!(info.metadata["command_id"], first.command_id);
}

#[tokio::test]
async fn without_an_outcome_in_time_a_command_is_pending() {
    let side = queueing().await;
    let invoice_id = ISSUER.to_owned();
    let request = v1::ApproveFinancingRequest { invoice_id, wait: Some(seconds(0)), ..Default::default() };
    let reply = side.commands().approve_financing(request).await.expect("stored").into_inner();
    assert_eq!((reply.state(), reply.token.as_str()), (v1::CommandState::Pending, ""));
    assert_eq!(side.queued()[0].command_id.to_string(), reply.command_id);
    // Also where the client's deadline ends before its wait.
    let invoice_id = ISSUER.to_owned();
    let mut request = Request::new(v1::ReverseFinancingRequest {
        invoice_id,
        wait: Some(seconds(200)),
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(1));
    let reply = side.commands().reverse_financing(request).await.expect("stored").into_inner();
    assert_eq!(reply.state(), v1::CommandState::Pending);
}

#[tokio::test]
async fn actor_and_trace_travel_with_the_command() {
    let side = queueing().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut request = Request::new(sell(1));
    request.metadata_mut().insert("actor", "clerk".parse().expect("ASCII"));
    request.metadata_mut().insert("traceparent", trace.parse().expect("ASCII"));
    let reply = side.commands().sell_invoice(request).await.expect("stored").into_inner();
    let queued = side.queued().remove(0);
    assert_eq!((queued.actor.as_str(), queued.traceparent.as_deref()), ("clerk", Some(trace)));
    assert_eq!(queued.target.id.to_string(), reply.invoice_id);
}

#[tokio::test]
async fn what_is_malformed_is_not_queued() {
    let side = queueing().await;
    let mut client = side.commands();
    let status = client.sell_invoice(v1::SellInvoiceRequest::default()).await.expect_err("empty");
    assert_eq!(fields(&status), ["issuer_id", "asking_price"]);
    let request = v1::BidOnInvoiceRequest {
        investor_id: "x".to_owned(),
        amount: Some(v1::Money { currency_code: "EUR".to_owned(), units: 1, nanos: -1 }),
        request_id: "y".to_owned(),
        wait: Some(seconds(-1)),
        ..Default::default()
    };
    let status = client.bid_on_invoice(request).await.expect_err("malformed");
    assert_eq!(fields(&status), ["investor_id", "invoice_id", "amount.nanos", "request_id", "wait"]);
    let request = v1::ApproveFinancingRequest { wait: Some(seconds(301)), ..Default::default() };
    assert_eq!(
        fields(&client.approve_financing(request).await.expect_err("malformed")),
        ["invoice_id", "wait"]
    );
    let request = v1::ReverseFinancingRequest { invoice_id: Uuid::nil().to_string(), ..Default::default() };
    assert_eq!(fields(&client.reverse_financing(request).await.expect_err("malformed")), ["invoice_id"]);
    assert!(side.queued().is_empty());
}

#[tokio::test]
async fn one_malformed_event_keeps_all_of_its_call_out() {
    let side = queueing().await;
    let status = side.publish(vec![registered(""), registered("x")]).await.expect_err("malformed");
    assert_eq!(fields(&status), ["events[1].event_id"]);
    assert_eq!(fields(&side.publish(Vec::new()).await.expect_err("nothing")), ["events"]);
    assert!(side.queued().is_empty());
}

#[tokio::test]
async fn an_event_has_one_command_however_often_it_comes() {
    let side = queueing().await;
    let ids = side.publish(vec![registered(REQUEST), registered("")]).await.expect("stored");
    let again = side.publish(vec![registered(REQUEST)]).await.expect("stored");
    assert_eq!(ids[0], again[0]);
    assert_ne!(ids[0], ids[1]);
    let queued: Vec<String> = side.queued().iter().map(|command| command.command_id.to_string()).collect();
    assert_eq!(queued, [ids[0].clone(), ids[1].clone(), again[0].clone()]);
    assert!(side.queued().iter().all(|command| command.actor == "registering"));
}

#[tokio::test]
async fn a_queue_that_is_down_is_unavailable_and_says_when_to_retry() {
    let down = |call: Call| if call == Call::QueueEnqueue { Fault::Fail } else { Fault::None };
    let queue = MemoryQueue::new(1).interfered(Arc::new(down));
    let hasty = ListenerLimits { patience: Duration::from_millis(50), ..ListenerLimits::default() };
    let side = command_side(queue, hasty, PATIENT, false).await;
    let status = side.commands().sell_invoice(sell(1)).await.expect_err("down");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());
    // Where the client is hastier than we are, it is told so by us.
    let side = command_side(side.queue, ListenerLimits::default(), PATIENT, false).await;
    let mut request = Request::new(sell(1));
    request.set_timeout(Duration::from_secs(1));
    let status = side.commands().sell_invoice(request).await.expect_err("too late");
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "the deadline passed"));
}

#[tokio::test]
async fn too_much_is_shed_at_once() {
    let full = ListenerLimits { commands: 0, ..ListenerLimits::default() };
    let side = command_side(MemoryQueue::new(1), full, PATIENT, false).await;
    let status = side.commands().sell_invoice(sell(1)).await.expect_err("full");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test]
async fn a_server_with_as_many_calls_as_it_may_have_takes_none_beyond_them() {
    let none = Limits { calls: 0, ..PATIENT };
    let side = command_side(MemoryQueue::new(1), ListenerLimits::default(), none, false).await;
    let waiting = v1::SellInvoiceRequest { wait: Some(seconds(0)), ..sell(1) };
    for request in [sell(1), waiting] {
        let status = side.commands().sell_invoice(request).await.expect_err("shed");
        assert_eq!(
            (status.code(), status.message()),
            (Code::ResourceExhausted, "the server has too much to do")
        );
        let info = status.get_details_retry_info().expect("when to try again");
        assert_eq!(info.retry_delay, Some(Duration::from_secs(1)));
    }
    let status = side.publish(vec![registered(REQUEST)]).await.expect_err("shed");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(side.queued().is_empty());
}

#[tokio::test]
async fn a_call_that_comes_in_pieces_is_refused_when_all_of_it_has_come() {
    let none = Limits { calls: 0, ..PATIENT };
    let side = command_side(MemoryQueue::new(1), ListenerLimits::default(), none, false).await;
    let (sender, pieces) = tokio::sync::mpsc::unbounded_channel();
    sender.send(sell(1)).expect("somebody reads");
    let pieces = stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let mut client = tonic::client::Grpc::new(side.served.channel.clone());
    client.ready().await.expect("connected");
    let path = "/financing.v1.CommandService/SellInvoice".parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<v1::SellInvoiceRequest, v1::SellInvoiceResponse>::default();
    let mut answer = pin!(client.client_streaming(Request::new(pieces), path, codec));
    assert!(answer.as_mut().now_or_never().is_none());
    // What is asked later, on the same connection, is answered sooner.
    let status = side.commands().sell_invoice(sell(2)).await.expect_err("shed");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(answer.as_mut().now_or_never().is_none());
    drop(sender);
    let answer = tokio::time::timeout(Duration::from_secs(30), answer).await.expect("it is answered");
    let status = answer.expect_err("shed");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test]
async fn those_who_wait_have_places_of_their_own() {
    let one = Limits { waits: 1, ..PATIENT };
    let side = command_side(MemoryQueue::new(1), ListenerLimits::default(), one, false).await;
    let waiting = || v1::SellInvoiceRequest { wait: Some(seconds(300)), ..sell(1) };
    let mut client = side.commands();
    let first = waiting();
    let _waits = tokio::spawn(async move { client.sell_invoice(first).await });
    let bell = side.queue.bells().hang();
    while side.queued().is_empty() {
        bell.rung().await;
    }
    let status = side.commands().sell_invoice(waiting()).await.expect_err("shed");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some());
    assert!(side.commands().sell_invoice(sell(1)).await.is_ok());
}

#[tokio::test]
async fn who_waits_when_the_server_stops_is_told_that_the_command_is_stored() {
    let side = queueing().await;
    let mut client = side.commands();
    let request = v1::SellInvoiceRequest { wait: Some(seconds(300)), ..sell(1) };
    let waiting = tokio::spawn(async move { client.sell_invoice(request).await });
    let bell = side.queue.bells().hang();
    while side.queued().is_empty() {
        bell.rung().await;
    }
    side.served.end().await;
    let reply = waiting.await.expect("no panic").expect("stored").into_inner();
    assert_eq!(reply.state(), v1::CommandState::Pending);
}
