//! The policy runner: what follows from the facts, as commands.
//!
//! The rule this module protects: a checkpoint advances only after every command that follows from the facts before
//! it is durably queued, and every command that died there is kept for people. A command's id derives from the policy's
//! declared name and the record's id, so running over the same facts again, from wherever, does nothing twice.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::join;
use uuid::Uuid;

use crate::assignment::Assignment;
use crate::command::Envelope;
use crate::consequences::{Consequences, Gathering};
use crate::model::{DecodeError, Entry, Model, Policies};
use crate::mutants::{Mutant, chance, planted};
use crate::observer::{Observer, Queued, Reacted, Reaction, Watch};
use crate::partition::{Partition, PartitionCount, Sequence};
use crate::ports::{
    CheckpointMove, Checkpoints, CommandQueue, DeadLetter, DeadLetters, EventBus, PortError, PortResult,
};
use crate::record::Record;
use crate::relayer::{by_partition, gap_free};
use crate::rotation::Rotation;
use crate::turn::{Progress, Trouble, Turn};

/// What precedes a policy's declared name where it acts.
const ACTOR: &str = "policy:";

/// The id of the command that a policy derives from a record.
#[must_use]
pub fn derived_command_id(record_id: Uuid, policy: &str) -> Uuid {
    Uuid::new_v5(&record_id, policy.as_bytes())
}

/// Who sends the commands of a policy.
#[must_use]
pub fn actor(policy: &str) -> String {
    format!("{ACTOR}{policy}")
}

/// The declared name of the policy that sends commands as this actor; `None` where it is no policy.
#[must_use]
pub fn policy_of(actor: &str) -> Option<&str> {
    actor.strip_prefix(ACTOR)
}

/// Records read from the bus at once.
const BATCH: usize = 512;

/// Checkpoints are moved over this many records at once, or over this many steps, or when for a while there is nothing else to do. Each move is
/// a commit that waits for the disk, and one that did not come to be costs a repeat: the inbox knows what was done.
const UNSAVED: (usize, usize) = (1024, 32);

/// So many turns without work are a while: between the first of them and this one the loop has waited for a wake-up or a poll.
const IDLE_TURNS: u32 = 2;

/// The loop that reacts to facts, for the partitions assigned to it.
pub struct PolicyRunner<M, P, B, Q, C, D> {
    policies: P,
    reader: &'static str,
    bus: B,
    queue: Q,
    checkpoints: C,
    dead_letters: D,
    partitions: PartitionCount,
    assignment: Assignment,
    at: BTreeMap<Partition, Sequence>,
    /// What follows from records that were read, and is not durable yet.
    step: Option<Step>,
    /// Checkpoints that are behind what is durable.
    settled: Settled,
    /// How many records and steps may be repeated after a crash.
    unsaved: (usize, usize),
    /// Turns without work since the last one with work.
    idle: u32,
    rotation: Rotation,
    watch: Watch,
    model: PhantomData<fn() -> M>,
}

/// What is durable, and not yet behind the stored checkpoints.
#[derive(Default)]
struct Settled {
    /// Of each partition, from what is stored to what is done.
    moves: BTreeMap<Partition, CheckpointMove>,
    /// How many records and steps that is.
    records: usize,
    steps: usize,
    /// Whether a dead letter is among what followed. A repeat would keep it again, where the stream of letters has forgotten that it has it.
    letters: bool,
}

impl Settled {
    fn add(&mut self, step: CheckpointMove) {
        self.records = self
            .records
            .saturating_add(usize::try_from(step.to.get() - step.from.get()).unwrap_or(usize::MAX));
        self.moves.entry(step.partition).and_modify(|before| before.to = step.to).or_insert(step);
    }

    /// Whether it is time.
    const fn is_due(&self, (records, steps): (usize, usize)) -> bool {
        self.records >= records || self.steps >= steps || self.letters
    }

    /// The moves, where there are any.
    fn take(&mut self) -> Vec<CheckpointMove> {
        std::mem::take(self).moves.into_values().collect()
    }
}

struct Step {
    consequences: Consequences,
    moves: Vec<CheckpointMove>,
    /// Whether a dead letter follows.
    letters: bool,
    /// What is told of it, once it is durable, where anybody looks on.
    told: Reacted,
}

