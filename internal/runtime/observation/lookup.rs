//! What is looked up when somebody asks for metrics, instead of being counted all the time.
//!
//! The rule this module protects: how far a part lags behind is what the stores say, and not what the part believes: a part
//! that hangs, or runs nowhere, still lags.

use std::future::Future;
use std::pin::Pin;

use eventsourcing::environment::Timestamp;
use eventsourcing::partition::{Partition, PartitionCount, Sequence};
use eventsourcing::ports::{BusTail, EventBus, EventLog, PortResult, Projected, ReadModels};
use eventsourcing::queue::{Depth, Waiting};
use readmodel::oldest_unsettled;

use super::age;
use super::metrics::Reading;

/// What a lookup comes to.
type Looking = Pin<Box<dyn Future<Output = PortResult<Vec<Reading>>> + Send>>;

/// A way to look something up.
pub struct Lookup {
    /// Its name, where it fails.
    pub(super) what: &'static str,
    pub(super) look: Box<dyn Fn() -> Looking + Send + Sync>,
}

impl Lookup {
    fn new<A>(what: &'static str, look: impl Fn() -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = PortResult<Vec<Reading>>> + Send + 'static,
    {
        Self { what, look: Box::new(move || Box::pin(look())) }
    }
}

/// How much waits in the command queue: behind the positions that the log remembers.
pub fn queue_depth<L, W>(log: L, queue: W, partitions: PartitionCount) -> Lookup
where
    L: EventLog + Clone,
    W: Waiting + Clone,
{
    Lookup::new("queue", move || {
        let (log, queue) = (log.clone(), queue.clone());
        async move {
            let all: Vec<Partition> = partitions.all().collect();
            let rows = log.rows(&all).await?;
            let behind: Vec<_> = rows.into_iter().map(|(partition, row)| (partition, row.position)).collect();
            let Depth { messages, bytes } = queue.depth(&behind).await?;
            Ok(vec![Reading::QueueMessages(messages), Reading::QueueBytes(bytes)])
        }
    })
}

/// How far the bus is behind the log.
pub fn relay_lag<L, B>(log: L, bus: B, partitions: PartitionCount) -> Lookup
where
    L: EventLog + Clone,
    B: EventBus + Clone,
{
    Lookup::new("relay", move || {
        let (log, bus) = (log.clone(), bus.clone());
        async move {
            let all: Vec<Partition> = partitions.all().collect();
            // The bus first: what is committed in between would count as published before it was.
            let tails = bus.tails(&all).await?;
            let rows = log.rows(&all).await?;
            let lag = rows.iter().map(|(partition, row)| {
                let tail = tails.iter().find(|tail| tail.partition == *partition);
                behind(row.head, tail.map_or(Sequence::ZERO, |tail| tail.last))
            });
            Ok(vec![Reading::RelayLag(lag.sum())])
        }
    })
}

/// How far the read models are behind the bus.
pub fn projection_lag<B, S>(bus: B, models: S, partitions: PartitionCount) -> Lookup
where
    B: EventBus + Clone,
    S: ReadModels + Clone,
{
    Lookup::new("projection", move || {
        let (bus, models) = (bus.clone(), models.clone());
        async move {
            let all: Vec<Partition> = partitions.all().collect();
            let projected = models.checkpoints(&all).await?;
            let tails = bus.tails(&all).await?;
            let late = late(&projected, &tails);
            let mut oldest: Option<Timestamp> = None;
            for (partition, at, _) in &late {
                let next = bus.read(&[(*partition, *at)], 1).await?;
                let written = next.first().map(|record| record.recorded_at);
                oldest = oldest.into_iter().chain(written).min();
            }
            let lag = late.iter().map(|(_, _, lag)| lag).sum();
            let oldest = oldest.map(age).unwrap_or_default();
            Ok(vec![Reading::ProjectionLag(lag), Reading::ProjectionAge(oldest)])
        }
    })
}

/// The partitions where there is something to project: where the projection stands, and how far that is from the end.
fn late(projected: &[(Partition, Projected)], tails: &[BusTail]) -> Vec<(Partition, Sequence, u64)> {
    let lag = |(partition, projected): &(Partition, Projected)| {
        let tail = tails.iter().find(|tail| tail.partition == *partition)?;
        let lag = behind(tail.last, projected.sequence);
        (lag > 0).then_some((*partition, projected.sequence, lag))
    };
    projected.iter().filter_map(lag).collect()
}

/// Since how long the oldest step of a saga waits that should have been taken.
pub fn unsettled<S: ReadModels + Clone>(models: S) -> Lookup {
    Lookup::new("unsettled", move || {
        let models = models.clone();
        async move {
            let oldest = oldest_unsettled(&models).await?;
            Ok(vec![Reading::OldestUnsettled(oldest.map(age).unwrap_or_default())])
        }
    })
}

fn behind(end: Sequence, at: Sequence) -> u64 {
    end.get().saturating_sub(at.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_behind_is_late() {
        let partition = Partition::from_index;
        let at = |sequence| Projected { sequence: Sequence::new(sequence), record_id: None };
        let projected = [(partition(0), at(3)), (partition(1), at(5)), (partition(2), at(0))];
        let tail =
            |index, last| BusTail { partition: partition(index), last: Sequence::new(last), record_id: None };
        let tails = [tail(2, 7), tail(1, 4), tail(0, 3)];
        assert_eq!(late(&projected, &tails), [(partition(2), Sequence::ZERO, 7)]);
    }
}
