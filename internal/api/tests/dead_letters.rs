//! The dead letters over the wire.

use eventsourcing::command::{Envelope, pack};
use eventsourcing::environment::Doorbells;
use eventsourcing::letters::{Letters, resolution_id};
use eventsourcing::outcome::Fingerprint;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{DeadLetter, DeadLetters as _, ForeignMessage, ForeignPosition};
use eventsourcing::testkit::memory::{MemoryDeadLetters, MemoryLog, MemoryQueue};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use domain::financing::Financing;
use domain::ids::IssuerId;
use domain::integration::{IntegrationEvent, IssuerRegistered, Registering};
use domain::name::Name;

use super::{
    Assignment, Counting, Desk, Doorbell, Duration, Listener, ListenerLimits, MemoryBus, PARTITIONS, PATIENT,
    Served, Stop, Stopper, Uuid, Worker, WorkerLimits, bound, drive,
};
use crate::api::admin::AdminServices;
use crate::api::dead_letters::dead_letter_service;
use crate::api::observation::CallWatch;
use crate::api::proto::financing::v1;
use crate::api::proto::financing::v1::dead_letter_service_client::DeadLetterServiceClient;
use crate::api::server::serve_admin;

type Client = DeadLetterServiceClient<tonic::transport::Channel>;

/// An admin side with a worker that decides what is retried.
struct AdminSide {
    served: Served,
    log: MemoryLog,
    queue: MemoryQueue,
    foreign: MemoryDeadLetters,
    _loops: Stopper,
}

async fn admin_side() -> AdminSide {
    let environment = Counting::default();
    let (queue, log, foreign) = (MemoryQueue::new(1), MemoryLog::default(), MemoryDeadLetters::default());
    let ((stopper, stop), (loops, never)) = (Stop::new(), Stop::new());
    let (desk, bell) = (Desk::new("here"), Doorbell::default());
    let (mut listener, intake) = Listener::new(
        queue.clone(),
        PARTITIONS,
        ListenerLimits::default(),
        desk.clone(),
        bell.clone(),
        environment.clone(),
    );
    let mut worker = Worker::<Financing, _, _, _, _>::new(
        log.clone(),
        queue.clone(),
        desk,
        environment.clone(),
        PARTITIONS,
        Assignment::of(PARTITIONS.all()),
        WorkerLimits::default(),
    );
    let poll = Duration::from_millis(5);
    let (clock, until) = (environment.clone(), never.clone());
    tokio::spawn(async move { drive(&mut listener, &clock, &bell, poll, &until).await });
    let (clock, bells): (Counting, Doorbells) = (environment.clone(), queue.bells().clone());
    tokio::spawn(async move { drive(&mut worker, &clock, &bells.hang(), poll, &never).await });
    let letters = Letters::new(Registering, log.clone(), foreign.clone(), MemoryBus::default(), PARTITIONS);
    let (socket, address, channel) = bound().await;
    let letters = dead_letter_service(letters, intake, &environment, PATIENT, &stop, CallWatch::default());
    let services = AdminServices::new(environment.clone(), stop.clone()).with(letters);
    let server = tokio::spawn(serve_admin(socket, services, environment, PATIENT, stop));
    AdminSide { served: Served { channel, address, stopper, server }, log, queue, foreign, _loops: loops }
}

fn registration(number: u128) -> Envelope {
    let event = IntegrationEvent::IssuerRegistered(IssuerRegistered {
        issuer_id: IssuerId::new(Uuid::from_u128(number)),
        name: Name::try_new("Ada").unwrap(),
    });
    Envelope::first::<Financing>(Uuid::from_u128(number + 1000), "ada".to_owned(), &event.command()).unwrap()
}

impl AdminSide {
    fn client(&self) -> Client {
        DeadLetterServiceClient::new(self.served.channel.clone())
    }

    /// Queues bytes and waits until all that is queued is dead.
    async fn dies(&self, partition: u16, payload: &[u8], dead: usize) {
        self.queue.push(Partition::from_index(partition), payload);
        while self.log.all_records().len() < dead {
            tokio::task::yield_now().await;
        }
    }

