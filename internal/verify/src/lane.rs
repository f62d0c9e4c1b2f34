//! A partition of the log, as it is read: one record behind the other.
//!
//! The rule this module protects: sequences are 1, 2, 3, and a command's records stand side by side.

use uuid::Uuid;

use crate::breach::{Breaches, Invariant, Tier};
use crate::record::{Place, Record};

/// A command whose last record has not come yet.
#[derive(Debug, Clone, Copy)]
struct Run {
    command_id: Uuid,
    correlation: Uuid,
    causation: Uuid,
    place: Place,
    records: u32,
    opens_an_account: bool,
}

/// What somebody who looked has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Seen<T> {
    #[default]
    NobodyLooked,
    Nothing,
    This(T),
}

impl<T> From<Option<T>> for Seen<T> {
    fn from(found: Option<T>) -> Self {
        found.map_or(Self::Nothing, Self::This)
    }
}

/// What is known of a partition.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// The last sequence that was read.
    pub(crate) head: u64,
    pub(crate) last: Option<Place>,
    run: Option<Run>,
    /// The read models' checkpoint, and the id of the record there.
    pub(crate) projected: Option<(u64, Option<Uuid>)>,
    /// Where the bus ended when the log was read, or before: its last message, and that record's id.
    pub(crate) relayed: Option<(u64, Option<Uuid>)>,
    /// Where the bus ended when the log was read, or later.
    pub(crate) carried: Option<u64>,
    /// The bus's messages: digests of the record's id, and of all else.
    pub(crate) messages: Vec<(u64, u64)>,
    /// Epoch, head and queue position of the partition's row.
    pub(crate) row: Option<PartitionRow>,
    /// What else the row remembers of the queue: when it was created, and the mark of the message there.
    pub(crate) remembered: Option<(u64, Uuid)>,
    /// Of whoever looked there after the log was read: the mark of the message that stands there now.
    pub(crate) stands: Seen<Uuid>,
    /// How far the policies have come.
    pub(crate) reacted: u64,
}

/// A partition's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRow {
    /// How often it was taken over.
    pub epoch: u64,
    /// The last record's sequence.
    pub head: u64,
    /// The last command of the queue that has an outcome: the message, and the index in it.
    pub position: Option<(u64, u32)>,
}

impl Lane {
    pub(crate) fn clear(&mut self) {
        let mut messages = std::mem::take(&mut self.messages);
        messages.clear();
        *self = Self { messages, ..Self::default() };
    }

    /// Whether the read models have seen the record.
    pub(crate) fn shows(&self, sequence: u64) -> bool {
        self.projected.is_some_and(|(projected, _)| sequence <= projected)
    }

    /// Takes the next record; answers whether it is the last of its command.
    pub(crate) fn next(&mut self, record: &Record<'_>, place: Place, breaches: &mut Breaches) {
        let expected = self.head.saturating_add(1);
        if record.sequence != expected {
            let what = format!("the partition goes on with {} after {}", record.sequence, self.head);
            breaches.add(Tier::Log, Invariant::I4, place, what);
        }
        self.head = record.sequence;
        self.last = Some(place);
        match self.run.take() {
            Some(mut run) if run.command_id == record.command_id => {
                run.records = run.records.saturating_add(1);
                self.goes_on(&run, record, place, breaches);
                self.run = Some(run);
            }
            before => {
                if let Some(run) = before {
                    not_ended(&run, breaches);
                }
                if record.event_type == "InvestorFundsAdded" {
                    let what = "funds are added when an investor is created, and never again".to_owned();
                    breaches.rule(Invariant::I3, place, what);
                }
                self.run = Some(Run {
                    command_id: record.command_id,
                    correlation: record.correlation_id,
                    causation: record.causation_id,
                    place,
                    records: 1,
                    opens_an_account: record.event_type == "InvestorCreated",
                });
            }
        }
        if record.command_last {
            self.run = None;
        }
    }

    #[expect(clippy::unused_self, reason = "a step of `next`")]
    fn goes_on(&self, run: &Run, record: &Record<'_>, place: Place, breaches: &mut Breaches) {
        if run.correlation != record.correlation_id || run.causation != record.causation_id {
            let what = format!("the records of command {} name different causes", run.command_id);
            breaches.rule(Invariant::Causality, place, what);
        }
        if run.place.aggregate != place.aggregate || run.place.kind != place.kind {
            let what = format!("command {} changes a second aggregate", run.command_id);
            breaches.rule(Invariant::I2, place, what);
        }
        if run.records > 2 || !run.opens_an_account || record.event_type != "InvestorFundsAdded" {
            let what = format!("command {} brings about more than one command can", run.command_id);
            breaches.rule(Invariant::I2, place, what);
        }
    }

    /// That was the last record.
    pub(crate) fn end(&mut self, breaches: &mut Breaches) {
        if let Some(run) = self.run.take() {
            not_ended(&run, breaches);
        }
    }
}

fn not_ended(run: &Run, breaches: &mut Breaches) {
    let what = format!("command {} has no last record behind this one", run.command_id);
    breaches.rule(Invariant::I2, run.place, what);
}
