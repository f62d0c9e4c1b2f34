//! The stream of facts behind WatchFacts.
//!
//! The rule this module protects: within a partition the order is the log's and nothing is missing; between partitions it
//! is by time. A slow client slows its own stream down and costs a bounded amount of memory, and a client that is
//! gone costs nothing: the stream does its work only when it is asked for more.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use tonic::Status;

use eventsourcing::environment::{Doorbell, Environment, Stop, within};
use eventsourcing::partition::{Partition, Sequence};
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

/// What a stream has read of a partition and not yet sent.
#[derive(Debug, Default)]
struct Lane {
    /// The last sequence that was read.
    read: Sequence,
    unsent: VecDeque<Arc<Record>>,
    /// Whether the last read came to the partition's end.
    at_end: bool,
}

impl Lane {
    fn is_open(&self) -> bool {
        self.unsent.is_empty() && !self.at_end
    }
}

/// Reads the bus, and merges its partitions.
pub(crate) struct Feed<E, B> {
    bus: Arc<B>,
    lanes: BTreeMap<Partition, Lane>,
    limit: usize,
    bell: Doorbell,
    environment: E,
    stop: Stop,
}

impl<E: Environment, B: EventBus> Feed<E, B> {
    /// The facts after these, of these partitions.
    pub(crate) fn new(
        bus: Arc<B>,
        after: BTreeMap<Partition, Sequence>,
        bell: Doorbell,
        environment: E,
        stop: Stop,
    ) -> Self {
        let limit = MOST_RECORDS / after.len().max(1);
        let lanes = after
            .into_iter()
            .map(|(partition, read)| (partition, Lane { read, ..Lane::default() }))
            .collect();
        Self { bus, lanes, limit: limit.clamp(*READ.start(), *READ.end()), bell, environment, stop }
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
    async fn next(&mut self) -> Result<Arc<Record>, Failure> {
        loop {
            if self.stop.is_given() {
                return Err(Failure::Stopping);
            }
            if self.lanes.values().any(Lane::is_open) {
                self.read().await?;
            } else if let Some(record) = self.earliest() {
                return Ok(record);
            } else {
                let (rung, stopping) = (pin!(self.bell.rung()), pin!(self.stop.given()));
                within(&self.environment, POLL, select(rung, stopping)).await;
                for lane in self.lanes.values_mut() {
                    lane.at_end = false;
                }
            }
        }
    }

    /// The earliest of those that come next in their partitions. To be asked only when it is known of every
    /// partition what comes next, or that nothing does.
    fn earliest(&mut self) -> Option<Arc<Record>> {
        let lanes = self.lanes.values_mut().filter(|lane| !lane.unsent.is_empty());
        let lane = lanes.min_by_key(|lane| lane.unsent.front().map(|record| record.recorded_at))?;
        lane.unsent.pop_front()
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
        // anything later of another partition goes out.
        let at_end = records.len() < self.limit;
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
