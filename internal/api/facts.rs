//! The stream of facts behind WatchFacts.
//!
//! The rule this module protects: within a partition the order is the log's and nothing is missing; between partitions it
//! is by time, and an effect never comes before its cause. A slow client slows its own stream down and costs a bounded amount of memory, and a client that is
//! gone costs nothing: the stream does its work only when it is asked for more.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use tonic::Status;
use uuid::Uuid;

use eventsourcing::environment::{Doorbell, Environment, Stop, Timestamp, within};
use eventsourcing::partition::{Partition, PartitionCount, Sequence};
use eventsourcing::ports::{EventBus, PortError};
use eventsourcing::record::Record;

use super::admission::Place;
use super::proto::financing::v1;
use super::status::Failure;
use super::wire::fact;

/// How often the bus is looked at where no bell rings.
const POLL: Duration = Duration::from_secs(1);

/// How many records a stream holds at most, about: each partition holds at most one read.
const MOST_RECORDS: usize = 2048;

/// How many records are read at a time: enough to be worth the round trip, even of many partitions.
const READ: std::ops::RangeInclusive<usize> = 16..=256;

/// How long a fact is held back whose cause has not been sent. A bus reads its partitions one after the other, so an effect
/// may be read a moment before its cause; but the cause may also lie before the place where the stream began.
const HOLD: Duration = Duration::from_secs(1);

/// How soon the bus is read again for a cause that is missing.
const SOON: Duration = Duration::from_millis(2);

/// Facts that are remembered as sent. A cause is sent a moment before its effect.
const MOST_SENT: usize = 16 * 1024;

