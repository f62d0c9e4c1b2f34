//! Dead letters as people see them: found, read, retried and discarded.
//!
//! The rule this module protects: a dead letter is resolved once. Its retry and its discard are commands with one id, which
//! derives from the letter's, so the inbox lets the first of them win, over all partitions and for ever. And the commands of
//! an aggregate keep their order: none is retried while an earlier one is open.
//!
//! # Layout
//!
//! - `mod.rs`: what a dead letter is, and how it is discarded
//! - [`open`](Letters): where they are found and what is to be done about them
//! - `order`: which of an aggregate's letters comes first

mod open;
mod order;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::DecodeError;
use crate::outcome::{Fingerprint, Outcome};
use crate::partition::{LogPosition, Partition};
use crate::ports::{ForeignLetter, ForeignPosition, PortError};
use crate::record::{DeadData, Record};

pub use open::{Filter, Letters, Resolve};

/// The id of the command that resolves a dead letter: of its retry and of its discard alike.
#[must_use]
pub fn resolution_id(letter: Uuid) -> Uuid {
    Uuid::new_v5(&letter, b"resolution")
}

/// A malformed message's place in another context's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignPlace {
    /// When the stream was created, in microseconds since the Unix epoch.
    pub created_at: u64,
    /// The message's number.
    pub message: u64,
}

impl ForeignPlace {
    /// The id of the dead letter from there.
    #[must_use]
    pub fn letter_id(self) -> Uuid {
        let name = format!("foreign/{}/{}", self.created_at, self.message);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }
}

impl From<ForeignPosition> for ForeignPlace {
    fn from(position: ForeignPosition) -> Self {
        Self { created_at: position.created_at, message: position.message }
    }
}

/// What a person says who discards a dead letter: the data of a DeadLetterDiscarded record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discard {
    /// The letter: the id of its CommandDead record, or what [`ForeignPlace::letter_id`] says.
    pub letter_id: Uuid,
    /// Where it is written down: the partition of the letter's record.
    pub partition: Partition,
    /// Why.
    pub reason: String,
    /// Where the letter stood in another context's stream, where it is from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<ForeignPlace>,
}

impl Discard {
    /// What makes two discards one: the letter. Whoever discards it again, for whatever reason, gets the first one's outcome.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        discard_fingerprint(self.letter_id)
    }

    /// What stands in the place of the command: what is fingerprinted, so that a release that cannot discard, and calls this
    /// a dead command, remembers the same of it.
    fn command(&self) -> Result<Box<RawValue>, DecodeError> {
        RawValue::from_string(discard_text(self.letter_id))
            .map_err(|error| DecodeError::malformed("discard", error))
    }
}

fn discard_text(letter: Uuid) -> String {
    format!("{{\"discards\":\"{letter}\"}}")
}

/// What [`discard_text`] writes, and no command of a context is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiscardText {
    #[serde(rename = "discards")]
    _letter: Uuid,
}

/// Whether what died was a person's discard. A release that could not discard kept of it what stands in the command's place.
fn is_discard(data: &DeadData) -> bool {
    let says = |command: &RawValue| serde_json::from_str::<DiscardText>(command.get()).is_ok();
    data.discards.is_some() || data.command.as_deref().is_some_and(says)
}

fn discard_fingerprint(letter: Uuid) -> Fingerprint {
    Fingerprint::of(discard_text(letter).as_bytes())
}

/// Where a dead letter is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterState {
    /// Nothing was done about it.
    Open,
    /// It was tried again, and that has an outcome.
    Retried,
    /// A person has decided that nothing is to be done about it: about this letter, or about a copy of the message that it is.
    /// Where the outcome says that the discard itself is dead, that is a letter of its own.
    Discarded,
}

/// What could not be done.
#[derive(Debug, Clone)]
pub enum Content {
    /// A command: its CommandDead record, and what that says.
    Command(Arc<Record>, DeadData),
    /// A record that says that a command is dead and nothing else that can be read: what is wrong with it.
    Unreadable(Arc<Record>, String),
    /// A message of another context.
    Foreign(ForeignLetter),
}

impl Content {
    /// The letter's record, where it is in the log.
    fn record(&self) -> Option<&Arc<Record>> {
        match self {
            Self::Command(record, _) | Self::Unreadable(record, _) => Some(record),
            Self::Foreign(_) => None,
        }
    }
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its id: the record's, or what derives from its place in the other context's stream.
    pub id: Uuid,
    /// What it is.
    pub content: Content,
    /// Where it is on its way.
    pub state: LetterState,
    /// What became of its retry, or of its discard.
    pub outcome: Option<Outcome>,
}

impl Letter {
    /// The letter of which this is the retry, where it is one that died again.
    #[must_use]
    pub fn retry_of(&self) -> Option<Uuid> {
        self.content.record().and_then(|record| retry_of(record))
    }

    /// Where it stands among all of them.
    #[must_use]
    pub fn place(&self) -> Place {
        match &self.content {
            Content::Command(record, _) | Content::Unreadable(record, _) => Place::Command(record.position()),
            Content::Foreign(foreign) => Place::Foreign(foreign.number),
        }
    }
}

/// A retry says which letter it was caused by, and has that letter's id as a retry.
fn retry_of(record: &Record) -> Option<Uuid> {
    let cause = record.causation_id;
    (cause != record.command_id && resolution_id(cause) == record.command_id).then_some(cause)
}

/// A place among the dead letters: first the log's, in the order of partitions and sequences, then those of other contexts,
/// as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the log.
    Command(LogPosition),
    /// Among other contexts' letters: the number there. 0 stands before the first.
    Foreign(u64),
}

/// Why nothing is done about a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// There is none with this id.
    #[error("there is no such dead letter")]
    Unknown,
    /// It was tried again before.
    #[error("the dead letter was retried already")]
    AlreadyRetried,
    /// It was discarded before, or a copy of it was.
    #[error("the dead letter was discarded already")]
    AlreadyDiscarded,
    /// Nothing in it can be read as a command: it can only be discarded.
    #[error("the dead letter cannot be retried: {0}")]
    NotRetryable(String),
    /// Another command of its aggregate died before it, and is open: that one is to be resolved first.
    #[error("an earlier dead letter of the same aggregate is open: {0}")]
    Earlier(Uuid),
    /// What would follow from it might be seen before it.
    #[error("the dead letter is not on the bus yet")]
    NotRelayed,
    /// A store gave no answer, or cannot be read.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl From<DecodeError> for Unresolved {
    fn from(error: DecodeError) -> Self {
        Self::Port(PortError::Broken(error.to_string()))
    }
}
