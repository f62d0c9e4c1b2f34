//! The policy runner: what follows from the facts, as commands.
//!
//! The rule this module protects: a checkpoint advances only after every command that follows from the facts before
//! it is durably queued. A command's id derives from the policy's declared name and the record's id, so
//! running over the same facts again, from wherever, does nothing twice.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use uuid::Uuid;

use crate::assignment::Assignment;
use crate::command::{Envelope, pack};
use crate::model::{Model, Policies};
use crate::partition::{Partition, PartitionCount, Sequence};
use crate::ports::{CheckpointMove, Checkpoints, CommandQueue, EventBus, PortError};
use crate::record::Record;
use crate::relayer::{by_partition, gap_free};
use crate::rotation::Rotation;
use crate::turn::{Progress, Trouble, Turn};

/// Records read from the bus at once.
const BATCH: usize = 512;

/// The loop that reacts to facts, for the partitions assigned to it.
pub struct PolicyRunner<M, P, B, Q, C> {
    policies: P,
    reader: &'static str,
    bus: B,
    queue: Q,
    checkpoints: C,
    partitions: PartitionCount,
    assignment: Assignment,
    at: BTreeMap<Partition, Sequence>,
    rotation: Rotation,
    model: PhantomData<fn() -> M>,
}

impl<M: Model, P: Policies<M>, B: EventBus, Q: CommandQueue, C: Checkpoints> PolicyRunner<M, P, B, Q, C> {
    /// A runner of these policies. `reader` names its checkpoints.
    pub fn new(
        policies: P,
        reader: &'static str,
        bus: B,
        queue: Q,
        checkpoints: C,
        partitions: PartitionCount,
        assignment: Assignment,
    ) -> Self {
        Self {
            policies,
            reader,
            bus,
            queue,
            checkpoints,
            partitions,
            assignment,
            at: BTreeMap::new(),
            rotation: Rotation::default(),
            model: PhantomData,
        }
    }

    async fn settle_ownership(&mut self) -> Result<(), Trouble> {
        let assigned = self.assignment.current();
        self.at.retain(|partition, _| assigned.contains(partition));
        let new: Vec<Partition> =
            assigned.into_iter().filter(|partition| !self.at.contains_key(partition)).collect();
        if !new.is_empty() {
            self.at.extend(self.checkpoints.load(self.reader, &new).await.map_err(PortError::trouble)?);
        }
        Ok(())
    }

    fn react(&self, record: &Record) -> Result<Option<Envelope>, Trouble> {
        let malformed = |error: crate::model::DecodeError| {
            Trouble::Halt(format!("record {} cannot be read: {error}", record.position()))
        };
        let entry = record.entry::<M>().map_err(malformed)?;
        let Some((policy, command)) = self.policies.react(&entry) else { return Ok(None) };
        let command_id = Uuid::new_v5(&record.record_id, policy.as_bytes());
        let mut envelope =
            Envelope::first::<M>(command_id, format!("policy:{policy}"), &command).map_err(malformed)?;
        envelope.correlation_id = record.correlation_id;
        envelope.causation_id = record.record_id;
        envelope.traceparent.clone_from(&record.traceparent);
        Ok(Some(envelope))
    }

    /// Queues what follows, and comes back when all of it is durable.
    async fn enqueue(&self, envelopes: Vec<Envelope>) -> Result<(), Trouble> {
        let mut targets: BTreeMap<Partition, Vec<Vec<u8>>> = BTreeMap::new();
        for envelope in envelopes {
            let bytes = envelope.encode().map_err(|error| Trouble::Halt(error.to_string()))?;
            targets.entry(envelope.partition(self.partitions)).or_default().push(bytes);
        }
        let bundles = targets
            .iter()
            .flat_map(|(partition, envelopes)| pack(*partition, envelopes.iter().map(Vec::as_slice)))
            .collect();
        // Where one fails, all are queued again: the inbox knows those that were stored.
        for answer in self.queue.enqueue(bundles).await {
            answer.map_err(PortError::trouble)?;
        }
        Ok(())
    }
}

impl<M: Model, P: Policies<M>, B: EventBus, Q: CommandQueue, C: Checkpoints> Turn
    for PolicyRunner<M, P, B, Q, C>
{
    const PART: &'static str = "policies";

    async fn turn(&mut self) -> Result<Progress, Trouble> {
        self.settle_ownership().await?;
        let after: Vec<(Partition, Sequence)> = self.at.iter().map(|(p, s)| (*p, *s)).collect();
        if after.is_empty() {
            return Ok(Progress::Idle);
        }
        let after = self.rotation.turn(after);
        let records = self.bus.read(&after, BATCH).await.map_err(PortError::trouble)?;
        if records.is_empty() {
            return Ok(Progress::Idle);
        }
        let mut envelopes = Vec::new();
        let mut moves = Vec::new();
        for (partition, records) in by_partition(records) {
            let from = self.at.get(&partition).copied().unwrap_or_default();
            gap_free(partition, from, &records)?;
            for record in &records {
                envelopes.extend(self.react(record)?);
            }
            let to = records.last().map_or(from, |record| record.sequence);
            moves.push(CheckpointMove { partition, from, to });
        }
        if !envelopes.is_empty() {
            self.enqueue(envelopes).await?;
        }
        // An answer that is lost here costs a repeat: the position is read again before anything else.
        let moved = self.checkpoints.advance(self.reader, &moves).await;
        for (index, step) in moves.iter().enumerate() {
            match moved.as_ref().map(|moved| moved.get(index)) {
                Ok(Some(true)) => {
                    self.at.insert(step.partition, step.to);
                }
                Ok(Some(false) | None) => {
                    tracing::warn!(partition = %step.partition, "another policy runner owns the partition: dropped it");
                    self.at.remove(&step.partition);
                    self.assignment.lose(step.partition);
                }
                Err(_) => {
                    self.at.remove(&step.partition);
                }
            }
        }
        moved.map_err(PortError::trouble)?;
        Ok(Progress::Worked)
    }
}
