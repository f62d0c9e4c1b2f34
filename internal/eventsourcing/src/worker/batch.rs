//! Deciding a batch in memory.
//!
//! The rule this module protects: a command id appends at least one record, once. A repeat appends none and gets the
//! outcome that the first delivery got, or is told that its id was used for something else.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Serialize;
use uuid::Uuid;

use crate::command::Envelope;
use crate::environment::Environment;
use crate::letters::Discard;
use crate::model::{AggregateRef, DecodeError, Known, Model};
use crate::mutants::{Mutant, planted};
use crate::observer::{Decided, Decision, Interval, Watch};
use crate::outcome::{Fingerprint, Outcome, Reply, Verdict};
use crate::partition::{LogPosition, Partition, Version};
use crate::ports::{InboxEntry, LoadRequest, PartitionCommit, PartitionRow, QueuePosition, Snapshot};
use crate::record::{
    COMMAND_DEAD, COMMAND_REFUSED, COMMAND_UNCHANGED, DEAD_LETTER_DISCARDED, DeadData, Record, RefusedData,
    UnchangedData,
};
use crate::turn::Trouble;

use super::WorkerLimits;
use super::owned::{Doomed, Owned, Pending, Work};

/// The commands of one partition that are decided together.
pub(super) struct Batch<M: Model> {
    pub(super) partition: Partition,
    row: PartitionRow,
    commands: Vec<Pending<M>>,
}

/// What a batch tries to settle: whom to blame where the store refuses it.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    pub(super) partition: Partition,
    /// How many commands.
    pub(super) commands: usize,
    /// The first of them.
    pub(super) first: QueuePosition,
}

/// What to do about a batch once it is on disk, or refused.
pub(super) struct Afterwards {
    pub(super) attempt: Attempt,
    /// The partition's row, once it is on disk.
    pub(super) row: PartitionRow,
    pub(super) replies: Vec<(String, Reply)>,
    /// What is told of it once it is on disk, where anybody looks on.
    pub(super) told: Option<Decided>,
}

impl<M: Model> Batch<M> {
    pub(super) fn new(partition: Partition, row: PartitionRow, commands: Vec<Pending<M>>) -> Self {
        Self { partition, row, commands }
    }

