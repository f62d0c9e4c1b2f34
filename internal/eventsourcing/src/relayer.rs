//! The relayer: carries the log to the bus.
//!
//! The rule this module protects: the n-th message of a partition's stream is the n-th record of that partition's
//! log. The bus refuses anything else, so a second relayer, a repeat or a gap does no harm; and where to go on is the
//! stream's own last sequence, compared with the log by the record's id.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::assignment::Assignment;
use crate::partition::{Partition, Sequence};
use crate::ports::{BusTail, EventBus, EventLog, PortError, Publication};
use crate::record::Record;
use crate::rotation::Rotation;
use crate::turn::{Progress, Trouble, Turn};

/// Records read from the log, and published, at once.
const BATCH: usize = 1024;

/// The loop that publishes what is committed, for the partitions assigned to it.
pub struct Relayer<L, B> {
    log: L,
    bus: B,
    assignment: Assignment,
    /// Where each stream ends; `None` where that has to be asked.
    streams: BTreeMap<Partition, Option<Sequence>>,
    rotation: Rotation,
}

impl<L: EventLog, B: EventBus> Relayer<L, B> {
    /// A relayer between a log and a bus.
    pub fn new(log: L, bus: B, assignment: Assignment) -> Self {
        Self { log, bus, assignment, streams: BTreeMap::new(), rotation: Rotation::default() }
    }

    /// Finds out where the streams end that are not known, and that the log has the same record there.
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
            self.compare(tail).await?;
            self.streams.insert(tail.partition, Some(tail.last));
        }
        Ok(())
    }

    async fn compare(&self, tail: BusTail) -> Result<(), Trouble> {
        let BusTail { partition, last, record_id } = tail;
        if last == Sequence::ZERO {
            return Ok(());
        }
        let before = Sequence::new(last.get().saturating_sub(1));
        let records = self.log.read(&[(partition, before)], 1).await.map_err(PortError::trouble)?;
        match records.first() {
            Some(record) if Some(record.record_id) == record_id => Ok(()),
            Some(record) => Err(Trouble::Halt(format!(
                "the bus and the log of partition {partition} went different ways: at sequence {last} the bus has \
                 record {}, the log has {}. One of them was restored or replaced.",
                record_id.unwrap_or_default(),
                record.record_id
            ))),
            None => Err(Trouble::Halt(format!(
                "the log of partition {partition} is behind the bus: the bus ends at sequence {last}, which the log \
                 does not have. The log was lost or restored to an earlier state."
            ))),
        }
    }

    async fn publish(&mut self, publications: Vec<Publication>) -> Result<(), Trouble> {
        let ends: Vec<(Partition, Option<Sequence>)> = publications
            .iter()
            .map(|one| (one.partition, one.records.last().map(|record| record.sequence)))
            .collect();
        let answers = self.bus.publish(publications).await;
        let mut trouble = Ok(());
        for ((partition, end), answer) in ends.into_iter().zip(answers) {
            match answer {
                Ok(()) => {
                    self.streams.insert(partition, end);
                }
                Err(error) => {
                    self.streams.insert(partition, None);
                    trouble = match error {
                        // Another relayer was faster, or an answer was lost: look where the stream ends.
                        PortError::Conflict(reason) => {
                            tracing::debug!(%partition, %reason, "the bus refused a publication");
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

    async fn turn(&mut self) -> Result<Progress, Trouble> {
        self.locate().await?;
        let after: Vec<(Partition, Sequence)> =
            self.streams.iter().filter_map(|(partition, end)| Some((*partition, (*end)?))).collect();
        if after.is_empty() {
            return Ok(Progress::Idle);
        }
        let after = self.rotation.turn(after);
        let records = self.log.read(&after, BATCH).await.map_err(PortError::trouble)?;
        if records.is_empty() {
            return Ok(Progress::Idle);
        }
        let mut publications: Vec<Publication> = Vec::new();
        for (partition, records) in by_partition(records) {
            let expected = self.streams.get(&partition).copied().flatten().unwrap_or_default();
            gap_free(partition, expected, &records)?;
            publications.push(Publication { partition, expected, records });
        }
        self.publish(publications).await?;
        Ok(Progress::Worked)
    }
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
