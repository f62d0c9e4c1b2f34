//! What became of a command.
//!
//! The rule this module protects: a command has exactly one outcome, and whoever asks again gets that one.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::partition::LogPosition;

/// The outcome's kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// It brought facts about.
    Applied,
    /// What it asked for was already so.
    Unchanged,
    /// A rule of the business said no.
    Refused {
        /// The machine-readable reason.
        reason: String,
        /// The reason in plain words.
        message: String,
    },
    /// It can never succeed.
    Dead {
        /// The machine-readable reason.
        reason: String,
        /// What was seen.
        message: String,
    },
}

impl Verdict {
    /// Its name, as it is stored.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Applied => "APPLIED",
            Self::Unchanged => "UNCHANGED",
            Self::Refused { .. } => "REFUSED",
            Self::Dead { .. } => "DEAD",
        }
    }

    /// The machine-readable reason, where there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Applied | Self::Unchanged => None,
            Self::Refused { reason, .. } | Self::Dead { reason, .. } => Some(reason),
        }
    }
}

/// What became of a command, and where that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The command.
    pub command_id: Uuid,
    /// The command's last record: the token for whoever wants to read what it wrote.
    pub position: LogPosition,
    /// The outcome.
    pub verdict: Verdict,
}

/// What a client that waits is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The outcome, of this delivery or of an earlier one.
    Outcome(Outcome),
    /// The command's id was used before, for something else. Nothing was done.
    Reused {
        /// The id.
        command_id: Uuid,
    },
}

impl Reply {
    /// The command that is answered.
    #[must_use]
    pub const fn command_id(&self) -> Uuid {
        match self {
            Self::Outcome(outcome) => outcome.command_id,
            Self::Reused { command_id } => *command_id,
        }
    }
}

/// Two commands with one id are the same command when their fingerprints are: SHA-256 of the canonical JSON of
/// the typed command, whatever encoding, trace or reply address it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}
