//! What must hold for whatever bytes a client sends.
//!
//! The rule this module protects: a request is answered, and what is wrong with it has a name. Run by the fuzzer and by the tests.

use std::future::pending;
use std::time::Duration;

use futures_util::FutureExt as _;
use prost::Message;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use eventsourcing::desk::Desk;
use eventsourcing::environment::{Doorbell, Environment, Stop, Timestamp};
use eventsourcing::listener::{Intake, Listener, ListenerLimits};
use eventsourcing::partition::{LogPosition, PartitionCount};
use eventsourcing::testkit::memory::MemoryQueue;

use super::admission::Admission;
use super::call::Calls;
use super::command_service::CommandApi;
use super::integration_service::IntegrationApi;
use super::observation::CallWatch;
use super::paging::{LARGEST_PAGE, PagedQuery};
use super::parse::Fields;
use super::proto::financing::v1;
use super::proto::financing::v1::command_service_server::CommandService as _;
use super::proto::registering::v1 as registering;
use super::proto::registering::v1::integration_service_server::IntegrationService as _;
use super::resume;
use super::watch;

/// The trailers of an answer are limited to a few kilobytes by clients.
const MOST_TROUBLE: usize = 16 * 1024;

/// An environment in which nothing happens.
#[derive(Debug, Clone, Copy)]
struct Still;

impl Environment for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0)
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_u128(1)
    }

    fn random(&self) -> u64 {
        0
    }

    fn sleep(&self, _duration: Duration) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// The services, in front of an intake that has no room: whatever is well-formed is shed.
fn services() -> (CommandApi<Still>, IntegrationApi<Still>) {
    let limits = ListenerLimits { commands: 0, ..ListenerLimits::default() };
    let (desk, bell) = (Desk::new("here"), Doorbell::default());
    let (_, intake): (Listener<MemoryQueue>, Intake<Still>) =
        Listener::new(MemoryQueue::new(1), PartitionCount::DEFAULT, limits, desk, bell, Still);
    let (_, stop) = Stop::new();
    let calls = Calls::new(Still, Admission::new(8, 8, 8, 8), stop, CallWatch::default());
    (CommandApi::new(intake.clone(), calls.clone()), IntegrationApi::new(intake, calls))
}

/// A message that can be read is the same when it is written and read again.
fn read<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let again = M::decode(message.encode_to_vec().as_slice());
    assert!(again.as_ref() == Ok(&message), "{message:?} was read again as {again:?}");
    Some(message)
}

/// Whoever is refused learns which fields are wrong; nothing else goes wrong.
fn judge<T: std::fmt::Debug>(answer: Option<Result<Response<T>, Status>>) {
    let status = match answer {
        Some(Err(status)) => status,
        other => return assert!(other.is_some_and(|answer| answer.is_err()), "no refusal at once"),
    };
    if status.code() == Code::ResourceExhausted {
        return;
    }
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_details_bad_request();
    let violations = details.map(|details| details.field_violations).unwrap_or_default();
    assert!(!violations.is_empty(), "nothing is said of what is wrong: {status:?}");
    for violation in &violations {
        let counts = violation.description.starts_with("there are ");
        assert!(counts || !violation.field.is_empty(), "a violation without a field: {status:?}");
        assert!(!violation.description.is_empty(), "a violation without words: {status:?}");
    }
    assert!(status.details().len() + status.message().len() <= MOST_TROUBLE, "too much is said: {status:?}");
}

/// The first byte says which method, the others are the request.
///
/// # Panics
///
/// When the property does not hold.
pub fn request(bytes: &[u8]) {
    let Some((method, body)) = bytes.split_first() else { return };
    let (commands, integration) = services();
    match method % 16 {
        0 => {
            if let Some(message) = read::<v1::SellInvoiceRequest>(body) {
                judge(commands.sell_invoice(Request::new(message)).now_or_never());
            }
        }
        1 => {
            if let Some(message) = read::<v1::BidOnInvoiceRequest>(body) {
                judge(commands.bid_on_invoice(Request::new(message)).now_or_never());
            }
        }
        2 => {
            if let Some(message) = read::<v1::ApproveFinancingRequest>(body) {
                judge(commands.approve_financing(Request::new(message)).now_or_never());
            }
        }
        3 => {
            if let Some(message) = read::<v1::ReverseFinancingRequest>(body) {
                judge(commands.reverse_financing(Request::new(message)).now_or_never());
            }
        }
        4 => {
            if let Some(message) = read::<registering::PublishIntegrationEventsRequest>(body) {
                judge(integration.publish_integration_events(Request::new(message)).now_or_never());
            }
        }
        other => query(other, body),
    }
}