/// The facts that were sent last.
#[derive(Debug, Default)]
struct Sent {
    ids: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Sent {
    fn remember(&mut self, record_id: Uuid) {
        if self.ids.insert(record_id) {
            self.order.push_back(record_id);
        }
        if self.order.len() > MOST_SENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// What comes next.
enum Next {
    /// This one.
    Record(Arc<Record>),
    /// Only facts whose cause has not been sent.
    Held,
    /// Nothing that is known of.
    Nothing,
}

/// What a stream has read of a partition and not yet sent.
#[derive(Debug, Default)]
struct Lane {
    /// The last sequence that was read.
    read: Sequence,
    unsent: VecDeque<Arc<Record>>,
    /// Whether the last read came to the partition's end.
    at_end: bool,
    /// Since when the first of the unsent is held back.
    held_since: Option<Timestamp>,
}

impl Lane {
    fn is_open(&self) -> bool {
        self.unsent.is_empty() && !self.at_end
    }
}

/// Whether the fact follows from nothing but its command, or from a fact that was sent.
fn is_caused(record: &Record, sent: &Sent) -> bool {
    record.causation_id == record.command_id || sent.ids.contains(&record.causation_id)
}

/// How long before this that was.
fn age(time: Timestamp, now: Timestamp) -> Duration {
    Duration::from_micros(now.as_micros().saturating_sub(time.as_micros()))
}

/// Where the partitions end that are not named.
pub(crate) async fn ends<B: EventBus>(
    bus: &B,
    named: &[v1::LogPosition],
    all: PartitionCount,
) -> Result<Vec<(Partition, Sequence)>, Failure> {
    let is_named = |partition: &Partition| {
        named.iter().any(|position| position.partition == u32::from(partition.index()))
    };
    let others: Vec<Partition> = all.all().filter(|partition| !is_named(partition)).collect();
    let tails = bus.tails(&others).await.map_err(Failure::Unheard)?;
    Ok(tails.into_iter().map(|tail| (tail.partition, tail.last)).collect())
}

/// Reads the bus, and merges its partitions.
pub(crate) struct Feed<E, B> {
    bus: Arc<B>,
    lanes: BTreeMap<Partition, Lane>,
    limit: usize,
    sent: Sent,
    /// Whether every partition is watched, so that every cause comes by.
    complete: bool,
    bell: Doorbell,
    environment: E,
    stop: Stop,
}

impl<E: Environment, B: EventBus> Feed<E, B> {
    /// The facts after these, of these partitions; `all` is how many there are.
    pub(crate) fn new(
        bus: Arc<B>,
        after: BTreeMap<Partition, Sequence>,
        all: PartitionCount,
        bell: Doorbell,
        environment: E,
        stop: Stop,
    ) -> Self {
        let limit = MOST_RECORDS / after.len().max(1);
        let complete = after.len() == usize::from(all.get());
        let lanes = after
            .into_iter()
            .map(|(partition, read)| (partition, Lane { read, ..Lane::default() }))
            .collect();
        let limit = limit.clamp(*READ.start(), *READ.end());
        Self { bus, lanes, limit, sent: Sent::default(), complete, bell, environment, stop }
    }

    /// The stream; it holds its place for as long as it lasts, which is at most this long.
    pub(crate) fn stream(
        self,
        place: Place,
        lasts: Duration,
    ) -> BoxStream<'static, Result<v1::WatchFactsResponse, Status>> {
        let environment = self.environment.clone();
        let deadline = async move { environment.sleep(lasts).await };
        let facts = stream::unfold(Some((self, place)), |open| async {
            let (mut feed, place) = open?;
            Some(match feed.next().await {
                Ok(record) => (Ok(fact(&record)), Some((feed, place))),
                Err(failure) => (Err(failure), None),
            })
        });
        AssertUnwindSafe(facts)
            .catch_unwind()
            .map(|caught| caught.unwrap_or(Err(Failure::Panicked)))
            .take_until(deadline.boxed())
            // Only a stream that the deadline has cut off comes to this: any other ends with its own failure.
            .chain(stream::once(async { Err(Failure::Late) }))
            .map(|item| item.map_err(|failure| failure.status("WatchFacts")))
            .boxed()
    }

    /// The next fact, when there is one.
    pub(super) async fn next(&mut self) -> Result<Arc<Record>, Failure> {
        loop {
            if self.stop.is_given() {
                return Err(Failure::Stopping);
            }
            if self.lanes.values().any(Lane::is_open) {
                self.read().await?;
                continue;
            }
            let pause = match self.earliest() {
                Next::Record(record) => return Ok(record),
                Next::Held => SOON,
                Next::Nothing => POLL,
            };
            let (rung, stopping) = (pin!(self.bell.rung()), pin!(self.stop.given()));
            within(&self.environment, pause, select(rung, stopping)).await;
            for lane in self.lanes.values_mut() {
                lane.at_end = false;
            }
        }
    }

    /// The earliest of those that come next in their partitions, and whose cause was sent. To be asked only when it is
    /// known of every partition what comes next, or that nothing does.
    fn earliest(&mut self) -> Next {
        let now = self.environment.now();
        let (mut earliest, mut held) = (None, false);
        for (partition, lane) in &mut self.lanes {
            let Some(first) = lane.unsent.front() else { continue };
            let since = lane.held_since.unwrap_or(now);
            let has_waited = age(since, now) >= HOLD || age(first.recorded_at, now) >= HOLD;
            if self.complete && !has_waited && !is_caused(first, &self.sent) {
                lane.held_since = Some(since);
                held = true;
            } else if earliest.is_none_or(|(time, _)| first.recorded_at < time) {
                earliest = Some((first.recorded_at, *partition));
            }
        }
        let lane = earliest.and_then(|(_, partition)| self.lanes.get_mut(&partition));
        let record = lane.and_then(|lane| {
            lane.held_since = None;
            lane.unsent.pop_front()
        });
        match record {
            Some(record) => {
                self.sent.remember(record.record_id);
                Next::Record(record)
            }
            None if held => Next::Held,
            None => Next::Nothing,
        }
    }

    /// Reads every partition of which nothing is left, also those that had come to their end: they may have grown,
    /// and would otherwise wait for a partition that has much to send.
    async fn read(&mut self) -> Result<(), Failure> {
        let empty: Vec<(Partition, Sequence)> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.unsent.is_empty())
            .map(|(partition, lane)| (*partition, lane.read))
            .collect();
        let records = self.bus.read(&empty, self.limit).await.map_err(Failure::Unheard)?;
        // Of a partition whose records are still unsent nothing new is known: when they are sent, it is read again before
        // anything later of another partition goes out. And a bus need not read all its partitions at one moment: while it
        // reads them one after the other, a fact may be stored in one that was read, and its effect in one that was not.
        // So a partition has come to its end when it still has nothing after all that is to be sent was read.
        let at_end = records.is_empty();
        for lane in self.lanes.values_mut() {
            lane.at_end = at_end && lane.unsent.is_empty();
        }
        for record in records {
            let lane =
                self.lanes.get_mut(&record.partition).filter(|lane| lane.read.next() == record.sequence);
            let Some(lane) = lane else {
                let reason = format!("the bus does not go on with {}", record.position());
                return Err(Failure::Unheard(PortError::Broken(reason)));
            };
            lane.read = record.sequence;
            lane.unsent.push_back(record);
        }
        Ok(())
    }
}