    /// What it tries; `None` where it is empty, which no batch is that was cut.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        let first = self.commands.first()?.position;
        Some(Attempt { partition: self.partition, commands: self.commands.len(), first })
    }

    fn typed(&self) -> impl Iterator<Item = &M::Command> {
        self.commands.iter().filter_map(|pending| match &pending.work {
            Work::Command(_, command) => Some(command),
            Work::Discard(..) | Work::Doomed(_) => None,
        })
    }

    pub(super) fn references(&self) -> impl Iterator<Item = AggregateRef> {
        self.typed().flat_map(M::references)
    }

    /// Adds to the request what this batch needs and nobody remembers.
    pub(super) fn wants(
        &self,
        owned: &mut Owned<M>,
        existing: &HashSet<AggregateRef>,
        request: &mut LoadRequest,
    ) {
        request.commands.extend(self.commands.iter().map(Pending::command_id));
        let mut asked = HashSet::new();
        for command in self.typed() {
            let target = M::target(command);
            if !owned.cache().touch(&target) && asked.insert(target.clone()) {
                request.aggregates.push(target);
            }
        }
        request.references.extend(self.references().filter(|reference| !existing.contains(reference)));
    }

    /// Decides every command in order, each on the state that the one before left.
    pub(super) fn decide<E: Environment>(
        self,
        owned: &mut Owned<M>,
        inbox: &HashMap<Uuid, InboxEntry>,
        known: &Known,
        environment: &E,
        limits: &WorkerLimits,
        watch: &Watch,
    ) -> Result<(PartitionCommit, Afterwards), Trouble> {
        let (Some(attempt), Some(last)) = (self.attempt(), self.commands.last()) else {
            return Err(Trouble::Halt("an empty batch was cut".to_owned()));
        };
        let (position, commands) = (last.position, attempt.commands);
        let mut writer = Writer {
            partition: self.partition,
            next: self.row,
            now: environment.now(),
            environment,
            limits,
            records: Vec::with_capacity(commands),
            inbox: Vec::with_capacity(commands),
            fresh: HashMap::with_capacity(commands),
            snapshots: Vec::new(),
        };
        let mut replies = Vec::new();
        let during = Interval { start: watch.now(), ..Interval::default() };
        let mut told = watch.is_kept().then(|| Vec::with_capacity(commands));
        for pending in &self.commands {
            let before = (writer.inbox.len(), writer.records.len());
            let (reply, envelope) = match &pending.work {
                Work::Command(envelope, command) => {
                    let fingerprint = Fingerprint::of(&json(command)?);
                    let reply = match writer.repeated(envelope.command_id, fingerprint, inbox) {
                        Some(reply) => reply,
                        None => writer.decide::<M>(owned, envelope, command, fingerprint, known)?,
                    };
                    (reply, Some(envelope))
                }
                Work::Discard(envelope, discard) => {
                    let fingerprint = discard.fingerprint();
                    let reply = match writer.repeated(envelope.command_id, fingerprint, inbox) {
                        Some(reply) => reply,
                        None => writer.discard(envelope, discard)?,
                    };
                    (reply, Some(envelope))
                }
                Work::Doomed(doomed) => {
                    let reply = match writer.repeated(doomed.command_id, doomed.fingerprint(), inbox) {
                        Some(reply) => reply,
                        None => writer.bury(doomed)?,
                    };
                    (reply, doomed.envelope.as_ref())
                }
            };
            if let Some(told) = &mut told {
                told.extend(writer.decision(before, envelope.map(AsRef::as_ref), pending.method()));
            }
            if let Some(address) = envelope.and_then(|envelope| envelope.reply_to.clone()) {
                replies.push((address, reply));
            }
        }
        let Writer { records, inbox, snapshots, .. } = writer;
        let part = PartitionCommit {
            partition: self.partition,
            expected: self.row,
            position,
            records,
            inbox,
            snapshots,
        };
        let row = part.row_after();
        let told = told.map(|decisions| Decided {
            partition: self.partition,
            commands,
            decisions,
            during,
            commit: Interval::default(),
        });
        Ok((part, Afterwards { attempt, row, replies, told }))
    }
}

impl Doomed {
    fn fingerprint(&self) -> Fingerprint {
        let bytes = match (&self.envelope, &self.raw) {
            (Some(envelope), _) => envelope.command.get().as_bytes(),
            (None, Some(raw)) => raw.as_bytes(),
            (None, None) => &[],
        };
        Fingerprint::of(bytes)
    }
}

/// What a batch has written so far.
struct Writer<'a, E> {
    partition: Partition,
    next: PartitionRow,
    now: crate::environment::Timestamp,
    environment: &'a E,
    limits: &'a WorkerLimits,
    records: Vec<Record>,
    inbox: Vec<InboxEntry>,
    /// The commands of this batch that have an outcome, by their place in `inbox`.
    fresh: HashMap<Uuid, usize>,
    snapshots: Vec<Snapshot>,
}

/// What a record says, before it gets its place.
struct Line {
    aggregate: AggregateRef,
    version: Option<Version>,
    event_type: Cow<'static, str>,
    schema: u16,
    data: String,
}

