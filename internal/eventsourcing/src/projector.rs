//! The projector: folds facts into read models.
//!
//! The rule this module protects: rows and checkpoint are one transaction, and the checkpoint moves by
//! compare-and-set. So a read model is the fold of a prefix of each partition, whoever writes it and however often. And a
//! prefix of this log: a checkpoint remembers the record that it stands at, and whoever starts, or has lost its
//! connection, compares.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use crate::assignment::Assignment;
use crate::model::{Model, Projection};
use crate::mutants::{Mutant, planted};
use crate::observer::{Observer, Watch};
use crate::partition::{Partition, Sequence};
use crate::ports::{CheckpointMove, EventBus, PortError, PortResult, Projected, ProjectionStep, ReadModels};
use crate::relayer::{by_partition, gap_free};
use crate::rotation::Rotation;
use crate::turn::{Progress, Trouble, Turn};

/// Records read from the bus, and projected in one transaction.
const BATCH: usize = 1024;

/// The loop that keeps read models, for the partitions assigned to it.
pub struct Projector<M, P, B, S> {
    projection: P,
    bus: B,
    store: S,
    assignment: Assignment,
    at: BTreeMap<Partition, Sequence>,
    rotation: Rotation,
    watch: Watch,
    model: PhantomData<fn() -> M>,
}

impl<M: Model, P: Projection<M>, B: EventBus, S: ReadModels> Projector<M, P, B, S> {
    /// A projector of this projection into this store.
    pub fn new(projection: P, bus: B, store: S, assignment: Assignment) -> Self {
        Self {
            projection,
            bus,
            store,
            assignment,
            at: BTreeMap::new(),
            rotation: Rotation::default(),
            watch: Watch::default(),
            model: PhantomData,
        }
    }

    /// The same projector, with somebody who looks on.
    #[must_use]
    pub fn observed_by(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }

    /// Comes to stand in the partitions that are new. Answers with what one of them waits for, if one does: the others
    /// go on meanwhile.
    async fn settle_ownership(&mut self) -> Result<Option<Trouble>, Trouble> {
        let assigned = self.assignment.current();
        self.at.retain(|partition, _| assigned.contains(partition));
        let new: Vec<Partition> =
            assigned.into_iter().filter(|partition| !self.at.contains_key(partition)).collect();
        let mut waits = None;
        if new.is_empty() {
            return Ok(waits);
        }
        for (partition, projected) in self.store.checkpoints(&new).await.map_err(PortError::trouble)? {
            let standing = match standing(&self.bus, partition, projected).await.map_err(PortError::trouble) {
                Ok(standing) => standing,
                // One stream that was lost is made again, and the others go on. More than one is a bus that does not answer.
                Err(retry @ Trouble::Retry(_)) if waits.is_none() => {
                    waits = Some(retry);
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            match standing {
                Standing::Here => {
                    self.at.insert(partition, projected.sequence);
                }
                // A bus that lost its tail is filled again from the log, with the same records.
                standing @ Standing::Ahead => {
                    waits = Some(Trouble::Retry(standing.say(partition, projected)));
                }
                standing @ Standing::Astray => return Err(Trouble::Halt(standing.say(partition, projected))),
            }
        }
        Ok(waits)
    }
}

/// Where a read model stands beside the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// At a record that the bus has.
    Here,
    /// Behind the end of the bus.
    Ahead,
    /// At a record that the bus has not: another one stands there.
    Astray,
}

impl Standing {
    pub(crate) fn say(self, partition: Partition, projected: Projected) -> String {
        let what = match self {
            Self::Here => "stand at",
            Self::Ahead => "are ahead of the bus, which does not have",
            Self::Astray => "went another way than the bus, which has another record at",
        };
        format!(
            "the read models {what} sequence {} of partition {partition}. The log was restored to an earlier state, or \
             the read models are another log's: they have to be built anew.",
            projected.sequence
        )
    }
}

pub(crate) async fn standing<B: EventBus>(
    bus: &B,
    partition: Partition,
    projected: Projected,
) -> PortResult<Standing> {
    let Some(record_id) = projected.record_id else { return Ok(Standing::Here) };
    let records = bus.read(&[(partition, projected.sequence.before())], 1).await?;
    Ok(match records.first() {
        None => Standing::Ahead,
        Some(record) if record.record_id == record_id => Standing::Here,
        Some(_) => Standing::Astray,
    })
}

/// Compares read models with the bus before anything starts, where the bus cannot have lost its tail: then nobody
/// waits for a record that will never come.
///
/// # Errors
///
/// When they do not belong together, or cannot be read.
pub async fn prove<B: EventBus, S: ReadModels>(
    bus: &B,
    store: &S,
    partitions: &[Partition],
) -> Result<(), Trouble> {
    for (partition, projected) in store.checkpoints(partitions).await.map_err(PortError::trouble)? {
        match standing(bus, partition, projected).await.map_err(PortError::trouble)? {
            Standing::Here => {}
            standing @ (Standing::Ahead | Standing::Astray) => {
                return Err(Trouble::Halt(standing.say(partition, projected)));
            }
        }
    }
    Ok(())
}

impl<M: Model, P: Projection<M>, B: EventBus, S: ReadModels> Turn for Projector<M, P, B, S> {
    const PART: &'static str = "projector";

