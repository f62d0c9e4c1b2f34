//! `financing.v1.DeadLetterService`.
//!
//! The rule this module protects: what is done about a dead letter is a command like any other, queued and recorded; and
//! whoever asks for it learns what became of it, and not what was hoped for.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use domain::financing::{Command, Financing};
use domain::integration::Registering;
use eventsourcing::command::Envelope;
use eventsourcing::environment::{Environment, Stop};
use eventsourcing::letters::{Content, Filter, Letter, LetterState, Letters, Place, Resolve, Unresolved};
use eventsourcing::listener::Intake;
use eventsourcing::model::{AggregateRef, Model as _};
use eventsourcing::outcome::{Outcome, Reply, Verdict};
use eventsourcing::partition::{LogPosition, Partition, Sequence};
use eventsourcing::ports::{DeadCommands, EventBus, EventLog, ForeignLetters};
use eventsourcing::record::{DeadData, Record};

use super::call::{Call, Calls};
use super::observation::CallWatch;
use super::paging::PagedQuery;
use super::parse::Fields;
use super::proto::financing::v1;
use super::proto::financing::v1::dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer};
use super::server::{Limits, MAX_REQUEST_BYTES, calls};
use super::status::Failure;
use super::wire::timestamp;

/// How long a retry or a discard waits for its outcome where nothing is said.
const DEFAULT_WAIT: prost_types::Duration = prost_types::Duration { seconds: 30, nanos: 0 };

/// The reason of a message of another context that cannot be understood.
const MALFORMED: &str = "MALFORMED";

/// The reason of a letter of which nothing can be read but where it is.
const UNREADABLE: &str = "UNREADABLE";

/// The dead letters of this context.
pub type FinancingLetters<L, F, B> = Letters<Financing, Registering, L, F, B>;

/// The service, in front of the dead letters and an intake.
pub struct DeadLetterApi<E, L, F, B> {
    letters: FinancingLetters<L, F, B>,
    intake: Intake<E>,
    calls: Calls<E>,
}

/// The service, for a server whose stop this is.
pub fn dead_letter_service<E, L, F, B>(
    letters: FinancingLetters<L, F, B>,
    intake: Intake<E>,
    environment: &E,
    limits: Limits,
    stop: &Stop,
    watch: CallWatch,
) -> DeadLetterServiceServer<DeadLetterApi<E, L, F, B>>
where
    E: Environment,
    L: EventLog + DeadCommands,
    F: ForeignLetters,
    B: EventBus,
{
    let calls = calls(environment, limits, stop, watch);
    DeadLetterServiceServer::new(DeadLetterApi { letters, intake, calls })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
}

