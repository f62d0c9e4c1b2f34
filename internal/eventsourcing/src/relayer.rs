//! The relayer: carries the log to the bus.
//!
//! The rule this module protects: the n-th message of a partition's stream is the n-th record of that partition's
//! log. The bus refuses anything else, so a second relayer, a repeat or a gap does no harm; and where to go on is the
//! stream's own last sequence.
//!
//! And nothing is published onto a stream whose end the log does not have: whatever is read to be published is read together
//! with the record before it, which has to be the stream's last. A log that lost its end does not have to say so: a standby that
//! was promoted answers under the old address, over a connection that somebody else made. Once the log has grown past the
//! stream's end again, nothing but that record would tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::assignment::Assignment;
use crate::mutants::{Mutant, planted};
use crate::observer::{Observer, Watch};
use crate::partition::{Partition, Sequence};
use crate::ports::{BusTail, EventBus, EventLog, PortError, Publication};
use crate::record::Record;
use crate::rotation::Rotation;
use crate::turn::{Progress, Trouble, Turn};

/// Records read from the log, and published, at once.
const BATCH: usize = 1024;

/// After so many turns without work, all streams are asked again where they end: with the usual poll, every second. A bus that was
/// killed may have lost what it had acknowledged, and whoever waits for that waits until it is there again.
const IDLE_TURNS: u32 = 10;

/// After so many turns with work, one stream is asked: the others' traffic must not keep a quiet one from being looked at.
const BUSY_TURNS: u32 = 32;

/// The loop that publishes what is committed, for the partitions assigned to it.
pub struct Relayer<L, B> {
    log: L,
    bus: B,
    assignment: Assignment,
    /// Where each stream ends; `None` where that has to be asked.
    streams: BTreeMap<Partition, Option<BusTail>>,
    rotation: Rotation,
    /// Turns since a stream was last asked without need.
    idle: u32,
    busy: u32,
    /// Whose stream is asked next.
    suspects: Rotation,
    watch: Watch,
}

impl<L: EventLog, B: EventBus> Relayer<L, B> {
    /// A relayer between a log and a bus.
    pub fn new(log: L, bus: B, assignment: Assignment) -> Self {
        Self {
            log,
            bus,
            assignment,
            streams: BTreeMap::new(),
            rotation: Rotation::default(),
            idle: 0,
            busy: 0,
            suspects: Rotation::default(),
            watch: Watch::default(),
        }
    }

    /// The same relayer, with somebody who looks on.
    #[must_use]
    pub fn observed_by(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }

    /// Nothing was to be done: from time to time, nothing is taken for granted either.
    fn rest(&mut self) -> Progress {
        self.idle += 1;
        if self.idle >= IDLE_TURNS && !planted(Mutant::RelayerNeverLooksAgain) {
            self.idle = 0;
            self.streams.values_mut().for_each(|end| *end = None);
        }
        Progress::Idle
    }

    /// Something was done: from time to time, one stream is asked all the same.
    fn work(&mut self) -> Progress {
        self.busy += 1;
        if self.busy >= BUSY_TURNS && !planted(Mutant::RelayerNeverLooksAgain) {
            self.busy = 0;
            let suspect = self.suspects.turn(self.streams.keys().copied().collect()).first().copied();
            if let Some(end) = suspect.and_then(|partition| self.streams.get_mut(&partition)) {
                *end = None;
            }
        }
        Progress::Worked
    }

    /// Finds out where the streams end that are not known.
    async fn locate(&mut self) -> Result<(), Trouble> {
        let assigned = self.assignment.current();
        self.streams.retain(|partition, _| assigned.contains(partition));
        for partition in assigned {
            self.streams.entry(partition).or_insert(None);
        }
        let unknown: Vec<Partition> =
            self.streams.iter().filter(|(_, end)| end.is_none()).map(|(partition, _)| *partition).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        for tail in self.bus.tails(&unknown).await.map_err(PortError::trouble)? {
            self.streams.insert(tail.partition, Some(tail));
        }
        Ok(())
    }

    /// What is to be published: what the log has behind the streams' ends, each seen to be the log's own.
    async fn read(&mut self, ends: &[BusTail]) -> Result<Vec<Publication>, Trouble> {
        let after: Vec<(Partition, Sequence)> =
            ends.iter().map(|tail| (tail.partition, before(tail.last))).collect();
        let limit = BATCH + ends.len();
        let records = self.log.read(&after, limit).await.map_err(PortError::trouble)?;
        let whole = records.len() < limit;
        let mut read = by_partition(records);
        let mut publications = Vec::new();
        for tail in ends {
            let mut records = read.remove(&tail.partition).unwrap_or_default();
            if tail.last > Sequence::ZERO {
                match records.first() {
                    Some(record) => same(tail, record)?,
                    None if whole => return Err(behind(tail)),
                    // The others have taken all there was room for.
                    None => continue,
                }
                records.remove(0);
            }
            gap_free(tail.partition, tail.last, &records)?;
            if !records.is_empty() {
                publications.push(Publication { partition: tail.partition, expected: tail.last, records });
            }
        }
        Ok(publications)
    }

