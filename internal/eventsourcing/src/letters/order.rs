//! The order of an aggregate's dead letters.
//!
//! The rule this module protects: a letter stands where its command stood. One that is a retry which died again stands where
//! the first of them stood.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use crate::outcome::Verdict;
use crate::partition::LogPosition;
use crate::record::Record;

use super::{Letter, LetterState, retry_of};

/// What has to be known of a letter.
struct Standing {
    position: LogPosition,
    /// The letter of which it is the retry.
    retry_of: Option<Uuid>,
    is_open: bool,
}

/// The letters of one aggregate.
#[derive(Default)]
pub(super) struct Order {
    letters: HashMap<Uuid, Standing>,
    /// Where there are letters.
    found: BTreeSet<LogPosition>,
    /// Where retries have died.
    died: BTreeSet<LogPosition>,
}

impl Order {
    pub(super) fn take_in(&mut self, letter: &Letter) {
        let Some(record) = letter.content.record() else { return };
        let standing = Standing {
            position: record.position(),
            retry_of: retry_of(record),
            is_open: letter.state == LetterState::Open,
        };
        self.found.insert(standing.position);
        if let (LetterState::Retried, Some(outcome)) = (letter.state, &letter.outcome)
            && matches!(outcome.verdict, Verdict::Dead { .. })
        {
            self.died.insert(outcome.position);
        }
        self.letters.insert(letter.id, standing);
    }

    /// Where retries have died whose letters are not among these: they may have died since these were found. (Or the retry was
    /// for another aggregate.)
    pub(super) fn missing(&self) -> Vec<LogPosition> {
        self.died.difference(&self.found).copied().collect()
    }

    /// The first open letter whose command came before that of this record, in its partition. (Of a chain of retries only the
    /// last can be open, so each is walked once.)
    pub(super) fn before(&self, record: &Record) -> Option<Uuid> {
        let own = self.origin(retry_of(record), record.position());
        self.letters
            .iter()
            .filter(|(_, standing)| standing.is_open)
            .map(|(id, standing)| (self.origin(standing.retry_of, standing.position), *id))
            .filter(|(at, _)| at.partition == own.partition && at.sequence < own.sequence)
            .min_by_key(|(at, _)| at.sequence)
            .map(|(_, id)| id)
    }

    /// Where the first of a chain of retries stood.
    fn origin(&self, mut retry_of: Option<Uuid>, mut position: LogPosition) -> LogPosition {
        // (A chain is as long as there are letters, at most, however it was forged.)
        for _ in 0..self.letters.len() {
            let Some(before) = retry_of.and_then(|id| self.letters.get(&id)) else { break };
            (retry_of, position) = (before.retry_of, before.position);
        }
        position
    }
}