impl<E, L, F, B> DeadLetterApi<E, L, F, B>
where
    E: Environment,
    L: EventLog + DeadCommands,
    F: ForeignLetters,
    B: EventBus,
{
    /// Does what is to be done about a letter, and waits for what becomes of it.
    async fn resolve(
        &self,
        id: Uuid,
        resolve: Resolve,
        wait: Duration,
    ) -> Result<v1::DeadLetterResolution, Failure> {
        let outcome = match resolve {
            Resolve::Done(outcome) => Some(outcome),
            Resolve::Queue(envelope) => {
                let command_id = envelope.command_id;
                match self.until_stopped(*envelope, wait).await? {
                    Some(Reply::Outcome(outcome)) => Some(outcome),
                    Some(Reply::Reused { .. }) => return Err(self.beaten(id).await?),
                    None => {
                        let state = v1::CommandState::Pending.into();
                        let command_id = command_id.to_string();
                        return Ok(v1::DeadLetterResolution {
                            command_id,
                            state,
                            ..v1::DeadLetterResolution::default()
                        });
                    }
                }
            }
        };
        let letter = self.letters.get(id).await?.ok_or(Unresolved::Unknown)?;
        let letter = Letter { outcome, ..letter };
        let resolution = self.resolution(&letter).await?;
        Ok(resolution.unwrap_or_default())
    }

    /// Waits for the outcome, but does not hold up a server that stops. Whoever asks again gets the outcome then.
    async fn until_stopped(&self, envelope: Envelope, wait: Duration) -> Result<Option<Reply>, Failure> {
        let waiting = pin!(self.intake.submit_and_wait(envelope, wait));
        let stopping = pin!(self.calls.stop.given());
        match select(waiting, stopping).await {
            Either::Left((reply, _)) => reply.map_err(Failure::NotQueued),
            Either::Right(((), _)) => Err(Failure::Stopping),
        }
    }

    /// Somebody else was first, and did the other thing.
    async fn beaten(&self, id: Uuid) -> Result<Failure, Failure> {
        let letter = self.letters.get(id).await?.ok_or(Unresolved::Unknown)?;
        Ok(match letter.state {
            LetterState::Discarded => Unresolved::AlreadyDiscarded,
            LetterState::Retried | LetterState::Open => Unresolved::AlreadyRetried,
        }
        .into())
    }

    /// What became of a letter, with what its record says.
    async fn resolution(&self, letter: &Letter) -> Result<Option<v1::DeadLetterResolution>, Failure> {
        let Some(outcome) = &letter.outcome else { return Ok(None) };
        let mut resolution = resolution(outcome);
        if let Some(record) = self.letters.resolution(letter).await? {
            resolution.actor.clone_from(&record.actor);
            resolution.time = Some(timestamp(record.recorded_at));
            if let Verdict::Dead { .. } = outcome.verdict {
                resolution.dead_letter_id = record.record_id.to_string();
            }
            if let Ok(Some(discard)) = record.discard() {
                resolution.message = discard.reason;
                if discard.letter_id != letter.id {
                    resolution.copy_id = discard.letter_id.to_string();
                }
            }
        }
        Ok(Some(resolution))
    }

    async fn list(
        &self,
        message: v1::ListDeadLettersRequest,
    ) -> Result<v1::ListDeadLettersResponse, Failure> {
        let mut fields = Fields::default();
        let state = state(&mut fields, message.state);
        let target = target(&mut fields, &message.target);
        let query =
            PagedQuery::of("ListDeadLetters").filtered(&message.state.to_string()).filtered(&message.target);
        let page = fields.page(message.page_size, &message.page_token, &query);
        let filter = fields.finish(Some(Filter { state, target }))?;
        let limit = usize::try_from(page.size).unwrap_or(usize::MAX);
        let (letters, more) = self.letters.list(&filter, page.after.map(place_of), limit).await?;
        let last = letters.last().filter(|_| more).map(|last| query.token(key_of(last.place())));
        Ok(v1::ListDeadLettersResponse {
            dead_letters: letters.iter().map(shown).collect(),
            next_page_token: last.unwrap_or_default(),
        })
    }
}

