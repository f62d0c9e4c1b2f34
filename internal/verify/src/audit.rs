//! Takes in all that a platform has stored, one piece at a time.
//!
//! The rule this module protects: nothing is kept that only has to be counted. What is kept is the state of each aggregate
//! and bid, an id for each record and command, and what still waits for its counterpart.

use uuid::Uuid;

use crate::breach::{About, Breaches, Invariant, Tier};
use crate::commands::{Asked, Commands, Concern, Queued, words};
use crate::facts::{Fact, Outcome};
use crate::fold::{At, Fold};
use crate::hash::{Map, Set, digest};
use crate::lane::{Lane, PartitionRow};
use crate::letters::Letters;
use crate::readmodels::{self, Row};
use crate::record::{Kind, Place, Position, Record};
use crate::report::{Counts, DeadLetter, LetterState, Outcomes};
use crate::saga::{Cause, Effect, Ending, Links, Policy, Saga};
use crate::snapshot::Snapshot;

/// When the end of the bus was looked at: a running platform goes on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// Before the log was read: what is on the bus must be in the log.
    BeforeTheLog,
    /// At the same moment.
    WithTheLog,
    /// After it: what something in the log follows from must be on the bus.
    AfterTheLog,
}

/// What is known beside what is stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expect<'a> {
    /// The platform has nothing left to do: an open saga without a dead letter is a breach.
    pub settled: bool,
    /// Commands that were accepted: each must have an outcome (or, unless it is settled, be in the queue).
    pub accepted: &'a [Uuid],
}

/// The dead letters that are shown.
pub(crate) const SHOWN: usize = 100;

/// An audit. Its order: first [`projected`](Self::projected), [`snapshot`](Self::snapshot),
/// [`published`](Self::published) and [`relayed`](Self::relayed) where the bus was looked at before or with the log; then every
/// [`record`](Self::record), in order within its partition; then the rest; and [`finish`](Self::finish).
///
/// The log, the inbox and the partitions' rows are always checked; the read models where `projected` was called; the
/// bus where `published` or `relayed` was.
#[derive(Debug, Default)]
pub struct Audit {
    pub(crate) fold: Fold,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) saga: Saga,
    pub(crate) commands: Commands,
    pub(crate) records: Set<Uuid>,
    pub(crate) snapshots: Map<(Kind, Uuid), Snapshot>,
    pub(crate) checkpoints: Vec<(String, u16, u64)>,
    pub(crate) breaches: Breaches,
    pub(crate) counts: Counts,
    pub(crate) outcomes: Outcomes,
    pub(crate) dead: Vec<(Uuid, DeadLetter)>,
    pub(crate) letters: Letters,
    pub(crate) bus_in_the_log: bool,
}

impl Audit {
    /// Of a platform with so many partitions.
    #[must_use]
    pub fn new(partitions: u16) -> Self {
        let mut audit = Self::default();
        audit.reset(partitions);
        audit
    }

    /// Forgets everything but the memory it has: for whoever makes many audits.
    pub fn reset(&mut self, partitions: u16) {
        self.fold.clear();
        self.fold.partitions = partitions;
        self.lanes.iter_mut().for_each(Lane::clear);
        self.lanes.resize_with(usize::from(partitions), Lane::default);
        self.saga.clear();
        self.saga.followed.resize(usize::from(partitions), None);
        self.commands.clear();
        self.records.clear();
        self.snapshots.clear();
        self.checkpoints.clear();
        self.breaches.clear();
        self.counts = Counts::default();
        self.outcomes = Outcomes::default();
        self.dead.clear();
        self.letters.clear();
        self.bus_in_the_log = false;
    }

