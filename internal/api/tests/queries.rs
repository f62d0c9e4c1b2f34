//! The query side over the wire.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use domain::ids::IssuerId;
use domain::views::{CommandState, CommandView, IssuerView};

use super::{Limits, PATIENT, QuerySide, query_side};
use crate::api::proto::financing::v1;
use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;

impl QuerySide {
    pub(super) fn client(&self) -> QueryServiceClient<Channel> {
        QueryServiceClient::new(self.served.channel.clone())
    }

    fn put_issuers(&self, ids: impl IntoIterator<Item = u128>, name: &str) {
        let mut issuers = self.shelf.issuers.lock().unwrap();
        for id in ids.into_iter().map(Uuid::from_u128) {
            issuers.insert(id, IssuerView { id: IssuerId::new(id), name: name.to_owned() });
        }
    }

    fn put_command(&self, id: Uuid) {
        let view = CommandView {
            id,
            state: CommandState::Refused,
            reason: Some("ISSUER_NOT_FOUND".to_owned()),
            message: Some("there is none".to_owned()),
            position: "3-118".parse().expect("a position"),
        };
        self.shelf.commands.lock().unwrap().insert(id, view);
    }

    /// Completes when the shelf was asked so often.
    async fn asked(&self, times: usize) {
        while self.shelf.asked.load(Ordering::SeqCst) < times {
            tokio::task::yield_now().await;
        }
    }
}

fn issuer(id: u128, token: &str) -> v1::GetIssuerRequest {
    v1::GetIssuerRequest { issuer_id: Uuid::from_u128(id).to_string(), token: token.to_owned() }
}

fn get(command: Uuid, token: &str) -> v1::GetCommandRequest {
    v1::GetCommandRequest { command_id: command.to_string(), token: token.to_owned() }
}

#[tokio::test]
async fn one_is_found_or_not() {
    let side = query_side(PATIENT).await;
    side.put_issuers([1], "Ada");
    let found = side.client().get_issuer(issuer(1, "")).await.expect("found").into_inner().issuer;
    assert_eq!(found, Some(v1::Issuer { id: Uuid::from_u128(1).to_string(), name: "Ada".to_owned() }));
    let status = side.client().get_issuer(issuer(2, "")).await.expect_err("none");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "there is no such issuer"));
    let status = side.client().get_issuer(v1::GetIssuerRequest::default()).await.expect_err("malformed");
    assert_eq!(status.code(), Code::InvalidArgument);
    side.served.end().await;
}

#[tokio::test]
async fn a_read_waits_for_what_its_token_names() {
    let side = query_side(PATIENT).await;
    side.put_issuers([1], "Ada");
    let mut client = side.client();
    let reading = tokio::spawn(async move { client.get_issuer(issuer(1, "3-118")).await });
    side.asked(1).await;
    assert!(!reading.is_finished());
    side.shelf.seen.store(true, Ordering::SeqCst);
    side.projected.ring();
    assert!(reading.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_read_that_waits_ends_at_its_deadline_by_our_word() {
    let side = query_side(PATIENT).await;
    let mut request = Request::new(issuer(1, "3-118"));
    request.set_timeout(Duration::from_secs(1));
    let status = side.client().get_issuer(request).await.expect_err("never seen");
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "the deadline passed"));
}

#[tokio::test]
async fn those_who_wait_do_not_hold_up_a_stop() {
    let side = query_side(PATIENT).await;
    let (mut reader, mut waiter) = (side.client(), side.client());
    let reading = tokio::spawn(async move { reader.get_issuer(issuer(1, "3-118")).await });
    let command_id = Uuid::from_u128(7).to_string();
    let wait = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let request = v1::WaitCommandRequest { command_id, wait };
    let waiting = tokio::spawn(async move { waiter.wait_command(request).await });
    side.asked(2).await;
    side.served.end().await;
    let status = reading.await.expect("no panic").expect_err("stopped");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(waiting.await.expect("no panic").expect_err("stopped").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_list_is_paged_and_its_token_belongs_to_it() {
    let side = query_side(PATIENT).await;
    side.put_issuers(1..=25, "Ada");
    side.put_issuers(26..=30, "Bob");
    let request = v1::ListIssuersRequest { page_size: 10, name: "Ada".to_owned(), ..Default::default() };
    let (mut seen, mut page_token, mut tokens) = (Vec::new(), String::new(), Vec::new());
    loop {
        let page = v1::ListIssuersRequest { page_token, ..request.clone() };
        let reply = side.client().list_issuers(page).await.expect("a page").into_inner();
        seen.extend(reply.issuers.into_iter().map(|issuer| issuer.id));
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            break;
        }
        tokens.push(page_token.clone());
    }
    assert_eq!(seen, (1..=25).map(|id| Uuid::from_u128(id).to_string()).collect::<Vec<_>>());
    assert_eq!(tokens.len(), 2);
    let other = v1::ListIssuersRequest { page_token: tokens[0].clone(), ..Default::default() };
    let status = side.client().list_issuers(other).await.expect_err("another filter");
    assert_eq!(status.code(), Code::InvalidArgument);
    let other = v1::ListBidsRequest { page_token: tokens[0].clone(), ..Default::default() };
    let status = side.client().list_bids(other).await.expect_err("another list");
    assert_eq!(status.get_details_bad_request().expect("details").field_violations[0].field, "page_token");
    // A page that is exactly full is the last one where nothing follows.
    let full = v1::ListIssuersRequest { page_size: 25, ..request };
    let reply = side.client().list_issuers(full).await.expect("a page").into_inner();
    assert_eq!((reply.issuers.len(), reply.next_page_token.as_str()), (25, ""));
}

#[tokio::test]
async fn filters_that_nobody_knows_are_refused() {
    let side = query_side(PATIENT).await;
    let request = v1::ListInvoicesRequest { status: 99, page_size: -1, ..Default::default() };
    let status = side.client().list_invoices(request).await.expect_err("malformed");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().expect("details").field_violations.len(), 2);
    let request = v1::ListBidsRequest { status: -1, token: "x".to_owned(), ..Default::default() };
    let status = side.client().list_bids(request).await.expect_err("malformed");
    assert_eq!(status.get_details_bad_request().expect("details").field_violations.len(), 2);
}

