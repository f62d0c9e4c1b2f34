//! The keys of a table's rows that records have changed.
//!
//! The rule this module protects: exactly what the projection changes in the table, of every record between two places, and of
//! no other. A key is known only with its record's place, so that it is clear on which side of a place the change lies.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use domain::financing::Financing;
use domain::live::LiveError;
use eventsourcing::model::Projection as _;
use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::{EventBus, PortError};
use eventsourcing::record::Record;
use uuid::Uuid;

use crate::projection::FinancingProjection;

/// Records that are read at a time.
const READ: usize = 1024;

/// Changes that are held at most beyond the place that was asked for.
const MOST_AHEAD: usize = 4096;

/// What the bus says was changed, in the order of each partition.
pub(super) struct Changed<B> {
    bus: Arc<B>,
    table: &'static str,
    /// In the order of the partitions.
    lanes: Vec<Lane>,
    /// The most records that are read at once.
    most: u64,
}

#[derive(Debug)]
struct Lane {
    partition: Partition,
    /// The last record that was read.
    read: Sequence,
    /// What was read, and not taken.
    ahead: VecDeque<(Sequence, Uuid)>,
}

impl<B: EventBus> Changed<B> {
    /// Changes of this table after these places; at most so many records of them.
    pub(super) fn after(
        bus: Arc<B>,
        table: &'static str,
        places: impl IntoIterator<Item = (Partition, Sequence)>,
        most: u64,
    ) -> Self {
        let lane = |(partition, at)| Lane { partition, read: at, ahead: VecDeque::new() };
        Self { bus, table, lanes: places.into_iter().map(lane).collect(), most }
    }

    /// Reads some of what the bus has beyond what is known, so that it need not be read between two looks at the store.
    pub(super) async fn look_ahead(&mut self) -> Result<(), LiveError> {
        if self.lanes.iter().map(|lane| lane.ahead.len()).sum::<usize>() < MOST_AHEAD {
            let after: Vec<_> = self.lanes.iter().map(|lane| (lane.partition, lane.read)).collect();
            self.read(&after).await?;
        }
        Ok(())
    }

    /// The keys that were changed up to these places, and not taken before. Whoever takes them says whether there is room for
    /// more: where there is none, whatever comes behind is not read.
    pub(super) async fn take(
        &mut self,
        up_to: &[Sequence],
        mut take: impl FnMut(Uuid) -> bool,
    ) -> Result<(), LiveError> {
        let unread = |lane: &Lane, to: Sequence| to.get().saturating_sub(lane.read.get());
        let missing: u64 = self.lanes.iter().zip(up_to).map(|(lane, to)| unread(lane, *to)).sum();
        if missing > self.most {
            return Err(LiveError::TooFarBehind);
        }
        loop {
            // What was read is taken before more is: only keys are held, however many records they are of.
            if !self.drain(up_to, &mut take) {
                return Err(LiveError::TooFarBehind);
            }
            let behind = self.lanes.iter().zip(up_to).filter(|(lane, to)| lane.read < **to);
            let behind: Vec<_> = behind.map(|(lane, _)| (lane.partition, lane.read)).collect();
            if behind.is_empty() {
                return Ok(());
            }
            if !self.read(&behind).await? {
                // It reaches its readers one after the other; or it lost its end, and is being filled again.
                return Err(LiveError::NotYet);
            }
        }
    }

    /// Takes of what was read what is not beyond these places. Whether there was room for all of it.
    fn drain(&mut self, up_to: &[Sequence], take: &mut impl FnMut(Uuid) -> bool) -> bool {
        for (lane, to) in self.lanes.iter_mut().zip(up_to) {
            while let Some((_, key)) = lane.ahead.pop_front_if(|(sequence, _)| *sequence <= *to) {
                if !take(key) {
                    return false;
                }
            }
            lane.ahead.shrink_to(READ);
        }
        true
    }

    /// Whether the bus had any more.
    async fn read(&mut self, after: &[(Partition, Sequence)]) -> Result<bool, LiveError> {
        let records = self.bus.read(after, READ).await.map_err(LiveError::Unheard)?;
        for record in &records {
            let broken = |reason: String| LiveError::Unheard(PortError::Broken(reason));
            let lane = self.lanes.get_mut(usize::from(record.partition.index()));
            let lane = lane
                .filter(|lane| lane.partition == record.partition && lane.read.next() == record.sequence)
                .ok_or_else(|| broken(format!("the bus does not go on with {}", record.position())))?;
            let keys = keys(record, self.table)
                .map_err(|error| broken(format!("record {} cannot be read: {error}", record.position())))?;
            lane.ahead.extend(keys.into_iter().map(|key| (record.sequence, key)));
            lane.read = record.sequence;
        }
        Ok(!records.is_empty())
    }
}

/// The rows of the table that the record has changed.
fn keys(record: &Record, table: &str) -> Result<BTreeSet<Uuid>, eventsourcing::model::DecodeError> {
    let entry = record.entry::<Financing>()?;
    let changes = FinancingProjection.project(record, &entry);
    Ok(changes.into_iter().filter(|change| change.table == table).map(|change| change.key).collect())
}
