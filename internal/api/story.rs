//! One invoice's story, and what is stuck.
//!
//! The rule this module protects: what the story's words mean is said once, here, for every client: whose turn it is and what
//! is expected of them. A new turn does not compile until it has a sentence.

use std::time::Duration;

use domain::ids::InvoiceId;
use domain::live::LiveQueries;
use domain::story::{
    CommandStory, Ending, Next, RecordStory, SagaView, Stories, StoryView, StuckView, Turn, UnreadableStep,
    between,
};
use domain::views::{Page, Queries};
use eventsourcing::environment::{Environment, Timestamp};
use eventsourcing::ports::EventBus;

use super::paging::PagedQuery;
use super::parse::Fields;
use super::proto::financing::v1;
use super::query_service::QueryApi;
use super::status::Failure;
use super::wire::{duration, timestamp};

/// How long a step may take before it counts as stuck, where nothing is said.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest data that a story repeats of a record, in bytes: a thousand records fit into what clients take.
const MOST_DATA: usize = 2 * 1024;

impl<E: Environment, Q: Queries + Stories, L: LiveQueries, B: EventBus> QueryApi<E, Q, L, B> {
    /// GetStory.
    pub(crate) async fn story(&self, request: v1::GetStoryRequest) -> Result<v1::GetStoryResponse, Failure> {
        let mut fields = Fields::default();
        let id: Option<InvoiceId> = fields.id("invoice_id", &request.invoice_id);
        let token = fields.token(&request.token, self.partitions);
        let id = fields.finish(id)?;
        self.until_seen(&token).await?;
        let story = self.queries.story(&*self.bus, id).await.map_err(Failure::Unread)?;
        story.map(Into::into).ok_or(Failure::NotFound("invoice"))
    }

    /// ListStuck.
    pub(crate) async fn stuck(
        &self,
        request: v1::ListStuckRequest,
    ) -> Result<v1::ListStuckResponse, Failure> {
        let mut fields = Fields::default();
        let older_than = fields.duration("older_than", request.older_than.as_ref());
        let page = fields.page(request.page_size, "", &PagedQuery::of("ListStuck"));
        let Page { size, .. } = fields.finish(Some(page))?;
        let now = self.calls.environment.now();
        let micros = u64::try_from(older_than.unwrap_or(PATIENCE).as_micros()).unwrap_or(u64::MAX);
        let up_to = Timestamp::from_micros(now.as_micros().saturating_sub(micros));
        let steps = self.queries.stuck(&*self.bus, up_to, size.saturating_add(1)).await;
        let mut steps = steps.map_err(Failure::Unread)?;
        let most = usize::try_from(size).unwrap_or(usize::MAX);
        let more = steps.len() > most;
        steps.truncate(most);
        let steps = steps.into_iter().map(|step| match step {
            Ok(step) => stuck_step(step, now),
            Err(step) => unreadable_step(step, now),
        });
        Ok(v1::ListStuckResponse { steps: steps.collect(), more })
    }
}

fn stuck_step(step: StuckView, now: Timestamp) -> v1::StuckStep {
    v1::StuckStep {
        command_id: step.command_id.to_string(),
        method: step.method,
        target_type: step.target.kind.into_owned(),
        target_id: step.target.id.to_string(),
        policy: step.policy,
        invoice_id: step.invoice_id.map(|id| id.to_string()).unwrap_or_default(),
        correlation_id: step.correlation_id.to_string(),
        since: Some(timestamp(step.since)),
        age: Some(duration(between(step.since, now))),
        cause_position: step.cause.to_string(),
        cause_event: step.cause_event,
        cause_record_id: step.cause_record_id.to_string(),
        unreadable: String::new(),
    }
}

fn unreadable_step(step: UnreadableStep, now: Timestamp) -> v1::StuckStep {
    tracing::warn!(command_id = %step.command_id, what = %step.what, "a step that is expected cannot be read");
    v1::StuckStep {
        command_id: step.command_id.to_string(),
        since: step.since.map(timestamp),
        age: step.since.map(|since| duration(between(since, now))),
        unreadable: step.what,
        ..v1::StuckStep::default()
    }
}