    fn observer(&self) -> Option<&dyn Observer> {
        self.watch.get()
    }

    async fn turn(&mut self) -> Result<Progress, Trouble> {
        let waits = self.settle_ownership().await?;
        let idle = waits.map_or(Ok(Progress::Idle), Err);
        let after: Vec<(Partition, Sequence)> = self.at.iter().map(|(p, s)| (*p, *s)).collect();
        if after.is_empty() {
            return idle;
        }
        let after = self.rotation.turn(after);
        let records = match self.bus.read(&after, BATCH).await {
            Ok(records) => records,
            Err(error) => {
                // Perhaps the connection is another one now, and behind it another bus: compare with it again.
                self.at.clear();
                return Err(error.trouble());
            }
        };
        if records.is_empty() {
            return idle;
        }
        let (start, mut told) = (self.watch.now(), Vec::new());
        let mut steps = Vec::new();
        for (partition, records) in by_partition(records) {
            let from = self.at.get(&partition).copied().unwrap_or_default();
            gap_free(partition, from, &records)?;
            let mut changes = Vec::with_capacity(records.len().saturating_mul(2));
            for record in &records {
                let entry = record.entry::<M>().map_err(|error| {
                    Trouble::Halt(format!("record {} cannot be read: {error}", record.position()))
                })?;
                changes.extend(self.projection.project(record, &entry));
            }
            if let Some(last) = records.last() {
                let checkpoint = CheckpointMove { partition, from, to: last.sequence };
                steps.push(ProjectionStep { checkpoint, record_id: last.record_id, changes });
                if self.watch.is_kept() {
                    told.push(records);
                }
            }
        }
        let moves: Vec<CheckpointMove> = steps.iter().map(|step| step.checkpoint).collect();
        if planted(Mutant::RowsAfterTheCheckpoint) {
            let bare = |step: &ProjectionStep| ProjectionStep { changes: Vec::new(), ..step.clone() };
            let moved = self.store.apply(steps.iter().map(bare).collect()).await;
            moved.map_err(PortError::trouble)?;
            for step in &mut steps {
                step.checkpoint.from = step.checkpoint.to;
            }
        }
        match self.store.apply(steps).await {
            Ok(moved) => {
                let during = self.watch.since(start);
                for (index, (step, moved)) in moves.into_iter().zip(moved).enumerate() {
                    if moved {
                        self.at.insert(step.partition, step.to);
                        if let (Some(observer), Some(records)) = (self.watch.get(), told.get(index)) {
                            observer.projected(records, during);
                        }
                    } else {
                        tracing::warn!(partition = %step.partition, "another projector owns the partition: dropped it");
                        self.watch.fenced(Self::PART, step.partition);
                        self.at.remove(&step.partition);
                        self.assignment.lose(step.partition);
                    }
                }
                Ok(Progress::Worked)
            }
            Err(error) => {
                // Whether it happened is unknown: read the checkpoints again.
                for step in moves {
                    self.at.remove(&step.partition);
                }
                Err(error.trouble())
            }
        }
    }
}
