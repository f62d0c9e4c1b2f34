//! Commands and their outcomes.
//!
//! The rule this module protects: an accepted command has one outcome, in the log and in the inbox, and both say the same.

use uuid::Uuid;

use crate::audit::Expect;
use crate::breach::{About, Breaches, Invariant, Tier};
use crate::facts::Verdict;
use crate::hash::{Map, digest};
use crate::lane::{Lane, Seen};
use crate::record::{Kind, Place, Position};
use crate::saga::Ending;

/// A command's outcome, as the log has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) position: Position,
    pub(crate) ending: Ending,
    /// A digest of reason and message; zero where there is none.
    pub(crate) words: u64,
    /// What the read models show of it beside its outcome, where that does not come with its cause.
    pub(crate) about: Option<Concern>,
    pub(crate) inbox_seen: bool,
    pub(crate) row_seen: bool,
}

/// The invoice that a command is about, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Concern {
    pub(crate) invoice: Uuid,
    /// In microseconds since the Unix epoch.
    pub(crate) since: u64,
}

/// A command that follows from a record which the read models have seen: they show it from then on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) cause: Place,
    pub(crate) about: Concern,
    pub(crate) row_seen: bool,
}

pub(crate) fn words(reason: &str, message: &str) -> u64 {
    digest([reason.as_bytes(), message.as_bytes()])
}

/// A command that the queue still holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queued {
    pub(crate) partition: u16,
    pub(crate) message: u64,
    pub(crate) index: u32,
}

/// What a person does about a queue that is not the one that is remembered.
const ADOPT: &str = "`financing queue adopt` accepts what is there";

#[derive(Debug, Default)]
pub(crate) struct Commands {
    pub(crate) done: Map<Uuid, Done>,
    /// What follows from the records that the read models have seen.
    pub(crate) asked: Map<Uuid, Asked>,
    pub(crate) queued: Map<Uuid, Queued>,
    /// The first command of each message, by partition and message.
    pub(crate) firsts: Map<(u16, u64), Uuid>,
    /// When the queue was created that was looked at.
    pub(crate) created_at: Seen<u64>,
    /// Queued commands, however often.
    pub(crate) in_queue: u64,
    pub(crate) inbox: u64,
}

impl Commands {
    pub(crate) fn clear(&mut self) {
        self.done.clear();
        self.asked.clear();
        self.queued.clear();
        self.firsts.clear();
        self.created_at = Seen::NobodyLooked;
        (self.in_queue, self.inbox) = (0, 0);
    }

    /// The last record of a command.
    pub(crate) fn ended(
        &mut self,
        command_id: Uuid,
        place: Place,
        (ending, words): (Ending, u64),
        about: Option<Concern>,
        breaches: &mut Breaches,
    ) {
        let position = place.position;
        let done = Done { position, ending, words, about, inbox_seen: false, row_seen: false };
        if let Some(first) = self.done.insert(command_id, done) {
            let what = format!("command {command_id} has a second outcome, after {}", first.position);
            breaches.rule(Invariant::I2, place, what);
        }
    }

    /// An entry of the inbox.
    pub(crate) fn inbox(
        &mut self,
        command_id: Uuid,
        fingerprint: &[u8],
        position: Position,
        verdict: &str,
        breaches: &mut Breaches,
    ) {
        self.inbox = self.inbox.saturating_add(1);
        let about = About::Position(position, Kind::Unknown, command_id);
        let mut wrong = |what: String| breaches.add(Tier::End, Invariant::I2, about, what);
        let Some(done) = self.done.get_mut(&command_id) else {
            wrong(format!("the inbox has command {command_id}, and the log has no outcome of it"));
            return;
        };
        if done.inbox_seen {
            wrong(format!("the inbox has command {command_id} twice"));
        }
        done.inbox_seen = true;
        if done.position != position {
            wrong(format!(
                "the inbox has the outcome of command {command_id} at {position}, and the log at {}",
                done.position
            ));
        }
        if fingerprint.len() != 32 {
            wrong(format!("the fingerprint of command {command_id} has {} bytes", fingerprint.len()));
        }
        let (ending, said) = match Verdict::read(verdict) {
            Ok(Verdict::Applied) => (Ending::Applied, 0),
            Ok(Verdict::Unchanged) => (Ending::Unchanged, 0),
            Ok(Verdict::Refused { reason, message }) => (Ending::Refused, words(&reason, &message)),
            Ok(Verdict::Dead { reason, message }) => (Ending::Dead, words(&reason, &message)),
            Err(error) => {
                wrong(format!("the outcome of command {command_id} in the inbox: {error}"));
                return;
            }
        };
        if ending != done.ending {
            let (inbox, log) = (ending.code(), done.ending.code());
            wrong(format!("command {command_id} is {inbox} in the inbox and {log} in the log"));
        } else if said != done.words {
            wrong(format!("the inbox gives other reasons for command {command_id} than the log"));
        }
    }