#[tonic::async_trait]
impl<E, L, F, B> DeadLetterService for DeadLetterApi<E, L, F, B>
where
    E: Environment,
    L: EventLog + DeadCommands,
    F: ForeignLetters,
    B: EventBus,
{
    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        let call = Call::short("ListDeadLetters", request.metadata());
        self.calls.answer(call, self.list(request.into_inner())).await
    }

    async fn get_dead_letter(
        &self,
        request: Request<v1::GetDeadLetterRequest>,
    ) -> Result<Response<v1::GetDeadLetterResponse>, Status> {
        let call = Call::short("GetDeadLetter", request.metadata());
        let body = async {
            let mut fields = Fields::default();
            let id: Option<Uuid> = fields.id("dead_letter_id", &request.get_ref().dead_letter_id);
            let id = fields.finish(id)?;
            let letter = self.letters.get(id).await?.ok_or(Unresolved::Unknown)?;
            let mut dead_letter = shown(&letter);
            dead_letter.resolution = self.resolution(&letter).await?;
            let (payload, whole) = payload(&letter.content);
            Ok(v1::GetDeadLetterResponse { dead_letter: Some(dead_letter), payload, whole })
        };
        self.calls.answer(call, body).await
    }

    async fn retry_dead_letter(
        &self,
        request: Request<v1::RetryDeadLetterRequest>,
    ) -> Result<Response<v1::RetryDeadLetterResponse>, Status> {
        let wait = request.get_ref().wait.unwrap_or(DEFAULT_WAIT);
        let call = Call::long("RetryDeadLetter", request.metadata(), Some(&wait));
        let body = async {
            let mut fields = Fields::default();
            let id: Option<Uuid> = fields.id("dead_letter_id", &request.get_ref().dead_letter_id);
            let wait = fields.wait("wait", Some(&wait));
            let (id, wait) = fields.finish(id.zip(wait))?;
            let resolve = self.letters.retry(id).await?;
            let resolution = self.resolve(id, resolve, call.budget.wait(wait)).await?;
            Ok(v1::RetryDeadLetterResponse { resolution: Some(resolution) })
        };
        self.calls.answer(call, body).await
    }

    async fn discard_dead_letter(
        &self,
        request: Request<v1::DiscardDeadLetterRequest>,
    ) -> Result<Response<v1::DiscardDeadLetterResponse>, Status> {
        let wait = request.get_ref().wait.unwrap_or(DEFAULT_WAIT);
        let call = Call::long("DiscardDeadLetter", request.metadata(), Some(&wait));
        let body = async {
            let (metadata, _, message) = request.into_parts();
            let mut fields = Fields::default();
            let id: Option<Uuid> = fields.id("dead_letter_id", &message.dead_letter_id);
            let reason = fields.text("reason", message.reason);
            let actor = fields.actor(&metadata);
            let wait = fields.wait("wait", Some(&wait));
            let ((id, reason), wait) = fields.finish(id.zip(reason).zip(wait))?;
            let resolve = self.letters.discard(id, actor, reason).await?;
            let resolution = self.resolve(id, resolve, call.budget.wait(wait)).await?;
            Ok(v1::DiscardDeadLetterResponse { resolution: Some(resolution) })
        };
        self.calls.answer(call, body).await
    }
}

fn state(fields: &mut Fields, state: i32) -> Option<LetterState> {
    match v1::DeadLetterState::try_from(state) {
        Ok(v1::DeadLetterState::Unspecified) => None,
        Ok(v1::DeadLetterState::Open) => Some(LetterState::Open),
        Ok(v1::DeadLetterState::Retried) => Some(LetterState::Retried),
        Ok(v1::DeadLetterState::Discarded) => Some(LetterState::Discarded),
        Err(_) => {
            fields.violation("state", "is not known");
            None
        }
    }
}

/// A target as it is shown; whether there is such an aggregate is not asked.
fn target(fields: &mut Fields, text: &str) -> Option<AggregateRef> {
    if text.is_empty() {
        return None;
    }
    let parsed = text.split_once('/').and_then(|(kind, id)| {
        let lower =
            !kind.is_empty() && kind.len() <= 64 && kind.bytes().all(|byte| byte.is_ascii_lowercase());
        let id = (id.len() == 36).then(|| Uuid::try_parse(id).ok()).flatten()?;
        lower.then(|| AggregateRef { kind: kind.to_owned().into(), id })
    });
    if parsed.is_none() {
        fields.violation(
            "target",
            "must be an aggregate and its id, as in investor/0190163d-8694-739b-aea5-966c26f8ad90",
        );
    }
    parsed
}

/// Page tokens hold sixteen bytes: what kind of place, the partition, and the number.
fn key_of(place: Place) -> Uuid {
    let (kind, partition, number) = match place {
        Place::Command(position) => (0, position.partition.index(), position.sequence.get()),
        Place::Foreign(number) => (1, 0, number),
    };
    Uuid::from_u128((kind << 96) | (u128::from(partition) << 64) | u128::from(number))
}