impl<M, P, B, Q, C, D> PolicyRunner<M, P, B, Q, C, D>
where
    M: Model,
    P: Policies<M>,
    B: EventBus,
    Q: CommandQueue,
    C: Checkpoints,
    D: DeadLetters,
{
    /// A runner of these policies. `reader` names its checkpoints.
    #[expect(clippy::too_many_arguments, reason = "each is a port, or says what to do with it")]
    pub fn new(
        policies: P,
        reader: &'static str,
        bus: B,
        queue: Q,
        checkpoints: C,
        dead_letters: D,
        partitions: PartitionCount,
        assignment: Assignment,
    ) -> Self {
        Self {
            policies,
            reader,
            bus,
            queue,
            checkpoints,
            dead_letters,
            partitions,
            assignment,
            at: BTreeMap::new(),
            step: None,
            settled: Settled::default(),
            unsaved: UNSAVED,
            idle: 0,
            rotation: Rotation::default(),
            watch: Watch::default(),
            model: PhantomData,
        }
    }

    /// The same runner, which moves its checkpoints whenever this many steps are behind them.
    #[must_use]
    pub const fn saving_after(mut self, steps: usize) -> Self {
        self.unsaved.1 = steps;
        self
    }

    /// The same runner, with somebody who looks on.
    #[must_use]
    pub fn observed_by(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }

    async fn settle_ownership(&mut self) -> Result<(), Trouble> {
        let assigned = self.assignment.current();
        // Before a partition is handed over: its next owner need not do again what is durable.
        if self.settled.moves.keys().any(|partition| !assigned.contains(partition)) {
            self.save().await?;
        }
        self.at.retain(|partition, _| assigned.contains(partition));
        // Who comes back to a partition begins at what is stored, and so do its moves.
        self.settled.moves.retain(|partition, _| self.at.contains_key(partition));
        let new: Vec<Partition> =
            assigned.into_iter().filter(|partition| !self.at.contains_key(partition)).collect();
        if !new.is_empty() {
            self.at.extend(self.checkpoints.load(self.reader, &new).await.map_err(PortError::trouble)?);
        }
        Ok(())
    }

    /// What follows from a record.
    fn react(
        &self,
        record: &Arc<Record>,
        gathering: &mut Gathering,
        told: &mut Reacted,
    ) -> Result<(), Trouble> {
        let malformed = |error: DecodeError| {
            Trouble::Halt(format!("record {} cannot be read: {error}", record.position()))
        };
        let entry = record.entry::<M>().map_err(malformed)?;
        if matches!(entry, Entry::Dead) {
            gathering.letter(DeadLetter::Command(Arc::clone(record)));
            told.dead_letters += 1;
        }
        let Some((policy, command)) = self.policies.react(&entry) else { return Ok(()) };
        let mut command_id = derived_command_id(record.record_id, policy);
        if planted(Mutant::RandomPolicyIds) {
            command_id = Uuid::new_v5(&command_id, &chance().to_be_bytes());
        }
        let mut envelope = Envelope::first::<M>(command_id, actor(policy), &command).map_err(malformed)?;
        if !planted(Mutant::CorrelationOfItsOwn) {
            envelope.correlation_id = record.correlation_id;
        }
        envelope.causation_id =
            if planted(Mutant::CausedByTheCommand) { record.command_id } else { record.record_id };
        envelope.traceparent.clone_from(&record.traceparent);
        if self.watch.is_kept() {
            told.reactions.push(Reaction { record: Arc::clone(record), policy, command_id });
        }
        gathering.command(&envelope, self.partitions)
    }

    /// Reads on, and works out what follows. `None`: there is nothing to read.
    async fn read_on(&mut self) -> Result<Option<Step>, Trouble> {
        self.settle_ownership().await?;
        let after: Vec<(Partition, Sequence)> = self.at.iter().map(|(p, s)| (*p, *s)).collect();
        if after.is_empty() {
            return Ok(None);
        }
        let after = self.rotation.turn(after);
        let records = match self.bus.read(&after, BATCH).await {
            Ok(records) => records,
            Err(error) => {
                // Perhaps the connection is another one now: nothing that is remembered counts behind it.
                self.at.clear();
                return Err(error.trouble());
            }
        };
        if records.is_empty() {
            return Ok(None);
        }
        let mut gathering = Gathering::default();
        let mut told = Reacted { records: records.len(), ..Reacted::default() };
        told.during.start = self.watch.now();
        let mut moves = Vec::new();
        for (partition, records) in by_partition(records) {
            let from = self.at.get(&partition).copied().unwrap_or_default();
            gap_free(partition, from, &records)?;
            for record in &records {
                self.react(record, &mut gathering, &mut told)?;
            }
            let to = records.last().map_or(from, |record| record.sequence);
            moves.push(CheckpointMove { partition, from, to });
        }
        let letters = gathering.count().1 > 0;
        Ok(Some(Step { consequences: gathering.finish(), moves, letters, told }))
    }

    /// Queues what follows, and from time to time moves the checkpoints over what followed before: all of that is durable, so it is
    /// right whoever owns the partitions by now. The two wait for the disk together; a crash repeats what is behind the checkpoints.
    async fn finish(&mut self, mut step: Step) -> Result<(), Trouble> {
        if planted(Mutant::CheckpointFirst) {
            self.save().await?;
            step.moves.iter().for_each(|step| self.settled.add(*step));
            self.save().await?;
            step.moves.iter_mut().for_each(|step| step.from = step.to);
        }
        let settled = if self.settled.is_due(self.unsaved) { self.settled.take() } else { Vec::new() };
        let saved = async {
            if settled.is_empty() {
                Ok(Vec::new())
            } else {
                self.checkpoints.advance(self.reader, &settled).await
            }
        };
        let queued = step.consequences.settle(&self.queue, &self.dead_letters);
        let (saved, queued) = join(saved, queued).await;
        let saved = self.saved(&settled, saved);
        if let Err(trouble) = queued
            && !planted(Mutant::PolicySkipsAfterAnError)
        {
            self.step = Some(step);
            return Err(trouble);
        }
        if let Some(observer) = self.watch.get() {
            step.told.during = self.watch.since(step.told.during.start);
            observer.reacted(&step.told);
            observer.queued(&Queued { part: Self::PART, commands: step.told.reactions.len() });
        }
        // Of a partition that was lost meanwhile nothing is remembered, and its place is not ours to move.
        for step in step.moves {
            if let Some(at) = self.at.get_mut(&step.partition) {
                *at = step.to;
                self.settled.add(step);
            }
        }
        self.settled.steps += 1;
        self.settled.letters |= step.letters;
        saved
    }

    /// There is nothing to do: after a while, the checkpoints are moved.
    async fn rest(&mut self) -> Result<Progress, Trouble> {
        self.idle = self.idle.saturating_add(1);
        if self.idle >= IDLE_TURNS || self.settled.is_due(self.unsaved) {
            self.save().await?;
        }
        Ok(Progress::Idle)
    }

    /// Moves the checkpoints over all that is durable.
    async fn save(&mut self) -> Result<(), Trouble> {
        let settled = self.settled.take();
        if settled.is_empty() {
            return Ok(());
        }
        let saved = self.checkpoints.advance(self.reader, &settled).await;
        self.saved(&settled, saved)
    }

    /// What became of the checkpoints. An answer that is lost costs a repeat: the position is read again before anything else.
    fn saved(&mut self, moves: &[CheckpointMove], answers: PortResult<Vec<bool>>) -> Result<(), Trouble> {
        for (index, step) in moves.iter().enumerate() {
            match answers.as_ref().map(|answers| answers.get(index)) {
                Ok(Some(true)) => {}
                Ok(Some(false) | None) => {
                    tracing::warn!(partition = %step.partition, "another policy runner owns the partition: dropped it");
                    self.watch.fenced(Self::PART, step.partition);
                    self.at.remove(&step.partition);
                    self.assignment.lose(step.partition);
                }
                Err(_) => {
                    self.at.remove(&step.partition);
                }
            }
        }
        answers.map(|_| ()).map_err(PortError::trouble)
    }
}

impl<M, P, B, Q, C, D> Turn for PolicyRunner<M, P, B, Q, C, D>
where
    M: Model,
    P: Policies<M>,
    B: EventBus,
    Q: CommandQueue,
    C: Checkpoints,
    D: DeadLetters,
{
    const PART: &'static str = "policies";

    fn observer(&self) -> Option<&dyn Observer> {
        self.watch.get()
    }

    async fn write_down(&mut self) -> Result<(), Trouble> {
        self.save().await
    }

    async fn turn(&mut self) -> Result<Progress, Trouble> {
        let step = match self.step.take() {
            Some(step) => Some(step),
            None => match self.read_on().await {
                Ok(step) => step,
                Err(trouble) => {
                    // What is durable is that, whatever is wrong with what comes next: or a bus that fails at every second read would
                    // have the same steps done for ever.
                    if let Err(error) = self.save().await {
                        tracing::warn!(%error, "a step of the policies will be repeated");
                    }
                    return Err(trouble);
                }
            },
        };
        match step {
            Some(step) => {
                self.idle = 0;
                self.finish(step).await.map(|()| Progress::Worked)
            }
            None => self.rest().await,
        }
    }
}