    /// Whether the queue that was looked at is another than the one that a partition was worked off from.
    pub(crate) fn is_another(&self, lane: &Lane) -> bool {
        match (lane.remembered, self.created_at) {
            (Some((remembered, _)), Seen::This(found)) => found != remembered,
            (Some(_), Seen::Nothing) => true,
            (None, _) | (_, Seen::NobodyLooked) => false,
        }
    }

    /// Every worker proves the queue before it goes on: that must succeed.
    pub(crate) fn proof(&self, lanes: &[Lane], breaches: &mut Breaches) {
        let others = lanes.iter().filter(|lane| self.is_another(lane)).count();
        if others > 0 {
            let is = if self.created_at == Seen::Nothing { "missing" } else { "created anew" };
            let what = format!(
                "the queue is not the one that was worked off: it is {is}, and {others} partitions remember another. \
                 Commands may be missing from it. {ADOPT}"
            );
            breaches.add(Tier::Queue, Invariant::I2, About::Nothing, what);
            return;
        }
        if self.created_at == Seen::NobodyLooked {
            return;
        }
        for (partition, lane) in (0..).zip(lanes) {
            let (Some((_, first)), Some((message, _))) =
                (lane.remembered, lane.row.and_then(|row| row.position))
            else {
                continue;
            };
            let among = || self.firsts.get(&(partition, message)).copied().into();
            let stands = if lane.stands == Seen::NobodyLooked { among() } else { lane.stands };
            let is = match stands {
                Seen::This(found) if found == first => continue,
                Seen::This(found) => format!("is another: {found}, and {first} was worked off"),
                Seen::Nothing | Seen::NobodyLooked => "is missing".to_owned(),
            };
            let what = format!(
                "the queue is not the one that was worked off: message {message} of partition {partition} {is}. \
                 Commands may be missing from it. {ADOPT}"
            );
            breaches.add(Tier::Queue, Invariant::I2, About::Nothing, what);
        }
    }

    /// What must be so at the end.
    pub(crate) fn end(&self, expect: &Expect<'_>, lanes: &[Lane], breaches: &mut Breaches) {
        for (command_id, done) in &self.done {
            if !done.inbox_seen {
                let about = About::Position(done.position, Kind::Unknown, *command_id);
                let what = format!("command {command_id} has an outcome in the log and none in the inbox");
                breaches.add(Tier::End, Invariant::I2, about, what);
            }
        }
        for (command_id, queued) in &self.queued {
            // (The numbers of another queue say nothing about this one.)
            let lane = lanes.get(usize::from(queued.partition)).filter(|lane| !self.is_another(lane));
            let position = lane.and_then(|lane| lane.row?.position);
            let passed =
                position.is_some_and(|(message, index)| (queued.message, queued.index) <= (message, index));
            if passed && !self.done.contains_key(command_id) {
                let Queued { partition, message, index } = *queued;
                let what = format!(
                    "command {command_id} (partition {partition}, message {message}, index {index}) was worked off and has no outcome"
                );
                breaches.add(Tier::End, Invariant::I2, About::Nothing, what);
            }
        }
        for command_id in expect.accepted {
            let waits = !expect.settled && self.queued.contains_key(command_id);
            if !waits && !self.done.contains_key(command_id) {
                let what = format!("command {command_id} was accepted and has no outcome");
                breaches.add(Tier::End, Invariant::I2, About::Nothing, what);
            }
        }
    }
}
