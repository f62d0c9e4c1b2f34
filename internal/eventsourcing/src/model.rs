//! What a bounded context gives the kernel.
//!
//! The rule this module protects: deciding and evolving are synchronous, total functions of their arguments.
//! Whatever they need from elsewhere (that another aggregate exists) is named first and handed in.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::Record;

/// Which aggregate: its type and its id. Two aggregates of different types may share an id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AggregateRef {
    /// The aggregate's type, lower case, as in `invoice`.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The aggregate's id, unique within its type.
    pub id: Uuid,
}

impl AggregateRef {
    /// A reference to an aggregate of a type known at compile time.
    #[must_use]
    pub const fn new(kind: &'static str, id: Uuid) -> Self {
        Self { kind: Cow::Borrowed(kind), id }
    }
}

impl fmt::Display for AggregateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

/// Which of the aggregates that a command refers to exist in the committed log.
#[derive(Debug, Clone, Default)]
pub struct Known(HashSet<AggregateRef>);

impl Known {
    /// The set of those that exist.
    #[must_use]
    pub fn new(existing: impl IntoIterator<Item = AggregateRef>) -> Self {
        Self(existing.into_iter().collect())
    }

    /// Whether the aggregate exists.
    #[must_use]
    pub fn exists(&self, aggregate: &AggregateRef) -> bool {
        self.0.contains(aggregate)
    }
}

/// One transactional boundary: a state machine whose default is "there is none yet".
pub trait Aggregate: Default + Clone + Send + Sync + 'static {
    /// The type's name in references and subjects, lower case.
    const TYPE: &'static str;
    /// What it can be asked to do.
    type Command;
    /// What has happened to it.
    type Event;
    /// Why it said no: a business answer, never a failure.
    type Refusal;

    /// Decides what a command brings about. No event means that the command changes nothing: what it asks
    /// for is already so.
    ///
    /// # Errors
    ///
    /// The refusal, where a rule of the business forbids it.
    fn decide(&self, command: &Self::Command, known: &Known) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// The state after an event. Total: a fact has happened, whatever one thinks of it.
    #[must_use]
    fn evolve(self, event: &Self::Event) -> Self;
}

/// An event as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEvent {
    /// The event's name, in `CamelCase`.
    pub event_type: &'static str,
    /// The version of its shape, from 1.
    pub schema: u16,
    /// JSON.
    pub data: String,
}

/// A snapshot of an aggregate's state as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSnapshot {
    /// The version of its shape. A reader that does not know it replays the events instead.
    pub schema: u16,
    /// JSON.
    pub data: String,
}

/// Why a stored or received text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No event of this type and schema is known here: written by a newer release, or not ours.
    #[error("unknown event {event_type} version {schema}")]
    UnknownEvent {
        /// The event's name.
        event_type: String,
        /// Its schema version.
        schema: u16,
    },
    /// The name is known, the text does not have its shape.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// What was being read.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl DecodeError {
    /// A malformed text.
    pub fn malformed(what: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::Malformed { what: what.into(), reason: reason.to_string() }
    }
}

/// A bounded context: the sums of its aggregates, commands, events and refusals, which the loops are generic over.
pub trait Model: Sized + Send + Sync + 'static {
    /// The state of any one aggregate.
    type State: Clone + Send + Sync + 'static;
    /// Every command. Its JSON is what travels in the queue, and, being canonical, what is fingerprinted.
    type Command: Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Every event.
    type Event: Clone + fmt::Debug + Send + Sync + 'static;
    /// Every refusal. Its JSON is stored with the outcome.
    type Refusal: Clone + fmt::Debug + fmt::Display + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The context's name, as in `financing`: the first word of bus subjects and event types.
    const CONTEXT: &'static str;

    /// The aggregate that a command changes.
    fn target(command: &Self::Command) -> AggregateRef;

    /// The command's name, in `CamelCase`.
    fn method(command: &Self::Command) -> &'static str;

    /// The other aggregates whose existence `decide` will ask about.
    fn references(command: &Self::Command) -> Vec<AggregateRef>;

    /// The state of the command's target before its first event.
    fn initial(target: &AggregateRef) -> Option<Self::State>;

    /// See [`Aggregate::decide`].
    ///
    /// # Errors
    ///
    /// The refusal, where a rule of the business forbids it.
    fn decide(
        state: &Self::State,
        command: &Self::Command,
        known: &Known,
    ) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// See [`Aggregate::evolve`].
    #[must_use]
    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;

    /// The machine-readable reason of a refusal, in `UPPER_SNAKE_CASE`, from a published catalogue.
    fn reason(refusal: &Self::Refusal) -> &'static str;

    /// Writes an event down.
    ///
    /// # Errors
    ///
    /// When the event cannot be written as JSON: a defect.
    fn encode_event(event: &Self::Event) -> Result<EncodedEvent, DecodeError>;

    /// Reads an event of any version ever written, upcast to the current one.
    ///
    /// # Errors
    ///
    /// An unknown type or version, or data that does not have its shape.
    fn decode_event(event_type: &str, schema: u16, data: &str) -> Result<Self::Event, DecodeError>;

    /// Writes a state down.
    ///
    /// # Errors
    ///
    /// When the state cannot be written as JSON: a defect.
    fn encode_snapshot(state: &Self::State) -> Result<EncodedSnapshot, DecodeError>;

    /// Reads a state, or `None` when its schema is not the current one: then the events are replayed.
    fn decode_snapshot(target: &AggregateRef, snapshot: &EncodedSnapshot) -> Option<Self::State>;
}

/// What a record says, decoded.
#[derive(Debug, Clone)]
pub enum Entry<M: Model> {
    /// Something happened to an aggregate.
    Fact(M::Event),
    /// A command was refused by a rule of the business.
    Refused {
        /// The whole command.
        command: M::Command,
        /// Why.
        refusal: M::Refusal,
    },
    /// A command asked for what is already so.
    Unchanged {
        /// The whole command.
        command: M::Command,
    },
    /// A command that can never succeed.
    Dead,
    /// A person has decided that nothing is to be done about a dead letter any more.
    Discarded,
}

/// A saga's policies: what follows from what. Pure, and one exhaustive match.
pub trait Policies<M: Model>: Send + Sync + 'static {
    /// The command that follows from a record, with the declared name of the policy that says so. The name is
    /// part of the command's id, so renaming a policy that has work under way would do that work twice.
    fn react(&self, entry: &Entry<M>) -> Option<(&'static str, M::Command)>;
}

/// A projection: what a record changes in the read models.
pub trait Projection<M: Model>: Send + Sync + 'static {
    /// The row changes that a record brings about, in order.
    fn project(&self, record: &Record, entry: &Entry<M>) -> Vec<crate::ports::RowChange>;
}