fn query(method: u8, body: &[u8]) {
    let mut fields = Fields::default();
    let partitions = PartitionCount::DEFAULT;
    match method {
        5 => {
            let Some(message) = read::<v1::ListInvoicesRequest>(body) else { return };
            let issuer: Option<Uuid> = fields.optional_id("issuer_id", &message.issuer_id);
            fields.invoice_status(message.status);
            let filter = issuer.map(|id| id.to_string()).unwrap_or_default();
            let query = PagedQuery::of("ListInvoices").filtered(&filter);
            let page = fields.page(message.page_size, &message.page_token, &query);
            assert!(page.size <= LARGEST_PAGE);
            fields.token(&message.token, partitions);
        }
        6 => {
            let Some(message) = read::<v1::ListBidsRequest>(body) else { return };
            fields.bid_status(message.status);
            fields.token(&message.token, partitions);
        }
        7 => {
            let Some(message) = read::<v1::ListInvestorsRequest>(body) else { return };
            fields.optional_name("name", message.name);
        }
        8 => {
            let Some(message) = read::<v1::WatchFactsRequest>(body) else { return };
            let begin = fields.positions(&message.after, partitions);
            assert_eq!(begin.len(), usize::from(partitions.get()));
        }
        9 => {
            let Some(message) = read::<v1::WaitCommandRequest>(body) else { return };
            fields.wait("wait", message.wait.as_ref());
        }
        10 => {
            let Some(message) = read::<v1::GetBidRequest>(body) else { return };
            let id: Option<Uuid> = fields.id("bid_id", &message.bid_id);
            assert!(id.is_none_or(|id| !id.is_nil() && id.to_string().eq_ignore_ascii_case(&message.bid_id)));
        }
        11 => {
            let Some(message) = read::<v1::GetCommandRequest>(body) else { return };
            let _id: Option<Uuid> = fields.id("command_id", &message.command_id);
        }
        15 => {
            let Some(message) = read::<v1::ListStuckRequest>(body) else { return };
            let _age: Option<Duration> = fields.duration("older_than", message.older_than.as_ref());
            let page = fields.page(message.page_size, "", &PagedQuery::of("ListStuck"));
            assert!(page.size <= LARGEST_PAGE);
        }
        other => return live_query(other, body),
    }
    if let Err(failure) = fields.finish(Some(())) {
        judge::<()>(Some(Err(failure.status("a query"))));
    }
}

fn live_query(method: u8, body: &[u8]) {
    let partitions = PartitionCount::DEFAULT;
    let refused = match method {
        12 => read::<v1::WatchInvoicesRequest>(body)
            .and_then(|message| watch::invoices(&message, partitions).err()),
        13 => read::<v1::WatchInvestorsRequest>(body)
            .and_then(|message| watch::investors(&message, partitions).err()),
        _ => read::<v1::WatchBidsRequest>(body).and_then(|message| watch::bids(&message, partitions).err()),
    };
    if let Some(failure) = refused {
        judge::<()>(Some(Err(failure.status("a live query"))));
    }
}

/// A text as a consistency token, as a page token and as the resume token of a live query.
///
/// # Panics
///
/// When the property does not hold.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(position) = text.parse::<LogPosition>() {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
    let mut fields = Fields::default();
    let positions = fields.token(text, PartitionCount::DEFAULT);
    let is_refused = fields.finish(Some(())).is_err();
    assert!(text.is_empty() || is_refused == positions.is_empty(), "{text:?} is neither a token nor refused");
    let again: Vec<String> = positions.iter().map(LogPosition::to_string).collect();
    assert_eq!(Fields::default().token(&again.join(","), PartitionCount::DEFAULT), positions);
    let query = PagedQuery::of("ListBids").filtered("");
    if let Some(key) = query.key(text) {
        assert_eq!(query.token(key), text);
        assert_eq!(PagedQuery::of("ListIssuers").filtered("").key(text), None);
    }
    let query = PagedQuery::of("WatchBids").filtered("").filtered("").filtered("");
    if let Some(place) = resume::read(&query, PartitionCount::DEFAULT, text) {
        assert_eq!(resume::token(&query, &place), text);
        assert_eq!(place.at.len(), usize::from(PartitionCount::DEFAULT.get()));
        assert_eq!(resume::read(&PagedQuery::of("WatchBids"), PartitionCount::DEFAULT, text), None);
    }
}
