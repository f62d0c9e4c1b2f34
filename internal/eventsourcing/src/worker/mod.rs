//! The worker: one command changes one aggregate, and many commands commit in one transaction.
//!
//! The rule this module protects: facts, outcomes and the progress in the queue are on disk together or not at all.
//! Every transaction moves the partition's row by compare-and-set, so a worker that lost its partition, whatever it
//! remembers, writes nothing and skips nothing. That is also what makes the cache of aggregates safe.
//!
//! # Layout
//!
//! - `mod.rs`: the turn: take partitions over, read, load, decide, commit, answer
//! - [`batch`]: deciding a batch in memory
//! - [`cache`]: the aggregates that were loaded before
//! - [`owned`]: what is remembered of a partition between turns
//! - [`purge`]: what the queue may forget, and the proof that it is the queue that it was

mod batch;
mod cache;
mod owned;
mod purge;

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::future::join_all;

use crate::assignment::Assignment;
use crate::environment::Environment;
use crate::model::{AggregateRef, Known, Model};
use crate::mutants::{Mutant, planted};
use crate::observer::{Decided, Interval, Observer, Watch};
use crate::outcome::Reply;
use crate::partition::{Partition, PartitionCount};
use crate::ports::{
    CommandQueue, Commit, EventLog, InboxEntry, LoadRequest, Loaded, PartitionCommit, PortError, Replies,
};
use crate::rotation::Rotation;
use crate::turn::{Progress, Trouble, Turn};

use batch::{Afterwards, Attempt, Batch};
use owned::Owned;

/// What a worker may take on at once.
#[derive(Debug, Clone, Copy)]
pub struct WorkerLimits {
    /// Commands of one partition in one transaction.
    pub batch: usize,
    /// Queue messages read at once.
    pub messages: usize,
    /// Aggregates remembered for each partition, about: half as many since the last time that half were forgotten. One takes some
    /// 250 bytes and what its state has on the heap, so that 16 partitions of 2,048 are 8 MB.
    pub cached: usize,
    /// Other aggregates that are remembered to exist, in all: 100 bytes each. Existence never ends, so forgetting is only a matter of
    /// memory.
    pub known: usize,
    /// An aggregate gets a snapshot whenever its version passes a multiple of this.
    pub snapshot_every: u64,
    /// The queue is purged after this many messages of a partition.
    pub purge_every: u64,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self { batch: 512, messages: 64, cached: 2048, known: 50_000, snapshot_every: 100, purge_every: 256 }
    }
}

/// Why a batch was not decided.
enum Undecided {
    /// The store did not load what it needs.
    NotLoaded(PortError),
    /// What was loaded, or what was decided, is not what it must be.
    Trouble(Trouble),
}

impl From<PortError> for Undecided {
    fn from(error: PortError) -> Self {
        Self::NotLoaded(error)
    }
}

impl From<Trouble> for Undecided {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// The loop that turns commands into facts, for the partitions assigned to it.
pub struct Worker<M: Model, L, Q, R, E> {
    log: L,
    queue: Q,
    replies: R,
    environment: E,
    partitions: PartitionCount,
    assignment: Assignment,
    limits: WorkerLimits,
    /// As it was when the partitions were settled.
    queue_created_at: u64,
    owned: BTreeMap<Partition, Owned<M>>,
    existing: HashSet<AggregateRef>,
    /// Whose messages are read first, and whose batch has first pick. Two of them: taken from one, with an even number
    /// of partitions, every second one would never be first in either.
    reads: Rotation,
    picks: Rotation,
    /// Turns without work since the last one with work.
    idle: u32,
    watch: Watch,
}

impl<M: Model, L: EventLog, Q: CommandQueue, R: Replies, E: Environment> Worker<M, L, Q, R, E> {
    /// A worker over these ports.
    pub fn new(
        log: L,
        queue: Q,
        replies: R,
        environment: E,
        partitions: PartitionCount,
        assignment: Assignment,
        limits: WorkerLimits,
    ) -> Self {
        Self {
            log,
            queue,
            replies,
            environment,
            partitions,
            assignment,
            limits,
            queue_created_at: 0,
            owned: BTreeMap::new(),
            existing: HashSet::new(),
            reads: Rotation::default(),
            picks: Rotation::default(),
            idle: 0,
            watch: Watch::default(),
        }
    }

