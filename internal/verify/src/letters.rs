//! Dead letters, and what people did about them.
//!
//! The rule this module protects: a dead letter is resolved once, by a command whose id derives from it: it is retried, and then its
//! retry does exactly what the dead command would have done; or it is discarded, in its own partition. Letters and what resolves
//! them meet at the end, in whatever order the partitions are read.

use uuid::Uuid;

use crate::breach::{Breaches, Invariant};
use crate::facts::Discarded;
use crate::hash::Map;
use crate::record::{Place, Position, Record};
use crate::report::LetterState;
use crate::saga::{Effect, Ending, Links, Policy, Step};

/// The id of the command that resolves a dead letter.
pub(crate) fn resolution_id(letter: Uuid) -> Uuid {
    Uuid::new_v5(&letter, b"resolution")
}

/// The id of the dead letter that a message of another context has become.
fn foreign_id(created_at: u64, message: u64) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("foreign/{created_at}/{message}").as_bytes())
}

/// A CommandDead record.
#[derive(Debug, Clone, Copy)]
struct Letter {
    place: Place,
    correlation: Uuid,
    actor: u64,
    /// Whether its command was the first of its saga.
    first: bool,
    /// The letter of which it is the retry, or which it was to discard.
    retry_of: Option<Uuid>,
    /// Whether it was to discard that letter.
    discards: bool,
}

/// What somebody did about a letter.
#[derive(Debug, Clone, Copy)]
struct Resolution {
    place: Place,
    command: Uuid,
    correlation: Uuid,
    actor: u64,
    policy: Option<Policy>,
    /// What it did, where that is a step of the saga.
    step: Option<Step>,
    ending: Ending,
    discards: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Letters {
    dead: Map<Uuid, Letter>,
    resolutions: Map<Uuid, Resolution>,
    /// Letters of other contexts that were discarded.
    foreign: Map<Uuid, Position>,
}

fn digest(text: &str) -> u64 {
    crate::hash::digest([text.as_bytes()])
}

impl Letters {
    pub(crate) fn clear(&mut self) {
        self.dead.clear();
        self.resolutions.clear();
        self.foreign.clear();
    }

    /// Whether the record is of a command that retries or discards the letter that it names as its cause.
    pub(crate) fn is_resolution(record: &Record<'_>) -> bool {
        record.causation_id != record.command_id && resolution_id(record.causation_id) == record.command_id
    }

    /// A command died, and here is the letter that it was to discard, where it was that.
    pub(crate) fn died(&mut self, record: &Record<'_>, place: Place, discards: Option<Uuid>) {
        let letter = Letter {
            place,
            correlation: record.correlation_id,
            actor: digest(record.actor),
            first: record.causation_id == record.command_id,
            retry_of: Self::is_resolution(record).then_some(record.causation_id),
            discards: Self::is_resolution(record) && discards == Some(record.causation_id),
        };
        self.dead.insert(record.record_id, letter);
    }

    /// A letter was retried: the last record of what became of it. Or its discard died, which a worker of an older release
    /// cannot read: then it is a discard nevertheless, and nothing else is ever done about the letter.
    pub(crate) fn retried(
        &mut self,
        record: &Record<'_>,
        place: Place,
        links: &Links,
        ending: Ending,
        breaches: &mut Breaches,
    ) {
        let died = self.dead.get(&record.record_id).filter(|_| ending == Ending::Dead);
        let discards = died.is_some_and(|died| died.discards);
        self.resolve(record, place, links.effect, ending, discards, breaches);
    }

    fn resolve(
        &mut self,
        record: &Record<'_>,
        place: Place,
        step: Option<Step>,
        ending: Ending,
        discards: bool,
        breaches: &mut Breaches,
    ) {
        let resolution = Resolution {
            place,
            command: record.command_id,
            correlation: record.correlation_id,
            actor: digest(record.actor),
            policy: Effect::policy_of(record.actor),
            step,
            ending,
            discards,
        };
        let Some(before) = self.resolutions.insert(record.causation_id, resolution) else { return };
        // A command's own records, one after the other.
        if before.command == record.command_id
            && !before.discards
            && !discards
            && before.place.position.partition == place.position.partition
            && ending == Ending::Applied
            && before.ending == Ending::Applied
        {
            return;
        }
        let what = match (before.discards, discards) {
            (true, true) => "discarded twice",
            (false, false) => "retried twice",
            (true, false) | (false, true) => "both retried and discarded",
        };
        let (letter, at) = (record.causation_id, before.place.position);
        breaches.rule(Invariant::I2, place, format!("dead letter {letter} is {what}: here and at {at}"));
    }