impl From<StoryView> for v1::GetStoryResponse {
    fn from(story: StoryView) -> Self {
        Self {
            invoice_id: story.invoice_id.to_string(),
            status: story.status.map(v1::InvoiceStatus::from).unwrap_or_default().into(),
            sagas: story.sagas.into_iter().map(Into::into).collect(),
            next: story.next.into_iter().map(Into::into).collect(),
            truncated: story.truncated,
        }
    }
}

impl From<SagaView> for v1::Saga {
    fn from(saga: SagaView) -> Self {
        Self {
            correlation_id: saga.correlation_id.to_string(),
            began_at: Some(timestamp(saga.began_at)),
            took: Some(duration(saga.micros())),
            settled: saga.settled,
            commands: saga.commands.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<CommandStory> for v1::StoryCommand {
    fn from(command: CommandStory) -> Self {
        let (ending, since, why) = match command.ending {
            Ending::Expected { since } => (v1::StoryEnding::Expected, Some(since), None),
            Ending::Applied => (v1::StoryEnding::Applied, None, None),
            Ending::Unchanged => (v1::StoryEnding::Unchanged, None, None),
            Ending::Refused(why) => (v1::StoryEnding::Refused, None, Some(why)),
            Ending::Dead(why) => (v1::StoryEnding::Dead, None, Some(why)),
        };
        let (reason, message) = why.map(|why| (why.reason, why.message)).unwrap_or_default();
        Self {
            id: command.id.to_string(),
            method: command.method.unwrap_or_default(),
            target_type: command.target.kind.into_owned(),
            target_id: command.target.id.to_string(),
            actor: command.actor,
            policy: command.policy.unwrap_or_default(),
            correlation_id: command.correlation_id.to_string(),
            causation_id: command.causation_id.to_string(),
            accepted_at: command.accepted_at.map(timestamp),
            ending: ending.into(),
            expected_since: since.map(timestamp),
            reason,
            message,
            records: command.records.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<RecordStory> for v1::StoryRecord {
    fn from(record: RecordStory) -> Self {
        Self {
            position: record.position.to_string(),
            record_id: record.record_id.to_string(),
            event: record.event_type,
            time: Some(timestamp(record.recorded_at)),
            latency: record.latency.map(duration),
            amount: record.amount.map(Into::into),
            detail: record.detail,
            data: if record.data.len() > MOST_DATA { String::new() } else { record.data },
        }
    }
}

impl From<Next> for v1::NextStep {
    fn from(next: Next) -> Self {
        let several = |count: u32, one: &str, many: &str| match count {
            1 => one.to_owned(),
            count => format!("{count} {many}"),
        };
        let (turn, sentence) = match next.turn {
            Turn::Platform { steps } => {
                let steps = several(steps, "a step of the saga is", "steps of the saga are");
                (v1::NextTurn::Platform, format!("{steps} expected, which the platform takes by itself"))
            }
            Turn::Operator { dead } => {
                let dead = several(dead, "a command is", "commands are");
                (v1::NextTurn::Operator, format!("{dead} dead: whoever looks after the platform has to look"))
            }
            Turn::Investor { asking_price } => {
                (v1::NextTurn::Investor, format!("a bid of at least {asking_price} is expected"))
            }
            Turn::Issuer { issuer_id } => (
                v1::NextTurn::Issuer,
                format!("issuer {issuer_id} is expected to approve or to reverse the financing"),
            ),
            Turn::Nobody => (v1::NextTurn::Nobody, "nothing more is expected".to_owned()),
            Turn::NoInvoice => {
                let sentence = "there is no such invoice, so nothing is expected";
                (v1::NextTurn::Nobody, sentence.to_owned())
            }
        };
        Self { turn: turn.into(), sentence, since: next.since.map(timestamp) }
    }
}