    /// A registration that the store refuses, until somebody mends it.
    async fn refused_by_the_store(&self, number: u128, dead: usize) {
        self.log.refuse_content(Some("Ada"));
        let envelope = registration(number).encode().unwrap();
        for bundle in pack(PARTITIONS.partition_of(Uuid::from_u128(number)), [envelope.as_slice()]) {
            self.dies(bundle.partition.index(), &bundle.payload, dead).await;
        }
        self.log.refuse_content(None);
    }

    async fn list(&self, request: v1::ListDeadLettersRequest) -> v1::ListDeadLettersResponse {
        self.client().list_dead_letters(request).await.unwrap().into_inner()
    }

    async fn only(&self) -> v1::DeadLetter {
        let mut letters = self.list(v1::ListDeadLettersRequest::default()).await.dead_letters;
        assert_eq!(letters.len(), 1, "{letters:?}");
        letters.remove(0)
    }

    async fn retry(&self, id: &str) -> Result<v1::DeadLetterResolution, Status> {
        let request = v1::RetryDeadLetterRequest { dead_letter_id: id.to_owned(), wait: None };
        let answer = self.client().retry_dead_letter(request).await?;
        Ok(answer.into_inner().resolution.expect("a resolution"))
    }

    async fn discard(&self, id: &str, reason: &str) -> Result<v1::DeadLetterResolution, Status> {
        let (dead_letter_id, reason) = (id.to_owned(), reason.to_owned());
        let request = v1::DiscardDeadLetterRequest { dead_letter_id, reason, wait: None };
        let answer = self.client().discard_dead_letter(request).await?;
        Ok(answer.into_inner().resolution.expect("a resolution"))
    }
}

fn refused(status: &Status) -> String {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    status.get_details_error_info().expect("an ErrorInfo").reason
}

#[tokio::test]
async fn a_dead_command_is_shown_retried_and_then_done() {
    let side = admin_side().await;
    side.refused_by_the_store(1, 1).await;
    let letter = side.only().await;
    assert_eq!((letter.state(), letter.kind()), (v1::DeadLetterState::Open, v1::DeadLetterKind::Command));
    assert_eq!(letter.target, format!("issuer/{}", Uuid::from_u128(1)));
    assert_eq!((letter.method.as_str(), letter.reason.as_str()), ("CreateIssuer", "UNSTORABLE"));
    assert_eq!((letter.actor.as_str(), letter.place.as_str()), ("ada", "1-1"));
    let get = v1::GetDeadLetterRequest { dead_letter_id: letter.id.clone() };
    let whole = side.client().get_dead_letter(get.clone()).await.unwrap().into_inner();
    assert_eq!((whole.payload.as_slice(), whole.whole), (registration(1).command.get().as_bytes(), true));

    let done = side.retry(&letter.id).await.unwrap();
    assert_eq!((done.state(), done.token.as_str()), (v1::CommandState::Applied, "1-2"));
    assert_eq!(side.retry(&letter.id).await.unwrap(), done, "once, whoever asks");
    assert_eq!(refused(&side.discard(&letter.id, "late").await.unwrap_err()), "DEAD_LETTER_RETRIED");
    assert_eq!(side.log.all_records().len(), 2);
    let shown = side.client().get_dead_letter(get).await.unwrap().into_inner().dead_letter.unwrap();
    assert_eq!((shown.state(), shown.resolution), (v1::DeadLetterState::Retried, Some(done)));
    side.served.end().await;
}