    /// The same worker, with somebody who looks on.
    #[must_use]
    pub fn observed_by(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }

    /// Brings what is owned in line with what is assigned: takes new partitions over, proves the queue in front of
    /// them, and looks again at those of which an answer was lost.
    async fn settle_ownership(&mut self) -> Result<(), Trouble> {
        let assigned = self.assignment.current();
        self.owned.retain(|partition, _| assigned.contains(partition));
        let new: Vec<Partition> =
            assigned.into_iter().filter(|partition| !self.owned.contains_key(partition)).collect();
        if !new.is_empty() {
            for (partition, row) in self.log.take_over(&new).await.map_err(PortError::trouble)? {
                tracing::debug!(%partition, epoch = %row.epoch, head = %row.head, "took a partition over");
                self.owned.insert(partition, Owned::new(row, self.partitions, &self.limits));
            }
        }
        let unsettled: Vec<Partition> = self
            .owned
            .iter()
            .filter(|(_, owned)| owned.is_unsettled())
            .map(|(partition, _)| *partition)
            .collect();
        if unsettled.is_empty() {
            return Ok(());
        }
        // A partition without a position proves nothing by itself: whatever it reads belongs to the queue of this time.
        self.queue_created_at = self.queue.created_at().await.map_err(PortError::trouble)?;
        let rows = self.log.rows(&unsettled).await.map_err(PortError::trouble)?;
        let proofs = rows.iter().map(|(partition, row)| self.proof(*partition, row));
        let proofs = join_all(proofs).await;
        for ((partition, row), proof) in rows.into_iter().zip(proofs) {
            let Some(owned) = self.owned.get_mut(&partition) else { continue };
            if row.epoch != owned.row().epoch {
                self.lose(partition);
                continue;
            }
            match proof {
                Ok(proof) => owned.settle(row, proof.as_ref(), &self.limits),
                Err(Trouble::Halt(_)) if planted(Mutant::QueueNotProven) => {
                    owned.settle(row, None, &self.limits);
                }
                // A successor that has worked on lets the queue forget what this one, which was slow, looks for.
                Err(Trouble::Halt(_)) if self.is_taken_over(partition, row.epoch).await? => {
                    self.lose(partition);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }

    fn lose(&mut self, partition: Partition) {
        tracing::warn!(%partition, "another worker owns the partition: dropped it");
        self.watch.fenced(Self::PART, partition);
        self.owned.remove(&partition);
        self.assignment.lose(partition);
    }

    /// Reads on where less than a batch is at hand.
    async fn read_on(&mut self) -> Result<(), Trouble> {
        let after: Vec<_> = self
            .owned
            .iter()
            .filter(|(_, owned)| owned.pending() < self.limits.batch)
            .map(|(partition, owned)| (*partition, owned.read_up_to()))
            .collect();
        if after.is_empty() {
            return Ok(());
        }
        let after = self.reads.turn(after);
        let messages = match self.queue.read(&after, self.limits.messages).await {
            Ok(messages) => messages,
            Err(error) => {
                // Perhaps the connection is another one now, and behind it another queue: prove it again.
                self.owned.values_mut().for_each(Owned::unsettle);
                return Err(error.trouble());
            }
        };
        for message in messages {
            if let Some(owned) = self.owned.get_mut(&message.partition) {
                owned.take_in(self.queue_created_at, &message);
            }
        }
        Ok(())
    }

    /// Cuts a batch for every partition. A command id that another partition's batch has already is left for the
    /// next turn: its first delivery must be committed before the second can be called a repeat.
    fn cut(&mut self) -> Vec<Batch<M>> {
        let mut seen: HashMap<uuid::Uuid, Partition> = HashMap::new();
        let mut batches = Vec::new();
        let suspect = self.owned.iter().find(|(_, owned)| owned.is_suspect() && owned.pending() > 0);
        let order = match suspect {
            Some((partition, _)) => vec![*partition],
            // Another partition has first pick every time: one whose ids come again elsewhere waits for a turn, not for ever.
            None => self.picks.turn(self.owned.keys().copied().collect()),
        };
        for partition in order {
            let Some(owned) = self.owned.get_mut(&partition) else { continue };
            let commands = owned.cut(|command_id| *seen.entry(command_id).or_insert(partition) == partition);
            if !commands.is_empty() {
                batches.push(Batch::new(partition, *owned.row(), commands));
            }
        }
        // A store that locks rows is asked for them in one order, whoever asks.
        batches.sort_by_key(|batch| batch.partition);
        batches
    }

    async fn load(&mut self, batches: &[Batch<M>]) -> Result<(Vec<InboxEntry>, Known), Undecided> {
        // Before anything is asked: what is remembered is not asked for, so it must not be forgotten until it is used.
        if self.existing.len() > self.limits.known {
            self.existing.clear();
        }
        let mut request = LoadRequest::default();
        for batch in batches {
            let Some(owned) = self.owned.get_mut(&batch.partition) else { continue };
            batch.wants(owned, &self.existing, &mut request);
        }
        request.references.sort_unstable();
        request.references.dedup();
        let Loaded { inbox, histories, existing } = self.log.load(&request).await?;
        let mut foreign = Vec::new();
        for (aggregate, history) in request.aggregates.into_iter().zip(histories) {
            if !self.remember(&aggregate, history)? {
                foreign.push(aggregate);
            }
        }
        if !foreign.is_empty() {
            let again = LoadRequest { aggregates: foreign, full: true, ..LoadRequest::default() };
            let loaded = self.log.load(&again).await?;
            for (aggregate, history) in again.aggregates.into_iter().zip(loaded.histories) {
                if !self.remember(&aggregate, history)? {
                    let again = format!("the store answers with a snapshot of {aggregate} again");
                    return Err(Trouble::Halt(again).into());
                }
            }
        }
        self.existing.extend(existing.iter().cloned());
        let is_known = |one: &AggregateRef| self.existing.contains(one) || planted(Mutant::AnyIssuerExists);
        let asked = batches.iter().flat_map(Batch::references).filter(is_known);
        Ok((inbox, Known::new(asked.chain(existing))))
    }

    /// Replays a history into the cache. `false`: its snapshot has a schema that is not known here.
    fn remember(
        &mut self,
        aggregate: &AggregateRef,
        history: crate::ports::History,
    ) -> Result<bool, Trouble> {
        let partition = self.partitions.partition_of(aggregate.id);
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(true) };
        let Some(loaded) =
            cache::Cached::replay(aggregate, history).map_err(|error| Trouble::Halt(error.to_string()))?
        else {
            return Ok(false);
        };
        owned.cache().insert(aggregate.clone(), loaded);
        Ok(true)
    }

    async fn decide(
        &mut self,
        batches: Vec<Batch<M>>,
    ) -> Result<Vec<(PartitionCommit, Afterwards)>, Undecided> {
        let (inbox, known) = self.load(&batches).await?;
        let inbox: HashMap<uuid::Uuid, InboxEntry> =
            inbox.into_iter().map(|entry| (entry.outcome.command_id, entry)).collect();
        let mut decided = Vec::with_capacity(batches.len());
        for batch in batches {
            let Some(owned) = self.owned.get_mut(&batch.partition) else { continue };
            let watch = &self.watch;
            decided.push(batch.decide(owned, &inbox, &known, &self.environment, &self.limits, watch)?);
        }
        Ok(decided)
    }

    async fn commit(&mut self, decided: Vec<(PartitionCommit, Afterwards)>) -> Result<(), Trouble> {
        let (mut parts, mut afterwards): (Vec<_>, Vec<_>) = decided.into_iter().unzip();
        if planted(Mutant::PositionOutsideTheTransaction) {
            self.commit_positions(&mut parts).await?;
        }
        if planted(Mutant::AnswerBeforeTheCommit) {
            self.replies
                .send(afterwards.iter_mut().flat_map(|batch| batch.replies.drain(..)).collect())
                .await;
        }
        let start = self.watch.now();
        match self.log.commit(parts).await {
            Ok(answers) => {
                let commit = self.watch.since(start);
                let mut replies: Vec<(String, Reply)> = Vec::new();
                for (batch, answer) in afterwards.into_iter().zip(answers) {
                    match answer {
                        Commit::Done => {
                            if let Some(owned) = self.owned.get_mut(&batch.attempt.partition) {
                                owned.committed(batch.row, &self.limits);
                            }
                            if let (Some(observer), Some(told)) = (self.watch.get(), batch.told) {
                                let during = Interval { end: commit.end, ..told.during };
                                observer.decided(&Decided { during, commit, ..told });
                            }
                            replies.extend(batch.replies);
                        }
                        Commit::Fenced => self.lose(batch.attempt.partition),
                    }
                }
                if !replies.is_empty() {
                    self.replies.send(replies).await;
                }
                Ok(())
            }
            Err(error) => {
                let attempts: Vec<Attempt> = afterwards.iter().map(|batch| batch.attempt).collect();
                self.not_settled(&attempts, error)
            }
        }
    }

    /// What a planted bug does: moves the queue positions in a transaction of their own.
    async fn commit_positions(&self, parts: &mut [PartitionCommit]) -> Result<(), Trouble> {
        let alone = |part: &PartitionCommit| PartitionCommit {
            records: Vec::new(),
            inbox: Vec::new(),
            snapshots: Vec::new(),
            ..part.clone()
        };
        self.log.commit(parts.iter().map(alone).collect()).await.map_err(PortError::trouble)?;
        for part in parts {
            part.expected.position = Some(part.position);
        }
        Ok(())
    }

    /// The batches are taken, and what is in the cache was decided on, not committed, or perhaps it was. Whatever the
    /// error, look again.
    fn not_settled(&mut self, attempts: &[Attempt], error: PortError) -> Result<(), Trouble> {
        let alone = attempts.len() == 1;
        for attempt in attempts {
            let Some(owned) = self.owned.get_mut(&attempt.partition) else { continue };
            if !planted(Mutant::WorkerSkipsAfterAnError) {
                owned.unsettle();
            }
            if let PortError::Content(reason) = &error {
                owned
                    .blame(alone, attempt.commands, attempt.first, reason)
                    .map_err(|reason| Trouble::Halt(format!("partition {}: {reason}", attempt.partition)))?;
            }
        }
        match error {
            PortError::Content(reason) => {
                tracing::warn!(%reason, parts = attempts.len(), "looking for the command that the store refuses");
                Ok(())
            }
            PortError::Conflict(reason) => {
                tracing::debug!(%reason, "a command was committed elsewhere at the same time");
                Ok(())
            }
            error @ (PortError::Unavailable(_) | PortError::Full(_) | PortError::Broken(_)) => {
                Err(error.trouble())
            }
        }
    }
}

impl<M: Model, L: EventLog, Q: CommandQueue, R: Replies, E: Environment> Turn for Worker<M, L, Q, R, E> {
    const PART: &'static str = "worker";

    fn observer(&self) -> Option<&dyn Observer> {
        self.watch.get()
    }

    async fn turn(&mut self) -> Result<Progress, Trouble> {
        self.settle_ownership().await?;
        self.read_on().await?;
        let batches = self.cut();
        if batches.is_empty() {
            self.rest().await?;
            return Ok(Progress::Idle);
        }
        self.idle = 0;
        let attempts: Vec<Attempt> = batches.iter().filter_map(Batch::attempt).collect();
        let decided = match self.decide(batches).await {
            Ok(decided) => decided,
            Err(Undecided::NotLoaded(error)) => {
                return self.not_settled(&attempts, error).map(|()| Progress::Worked);
            }
            Err(Undecided::Trouble(trouble)) => {
                for attempt in attempts {
                    if let Some(owned) = self.owned.get_mut(&attempt.partition) {
                        owned.unsettle();
                    }
                }
                return Err(trouble);
            }
        };
        self.commit(decided).await?;
        self.purge(self.limits.purge_every).await?;
        Ok(Progress::Worked)
    }
}
