//! One line of the event log.
//!
//! The rule this module protects: every command leaves at least one record, so that every outcome has a position
//! and can be seen on the bus. A command that brought about no fact leaves its refusal, that it changed
//! nothing, or that it is dead.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::environment::Timestamp;
use crate::letters::Discard;
use crate::model::{AggregateRef, DecodeError, Entry, Model};
use crate::partition::{LogPosition, Partition, Sequence, Version};

/// The type of a record that says a command was refused.
pub const COMMAND_REFUSED: &str = "CommandRefused";
/// The type of a record that says a command changed nothing.
pub const COMMAND_UNCHANGED: &str = "CommandUnchanged";
/// The type of a record that says a command can never succeed.
pub const COMMAND_DEAD: &str = "CommandDead";
/// The type of a record that says a dead letter was discarded by a person.
pub const DEAD_LETTER_DISCARDED: &str = "DeadLetterDiscarded";

/// One line of the event log: a fact, or the outcome of a command that produced none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub partition: Partition,
    /// Its place there.
    pub sequence: Sequence,
    /// Unique among all records ever written, also by a log that was restored and went another way.
    pub record_id: Uuid,
    /// When it was written, by the writer's clock.
    pub recorded_at: Timestamp,
    /// Whom it is about: for an outcome, the command's target.
    pub aggregate: AggregateRef,
    /// The aggregate's version after it. `None` for an outcome that is no fact.
    pub version: Option<Version>,
    /// The event's name.
    pub event_type: Cow<'static, str>,
    /// The version of the shape of `data`.
    pub schema: u16,
    /// JSON.
    pub data: String,
    /// The command that brought it about.
    pub command_id: Uuid,
    /// The first command of the whole saga.
    pub correlation_id: Uuid,
    /// The direct cause of the command: the record that a policy reacted to, or the command itself for a client's.
    pub causation_id: Uuid,
    /// Who sent the command.
    pub actor: String,
    /// The W3C trace context the command came with.
    pub traceparent: Option<String>,
    /// Whether it is the last record of its command: a reader that has seen it has seen all of them.
    pub last_of_command: bool,
}

impl Record {
    /// Where it stands in the whole log.
    #[must_use]
    pub const fn position(&self) -> LogPosition {
        LogPosition { partition: self.partition, sequence: self.sequence }
    }

    /// Reads what the record says.
    ///
    /// # Errors
    ///
    /// An event type, version or shape that this release does not know.
    pub fn entry<M: Model>(&self) -> Result<Entry<M>, DecodeError> {
        if self.version.is_some() {
            return M::decode_event(&self.event_type, self.schema, &self.data).map(Entry::Fact);
        }
        let unknown =
            || DecodeError::UnknownEvent { event_type: self.event_type.to_string(), schema: self.schema };
        match (self.event_type.as_ref(), self.schema) {
            (COMMAND_REFUSED, 1) => {
                let data: RefusedData<M::Command, M::Refusal> = self.parse()?;
                Ok(Entry::Refused { command: data.command, refusal: data.refusal })
            }
            (COMMAND_UNCHANGED, 1) => {
                let data: UnchangedData<M::Command> = self.parse()?;
                Ok(Entry::Unchanged { command: data.command })
            }
            (COMMAND_DEAD, 1) => self.parse::<DeadData>().map(|_| Entry::Dead),
            (DEAD_LETTER_DISCARDED, 1) => self.parse::<Discard>().map(|_| Entry::Discarded),
            _ => Err(unknown()),
        }
    }

    /// What a CommandDead record says; `None` for any other.
    ///
    /// # Errors
    ///
    /// When the data does not have its shape.
    pub fn dead_letter(&self) -> Result<Option<DeadData>, DecodeError> {
        if self.version.is_some() || self.event_type != COMMAND_DEAD {
            return Ok(None);
        }
        self.parse().map(Some)
    }

    /// What a DeadLetterDiscarded record says; `None` for any other.
    ///
    /// # Errors
    ///
    /// When the data does not have its shape.
    pub fn discard(&self) -> Result<Option<Discard>, DecodeError> {
        if self.version.is_some() || self.event_type != DEAD_LETTER_DISCARDED {
            return Ok(None);
        }
        self.parse().map(Some)
    }

    /// The command that died, where it could be read; `None` for a record of anything else. What was no command when it
    /// died stays none, whatever later releases can read: what is derived from a log is the same whoever derives it.
    #[must_use]
    pub fn dead_command<M: Model>(&self) -> Option<M::Command> {
        let dead = self.dead_letter().ok().flatten()?;
        match dead.reason {
            DeathReason::Undecodable => None,
            DeathReason::WrongPartition | DeathReason::Unstorable => {
                serde_json::from_str(dead.command?.get()).ok()
            }
        }
    }

    /// What a CommandRefused record says of the reason, without knowing the context's types.
    ///
    /// # Errors
    ///
    /// When the data does not have its shape.
    pub fn refusal_reason(&self) -> Result<Option<RefusalReason>, DecodeError> {
        if self.version.is_some() || self.event_type != COMMAND_REFUSED {
            return Ok(None);
        }
        self.parse().map(Some)
    }

    fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, DecodeError> {
        serde_json::from_str(&self.data)
            .map_err(|error| DecodeError::malformed(self.event_type.clone(), error))
    }
}

/// The data of a CommandRefused record.
#[derive(Debug, Serialize, Deserialize)]
pub struct RefusedData<C, R> {
    /// The machine-readable reason.
    pub reason: Cow<'static, str>,
    /// The reason in plain words.
    pub message: String,
    /// The typed reason.
    pub refusal: R,
    /// The command's name.
    pub method: Cow<'static, str>,
    /// The whole command.
    pub command: C,
}

/// The part of a CommandRefused record's data that is the same in every context.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RefusalReason {
    /// The machine-readable reason.
    pub reason: String,
    /// The reason in plain words.
    pub message: String,
}

/// The data of a CommandUnchanged record.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnchangedData<C> {
    /// The command's name.
    pub method: Cow<'static, str>,
    /// The whole command.
    pub command: C,
}

/// The data of a CommandDead record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadData {
    /// Why it can never succeed.
    pub reason: DeathReason,
    /// What was seen.
    pub message: String,
    /// The whole command, where it is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<RawValue>>,
    /// What arrived, where it is no JSON: its text, at most [`DeadData::MAX_RAW`] bytes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// What it would have discarded, where it is no command of the context but a person's discard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discards: Option<Discard>,
}

impl DeadData {
    /// The most of an unreadable message that is kept: escaped it must still fit into a bus message.
    pub const MAX_RAW: usize = 64 * 1024;
}

/// Why a command can never succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeathReason {
    /// It is not a command that this release knows.
    Undecodable,
    /// Its aggregate belongs to another partition than the one it was queued for.
    WrongPartition,
    /// The store refuses what it would write, however often it is tried.
    Unstorable,
}

impl DeathReason {
    /// The machine-readable reason.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Undecodable => "UNDECODABLE",
            Self::WrongPartition => "WRONG_PARTITION",
            Self::Unstorable => "UNSTORABLE",
        }
    }
}