    /// A DeadLetterDiscarded record.
    pub(crate) fn discarded(
        &mut self,
        record: &Record<'_>,
        place: Place,
        said: &Discarded<'_>,
        breaches: &mut Breaches,
    ) {
        let letter = said.letter_id;
        if said.partition != record.partition {
            let what = format!("it was to stand in partition {}", said.partition);
            breaches.rule(Invariant::I4, place, what);
        }
        if let Some(foreign) = &said.foreign {
            if foreign_id(foreign.created_at, foreign.message) != letter {
                let what =
                    format!("dead letter {letter} is not message {} of another context", foreign.message);
                breaches.rule(Invariant::Causality, place, what);
            }
            if record.causation_id != record.command_id {
                let what = format!("it names {} as its cause, which is no record", record.causation_id);
                breaches.rule(Invariant::Causality, place, what);
            }
            if let Some(before) = self.foreign.insert(letter, place.position) {
                let what = format!("dead letter {letter} is discarded twice: here and at {before}");
                breaches.rule(Invariant::I2, place, what);
            }
            return;
        }
        if record.causation_id != letter || record.command_id != resolution_id(letter) {
            let what = format!("command {} does not derive from dead letter {letter}", record.command_id);
            breaches.rule(Invariant::Causality, place, what);
            return;
        }
        self.resolve(record, place, None, Ending::Applied, true, breaches);
    }

    /// Everything was taken in: each resolution has its letter, and does what that asked for. `steps` has the step of the saga
    /// that a letter stands for.
    pub(crate) fn end(&self, steps: &Map<Uuid, Step>, breaches: &mut Breaches) {
        for (id, resolution) in &self.resolutions {
            let place = resolution.place;
            let Some(letter) = self.dead.get(id) else {
                let what = format!("there is no dead letter {id} in the log");
                breaches.rule(Invariant::Causality, place, what);
                continue;
            };
            let (before, after) = (letter.place.position, place.position);
            if before.partition == after.partition && before.sequence >= after.sequence {
                let what = format!("it stands before its dead letter, {before}");
                breaches.rule(Invariant::Causality, place, what);
            }
            if resolution.correlation != letter.correlation {
                let what = format!(
                    "its correlation is {}, and its dead letter's is another",
                    resolution.correlation
                );
                breaches.rule(Invariant::Causality, place, what);
            }
            if resolution.discards {
                if before.partition != after.partition && resolution.ending != Ending::Dead {
                    let what = format!("its dead letter stands in another partition, at {before}");
                    breaches.rule(Invariant::I4, place, what);
                }
                continue;
            }
            if resolution.actor != letter.actor {
                let what = "somebody else sends it than sent the command that died".to_owned();
                breaches.rule(Invariant::Causality, place, what);
            }
            self.does_what_died(letter, steps, resolution, breaches);
        }
    }

    fn does_what_died(
        &self,
        letter: &Letter,
        steps: &Map<Uuid, Step>,
        resolution: &Resolution,
        breaches: &mut Breaches,
    ) {
        if resolution.ending == Ending::Dead {
            return;
        }
        let origin = self.origin(letter);
        let place = resolution.place;
        match (steps.get(&origin.place.record_id), resolution.step) {
            (Some(due), Some(step)) if *due == step => {}
            (Some(due), Some(step)) => {
                let what = format!("{step}: what died at {} was {due}", origin.place.position);
                breaches.rule(Invariant::I3, place, what);
            }
            (Some(due), None) => {
                let what =
                    format!("no step of the saga, and what died at {} was {due}", origin.place.position);
                breaches.rule(Invariant::I3, place, what);
            }
            (None, Some(step)) if origin.first || resolution.policy.is_none() => {
                let what = format!("{step}: what died at {} was no step of the saga", origin.place.position);
                breaches.rule(Invariant::Causality, place, what);
            }
            // (That a letter of a policy has no cause is reported where it stands.)
            (None, _) => {}
        }
    }

    /// The first letter of a chain of retries that died.
    fn origin<'a>(&'a self, letter: &'a Letter) -> &'a Letter {
        let mut origin = letter;
        // (A chain is as long as there are letters, at most, however it was forged.)
        for _ in 0..self.dead.len() {
            let Some(before) = origin.retry_of.and_then(|id| self.dead.get(&id)) else { break };
            origin = before;
        }
        origin
    }

    /// The id of the first letter of a chain of retries that died.
    pub(crate) fn first_of(&self, letter: Uuid) -> Uuid {
        self.dead.get(&letter).map_or(letter, |letter| self.origin(letter).place.record_id)
    }

    /// What was done about a letter.
    pub(crate) fn state(&self, letter: Uuid) -> LetterState {
        match self.resolutions.get(&letter) {
            None => LetterState::Open,
            Some(resolution) if resolution.discards => LetterState::Discarded,
            Some(_) => LetterState::Retried,
        }
    }

    /// Whether what died there was done after all.
    pub(crate) fn is_done(&self, letter: Uuid) -> bool {
        let mut at = letter;
        for _ in 0..=self.dead.len() {
            match self.resolutions.get(&at) {
                Some(resolution) if !resolution.discards && resolution.ending == Ending::Dead => {
                    at = resolution.place.record_id;
                }
                Some(resolution) => return !resolution.discards,
                None => return false,
            }
        }
        false
    }
}
