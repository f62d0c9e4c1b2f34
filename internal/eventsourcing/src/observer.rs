//! Whoever looks on: the loops tell what they have done.
//!
//! The rule this module protects: looking on changes nothing. A loop tells only what is done and durable, waits for
//! nobody, and where nobody looks on it does not even gather what it would tell. An observer brings its own clock, because
//! most loops have none.

use std::sync::Arc;

use uuid::Uuid;

use crate::environment::Timestamp;
use crate::outcome::Outcome;
use crate::partition::{LogPosition, Partition};
use crate::record::Record;
use crate::turn::Trouble;

/// One who looks on. Every method returns at once, and none may fail: whoever tells has something more important to do.
pub trait Observer: Send + Sync + 'static {
    /// What time it is, for whoever looks on: a loop only hands it back.
    fn now(&self) -> Timestamp;

    /// Commands were stored by the queue, in one bundle of the listener, or as what follows from one step of another loop.
    fn queued(&self, _batch: &Queued) {}

    /// A partition's commands were decided, and are on disk.
    fn decided(&self, _batch: &Decided) {}

    /// Records of one partition were published.
    fn relayed(&self, _records: &[Arc<Record>], _during: Interval) {}

    /// What follows from these records is durable: a command, or a dead letter that is kept.
    fn reacted(&self, _step: &Reacted) {}

    /// Records of one partition are in the read models.
    fn projected(&self, _records: &[Arc<Record>], _during: Interval) {}

    /// Somebody else owns a partition that the loop had.
    fn fenced(&self, _part: &'static str, _partition: Partition) {}

    /// A turn did not come to its end.
    fn failed(&self, _part: &'static str, _trouble: &Trouble) {}
}

/// From when to when, by the observer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval {
    /// The beginning.
    pub start: Timestamp,
    /// The end. A clock that was set back may put it before the beginning.
    pub end: Timestamp,
}

/// Commands that the queue has stored together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Which loop.
    pub part: &'static str,
    /// How many commands.
    pub commands: usize,
}

/// A command that has its outcome since now: nothing of what it says, only where it comes from and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The command.
    pub command_id: Uuid,
    /// The first command of the whole saga.
    pub correlation_id: Uuid,
    /// The record that a policy reacted to, or the command itself for a client's.
    pub causation_id: Uuid,
    /// The W3C trace context the command came with.
    pub traceparent: Option<String>,
    /// The command's name; `None` for one that could not be read.
    pub method: Option<&'static str>,
    /// The outcome's state, as in `APPLIED`.
    pub state: &'static str,
    /// The machine-readable reason of a refusal or a death.
    pub reason: Option<String>,
    /// Its last record.
    pub position: LogPosition,
    /// How many records it has.
    pub records: usize,
}

impl Decision {
    /// An outcome; where it comes from is filled in by the caller.
    pub(crate) fn of(outcome: &Outcome, method: Option<&'static str>, records: usize) -> Self {
        Self {
            command_id: outcome.command_id,
            correlation_id: outcome.command_id,
            causation_id: outcome.command_id,
            traceparent: None,
            method,
            state: outcome.verdict.state(),
            reason: outcome.verdict.reason().map(ToOwned::to_owned),
            position: outcome.position,
            records,
        }
    }
}

/// A batch of a worker, of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Which partition.
    pub partition: Partition,
    /// How many commands were in it, with those that had an outcome already.
    pub commands: usize,
    /// Those that have one since now, in order.
    pub decisions: Vec<Decision>,
    /// From when it was cut until it was on disk.
    pub during: Interval,
    /// The transaction alone, which other partitions' batches may share.
    pub commit: Interval,
}

/// A command that follows from a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// The record.
    pub record: Arc<Record>,
    /// The policy that says so.
    pub policy: &'static str,
    /// The command.
    pub command_id: Uuid,
}

/// A step of the policies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reacted {
    /// How many records were looked at.
    pub records: usize,
    /// What followed, in order.
    pub reactions: Vec<Reaction>,
    /// How many dead letters were kept.
    pub dead_letters: usize,
    /// From when they were read until all was durable.
    pub during: Interval,
}

/// Who looks on at a loop: nobody, unless somebody is named. A clone is the same one.
#[derive(Clone, Default)]
pub struct Watch(Option<Arc<dyn Observer>>);

impl Watch {
    /// This one looks on.
    #[must_use]
    pub fn by(observer: Arc<dyn Observer>) -> Self {
        Self(Some(observer))
    }

    /// The observer, where there is one.
    #[must_use]
    pub fn get(&self) -> Option<&dyn Observer> {
        self.0.as_deref()
    }

    /// Whether anybody looks on.
    pub(crate) const fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// What time it is for whoever looks on; zero for nobody.
    pub(crate) fn now(&self) -> Timestamp {
        self.get().map(Observer::now).unwrap_or_default()
    }

    /// From then until now.
    pub(crate) fn since(&self, start: Timestamp) -> Interval {
        Interval { start, end: self.now() }
    }

    /// Somebody else owns the partition.
    pub(crate) fn fenced(&self, part: &'static str, partition: Partition) {
        if let Some(observer) = self.get() {
            observer.fenced(part, partition);
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_kept() { "Watch(somebody)" } else { "Watch(nobody)" })
    }
}