    fn lane(&mut self, partition: u16) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(usize::from(partition));
        if lane.is_none() {
            let what = format!("there is no partition {partition}");
            self.breaches.add(Tier::Log, Invariant::I4, About::Nothing, what);
        }
        lane
    }

    /// How far the read models have come in a partition, and the id of the record there. Before the records.
    pub fn projected(&mut self, partition: u16, sequence: u64, record_id: Option<Uuid>) {
        if let Some(lane) = self.lane(partition) {
            lane.projected = Some((sequence, record_id));
        }
    }

    /// A message of the bus, in order within its partition; before the records. `record` is what the message says, its
    /// `sequence` the message's own number.
    pub fn published(&mut self, record: &Record<'_>) {
        self.counts.messages = self.counts.messages.saturating_add(1);
        let place = Place::of(record);
        let Some(lane) = self.lane(record.partition) else { return };
        lane.messages.push((digest([record.record_id.as_bytes().as_slice()]), record.digest()));
        let expected = lane.messages.len() as u64;
        if record.sequence != expected {
            let what = format!("the bus has message {} where {expected} is due", record.sequence);
            self.breaches.add(Tier::Derived, Invariant::I5, place, what);
        }
    }

    /// A message of the bus that is no record, in the place of one.
    pub fn unreadable(&mut self, partition: u16, sequence: u64, what: &str) {
        self.counts.messages = self.counts.messages.saturating_add(1);
        if let Some(lane) = self.lane(partition) {
            lane.messages.push((0, 0));
        }
        let position = Position { partition, sequence };
        let about = About::Position(position, Kind::Unknown, Uuid::nil());
        self.breaches.add(Tier::Derived, Invariant::I5, about, what.to_owned());
    }

    /// The bus is the log up to a position of each partition: [`relayed`](Self::relayed) must be said of every one, with the
    /// record's id.
    pub const fn bus_is_in_the_log(&mut self) {
        self.bus_in_the_log = true;
    }

    /// Where a partition's bus ends: its last sequence, and that record's id where it is known. With or before the log it is
    /// to be said before the records.
    pub fn relayed(&mut self, when: Bus, partition: u16, sequence: u64, record_id: Option<Uuid>) {
        let Some(lane) = self.lane(partition) else { return };
        if matches!(when, Bus::BeforeTheLog | Bus::WithTheLog) {
            lane.relayed = Some((sequence, record_id));
        }
        if matches!(when, Bus::AfterTheLog | Bus::WithTheLog) {
            lane.carried = Some(sequence);
        }
        if when == Bus::WithTheLog {
            self.counts.messages = self.counts.messages.saturating_add(sequence);
        }
    }

    /// A snapshot of an aggregate. Before the records.
    pub fn snapshot(
        &mut self,
        aggregate_type: &str,
        aggregate_id: Uuid,
        version: u64,
        schema: u16,
        data: &str,
    ) {
        self.counts.snapshots = self.counts.snapshots.saturating_add(1);
        let kind = Kind::of(aggregate_type);
        self.snapshots.insert((kind, aggregate_id), Snapshot::new(version, schema, data));
    }

    /// A record of the log, in order within its partition.
    pub fn record(&mut self, record: &Record<'_>) {
        self.counts.records = self.counts.records.saturating_add(1);
        let place = Place::of(record);
        if !self.records.insert(record.record_id) {
            let what = "another record has this id".to_owned();
            self.breaches.add(Tier::Log, Invariant::I4, place, what);
        }
        let Some(lane) = self.lanes.get_mut(usize::from(record.partition)) else {
            let what = format!("there is no partition {}", record.partition);
            self.breaches.add(Tier::Log, Invariant::I4, place, what);
            return;
        };
        lane.next(record, place, &mut self.breaches);
        let shown = lane.shows(record.sequence);
        derived(lane, record, place, &mut self.breaches);

        let mut at =
            At { place, version: record.version.unwrap_or_default(), shown, breaches: &mut self.breaches };
        let (links, ending, words, invoice) = if record.version.is_some() {
            self.counts.facts = self.counts.facts.saturating_add(1);
            let (links, invoice) = match Fact::read(record.event_type, record.schema, record.payload) {
                Ok(fact) => (self.fold.apply(&mut at, &fact), fact.invoice()),
                Err(error) => {
                    at.breaches.add(Tier::Log, Invariant::Form, place, error);
                    (Links::FIRST, None)
                }
            };
            (links, Ending::Applied, 0, invoice)
        } else {
            outcome(&mut self.fold, &mut at, record, &mut self.dead, &mut self.letters)
        };
        let home = self.fold.partition_of(record.aggregate_id);
        let discarded = record.version.is_none() && record.event_type == "DeadLetterDiscarded";
        if home != record.partition && ending != Ending::Dead && !discarded {
            let what = format!("the aggregate belongs to partition {home}");
            self.breaches.add(Tier::Log, Invariant::I4, place, what);
        }
        if !discarded {
            self.link(record, place, &links, ending);
        }
        if let Some((policy, step)) = links.reaction.filter(|_| shown) {
            let about = Concern { invoice: step.invoice, since: record.recorded_at };
            let asked = Asked { cause: place, about, row_seen: false };
            self.commands.asked.entry(policy.command_id(record.record_id)).or_insert(asked);
        }
        if record.command_last {
            self.count(ending);
            // What a policy's command is about is shown where its cause is.
            let derived = Policy::derived(record.command_id, record.causation_id, record.actor);
            let about = invoice.filter(|_| !derived);
            let about = about.map(|invoice| Concern { invoice, since: record.recorded_at });
            self.commands.ended(record.command_id, place, (ending, words), about, &mut self.breaches);
        }
        if !self.snapshots.is_empty() {
            self.compare_snapshot(record, place);
        }
    }

    fn count(&mut self, ending: Ending) {
        let count = match ending {
            Ending::Applied => &mut self.outcomes.applied,
            Ending::Unchanged => &mut self.outcomes.unchanged,
            Ending::Refused => &mut self.outcomes.refused,
            Ending::Dead => &mut self.outcomes.dead,
        };
        *count = count.saturating_add(1);
    }

    /// Joins the record with its cause and with what must follow.
    fn link(&mut self, record: &Record<'_>, place: Place, links: &Links, ending: Ending) {
        let (command, causation, correlation) =
            (record.command_id, record.causation_id, record.correlation_id);
        if let Some((policy, step)) = links.reaction {
            self.saga.cause(Cause { place, correlation, policy, step }, &mut self.breaches);
        }
        if Letters::is_resolution(record) {
            self.letters.retried(record, place, links, ending, &mut self.breaches);
            return;
        }
        let first = causation == command;
        if first && correlation != command {
            let what = format!("command {command} is the first of its saga, and its correlation is another");
            self.breaches.rule(Invariant::Causality, place, what);
        }
        if first == links.effect.is_some() && ending != Ending::Dead {
            let what = if first {
                format!("command {command} is a step of the saga, and names no cause")
            } else {
                format!("command {command} is no step of the saga, and names {causation} as its cause")
            };
            self.breaches.rule(Invariant::Causality, place, what);
        }
        if !first && (links.effect.is_some() || ending == Ending::Dead) {
            let policy = Effect::policy_of(record.actor);
            let effect = Effect { place, correlation, causation, policy, step: links.effect, ending };
            self.saga.effect(command, effect, &mut self.breaches);
        }
    }

    fn compare_snapshot(&mut self, record: &Record<'_>, place: Place) {
        let Some(version) = record.version else { return };
        let key = (place.kind, place.aggregate);
        if self.snapshots.get(&key).is_some_and(|snapshot| snapshot.version == version)
            && let Some(snapshot) = self.snapshots.remove(&key)
            && let Some(what) = snapshot.differs(&self.fold, place.kind, place.aggregate)
        {
            self.breaches.add(Tier::Derived, Invariant::I1, place, what);
        }
    }

    /// An entry of the inbox. After the records. `verdict` is its JSON.
    pub fn inbox(
        &mut self,
        command_id: Uuid,
        fingerprint: &[u8],
        partition: u16,
        sequence: u64,
        verdict: &str,
    ) {
        let position = Position { partition, sequence };
        self.commands.inbox(command_id, fingerprint, position, verdict, &mut self.breaches);
    }

    /// A partition's row.
    pub fn partition(&mut self, partition: u16, row: PartitionRow) {
        if let Some(lane) = self.lane(partition) {
            lane.row = Some(row);
        }
    }

    /// What a partition's row remembers of the queue beside the position: when it was created, in microseconds since the
    /// Unix epoch, and the mark of the message at the position: its first command, or what is derived from that and from
    /// when the queue stored it. Where it is not said it is not checked.
    pub fn remembers(&mut self, partition: u16, created_at: u64, mark: Uuid) {
        if let Some(lane) = self.lane(partition) {
            lane.remembered = Some((created_at, mark));
        }
    }

    /// When the queue was created that is looked at; `None`: there is none. Where it is not said, the queue is taken for
    /// the one that was worked off.
    pub fn queue(&mut self, created_at: Option<u64>) {
        self.commands.created_at = created_at.into();
    }

    /// The queue positions that were taken in, each with the mark of the message there: what whoever can looks for,
    /// to say what [`stands`](Self::stands) there.
    #[must_use]
    pub fn positions(&self) -> Vec<(u16, (u64, u32), Uuid)> {
        let position = |(partition, lane): (u16, &Lane)| {
            let (_, first) = lane.remembered?;
            Some((partition, lane.row?.position?, first))
        };
        (0..).zip(&self.lanes).filter_map(position).collect()
    }

    /// The mark of the message at a partition's position, for whoever looked after the log was read; `None`:
    /// there is no such message. Else the message must be among those that are [`queued`](Self::queued).
    pub fn stands(&mut self, partition: u16, mark: Option<Uuid>) {
        if let Some(lane) = self.lane(partition) {
            lane.stands = mark.into();
        }
    }

    /// A command that the queue holds, whether or not it has an outcome already.
    pub fn queued(&mut self, command_id: Uuid, partition: u16, message: u64, index: u32) {
        self.commands.in_queue = self.commands.in_queue.saturating_add(1);
        let queued = Queued { partition, message, index };
        if index == 0 {
            self.commands.firsts.insert((partition, message), command_id);
        }
        let first = self.commands.queued.entry(command_id).or_insert(queued);
        // The earliest that is there: a repeat behind it says nothing.
        if (message, index) < (first.message, first.index) {
            *first = queued;
        }
    }

    /// How far a reader of the bus (`policies`) has come in a partition.
    pub fn checkpoint(&mut self, reader: &str, partition: u16, sequence: u64) {
        let policies = reader == "policies";
        let Some(lane) = self.lane(partition) else { return };
        if policies {
            lane.reacted = sequence;
        }
        self.checkpoints.push((reader.to_owned(), partition, sequence));
    }

    /// A row of the read models. After the records.
    pub fn row(&mut self, row: &Row<'_>) {
        self.counts.rows = self.counts.rows.saturating_add(1);
        readmodels::compare(&mut self.fold, &mut self.commands, &self.lanes, row, &mut self.breaches);
    }
}

