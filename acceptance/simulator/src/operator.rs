//! Those who look after the dead letters: they list them, retry them and discard them, several at once, and nobody tells them of
//! each other.
//!
//! The rule this module protects: a dead letter is resolved once, by a retry or by a discard, whoever asks for what and however
//! often. And the letters of an aggregate are retried in the order in which their commands came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eventsourcing::command::Envelope;
use eventsourcing::environment::Environment as _;
use eventsourcing::letters::{Filter, Letter, LetterState, Resolve, Unresolved, resolution_id};
use eventsourcing::partition::LogPosition;
use eventsourcing::record::{COMMAND_DEAD, DEAD_LETTER_DISCARDED, Record};
use uuid::Uuid;

use crate::client::Client;
use crate::plan::Deed;
use crate::run::Director;
use crate::tally::Counted;
use crate::{Breach, Check};

/// How long a person waits before they ask again.
const PAUSE: Duration = Duration::from_millis(250);

/// The most letters that are listed.
const MOST: usize = 1_000;

impl Deed {
    pub(crate) const fn says(self) -> &'static str {
        match self {
            Self::Retry => "retries a dead letter",
            Self::Discard => "discards a dead letter",
            Self::RetryAll => "retries all open dead letters",
        }
    }
}

impl Client {
    /// Looks for dead letters, and does something about one of them, or about all.
    pub(crate) async fn operate(&self, deed: Deed, pick: usize) {
        let Some(letters) = self.listed().await else { return };
        let (open, others): (Vec<Letter>, Vec<Letter>) =
            letters.into_iter().partition(|letter| letter.state == LetterState::Open);
        let candidates = if open.is_empty() { others } else { open };
        match deed {
            Deed::RetryAll => {
                for letter in &candidates {
                    self.resolve(letter.id, Deed::Retry).await;
                }
            }
            Deed::Retry | Deed::Discard => {
                if let Some(letter) = candidates.get(pick % candidates.len().max(1)) {
                    self.resolve(letter.id, deed).await;
                }
            }
        }
    }

    async fn listed(&self) -> Option<Vec<Letter>> {
        for _ in 0..=self.act.tries {
            if let Ok((letters, _)) = self.letters.list(&Filter::default(), None, MOST).await {
                return Some(letters);
            }
            self.environment.sleep(PAUSE).await;
        }
        None
    }

    /// Asks what is to be done, and has it done; again where there was no answer.
    async fn resolve(&self, id: Uuid, deed: Deed) {
        let number = self.act.number;
        let count = |what| self.memory.borrow_mut().tally.count(what);
        for _ in 0..=self.act.tries {
            let (actor, reason) = (format!("operator {number}"), format!("reason {number}"));
            let resolve = match deed {
                Deed::Retry | Deed::RetryAll => self.letters.retry(id).await,
                Deed::Discard => self.letters.discard(id, actor, reason).await,
            };
            match resolve {
                Ok(Resolve::Done(outcome)) => {
                    count(Counted::Done);
                    self.teller.tell(|| format!("operator {number} hears: it was done before"));
                    if !self.log.has_outcome(outcome.command_id) {
                        let what = format!("operator {number} is told of an outcome that is not on disk");
                        self.breach(Check::DeadLetters, what);
                    }
                    return;
                }
                Ok(Resolve::Queue(envelope)) => return self.queue(&envelope).await,
                Err(error) => {
                    self.teller.tell(|| format!("operator {number} hears: {error}"));
                    match error {
                        Unresolved::AlreadyRetried | Unresolved::AlreadyDiscarded => {
                            return count(Counted::Beaten);
                        }
                        Unresolved::Earlier(_) => return count(Counted::EarlierIsOpen),
                        Unresolved::NotRetryable(_) => return count(Counted::NotRetryable),
                        Unresolved::Unknown => {
                            let what = format!("operator {number} does not find dead letter {id} again");
                            return self.breach(Check::DeadLetters, what);
                        }
                        Unresolved::NotRelayed => count(Counted::NotRelayed),
                        Unresolved::Port(_) => {}
                    }
                }
            }
            self.environment.sleep(PAUSE).await;
        }
    }

    async fn queue(&self, envelope: &Envelope) {
        self.send(envelope).await;
    }
}

/// What the log says was done about each letter.
pub(crate) fn check(director: &mut Director<'_>) -> Result<(), Breach> {
    let book = Book::of(director.stage.log.all_records());
    let wrong = |what: String| Err(Breach { check: Check::DeadLetters, what });
    for letter in book.letters.values() {
        let id = letter.record_id;
        let Some(done) = book.done.get(&id) else { continue };
        let commands: BTreeSet<Uuid> = done.iter().map(|record| record.command_id).collect();
        if commands.len() > 1 {
            return wrong(format!("dead letter {id} was resolved by {} commands", commands.len()));
        }
        if !commands.contains(&resolution_id(id)) {
            return wrong(format!("dead letter {id} was resolved under an id that is not its own"));
        }
        let discarded = done.iter().any(|record| record.event_type == DEAD_LETTER_DISCARDED);
        director.tally.count(if discarded { Counted::Discarded } else { Counted::Retried });
        if discarded {
            continue;
        }
        if book.retry_of(letter).is_some() {
            director.tally.count(Counted::DiedAgain);
        }
        if let Some(earlier) = book.overtaken(letter, done) {
            return wrong(format!(
                "dead letter {id} was retried before {}, which is an earlier one of {}",
                earlier.record_id, letter.aggregate
            ));
        }
    }
    Ok(())
}

/// The letters in the log, and what followed from them.
struct Book {
    letters: BTreeMap<Uuid, Arc<Record>>,
    done: BTreeMap<Uuid, Vec<Arc<Record>>>,
}

impl Book {
    fn of(records: Vec<Arc<Record>>) -> Self {
        let is_letter = |record: &&Arc<Record>| record.event_type == COMMAND_DEAD;
        let letters: BTreeMap<Uuid, Arc<Record>> =
            records.iter().filter(is_letter).map(|record| (record.record_id, Arc::clone(record))).collect();
        let mut done: BTreeMap<Uuid, Vec<Arc<Record>>> = BTreeMap::new();
        for record in records {
            if letters.contains_key(&record.causation_id) {
                done.entry(record.causation_id).or_default().push(record);
            }
        }
        Self { letters, done }
    }

    /// The letter of which this one is the retry.
    fn retry_of(&self, letter: &Record) -> Option<&Arc<Record>> {
        self.letters.get(&letter.causation_id)
    }

    /// Where the first of a chain of retries stood.
    fn origin(&self, letter: &Arc<Record>) -> LogPosition {
        let mut origin = letter;
        while let Some(before) = self.retry_of(origin) {
            origin = before;
        }
        origin.position()
    }

    /// A letter of the same aggregate that came before this one, and was open when this one was retried.
    fn overtaken(&self, letter: &Arc<Record>, retry: &[Arc<Record>]) -> Option<&Arc<Record>> {
        let own = self.origin(letter);
        let retried = retry.last()?.position();
        self.letters.values().filter(|other| other.aggregate == letter.aggregate).find(|other| {
            let origin = self.origin(other);
            let is_earlier = origin.partition == own.partition && origin.sequence < own.sequence;
            let done = self.done.get(&other.record_id).and_then(|done| done.last());
            let is_open = done.is_none_or(|done| {
                let done = done.position();
                done.partition == retried.partition && done.sequence > retried.sequence
            });
            is_earlier && is_open
        })
    }
}
