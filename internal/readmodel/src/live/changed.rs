//! The keys of a table's rows that records have changed.
//!
//! The rule this module protects: exactly what the projection changes in the table, of every record between two places, and of
//! no other. A key is known only with its record's place, so that it is clear on which side of a place the change lies.

use std::sync::Arc;

use domain::live::LiveError;
use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::EventBus;
use uuid::Uuid;

use super::recent::{READ, Recent, Told, follows, unreadable};
use super::touched;

/// What the bus says was changed, in the order of each partition.
pub(super) struct Changed<B> {
    recent: Arc<Recent<B>>,
    table: &'static str,
    /// In the order of the partitions.
    lanes: Vec<Lane>,
    /// The most records that are read at once.
    most: u64,
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    partition: Partition,
    /// The last record of which all was taken.
    taken: Sequence,
}

impl Lane {
    const fn place(&self) -> (Partition, Sequence) {
        (self.partition, self.taken)
    }
}

impl<B: EventBus> Changed<B> {
    /// Changes of this table after these places; at most so many records of them.
    pub(super) fn after(
        recent: Arc<Recent<B>>,
        table: &'static str,
        places: impl IntoIterator<Item = (Partition, Sequence)>,
        most: u64,
    ) -> Self {
        let lane = |(partition, at)| Lane { partition, taken: at };
        Self { recent, table, lanes: places.into_iter().map(lane).collect(), most }
    }

    /// Has some of what the bus has beyond what is known read, so that it need not be read between two looks at the store.
    pub(super) async fn look_ahead(&mut self) -> Result<(), LiveError> {
        let after: Vec<_> = self.lanes.iter().map(Lane::place).collect();
        self.recent.look_ahead(&after).await
    }

    /// The keys that were changed up to these places, and not taken before. Whoever takes them says whether there is room for
    /// more: where there is none, whatever comes behind is not read.
    pub(super) async fn take(
        &mut self,
        up_to: &[Sequence],
        mut take: impl FnMut(Uuid) -> bool,
    ) -> Result<(), LiveError> {
        let unread = |(lane, to): (&Lane, &Sequence)| to.get().saturating_sub(lane.taken.get());
        let missing: u64 = self.lanes.iter().zip(up_to).map(unread).sum();
        if missing > self.most {
            return Err(LiveError::TooFarBehind);
        }
        loop {
            // What is known is taken before more is read: only keys are held, however many records they are of.
            let (mut below, mut at_the_end) = (Vec::new(), Vec::new());
            for (index, (lane, to)) in self.lanes.iter_mut().zip(up_to).enumerate() {
                if lane.taken >= *to {
                    continue;
                }
                match self.recent.tell(lane.partition, (lane.taken, *to), self.table, &mut take) {
                    Told::Full => return Err(LiveError::TooFarBehind),
                    Told::Below => below.push((index, *to)),
                    Told::UpTo(told) => {
                        lane.taken = told;
                        at_the_end.extend((told < *to).then(|| lane.place()));
                    }
                }
            }
            if below.is_empty() && at_the_end.is_empty() {
                return Ok(());
            }
            let alone = !below.is_empty() && self.read_alone(&below, &mut take).await?;
            let together = !at_the_end.is_empty() && self.recent.read_on(&at_the_end).await?;
            if !alone && !together {
                // It reaches its readers one after the other; or it lost its end, and is being filled again.
                return Err(LiveError::NotYet);
            }
        }
    }

    /// Reads some of what the others have behind them. Whether there was any.
    async fn read_alone(
        &mut self,
        below: &[(usize, Sequence)],
        take: &mut impl FnMut(Uuid) -> bool,
    ) -> Result<bool, LiveError> {
        let after: Vec<_> =
            below.iter().filter_map(|(index, _)| self.lanes.get(*index).map(Lane::place)).collect();
        let records = self.recent.bus().read(&after, READ).await.map_err(LiveError::Unheard)?;
        for (index, to) in below {
            let Some(lane) = self.lanes.get_mut(*index) else { continue };
            let of_lane = records.iter().filter(|record| record.partition == lane.partition);
            for record in of_lane.take_while(|record| record.sequence <= *to) {
                let sequence = follows(record, lane.taken)?;
                let rows =
                    touched::rows_of(self.table, record).map_err(|error| unreadable(record, &error))?;
                if !rows.into_iter().all(|(_, key)| take(key)) {
                    return Err(LiveError::TooFarBehind);
                }
                lane.taken = sequence;
            }
        }
        Ok(!records.is_empty())
    }
}
