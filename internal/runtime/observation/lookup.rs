//! What is looked up when somebody asks for metrics, instead of being counted all the time.
//!
//! The rule this module protects: how far a part lags behind is what the stores say, and not what the part believes: a part
//! that hangs, or runs nowhere, still lags.

use std::future::Future;
use std::pin::Pin;

use eventsourcing::partition::{LogPosition, Partition, PartitionCount, Sequence};
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
            let late = late(&bus, &models, partitions).await?;
            Ok(vec![Reading::ProjectionLag(late.iter().map(|(_, lag)| lag).sum())])
        }
    })
}

/// How old the oldest record is that is not projected. Apart from how many there are: to look at records takes longer than to count
/// them, and most of all where there are many.
pub fn projection_age<B, S>(bus: B, models: S, partitions: PartitionCount) -> Lookup
where
    B: EventBus + Clone,
    S: ReadModels + Clone,
{
    Lookup::new("projection_age", move || {
        let (bus, models) = (bus.clone(), models.clone());
        async move {
            let late = late(&bus, &models, partitions).await?;
            let next: Vec<LogPosition> = late.into_iter().map(|(next, _)| next).collect();
            let next = bus.records(&next).await?;
            let oldest = next.into_iter().flatten().map(|record| record.recorded_at).min();
            Ok(vec![Reading::ProjectionAge(oldest.map(age).unwrap_or_default())])
        }
    })
}

/// The next record to project, in each partition where there is one, and how many there are.
async fn late<B: EventBus, S: ReadModels>(
    bus: &B,
    models: &S,
    partitions: PartitionCount,
) -> PortResult<Vec<(LogPosition, u64)>> {
    let all: Vec<Partition> = partitions.all().collect();
    let projected = models.checkpoints(&all).await?;
    let tails = bus.tails(&all).await?;
    Ok(unprojected(&projected, &tails))
}

fn unprojected(projected: &[(Partition, Projected)], tails: &[BusTail]) -> Vec<(LogPosition, u64)> {
    let lag = |(partition, projected): &(Partition, Projected)| {
        let tail = tails.iter().find(|tail| tail.partition == *partition)?;
        let lag = behind(tail.last, projected.sequence);
        let next = LogPosition { partition: *partition, sequence: projected.sequence.next() };
        (lag > 0).then_some((next, lag))
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
    use std::sync::Arc;

    use eventsourcing::environment::{Environment as _, Timestamp};
    use eventsourcing::model::AggregateRef;
    use eventsourcing::ports::Publication;
    use eventsourcing::record::Record;
    use eventsourcing::testkit::memory::{Call, Fault, MemoryBus, MemoryReadModels};
    use uuid::Uuid;

    use super::*;
    use crate::runtime::environment::SystemEnvironment;

    #[test]
    fn only_what_is_behind_is_late() {
        let partition = Partition::from_index;
        let at = |sequence| Projected { sequence: Sequence::new(sequence), record_id: None };
        let projected = [(partition(0), at(3)), (partition(1), at(5)), (partition(2), at(0))];
        let tail =
            |index, last| BusTail { partition: partition(index), last: Sequence::new(last), record_id: None };
        let tails = [tail(2, 7), tail(1, 4), tail(0, 3)];
        let next = LogPosition { partition: partition(2), sequence: Sequence::new(1) };
        assert_eq!(unprojected(&projected, &tails), [(next, 7)]);
    }

    fn record(index: u16, sequence: u64, recorded_at: u64) -> Record {
        let (partition, sequence) = (Partition::from_index(index), Sequence::new(sequence));
        let id = Uuid::from_u128(u128::from(index) << 64 | u128::from(sequence.get()));
        Record {
            partition,
            sequence,
            record_id: id,
            recorded_at: Timestamp::from_micros(recorded_at),
            aggregate: AggregateRef::new("invoice", id),
            version: None,
            event_type: "CommandUnchanged".into(),
            schema: 1,
            data: String::new(),
            command_id: id,
            correlation_id: id,
            causation_id: id,
            actor: "tester".to_owned(),
            traceparent: None,
            last_of_command: true,
        }
    }

    #[tokio::test]
    async fn how_many_records_wait_is_told_where_nobody_can_tell_how_old_they_are() {
        let (bus, models) = (MemoryBus::default(), MemoryReadModels::new(&[]));
        let second = 1_000_000;
        let now = SystemEnvironment.now().as_micros();
        // The oldest of each partition comes next.
        let ages = [(0, vec![20, 10]), (1, vec![100, 90, 80]), (2, Vec::new())];
        for (index, ages) in ages {
            let records = (1..).zip(ages).map(|(sequence, age)| record(index, sequence, now - age * second));
            let records = records.map(Arc::new).collect();
            let publication =
                Publication { partition: Partition::from_index(index), expected: Sequence::ZERO, records };
            assert_eq!(bus.publish(vec![publication]).await, [Ok(())]);
        }
        let partitions = PartitionCount::new(3).unwrap();
        let age = projection_age(bus.clone(), models.clone(), partitions);
        let told = (age.look)().await.unwrap();
        let [Reading::ProjectionAge(age)] = told[..] else { panic!("{told:?}") };
        assert!((100..110).contains(&age.as_secs()), "{age:?}");

        let unreadable = |call| if call == Call::BusRecords { Fault::Fail } else { Fault::None };
        let bus = bus.interfered(Arc::new(unreadable));
        let age = projection_age(bus.clone(), models.clone(), partitions);
        assert!((age.look)().await.is_err());
        let lag = projection_lag(bus, models, partitions);
        assert_eq!((lag.look)().await, Ok(vec![Reading::ProjectionLag(5)]));
    }
}