#[tokio::test]
async fn what_is_no_command_can_only_be_discarded_by_somebody_who_says_why() {
    let side = admin_side().await;
    side.dies(3, b"\x1b[31m garbage", 1).await;
    let id = side.only().await.id;
    assert_eq!(refused(&side.retry(&id).await.unwrap_err()), "NOT_RETRYABLE");
    for reason in ["", "  ", "two\nlines", &"x".repeat(257)] {
        assert_eq!(side.discard(&id, reason).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let done = side.discard(&id, "garbage").await.unwrap();
    assert_eq!((done.state(), done.message.as_str()), (v1::CommandState::Applied, "garbage"));
    assert_eq!(done.actor, "client");
    assert_eq!(side.discard(&id, "rubbish").await.unwrap(), done, "for the first reason");
    assert_eq!(refused(&side.retry(&id).await.unwrap_err()), "DEAD_LETTER_DISCARDED");
    assert_eq!(side.only().await.state(), v1::DeadLetterState::Discarded);
}

#[tokio::test]
async fn a_retry_that_dies_again_is_a_new_letter_and_the_next_one_waits_for_it() {
    let side = admin_side().await;
    side.refused_by_the_store(1, 1).await;
    let first = side.only().await.id;
    // Another command for the same issuer, under another id.
    side.log.refuse_content(Some("Ada"));
    let mut other = registration(1);
    other.command_id = Uuid::from_u128(77);
    let encoded = other.encode().unwrap();
    for bundle in pack(Partition::from_index(1), [encoded.as_slice()]) {
        side.dies(1, &bundle.payload, 2).await;
    }
    let died = side.retry(&first).await.unwrap();
    side.log.refuse_content(None);
    assert_eq!((died.state(), died.reason.as_str()), (v1::CommandState::Dead, "UNSTORABLE"));
    let open = v1::ListDeadLettersRequest {
        state: v1::DeadLetterState::Open.into(),
        ..v1::ListDeadLettersRequest::default()
    };
    let open = side.list(open).await.dead_letters;
    let [second, again] = open.as_slice() else { panic!("two are open: {open:?}") };
    assert_eq!((&again.id, &again.retry_of), (&died.dead_letter_id, &first));
    let waits = side.retry(&second.id).await.unwrap_err();
    assert_eq!(refused(&waits), "EARLIER_DEAD_LETTER");
    assert_eq!(waits.get_details_error_info().unwrap().metadata["dead_letter_id"], again.id);
    assert_eq!(side.retry(&again.id).await.unwrap().state(), v1::CommandState::Applied);
    assert_eq!(side.retry(&second.id).await.unwrap().state(), v1::CommandState::Unchanged);
}

#[tokio::test]
async fn what_another_context_sent_is_listed_behind_the_commands_in_pages() {
    let side = admin_side().await;
    side.dies(2, b"garbage", 1).await;
    for message in 1..=3 {
        let payload = format!("{{ malformed {message}");
        let position =
            ForeignPosition { created_at: 9, message, fingerprint: Fingerprint::of(payload.as_bytes()) };
        let message = ForeignMessage {
            message,
            subject: "registering.events.x".to_owned(),
            payload: payload.as_bytes().into(),
        };
        let letter = DeadLetter::Foreign { position, message, reason: "no JSON".to_owned() };
        side.foreign.keep(vec![letter]).await.unwrap();
    }
    let mut request = v1::ListDeadLettersRequest { page_size: 2, ..v1::ListDeadLettersRequest::default() };
    let mut seen = Vec::new();
    loop {
        let page = side.list(request.clone()).await;
        seen.extend(page.dead_letters.into_iter().map(|letter| (letter.kind(), letter.place)));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let foreign = |place: &str| (v1::DeadLetterKind::Foreign, place.to_owned());
    let command = (v1::DeadLetterKind::Command, "2-1".to_owned());
    assert_eq!(seen, [command, foreign("1"), foreign("2"), foreign("3")]);
    let letters = side.list(v1::ListDeadLettersRequest::default()).await.dead_letters;
    let id = &letters[2].id;
    assert_eq!(refused(&side.retry(id).await.unwrap_err()), "NOT_RETRYABLE");
    assert_eq!(side.discard(id, "not ours").await.unwrap().state(), v1::CommandState::Applied);
    let get = v1::GetDeadLetterRequest { dead_letter_id: id.clone() };
    let found = side.client().get_dead_letter(get).await.unwrap().into_inner();
    assert_eq!(found.payload, b"{ malformed 2");
    assert_eq!(found.dead_letter.unwrap().state(), v1::DeadLetterState::Discarded);
}

/// A registration as it came from another context, to a release that did not understand it.
async fn kept(side: &AdminSide, messages: impl IntoIterator<Item = u64>) {
    let data = r#"{"issuer_id":"01a1fda0-5a7f-7c64-97dc-0f2b0ccbd3c1","name":"Ada"}"#;
    let payload = format!(
        r#"{{"specversion":"1.0","id":"01a1fda0-5a7f-7c64-97dc-0f2b0ccbd3c2","source":"registering",
            "type":"registering.v1.IssuerRegistered","data":{data}}}"#
    );
    for message in messages {
        let fingerprint = Fingerprint::of(payload.as_bytes());
        let position = ForeignPosition { created_at: 9, message, fingerprint };
        let (subject, payload) = ("registering.events.x".to_owned(), payload.as_bytes().into());
        let message = ForeignMessage { message, subject, payload };
        let letter = DeadLetter::Foreign { position, message, reason: "not understood".to_owned() };
        side.foreign.keep(vec![letter]).await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_of_a_message_that_was_discarded_is_discarded_and_says_with_which() {
    let side = admin_side().await;
    kept(&side, 1..=2).await;
    let letters = side.list(v1::ListDeadLettersRequest::default()).await.dead_letters;
    let [one, copy] = letters.as_slice() else { panic!("two: {letters:?}") };
    let done = side.discard(&one.id, "not ours").await.unwrap();
    assert_eq!((done.state(), done.copy_id.as_str()), (v1::CommandState::Applied, ""));
    assert_eq!(refused(&side.retry(&copy.id).await.unwrap_err()), "DEAD_LETTER_DISCARDED");
    let with = side.discard(&copy.id, "nor that").await.unwrap();
    assert_eq!((with.message.as_str(), &with.copy_id), ("not ours", &one.id));
    let states = side.list(v1::ListDeadLettersRequest::default()).await.dead_letters;
    assert!(states.iter().all(|letter| letter.state() == v1::DeadLetterState::Discarded), "{states:?}");
    assert_eq!(side.log.all_records().len(), 1, "nothing was imported");
}

#[tokio::test]
async fn a_copy_of_a_message_that_was_retried_is_retried() {
    let side = admin_side().await;
    kept(&side, 1..=2).await;
    let letters = side.list(v1::ListDeadLettersRequest::default()).await.dead_letters;
    let done = side.retry(&letters[1].id).await.unwrap();
    assert_eq!(done.state(), v1::CommandState::Applied);
    assert_eq!(side.retry(&letters[0].id).await.unwrap(), done);
    assert_eq!(refused(&side.discard(&letters[0].id, "late").await.unwrap_err()), "DEAD_LETTER_RETRIED");
}

#[tokio::test]
async fn a_discard_that_an_older_worker_calls_dead_is_a_letter_of_its_own() {
    let side = admin_side().await;
    side.refused_by_the_store(1, 1).await;
    let first = side.only().await;
    let letter: Uuid = first.id.parse().unwrap();
    // What such a worker reads of it.
    let text = format!("{{\"discards\":\"{letter}\"}}");
    let away = Envelope {
        command_id: resolution_id(letter),
        causation_id: letter,
        correlation_id: first.correlation_id.parse().unwrap(),
        actor: "somebody".to_owned(),
        command: serde_json::value::RawValue::from_string(text).unwrap(),
        ..registration(1)
    };
    let encoded = away.encode().unwrap();
    for bundle in pack(Partition::from_index(1), [encoded.as_slice()]) {
        side.dies(1, &bundle.payload, 2).await;
    }
    let letters = side.list(v1::ListDeadLettersRequest::default()).await.dead_letters;
    let [shown, died] = letters.as_slice() else { panic!("two: {letters:?}") };
    assert_eq!((shown.state(), died.state()), (v1::DeadLetterState::Discarded, v1::DeadLetterState::Open));
    let again = side.discard(&first.id, "paid by hand").await.unwrap();
    assert_eq!((again.state(), &again.dead_letter_id), (v1::CommandState::Dead, &died.id));
    assert_eq!(refused(&side.retry(&died.id).await.unwrap_err()), "NOT_RETRYABLE");
    let done = side.discard(&died.id, "paid by hand").await.unwrap();
    assert_eq!((done.state(), done.actor.as_str()), (v1::CommandState::Applied, "client"));
}

#[tokio::test]
async fn what_is_malformed_or_unknown_is_told_so() {
    let side = admin_side().await;
    let unknown = Uuid::from_u128(5).to_string();
    assert_eq!(side.retry(&unknown).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(side.discard(&unknown, "why").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(side.retry("nonsense").await.unwrap_err().code(), Code::InvalidArgument);
    for (target, state, page_token) in
        [("nonsense", 0, ""), ("issuer/", 0, ""), ("Issuer/x", 0, ""), ("", 9, ""), ("", 0, "x")]
    {
        let request = v1::ListDeadLettersRequest {
            target: target.to_owned(),
            state,
            page_token: page_token.to_owned(),
            page_size: 0,
        };
        let status = side.client().list_dead_letters(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{target} {state} {page_token}");
    }
}
