//! Cause and effect: what must follow from a record, and what a record says that it follows from.
//!
//! The rule this module protects: every command of the saga has one cause, that record of the log from which its id
//! derives, and does exactly what follows from it; and from every record follows what must. Causes and effects meet here in
//! whatever order the partitions are read; what has met is forgotten.

use std::fmt;

use uuid::Uuid;

use crate::breach::{Breaches, Invariant};
use crate::facts::Move;
use crate::hash::Map;
use crate::money::Money;
use crate::record::Place;

/// The saga's policies. A command's id is the UUIDv5 of the policy's name in the namespace of its cause's record id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    ProcessPlacedBid,
    ReleaseRejectedBid,
    ReleaseExcess,
    CommitApproved,
    ReturnReversed,
    ReleaseRefusedBid,
}

impl Policy {
    pub(crate) const ALL: [Self; 6] = [
        Self::ProcessPlacedBid,
        Self::ReleaseRejectedBid,
        Self::ReleaseExcess,
        Self::CommitApproved,
        Self::ReturnReversed,
        Self::ReleaseRefusedBid,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ProcessPlacedBid => "process-placed-bid",
            Self::ReleaseRejectedBid => "release-rejected-bid",
            Self::ReleaseExcess => "release-excess",
            Self::CommitApproved => "commit-approved",
            Self::ReturnReversed => "return-reversed",
            Self::ReleaseRefusedBid => "release-refused-bid",
        }
    }

    /// The id of the command that follows from this record.
    pub(crate) fn command_id(self, record_id: Uuid) -> Uuid {
        Uuid::new_v5(&record_id, self.name().as_bytes())
    }

    /// Whether a policy sent this command because of that record, as its id says.
    pub(crate) fn derived(command_id: Uuid, causation_id: Uuid, actor: &str) -> bool {
        let name = actor.strip_prefix("policy:");
        name.is_some_and(|name| Uuid::new_v5(&causation_id, name.as_bytes()) == command_id)
    }

    fn of_actor(actor: &str) -> Option<Self> {
        let name = actor.strip_prefix("policy:")?;
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

/// What a command of the saga asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The invoice's answer to a bid.
    Answer,
    /// A move of reserved money.
    Move(Move),
}

/// A command of the saga, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) wanted: Wanted,
    pub(crate) investor: Uuid,
    pub(crate) bid: Uuid,
    pub(crate) invoice: Uuid,
    pub(crate) money: Money,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            Wanted::Answer => write!(f, "ProcessBid")?,
            Wanted::Move(kind) => write!(f, "{}", kind.code())?,
        }
        write!(
            f,
            " of {} of bid {} (investor {}, invoice {})",
            self.money, self.bid, self.investor, self.invoice
        )
    }
}

/// What a record follows from, and what must follow from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Links {
    /// The command of the saga that it is the outcome of.
    pub(crate) effect: Option<Step>,
    /// The command that must follow.
    pub(crate) reaction: Option<(Policy, Step)>,
}

impl Links {
    /// A client's or another context's command: nothing before it, and nothing behind it.
    pub(crate) const FIRST: Self = Self { effect: None, reaction: None };
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Applied,
    Unchanged,
    Refused,
    Dead,
}

impl Ending {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Applied => "APPLIED",
            Self::Unchanged => "UNCHANGED",
            Self::Refused => "REFUSED",
            Self::Dead => "DEAD",
        }
    }
}

/// A record from which something must follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause {
    pub(crate) place: Place,
    pub(crate) correlation: Uuid,
    pub(crate) policy: Policy,
    pub(crate) step: Step,
}

/// The outcome of a command that a policy sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effect {
    pub(crate) place: Place,
    pub(crate) correlation: Uuid,
    pub(crate) causation: Uuid,
    pub(crate) policy: Option<Policy>,
    /// What it did, or was asked to do; `None` where it is dead.
    pub(crate) step: Option<Step>,
    pub(crate) ending: Ending,
}

impl Effect {
    pub(crate) fn policy_of(actor: &str) -> Option<Policy> {
        Policy::of_actor(actor)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Half {
    Cause(Cause),
    Effect(Effect),
}

/// Causes whose effect, and effects whose cause, has not been seen, by the command's id.
#[derive(Debug, Default)]
pub(crate) struct Saga {
    pub(crate) waiting: Map<Uuid, Half>,
    /// Dead letters of the saga: the record, what should have happened, and by which command.
    pub(crate) dead: Vec<(Place, Uuid, Step)>,
    /// For each partition, the last record that something followed from, and that effect.
    pub(crate) followed: Vec<Option<(u64, Place)>>,
}

impl Saga {
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.dead.clear();
        self.followed.iter_mut().for_each(|followed| *followed = None);
    }

    /// Something must follow from this record.
    pub(crate) fn cause(&mut self, cause: Cause, breaches: &mut Breaches) {
        let command_id = cause.policy.command_id(cause.place.record_id);
        match self.waiting.remove(&command_id) {
            None => {
                self.waiting.insert(command_id, Half::Cause(cause));
            }
            Some(Half::Effect(effect)) => self.meet(command_id, &cause, &effect, breaches),
            // Two records with one id, which is reported as that.
            Some(Half::Cause(first)) => {
                self.waiting.insert(command_id, Half::Cause(first));
            }
        }
    }

    /// This record says that it follows from another.
    pub(crate) fn effect(&mut self, command_id: Uuid, effect: Effect, breaches: &mut Breaches) {
        match self.waiting.remove(&command_id) {
            None => {
                self.waiting.insert(command_id, Half::Effect(effect));
            }
            Some(Half::Cause(cause)) => self.meet(command_id, &cause, &effect, breaches),
            // A command that is done twice, which is reported as that.
            Some(Half::Effect(first)) => {
                self.waiting.insert(command_id, Half::Effect(first));
            }
        }
    }

    fn meet(&mut self, command_id: Uuid, cause: &Cause, effect: &Effect, breaches: &mut Breaches) {
        let place = effect.place;
        if effect.causation != cause.place.record_id {
            let what = format!(
                "command {command_id} follows from record {}, and names {} as its cause",
                cause.place.record_id, effect.causation
            );
            breaches.rule(Invariant::Causality, place, what);
        }
        if effect.correlation != cause.correlation {
            let what = format!(
                "its correlation is {}, and its cause's ({}) is {}",
                effect.correlation, cause.place.position, cause.correlation
            );
            breaches.rule(Invariant::Causality, place, what);
        }
        if effect.policy != Some(cause.policy) {
            let what = format!("policy {} sends it, and its actor is another", cause.policy.name());
            breaches.rule(Invariant::Causality, place, what);
        }
        let (before, after) = (cause.place.position, place.position);
        if before.partition == after.partition && before.sequence >= after.sequence {
            breaches.rule(Invariant::Causality, place, format!("it stands before its cause, {before}"));
        }
        if let Some(step) = effect.step.filter(|step| *step != cause.step) {
            let what = format!("{step}: due after {before} is {}", cause.step);
            breaches.rule(Invariant::I3, place, what);
        }
        match effect.ending {
            Ending::Dead => self.dead.push((place, command_id, cause.step)),
            // (That a move is refused or changes nothing is reported where it is folded.)
            Ending::Applied | Ending::Refused | Ending::Unchanged => {}
        }
        if let Some(followed) = self.followed.get_mut(usize::from(before.partition))
            && followed.is_none_or(|(sequence, _)| sequence < before.sequence)
        {
            *followed = Some((before.sequence, place));
        }
    }
}