/// What the bus and the read models know of this record.
fn derived(lane: &Lane, record: &Record<'_>, place: Place, breaches: &mut Breaches) {
    if let Some((sequence, Some(record_id))) = lane.projected
        && sequence == record.sequence
        && record_id != record.record_id
    {
        let what = format!("the read models' checkpoint says that record {record_id} stands here");
        breaches.add(Tier::Derived, Invariant::I6, place, what);
    }
    if let Some((sequence, Some(record_id))) = lane.relayed
        && sequence == record.sequence
        && record_id != record.record_id
    {
        let what = format!("the bus ends with record {record_id} here");
        breaches.add(Tier::Derived, Invariant::I5, place, what);
    }
    let index = usize::try_from(record.sequence).ok().and_then(|sequence| sequence.checked_sub(1));
    if let Some((id, content)) = index.and_then(|index| lane.messages.get(index)).copied() {
        if id != digest([record.record_id.as_bytes().as_slice()]) {
            let what = "the bus has another record in its place".to_owned();
            breaches.add(Tier::Derived, Invariant::I5, place, what);
        } else if content != record.digest() {
            breaches.add(Tier::Derived, Invariant::I5, place, "the bus has other content for it".to_owned());
        }
    }
}

/// A record of an outcome that is no fact.
fn outcome(
    fold: &mut Fold,
    at: &mut At<'_>,
    record: &Record<'_>,
    dead: &mut Vec<(Uuid, DeadLetter)>,
    letters: &mut Letters,
) -> (Links, Ending, u64, Option<Uuid>) {
    match Outcome::read(record.event_type, record.schema, record.payload) {
        Ok(Outcome::Refused(refused)) => {
            let words = words(&refused.reason, &refused.message);
            (fold.refused(at, &refused), Ending::Refused, words, refused.command.invoice())
        }
        Ok(Outcome::Unchanged(unchanged)) => {
            (fold.unchanged(at, &unchanged), Ending::Unchanged, 0, unchanged.command.invoice())
        }
        Ok(Outcome::Dead(letter)) => {
            let words = words(&letter.reason, &letter.message);
            letters.died(record, at.place, letter.discards());
            let dead_letter = DeadLetter {
                position: at.place.position,
                command_id: record.command_id,
                bid_id: None,
                state: LetterState::Open,
                what: format!("{}: {}", letter.reason, letter.message),
            };
            dead.push((record.record_id, dead_letter));
            (Links::FIRST, Ending::Dead, words, letter.invoice())
        }
        Ok(Outcome::Discarded(discarded)) => {
            letters.discarded(record, at.place, &discarded, at.breaches);
            (Links::FIRST, Ending::Applied, 0, None)
        }
        Err(error) => {
            at.breaches.add(Tier::Log, Invariant::Form, at.place, error);
            (Links::FIRST, Ending::Applied, 0, None)
        }
    }
}
