//! Another context's events in memory, and the place for what nobody could do anything with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::{Call, Interference, Way, lock};
use crate::environment::{Doorbells, Timestamp};
use crate::ports::{
    DeadLetter, DeadLetters, ForeignEvents, ForeignLetter, ForeignLetters, ForeignMessage, PortResult,
};

/// [`ForeignEvents`] in memory.
#[derive(Clone)]
pub struct MemoryForeignEvents {
    state: Arc<Mutex<SavedForeignEvents>>,
    bells: Doorbells,
    way: Way,
}

/// What another context's stream held at some time.
#[derive(Debug, Clone)]
pub struct SavedForeignEvents {
    created_at: u64,
    messages: BTreeMap<u64, ForeignMessage>,
}

#[expect(clippy::must_use_candidate, reason = "what changes the stream may be called for that alone")]
impl MemoryForeignEvents {
    /// An empty stream, created at this time: microseconds since the Unix epoch.
    #[must_use]
    pub fn new(created_at: u64) -> Self {
        let state = SavedForeignEvents { created_at, messages: BTreeMap::new() };
        Self { state: Arc::new(Mutex::new(state)), bells: Doorbells::default(), way: Way::default() }
    }

    /// Another handle on the same stream, on whose way somebody stands.
    #[must_use]
    pub fn interfered(&self, interference: Arc<dyn Interference>) -> Self {
        Self { way: Way(Some(interference)), ..self.clone() }
    }

    /// What rings when something was published.
    #[must_use]
    pub fn bells(&self) -> &Doorbells {
        &self.bells
    }

    /// The other context says something. Answers with the message's number.
    pub fn publish(&self, subject: &str, payload: &[u8]) -> u64 {
        let number = {
            let mut state = lock(&self.state);
            let number = state.messages.last_key_value().map_or(1, |(last, _)| last + 1);
            let (subject, payload) = (subject.to_owned(), Arc::from(payload));
            state.messages.insert(number, ForeignMessage { message: number, subject, payload });
            number
        };
        self.bells.ring();
        number
    }

    /// The number of the last message; 0 for an empty stream.
    pub fn last(&self) -> u64 {
        lock(&self.state).messages.last_key_value().map_or(0, |(last, _)| *last)
    }

    /// Loses a message. `false`: there is none with this number.
    pub fn lose(&self, message: u64) -> bool {
        lock(&self.state).messages.remove(&message).is_some()
    }

    /// The stream as it is, to restore later.
    #[must_use]
    pub fn save(&self) -> SavedForeignEvents {
        lock(&self.state).clone()
    }

    /// Goes back to an earlier state, numbers and creation time included: a restore.
    pub fn restore(&self, saved: SavedForeignEvents) {
        *lock(&self.state) = saved;
    }

    /// Drops everything: a new stream under the same name, whose numbers begin anew.
    pub fn recreate(&self, created_at: u64) {
        self.restore(SavedForeignEvents { created_at, messages: BTreeMap::new() });
    }
}

impl ForeignEvents for MemoryForeignEvents {
    async fn created_at(&self) -> PortResult<u64> {
        self.way.call(Call::ForeignCreatedAt, || Ok(lock(&self.state).created_at)).await
    }

    async fn message(&self, message: u64) -> PortResult<Option<ForeignMessage>> {
        let find = || Ok(lock(&self.state).messages.get(&message).cloned());
        self.way.call(Call::ForeignMessage, find).await
    }

    async fn read(&self, after: u64, limit: usize) -> PortResult<Vec<ForeignMessage>> {
        let read = || {
            let state = lock(&self.state);
            let behind = state.messages.range(after.saturating_add(1)..);
            Ok(behind.take(limit).map(|(_, message)| message.clone()).collect())
        };
        self.way.call(Call::ForeignRead, read).await
    }
}

/// [`DeadLetters`] in memory.
#[derive(Clone, Default)]
pub struct MemoryDeadLetters {
    state: Arc<Mutex<Vec<DeadLetter>>>,
    way: Way,
}

impl MemoryDeadLetters {
    /// Another handle on the same letters, on whose way somebody stands.
    #[must_use]
    pub fn interfered(&self, interference: Arc<dyn Interference>) -> Self {
        Self { way: Way(Some(interference)), ..self.clone() }
    }

    /// Everything that was kept, in order.
    #[must_use]
    pub fn kept(&self) -> Vec<DeadLetter> {
        lock(&self.state).clone()
    }
}

impl DeadLetters for MemoryDeadLetters {
    async fn keep(&self, letters: Vec<DeadLetter>) -> PortResult<()> {
        let keep = || {
            let mut kept = lock(&self.state);
            for letter in letters {
                if !kept.iter().any(|known| is_same(known, &letter)) {
                    kept.push(letter);
                }
            }
            Ok(())
        };
        self.way.call(Call::DeadLettersKeep, keep).await
    }
}

impl ForeignLetters for MemoryDeadLetters {
    async fn foreign(&self, after: u64, limit: usize) -> PortResult<Vec<ForeignLetter>> {
        let read = || {
            let kept = lock(&self.state);
            let letters = (1..).zip(kept.iter()).filter_map(|(number, letter)| match letter {
                DeadLetter::Foreign { position, message, reason } => Some(ForeignLetter {
                    number,
                    kept_at: Timestamp::default(),
                    position: *position,
                    message: message.clone(),
                    whole: true,
                    reason: reason.clone(),
                }),
                DeadLetter::Command(_) => None,
            });
            Ok(letters.filter(|letter| letter.number > after).take(limit).collect())
        };
        self.way.call(Call::ForeignLettersRead, read).await
    }
}

/// One record, or one message: whatever is said about it.
fn is_same(one: &DeadLetter, other: &DeadLetter) -> bool {
    match (one, other) {
        (DeadLetter::Command(one), DeadLetter::Command(other)) => one.record_id == other.record_id,
        (DeadLetter::Foreign { position: one, .. }, DeadLetter::Foreign { position: other, .. }) => {
            one == other
        }
        (DeadLetter::Command(_), DeadLetter::Foreign { .. })
        | (DeadLetter::Foreign { .. }, DeadLetter::Command(_)) => false,
    }
}