    async fn publish(&mut self, publications: Vec<Publication>) -> Result<(), Trouble> {
        let ends: Vec<(Partition, Option<BusTail>)> = publications
            .iter()
            .map(|one| (one.partition, one.records.last().map(|last| tail(last))))
            .collect();
        let start = self.watch.now();
        let told: Vec<Vec<Arc<Record>>> = match self.watch.get() {
            Some(_) => publications.iter().map(|one| one.records.clone()).collect(),
            None => Vec::new(),
        };
        let answers = self.bus.publish(publications).await;
        let during = self.watch.since(start);
        let mut trouble = Ok(());
        for (index, ((partition, end), answer)) in ends.into_iter().zip(answers).enumerate() {
            match answer {
                Ok(()) => {
                    if let (Some(observer), Some(records)) = (self.watch.get(), told.get(index)) {
                        observer.relayed(records, during);
                    }
                    self.streams.insert(partition, end);
                }
                Err(_) if planted(Mutant::RelayerSkipsAfterAnError) => {
                    self.streams.insert(partition, end);
                }
                Err(error) => {
                    self.streams.insert(partition, None);
                    trouble = match error {
                        // Another relayer was faster, or an answer was lost: look where the stream ends.
                        PortError::Conflict(reason) => {
                            tracing::debug!(%partition, %reason, "the bus refused a publication");
                            self.watch.fenced(Self::PART, partition);
                            trouble
                        }
                        PortError::Unavailable(_)
                        | PortError::Full(_)
                        | PortError::Content(_)
                        | PortError::Broken(_) => Err(error.trouble()),
                    };
                }
            }
        }
        trouble
    }
}

impl<L: EventLog, B: EventBus> Turn for Relayer<L, B> {
    const PART: &'static str = "relayer";

    fn observer(&self) -> Option<&dyn Observer> {
        self.watch.get()
    }

    async fn turn(&mut self) -> Result<Progress, Trouble> {
        self.locate().await?;
        let ends: Vec<BusTail> = self.streams.values().copied().flatten().collect();
        if ends.is_empty() {
            return Ok(Progress::Idle);
        }
        let ends = self.rotation.turn(ends);
        let publications = self.read(&ends).await?;
        if publications.is_empty() {
            return Ok(self.rest());
        }
        self.publish(publications).await?;
        Ok(self.work())
    }
}

/// The stream's end once the record is its last.
fn tail(record: &Record) -> BusTail {
    BusTail { partition: record.partition, last: record.sequence, record_id: Some(record.record_id) }
}

fn before(sequence: Sequence) -> Sequence {
    Sequence::new(sequence.get().saturating_sub(1))
}

/// Checks that what the log has where the stream ends is what the stream has there.
fn same(tail: &BusTail, record: &Record) -> Result<(), Trouble> {
    let BusTail { partition, last, record_id } = *tail;
    if record.sequence == last && Some(record.record_id) == record_id {
        return Ok(());
    }
    Err(Trouble::Halt(format!(
        "the bus and the log of partition {partition} went different ways: at sequence {last} the bus has record {}, the \
         log has {} at {}. One of them was restored or replaced.",
        record_id.unwrap_or_default(),
        record.record_id,
        record.sequence
    )))
}

fn behind(tail: &BusTail) -> Trouble {
    let BusTail { partition, last, .. } = tail;
    Trouble::Halt(format!(
        "the log of partition {partition} is behind the bus: the bus ends at sequence {last}, which the log does not \
         have. The log was lost or restored to an earlier state."
    ))
}

/// Sorts records by partition; their order within each stays.
pub(crate) fn by_partition(records: Vec<Arc<Record>>) -> BTreeMap<Partition, Vec<Arc<Record>>> {
    let mut sorted: BTreeMap<Partition, Vec<Arc<Record>>> = BTreeMap::new();
    for record in records {
        sorted.entry(record.partition).or_default().push(record);
    }
    sorted
}

/// Checks that the records follow the sequence without a gap.
pub(crate) fn gap_free(
    partition: Partition,
    after: Sequence,
    records: &[Arc<Record>],
) -> Result<(), Trouble> {
    let mut expected = after;
    for record in records {
        expected = expected.next();
        if record.sequence != expected {
            return Err(Trouble::Halt(format!(
                "partition {partition} has sequence {} where {expected} must be",
                record.sequence
            )));
        }
    }
    Ok(())
}
