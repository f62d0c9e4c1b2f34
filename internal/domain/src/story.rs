//! The words of a story: all that happened to one invoice, and what has not happened yet.
//!
//! The rule this module protects: a story says what the log says, in the order of cause and effect, and says of every step
//! of the saga that is missing what it waits for. Nobody directs it: it is read from who caused what.

use std::future::Future;

use eventsourcing::environment::Timestamp;
use eventsourcing::model::AggregateRef;
use eventsourcing::partition::LogPosition;
use eventsourcing::ports::EventBus;
use uuid::Uuid;

use crate::ids::{InvoiceId, IssuerId};
use crate::money::Amount;
use crate::views::{InvoiceStatus, QueryError};

/// The story of one invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoryView {
    /// The invoice.
    pub invoice_id: InvoiceId,
    /// Where it stands; `None` where it was never sold.
    pub status: Option<InvoiceStatus>,
    /// What is told, the earliest first.
    pub sagas: Vec<SagaView>,
    /// What comes next, in the order in which it matters.
    pub next: Vec<Next>,
    /// Whether there are later commands, which are not told.
    pub truncated: bool,
}

/// What one client's command brought about, whoever did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaView {
    /// The command that it begins with.
    pub correlation_id: Uuid,
    /// Its commands, a cause before its effects: behind each command come those that follow from its first record, and all
    /// that follows from those, and so on.
    pub commands: Vec<CommandStory>,
    /// When it began: when the command was accepted where that is known, else when its outcome was recorded.
    pub began_at: Timestamp,
    /// When its last record was written, so far.
    pub last_at: Timestamp,
    /// Whether every step was taken.
    pub settled: bool,
}

impl SagaView {
    /// How long it took, or has taken so far, in microseconds. (Clocks of several machines may make it negative.)
    #[must_use]
    pub const fn micros(&self) -> i64 {
        between(self.began_at, self.last_at)
    }
}

/// From one time to another, in microseconds.
#[must_use]
pub const fn between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_micros().cast_signed().saturating_sub(from.as_micros().cast_signed())
}

/// A command, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandStory {
    /// The command.
    pub id: Uuid,
    /// Its name; `None` where it was none that could be read.
    pub method: Option<String>,
    /// Whom it changes.
    pub target: AggregateRef,
    /// Who sends it.
    pub actor: String,
    /// The first command of its saga.
    pub correlation_id: Uuid,
    /// The record that a policy reacted to; for a client's command the command itself.
    pub causation_id: Uuid,
    /// The declared name of the policy that sends it; `None` for a client's.
    pub policy: Option<String>,
    /// When a client's command was accepted, where its id says so: exact to the millisecond.
    pub accepted_at: Option<Timestamp>,
    /// What became of it.
    pub ending: Ending,
    /// Its records, in order.
    pub records: Vec<RecordStory>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Nothing yet: its cause is recorded, and its outcome is not.
    Expected {
        /// When its cause was recorded.
        since: Timestamp,
    },
    /// It brought facts about.
    Applied,
    /// What it asked for was already so.
    Unchanged,
    /// A rule of the business said no.
    Refused(Why),
    /// It can never succeed: a person has to look.
    Dead(Why),
}

/// A reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The machine-readable reason.
    pub reason: String,
    /// The same in plain words.
    pub message: String,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordStory {
    /// Where it stands.
    pub position: LogPosition,
    /// Its id.
    pub record_id: Uuid,
    /// The event's name, or that of an outcome that is no fact.
    pub event_type: String,
    /// When it was written, by the writer's clock.
    pub recorded_at: Timestamp,
    /// How long after its cause that was, in microseconds: after the record that a policy reacted to, or after a client's
    /// command was accepted. `None` where that is not known.
    pub latency: Option<i64>,
    /// The amount that it is about, where it is about one.
    pub amount: Option<Amount>,
    /// What it says beside its name, as a code: why a bid lost, or which kind of release it is. Empty where there is nothing.
    pub detail: String,
    /// Its data, JSON.
    pub data: String,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// Whose turn it is.
    pub turn: Turn,
    /// Since when; `None` where that is not known, or nothing comes.
    pub since: Option<Timestamp>,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The platform's: this many steps of the saga have not been taken.
    Platform {
        /// How many steps.
        steps: u32,
    },
    /// An investor's: a bid of at least this.
    Investor {
        /// What a bid has to reach.
        asking_price: Amount,
    },
    /// The issuer's: to approve or to reverse.
    Issuer {
        /// Who sells the invoice.
        issuer_id: IssuerId,
    },
    /// A person's, who looks after the platform: so many commands died.
    Operator {
        /// How many commands.
        dead: u32,
    },
    /// Nobody's: the financing was approved or reversed.
    Nobody,
    /// Nobody's: there is no such invoice.
    NoInvoice,
}

/// A step of a saga that has not been taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckView {
    /// The command that is expected.
    pub command_id: Uuid,
    /// Its name.
    pub method: String,
    /// Whom it changes.
    pub target: AggregateRef,
    /// The declared name of the policy that sends it.
    pub policy: String,
    /// The invoice that it is about.
    pub invoice_id: Option<InvoiceId>,
    /// The first command of its saga.
    pub correlation_id: Uuid,
    /// When its cause was recorded.
    pub since: Timestamp,
    /// Where its cause stands.
    pub cause: LogPosition,
    /// The cause's id.
    pub cause_record_id: Uuid,
    /// The cause's event.
    pub cause_event: String,
}

/// A step of which is known that it has not been taken, and which it is cannot be read: a person has to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {command_id}: {what}")]
pub struct UnreadableStep {
    /// The command that is expected.
    pub command_id: Uuid,
    /// Since when, where that can be read.
    pub since: Option<Timestamp>,
    /// What is wrong with it.
    pub what: String,
}

/// The stories' answers, read from the read models and from the bus.
pub trait Stories: Send + Sync + 'static {
    /// The story of an invoice; `None` where nobody ever asked for anything that concerns it.
    fn story<B: EventBus>(
        &self,
        bus: &B,
        invoice_id: InvoiceId,
    ) -> impl Future<Output = Result<Option<StoryView>, QueryError>> + Send;

    /// Steps that should have been taken and were not, whose cause was recorded at this time or before: the oldest first,
    /// at most so many. One that cannot be read is among them, and hides no other.
    fn stuck<B: EventBus>(
        &self,
        bus: &B,
        up_to: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Result<StuckView, UnreadableStep>>, QueryError>> + Send;
}
