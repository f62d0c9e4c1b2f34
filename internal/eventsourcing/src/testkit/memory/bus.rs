//! The event bus in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::{Call, Interference, Way, lock};
use crate::environment::Doorbells;
use crate::partition::{Partition, Sequence};
use crate::ports::{BusTail, EventBus, PortError, PortResult, Publication};
use crate::record::Record;

/// An [`EventBus`] in memory. It keeps a copy of its own, so it can be ahead of the log and lose its end.
#[derive(Clone, Default)]
pub struct MemoryBus {
    state: Arc<Mutex<SavedBus>>,
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
        if last != expected {
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
        let publish = || {
            let answers: Vec<_> = {
                let mut state = lock(&self.state);
                publications.into_iter().map(|publication| state.publish(publication)).collect()
            };
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
}
