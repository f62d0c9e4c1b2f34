//! What a rebuild folds next.
//!
//! The rule this module protects: every record up to where the live read models stand is folded once, in the order of its partition,
//! and what is in memory meanwhile is a batch or two, however long the log is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::environment::{Environment, Stop};
use crate::model::{Model, Projection};
use crate::partition::{Partition, Sequence};
use crate::ports::{CheckpointMove, EventBus, PortError, Projected, ProjectionStep, ReadModels};
use crate::projector::{Standing, standing};
use crate::record::Record;
use crate::relayer::{by_partition, gap_free};
use crate::rotation::Rotation;
use crate::shadow::Rebuildable;
use crate::turn::Trouble;

use super::{BACKOFF, Places, Rebuild, RebuildError};

/// Records that are projected in one transaction: enough that rows of the same page are written together, and few enough that the
/// projector, which writes in between, does not wait long. Two batches are in memory, one that is written and one that is read and
/// projected: some 4 KB a record with its changes. Twice as many were no faster.
const BATCH: usize = 2048;

/// Records that are read at a time: what a store hands over is larger than what is made of it.
const READ: usize = 1024;

/// Records that are projected before others may run.
const AT_ONCE: usize = 256;

/// How often a bus that does not answer is asked again.
const ATTEMPTS: u32 = 20;

/// What is written next, and where that leads to.
pub(super) struct Next {
    pub(super) steps: Vec<ProjectionStep>,
    pub(super) at: Places,
}

impl<M, P, B, S, E> Rebuild<M, P, B, S, E>
where
    M: Model,
    P: Projection<M>,
    B: EventBus,
    S: ReadModels + Rebuildable,
    E: Environment,
{
    /// What comes next, of what the live ones have folded. `None`: nothing does.
    pub(super) async fn next(
        &self,
        at: &Places,
        live: &Places,
        rotation: &mut Rotation,
        cancel: &Stop,
    ) -> Result<Option<Next>, RebuildError> {
        let mut reached = at.clone();
        let mut found: Vec<Arc<Record>> = Vec::new();
        let mut behind = behind(&reached, live);
        while found.len() < BATCH && !behind.is_empty() {
            let records =
                self.read(&reached, rotation.turn(behind), (BATCH - found.len()).min(READ), cancel).await?;
            let before = found.len();
            found.extend(records.into_iter().filter(|record| {
                let end = live.get(&record.partition).copied().unwrap_or_default();
                record.sequence <= end.sequence
            }));
            for record in found.iter().skip(before) {
                let place = Projected { sequence: record.sequence, record_id: Some(record.record_id) };
                reached.insert(record.partition, place);
            }
            behind = self::behind(&reached, live);
        }
        if found.is_empty() {
            return Ok(None);
        }
        let steps = self.project(at, found).await?;
        Ok(Some(Next { steps, at: reached }))
    }

    /// At least one record, of partitions that have more.
    async fn read(
        &self,
        at: &Places,
        after: Vec<(Partition, Sequence)>,
        limit: usize,
        cancel: &Stop,
    ) -> Result<Vec<Arc<Record>>, RebuildError> {
        let (mut proven, mut pause) = (true, BACKOFF.0);
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            if cancel.is_given() {
                return Err(RebuildError::Cancelled);
            }
            if !proven {
                tracing::debug!(%why, "the rebuild waits for the bus");
                self.environment.sleep(pause).await;
                pause = pause.saturating_mul(2).min(BACKOFF.1);
                proven = self.prove(at).await?;
            }
            if proven {
                match self.bus.read(&after, limit).await {
                    Ok(records) if !records.is_empty() => return Ok(records),
                    Ok(_) => "the bus ends before the read models do".clone_into(&mut why),
                    Err(PortError::Unavailable(reason)) => why = reason,
                    Err(error) => return Err(error.into()),
                }
                // Behind a connection that was made anew may be another bus.
                proven = false;
            }
        }
        Err(PortError::Unavailable(why).into())
    }

    /// Compares what was folded with the bus, as the projector does. `false`: the bus does not answer.
    async fn prove(&self, at: &Places) -> Result<bool, RebuildError> {
        for (partition, place) in at {
            match standing(&self.bus, *partition, *place).await {
                Ok(Standing::Here) => {}
                Ok(Standing::Ahead) | Err(PortError::Unavailable(_)) => return Ok(false),
                Ok(standing @ Standing::Astray) => {
                    return Err(RebuildError::Astray(standing.say(*partition, *place)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    async fn project(
        &self,
        at: &Places,
        records: Vec<Arc<Record>>,
    ) -> Result<Vec<ProjectionStep>, RebuildError> {
        let mut steps = Vec::new();
        let broken = |trouble: Trouble| PortError::Broken(trouble.to_string());
        for (partition, records) in by_partition(records) {
            let from = at.get(&partition).copied().unwrap_or_default().sequence;
            gap_free(partition, from, &records).map_err(broken)?;
            let mut changes = Vec::with_capacity(records.len().saturating_mul(2));
            for some in records.chunks(AT_ONCE) {
                for record in some {
                    let entry = record.entry::<M>().map_err(|error| {
                        PortError::Broken(format!("record {} cannot be read: {error}", record.position()))
                    })?;
                    changes.extend(self.projection.project(record, &entry));
                }
                let_others_run().await;
            }
            if let Some(last) = records.last() {
                let checkpoint = CheckpointMove { partition, from, to: last.sequence };
                steps.push(ProjectionStep { checkpoint, record_id: last.record_id, changes });
            }
        }
        Ok(steps)
    }
}

/// The partitions that are behind the live ones, and where they are.
fn behind(at: &Places, live: &Places) -> Vec<(Partition, Sequence)> {
    let place = |partition: &Partition| at.get(partition).copied().unwrap_or_default().sequence;
    live.iter()
        .map(|(partition, live)| (*partition, place(partition), live.sequence))
        .filter(|(_, at, live)| at < live)
        .map(|(partition, at, _)| (partition, at))
        .collect()
}

/// Gives way once: whoever else can run may run first.
async fn let_others_run() {
    struct Once(bool);
    impl Future for Once {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }
    Once(false).await;
}