impl<E: Environment> Writer<'_, E> {
    /// What is told of the last command, where it has an outcome since there were only so many outcomes and records.
    fn decision(
        &self,
        (outcomes, records): (usize, usize),
        envelope: Option<&Envelope>,
        method: Option<&'static str>,
    ) -> Option<Decision> {
        let entry = self.inbox.get(outcomes)?;
        let decision = Decision::of(&entry.outcome, method, self.records.len().saturating_sub(records));
        Some(match envelope {
            Some(envelope) => Decision {
                correlation_id: envelope.correlation_id,
                causation_id: envelope.causation_id,
                traceparent: envelope.traceparent.clone(),
                ..decision
            },
            None => decision,
        })
    }

    fn repeated(
        &self,
        command_id: Uuid,
        fingerprint: Fingerprint,
        inbox: &HashMap<Uuid, InboxEntry>,
    ) -> Option<Reply> {
        if planted(Mutant::NoInbox) {
            return None;
        }
        let here = self.fresh.get(&command_id).and_then(|index| self.inbox.get(*index));
        let here = here.filter(|_| !planted(Mutant::RepeatsInOneBatch));
        let entry = here.or_else(|| inbox.get(&command_id))?;
        Some(if entry.fingerprint == fingerprint || planted(Mutant::AnyContentIsARepeat) {
            Reply::Outcome(entry.outcome.clone())
        } else {
            Reply::Reused { command_id }
        })
    }

    fn decide<M: Model>(
        &mut self,
        owned: &mut Owned<M>,
        envelope: &Envelope,
        command: &M::Command,
        fingerprint: Fingerprint,
        known: &Known,
    ) -> Result<Reply, Trouble> {
        let target = M::target(command);
        let mut aggregate = owned
            .cache()
            .take(&target)
            .ok_or_else(|| Trouble::Halt(format!("{target} was not loaded before it was decided on")))?;
        let (lines, verdict) = match M::decide(&aggregate.state, command, known) {
            Ok(events) if events.is_empty() => {
                let data = UnchangedData { method: M::method(command).into(), command };
                (vec![Line::outcome(&target, COMMAND_UNCHANGED, &data)?], Verdict::Unchanged)
            }
            Ok(events) => {
                let before = aggregate.version;
                let mut lines = Vec::with_capacity(events.len());
                for event in events {
                    let encoded = M::encode_event(&event).map_err(halt)?;
                    aggregate.state = M::evolve(aggregate.state, &event);
                    aggregate.version = aggregate.version.next();
                    lines.push(Line {
                        aggregate: target.clone(),
                        version: Some(aggregate.version),
                        event_type: encoded.event_type.into(),
                        schema: encoded.schema,
                        data: encoded.data,
                    });
                }
                let every = self.limits.snapshot_every.max(1);
                if before.get() / every < aggregate.version.get() / every {
                    let state = M::encode_snapshot(&aggregate.state).map_err(halt)?;
                    // One row an aggregate: the latest of the batch.
                    self.snapshots.retain(|snapshot| snapshot.aggregate != target);
                    self.snapshots.push(Snapshot {
                        aggregate: target.clone(),
                        version: if planted(Mutant::SnapshotTooOld) { before } else { aggregate.version },
                        state,
                    });
                }
                (lines, Verdict::Applied)
            }
            Err(refusal) => {
                let (reason, message) = (M::reason(&refusal), refusal.to_string());
                let data = RefusedData {
                    reason: reason.into(),
                    message: message.clone(),
                    refusal: &refusal,
                    method: M::method(command).into(),
                    command,
                };
                let line = Line::outcome(&target, COMMAND_REFUSED, &data)?;
                let lines = if planted(Mutant::RefusalNotRecorded) { Vec::new() } else { vec![line] };
                (lines, Verdict::Refused { reason: reason.to_owned(), message })
            }
        };
        owned.cache().insert(target, aggregate);
        Ok(self.append(envelope.into(), fingerprint, lines, verdict))
    }

    /// Writes down that a dead letter is discarded.
    fn discard(&mut self, envelope: &Envelope, discard: &Discard) -> Result<Reply, Trouble> {
        let line = Line::outcome(&envelope.target, DEAD_LETTER_DISCARDED, discard)?;
        Ok(self.append(envelope.into(), discard.fingerprint(), vec![line], Verdict::Applied))
    }

    /// Writes down that a command can never succeed.
    fn bury(&mut self, doomed: &Doomed) -> Result<Reply, Trouble> {
        let data = DeadData {
            reason: doomed.reason,
            message: doomed.message.clone(),
            command: doomed.envelope.as_ref().map(|envelope| envelope.command.clone()),
            raw: doomed.raw.clone(),
            discards: doomed.envelope.as_ref().and_then(|envelope| envelope.discards.clone()),
        };
        let target = doomed
            .envelope
            .as_ref()
            .map_or(AggregateRef::new("unknown", Uuid::nil()), |envelope| envelope.target.clone());
        let line = Line::outcome(&target, COMMAND_DEAD, &data)?;
        let origin = doomed.envelope.as_ref().map_or(
            Origin {
                command_id: doomed.command_id,
                correlation_id: doomed.command_id,
                causation_id: doomed.command_id,
                actor: "unknown",
                traceparent: None,
            },
            |envelope| Origin::from(envelope.as_ref()),
        );
        let verdict =
            Verdict::Dead { reason: doomed.reason.code().to_owned(), message: doomed.message.clone() };
        Ok(self.append(origin, doomed.fingerprint(), vec![line], verdict))
    }

    fn append(
        &mut self,
        origin: Origin<'_>,
        fingerprint: Fingerprint,
        lines: Vec<Line>,
        verdict: Verdict,
    ) -> Reply {
        let count = lines.len();
        for (index, line) in lines.into_iter().enumerate() {
            self.next.head = self.next.head.next();
            self.records.push(Record {
                partition: self.partition,
                sequence: self.next.head,
                record_id: self.environment.uuid(),
                recorded_at: self.now,
                aggregate: line.aggregate,
                version: line.version,
                event_type: line.event_type,
                schema: line.schema,
                data: line.data,
                command_id: origin.command_id,
                correlation_id: origin.correlation_id,
                causation_id: origin.causation_id,
                actor: origin.actor.to_owned(),
                traceparent: origin.traceparent.map(ToOwned::to_owned),
                last_of_command: index + 1 == count || planted(Mutant::EveryRecordIsTheLast),
            });
        }
        let position = LogPosition { partition: self.partition, sequence: self.next.head };
        let outcome = Outcome { command_id: origin.command_id, position, verdict };
        self.fresh.insert(origin.command_id, self.inbox.len());
        self.inbox.push(InboxEntry { fingerprint, outcome: outcome.clone() });
        Reply::Outcome(told(outcome))
    }
}

