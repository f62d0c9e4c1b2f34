//! The event bus in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Call, Interference, Way, lock};
use crate::environment::Doorbells;
use crate::mutants::{Mutant, planted};
use crate::partition::{LogPosition, Partition, Sequence};
use crate::ports::{BusTail, EventBus, PortError, PortResult, Publication};
use crate::record::Record;

/// An [`EventBus`] in memory. It keeps a copy of its own, so it can be ahead of the log and lose its end.
#[derive(Clone, Default)]
pub struct MemoryBus {
    state: Arc<Mutex<SavedBus>>,
    /// Everything that was ever published, over all streams.
    order: Arc<Mutex<Vec<Arc<Record>>>>,
    refused: Arc<AtomicU64>,
    bells: Doorbells,
    way: Way,
}

/// What a bus held at some time.
#[derive(Debug, Clone, Default)]
pub struct SavedBus(BTreeMap<Partition, Vec<Arc<Record>>>);

impl SavedBus {
    fn stream(&self, partition: Partition) -> &[Arc<Record>] {
        self.0.get(&partition).map_or(&[], Vec::as_slice)
    }

    fn tail(&self, partition: Partition) -> BusTail {
        let last = self.stream(partition).last();
        BusTail {
            partition,
            last: last.map_or(Sequence::ZERO, |record| record.sequence),
            record_id: last.map(|record| record.record_id),
        }
    }

    fn publish(&mut self, publication: Publication) -> PortResult<()> {
        let Publication { partition, expected, records } = publication;
        let last = self.tail(partition).last;
        let takes_anything = planted(Mutant::NoExpectedSequence) || planted(Mutant::RelayerSkipsAfterAnError);
        if last != expected && !takes_anything {
            return Err(PortError::Conflict(format!(
                "the stream of partition {partition} ends at {last}, not at {expected}"
            )));
        }
        let mut next = expected;
        for record in &records {
            next = next.next();
            if record.partition != partition || record.sequence != next {
                let position = record.position();
                return Err(PortError::Broken(format!("{position} is published as {partition}-{next}")));
            }
        }
        self.0.entry(partition).or_default().extend(records);
        Ok(())
    }
}

impl MemoryBus {
    /// Another handle on the same bus, on whose way somebody stands.
    #[must_use]
    pub fn interfered(&self, interference: Arc<dyn Interference>) -> Self {
        Self { way: Way(Some(interference)), ..self.clone() }
    }

    /// What rings when records are published.
    #[must_use]
    pub fn bells(&self) -> &Doorbells {
        &self.bells
    }

    /// Everything on a partition's stream, in order.
    #[must_use]
    pub fn stream(&self, partition: Partition) -> Vec<Arc<Record>> {
        lock(&self.state).stream(partition).to_vec()
    }

    /// Everything that was ever published, in the order in which it was, over all streams; also what was lost and published again.
    #[must_use]
    pub fn order(&self) -> Vec<Arc<Record>> {
        lock(&self.order).clone()
    }

    /// Where a partition's stream ends.
    #[must_use]
    pub fn last(&self, partition: Partition) -> Sequence {
        lock(&self.state).tail(partition).last
    }

    /// How many publications were refused because the stream did not end where they expected it to, over all time.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Loses what a partition's stream has after this sequence: a power cut before the bus flushed.
    pub fn truncate(&self, partition: Partition, last: Sequence) {
        if let Some(stream) = lock(&self.state).0.get_mut(&partition) {
            stream.retain(|record| record.sequence <= last);
        }
    }

    /// The bus as it is, to restore later.
    #[must_use]
    pub fn save(&self) -> SavedBus {
        lock(&self.state).clone()
    }

    /// Goes back to an earlier state.
    pub fn restore(&self, saved: SavedBus) {
        *lock(&self.state) = saved;
    }
}

impl EventBus for MemoryBus {
    async fn tails(&self, partitions: &[Partition]) -> PortResult<Vec<BusTail>> {
        let tails = || {
            let state = lock(&self.state);
            Ok(partitions.iter().map(|partition| state.tail(*partition)).collect())
        };
        self.way.call(Call::BusTails, tails).await
    }

    async fn publish(&self, publications: Vec<Publication>) -> Vec<PortResult<()>> {
        let items = publications.len();
        let publish = |breaks_off: bool| {
            let answers: Vec<_> = {
                let (mut state, mut order) = (lock(&self.state), lock(&self.order));
                let publications = publications.into_iter().map(|mut publication| {
                    if breaks_off {
                        publication.records.truncate(publication.records.len() / 2);
                    }
                    let records = publication.records.clone();
                    state.publish(publication)?;
                    order.extend(records);
                    let broke = || Err(PortError::Unavailable("the connection broke".to_owned()));
                    if breaks_off { broke() } else { Ok(()) }
                });
                publications.collect()
            };
            let conflicts = answers.iter().filter(|answer| matches!(answer, Err(PortError::Conflict(_))));
            self.refused.fetch_add(u64::try_from(conflicts.count()).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.bells.ring();
            answers
        };
        self.way.call_each(Call::BusPublish, items, publish).await
    }

    async fn read(&self, after: &[(Partition, Sequence)], limit: usize) -> PortResult<Vec<Arc<Record>>> {
        let read = || {
            let state = lock(&self.state);
            Ok(super::log::page(after, limit, |partition| state.stream(partition)))
        };
        self.way.call(Call::BusRead, read).await
    }

    async fn records(&self, positions: &[LogPosition]) -> PortResult<Vec<Option<Arc<Record>>>> {
        let find = || {
            let state = lock(&self.state);
            let find = |position: &LogPosition| {
                let index = usize::try_from(position.sequence.get()).ok()?.checked_sub(1)?;
                state.stream(position.partition).get(index).cloned()
            };
            Ok(positions.iter().map(find).collect())
        };
        self.way.call(Call::BusRecords, find).await
    }
}