#[tokio::test]
async fn a_commands_outcome_can_be_asked_for_and_waited_for() {
    let side = query_side(PATIENT).await;
    let id = Uuid::from_u128(7);
    let request = v1::GetCommandRequest { command_id: id.to_string(), ..Default::default() };
    let command = side.client().get_command(request).await.expect("an answer").into_inner().command;
    assert_eq!(command.expect("one").state(), v1::CommandState::Pending);
    let wait = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    let request = v1::WaitCommandRequest { command_id: id.to_string(), wait };
    let command = side.client().wait_command(request).await.expect("an answer").into_inner().command;
    assert_eq!(command.expect("one").state(), v1::CommandState::Pending);
    let mut client = side.client();
    let request = v1::WaitCommandRequest { command_id: id.to_string(), wait: None };
    let before = side.shelf.asked.load(Ordering::SeqCst);
    let waiting = tokio::spawn(async move { client.wait_command(request).await });
    side.asked(before + 1).await;
    side.put_command(id);
    side.projected.ring();
    let command = waiting.await.expect("no panic").expect("an answer").into_inner().command.expect("one");
    assert_eq!((command.state(), command.reason.as_str()), (v1::CommandState::Refused, "ISSUER_NOT_FOUND"));
    assert_eq!(command.token, "3-118");
}

#[tokio::test]
async fn those_who_wait_leave_the_store_alone_until_the_bell_rings() {
    let side = query_side(PATIENT).await;
    let id = Uuid::from_u128(7);
    let (mut reader, mut waiter) = (side.client(), side.client());
    let reading = tokio::spawn(async move { reader.get_command(get(id, "3-118")).await });
    let request = v1::WaitCommandRequest { command_id: id.to_string(), wait: None };
    let waiting = tokio::spawn(async move { waiter.wait_command(request).await });
    side.asked(2).await;
    // A look that finds nothing is followed by a timer: two of these, two of the calls, and one of the wait.
    while side.environment.slept().len() < 5 {
        tokio::task::yield_now().await;
    }
    let shortest = side.environment.slept().into_iter().min();
    assert!(shortest >= Some(Duration::from_secs(1)), "{shortest:?}");
    side.put_command(id);
    side.shelf.seen.store(true, Ordering::SeqCst);
    side.projected.ring();
    assert!(reading.await.expect("no panic").is_ok());
    assert!(waiting.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_wait_longer_than_the_deadline_ends_pending() {
    let side = query_side(PATIENT).await;
    let wait = Some(prost_types::Duration { seconds: 100, nanos: 0 });
    let mut request =
        Request::new(v1::WaitCommandRequest { command_id: Uuid::from_u128(7).to_string(), wait });
    request.set_timeout(Duration::from_secs(1));
    let command = side.client().wait_command(request).await.expect("an answer").into_inner().command;
    assert_eq!(command.expect("one").state(), v1::CommandState::Pending);
}

#[tokio::test]
async fn what_fails_inside_fails_alone() {
    let side = query_side(PATIENT).await;
    let id = Uuid::from_u128(1).to_string();
    let panics = v1::GetInvestorRequest { investor_id: id.clone(), ..Default::default() };
    let status = side.client().get_investor(panics).await.expect_err("a panic");
    assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
    let status =
        side.client().list_investors(v1::ListInvestorsRequest::default()).await.expect_err("corrupt");
    assert_eq!((status.code(), status.details()), (Code::Internal, &b""[..]));
    let down = v1::GetInvoiceRequest { invoice_id: id, ..Default::default() };
    let status = side.client().get_invoice(down).await.expect_err("down");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());
    side.put_issuers([1], "Ada");
    assert!(side.client().get_issuer(issuer(1, "")).await.is_ok());
}

#[tokio::test]
async fn those_who_wait_have_places_of_their_own() {
    let side = query_side(Limits { waits: 1, ..PATIENT }).await;
    side.put_issuers([1], "Ada");
    let mut client = side.client();
    let _waiting = tokio::spawn(async move { client.get_issuer(issuer(1, "3-118")).await });
    side.asked(1).await;
    let status = side.client().get_issuer(issuer(1, "3-118")).await.expect_err("shed");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some());
    assert!(side.client().get_issuer(issuer(1, "")).await.is_ok());
}

#[tokio::test]
async fn the_platform_says_what_it_is() {
    let side = query_side(PATIENT).await;
    let answer = side.client().get_platform(v1::GetPlatformRequest {}).await.unwrap().into_inner();
    let platform = answer.platform.unwrap();
    assert_eq!(platform.topology(), v1::Topology::Embedded);
    assert_eq!(platform.partitions, u32::from(super::PARTITIONS.get()));
    assert_eq!(platform.durability, "in memory");
    assert_eq!(platform.version, env!("CARGO_PKG_VERSION"));
}