/// What the client is told of an outcome: the truth, unless a bug is planted.
fn told(mut outcome: Outcome) -> Outcome {
    let LogPosition { partition, sequence } = &mut outcome.position;
    if planted(Mutant::TokenOfTheWrongPartition) {
        *partition = Partition::from_index(partition.index() ^ 1);
    }
    if planted(Mutant::TokenOfTheRecordBefore) {
        *sequence = sequence.before();
    }
    outcome
}

/// Where a command comes from, as its records repeat it.
#[derive(Clone, Copy)]
struct Origin<'a> {
    command_id: Uuid,
    correlation_id: Uuid,
    causation_id: Uuid,
    actor: &'a str,
    traceparent: Option<&'a str>,
}

impl<'a> From<&'a Envelope> for Origin<'a> {
    fn from(envelope: &'a Envelope) -> Self {
        Self {
            command_id: envelope.command_id,
            correlation_id: envelope.correlation_id,
            causation_id: envelope.causation_id,
            actor: &envelope.actor,
            traceparent: envelope.traceparent.as_deref(),
        }
    }
}

impl Line {
    fn outcome(
        target: &AggregateRef,
        event_type: &'static str,
        data: &impl Serialize,
    ) -> Result<Self, Trouble> {
        let data =
            serde_json::to_string(data).map_err(|error| halt(DecodeError::malformed(event_type, error)))?;
        Ok(Self { aggregate: target.clone(), version: None, event_type: event_type.into(), schema: 1, data })
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Trouble> {
    serde_json::to_vec(value).map_err(|error| halt(DecodeError::malformed("command", error)))
}

/// What cannot be written as JSON is a defect that no retry cures.
#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn halt(error: DecodeError) -> Trouble {
    Trouble::Halt(error.to_string())
}
