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
use std::time::Duration;

use crate::assignment::Assignment;
use crate::environment::{Environment, Timestamp};
use crate::mutants::{Mutant, planted};
use crate::observer::{Observer, Watch};
use crate::partition::{Partition, Sequence};
use crate::ports::{Beyond, BusTail, EventBus, EventLog, Follows, PortError, Publication};
use crate::record::Record;
use crate::rotation::{Rotation, Round};
use crate::turn::{Progress, Trouble, Turn};

/// Records read from the log, and published, at once.
const BATCH: usize = 1024;

/// Every stream is asked again where it ends about this often, however much or little there is to do: a bus that was killed may have
/// lost what it had acknowledged, and whoever waits for that waits until it is there again. They are asked in turn, so that what there
/// is to do waits for few of them at a time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The loop that publishes what is committed, for the partitions assigned to it.
pub struct Relayer<L, B, E> {
    log: L,
    bus: B,
    environment: E,
    assignment: Assignment,
    /// Where each stream ends; `None` where that has to be asked.
    streams: BTreeMap<Partition, Option<End>>,
    /// Who is served first: a partition with much to do starves nobody.
    round: Round,
    /// When a stream was last asked without need, and whose stream is asked next.
    looked: Timestamp,
    suspects: Rotation,
    watch: Watch,
}

/// Where a stream ends.
#[derive(Clone, Copy)]
struct End {
    tail: BusTail,
    /// Whether the log was seen to have the same record there. What this relayer has published itself is.
    proven: bool,
}

impl<L: EventLog, B: EventBus, E: Environment> Relayer<L, B, E> {
    /// A relayer between a log and a bus.
    pub fn new(log: L, bus: B, environment: E, assignment: Assignment) -> Self {
        Self {
            log,
            bus,
            environment,
            assignment,
            streams: BTreeMap::new(),
            round: Round::default(),
            looked: Timestamp::default(),
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

    /// From time to time, nothing is taken for granted.
    fn suspect(&mut self) {
        let now = self.environment.now();
        let Ok(streams) = u32::try_from(self.streams.len()) else { return };
        if streams == 0 || planted(Mutant::RelayerNeverLooksAgain) {
            return;
        }
        let pause = LOOK_AGAIN / streams;
        let due = self.looked.until(now).as_micros() / pause.as_micros().max(1);
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        // (A clock that was set back begins anew.)
        let anew = due >= streams || now < self.looked;
        self.looked = if anew { now } else { self.looked.after(pause * due) };
        for _ in 0..due.min(streams) {
            let suspect = self.suspects.turn(self.streams.keys().copied().collect()).first().copied();
            self.streams.extend(suspect.map(|partition| (partition, None)));
        }
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
            self.streams.insert(tail.partition, Some(End { tail, proven: false }));
        }
        Ok(())
    }

    /// What is to be published: what the log has behind the streams' ends, each seen to be the log's own. And whether that is all.
    async fn read(&mut self) -> Result<(Vec<Publication>, bool), Trouble> {
        let ends: Vec<End> = self.streams.values().copied().flatten().collect();
        if ends.is_empty() {
            return Ok((Vec::new(), true));
        }
        let ends = self.round.turn(ends, |end| end.tail.partition);
        let follows: Vec<Follows> = ends
            .iter()
            .map(|End { tail, proven }| Follows {
                partition: tail.partition,
                last: tail.last,
                proven: *proven,
            })
            .collect();
        let limit = BATCH + ends.len();
        let Beyond { heads, records } = self.log.beyond(&follows, limit).await.map_err(PortError::trouble)?;
        let whole = records.len() < limit;
        if let Some((first, _)) = heads.first() {
            self.round.served(*first);
        }
        let heads: BTreeMap<Partition, Sequence> = heads.into_iter().collect();
        let mut read = by_partition(records);
        let mut publications = Vec::new();
        for End { tail, .. } in &ends {
            let Some(head) = heads.get(&tail.partition) else { continue };
            if *head < tail.last {
                return Err(behind(tail));
            }
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
            self.streams.insert(tail.partition, Some(End { tail: *tail, proven: true }));
            if !records.is_empty() {
                publications.push(Publication { partition: tail.partition, expected: tail.last, records });
            }
        }
        Ok((publications, whole))
    }

    async fn publish(&mut self, publications: Vec<Publication>) -> Result<(), Trouble> {
        let ends: Vec<(Partition, Option<End>)> = publications
            .iter()
            .map(|one| (one.partition, one.records.last().map(|last| published(last))))
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

impl<L: EventLog, B: EventBus, E: Environment> Turn for Relayer<L, B, E> {
    const PART: &'static str = "relayer";

    fn observer(&self) -> Option<&dyn Observer> {
        self.watch.get()
    }

    async fn turn(&mut self) -> Result<Progress, Trouble> {
        self.suspect();
        self.locate().await?;
        let (publications, whole) = self.read().await?;
        if publications.is_empty() {
            return Ok(if whole { Progress::Idle } else { Progress::Worked });
        }
        self.publish(publications).await?;
        // Where something was refused, there is more to do: to ask where that stream ends, and to go on from there.
        let all = whole && self.streams.values().all(Option::is_some);
        Ok(if all { Progress::Finished } else { Progress::Worked })
    }
}

/// The stream's end once the record is its last.
fn published(record: &Record) -> End {
    let record_id = Some(record.record_id);
    End { tail: BusTail { partition: record.partition, last: record.sequence, record_id }, proven: true }
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