fn place_of(key: Uuid) -> Place {
    let (high, number) = key.as_u64_pair();
    if high >> 32 == 0 {
        // The token is sealed, so what is in it is what was put there.
        let partition = Partition::from_index(u16::try_from(high).unwrap_or(u16::MAX));
        return Place::Command(LogPosition { partition, sequence: Sequence::new(number) });
    }
    Place::Foreign(number)
}

/// All that is known without looking further.
fn shown(letter: &Letter) -> v1::DeadLetter {
    let state = match letter.state {
        LetterState::Open => v1::DeadLetterState::Open,
        LetterState::Retried => v1::DeadLetterState::Retried,
        LetterState::Discarded => v1::DeadLetterState::Discarded,
    };
    let about = match &letter.content {
        Content::Command(record, data) => of_command(record, data),
        Content::Unreadable(record, what) => {
            v1::DeadLetter { reason: UNREADABLE.to_owned(), message: what.clone(), ..of_record(record) }
        }
        Content::Foreign(foreign) => v1::DeadLetter {
            kind: v1::DeadLetterKind::Foreign.into(),
            method: foreign.message.subject.clone(),
            reason: MALFORMED.to_owned(),
            message: foreign.reason.clone(),
            time: Some(timestamp(foreign.kept_at)),
            place: foreign.position.message.to_string(),
            ..v1::DeadLetter::default()
        },
    };
    v1::DeadLetter {
        id: letter.id.to_string(),
        state: state.into(),
        retry_of: letter.retry_of().map(|id| id.to_string()).unwrap_or_default(),
        resolution: letter.outcome.as_ref().map(resolution),
        ..about
    }
}

fn of_command(record: &Record, data: &DeadData) -> v1::DeadLetter {
    let known = data.command.as_ref().and_then(|command| serde_json::from_str::<Command>(command.get()).ok());
    v1::DeadLetter {
        method: known.as_ref().map(Financing::method).unwrap_or_default().to_owned(),
        reason: data.reason.code().to_owned(),
        message: data.message.clone(),
        ..of_record(record)
    }
}

fn of_record(record: &Record) -> v1::DeadLetter {
    v1::DeadLetter {
        kind: v1::DeadLetterKind::Command.into(),
        target: record.aggregate.to_string(),
        time: Some(timestamp(record.recorded_at)),
        place: record.position().to_string(),
        actor: record.actor.clone(),
        command_id: record.command_id.to_string(),
        correlation_id: record.correlation_id.to_string(),
        causation_id: record.causation_id.to_string(),
        ..v1::DeadLetter::default()
    }
}

fn resolution(outcome: &Outcome) -> v1::DeadLetterResolution {
    let (state, words) = match &outcome.verdict {
        Verdict::Applied => (v1::CommandState::Applied, None),
        Verdict::Unchanged => (v1::CommandState::Unchanged, None),
        Verdict::Refused { reason, message } => (v1::CommandState::Refused, Some((reason, message))),
        Verdict::Dead { reason, message } => (v1::CommandState::Dead, Some((reason, message))),
    };
    let (reason, message) =
        words.map(|(reason, message)| (reason.clone(), message.clone())).unwrap_or_default();
    v1::DeadLetterResolution {
        command_id: outcome.command_id.to_string(),
        state: state.into(),
        reason,
        message,
        token: outcome.position.to_string(),
        ..v1::DeadLetterResolution::default()
    }
}

fn payload(content: &Content) -> (Vec<u8>, bool) {
    match content {
        Content::Command(_, DeadData { command: Some(command), .. }) => {
            (command.get().as_bytes().to_vec(), true)
        }
        Content::Command(_, DeadData { raw, .. }) => {
            let raw = raw.clone().unwrap_or_default().into_bytes();
            // It is cut in front of a character: one of at most four bytes.
            let whole = raw.len() < DeadData::MAX_RAW.saturating_sub(3);
            (raw, whole)
        }
        Content::Unreadable(record, _) => (record.data.clone().into_bytes(), true),
        Content::Foreign(foreign) => (foreign.message.payload.to_vec(), foreign.whole),
    }
}
