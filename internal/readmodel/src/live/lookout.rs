//! What watches read of the read models.
//!
//! The rule this module protects: however many watches there are, the store is asked once at a time how far the projection is, and for
//! few pages of rows at a time. Whoever asks gets an answer that was looked for after it had asked, and perhaps for others as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::live::LiveError;
use eventsourcing::outcome::Fingerprint;
use eventsourcing::partition::{Partition, PartitionCount, Sequence};
use eventsourcing::ports::{ReadModels, Row, RowQuery};
use tokio::sync::{Mutex, Semaphore};
use uuid::Uuid;

use crate::queries::failed;

/// A place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// In the order of the partitions.
    pub(super) at: Vec<Sequence>,
    /// The records there, where they were looked up.
    pub(super) ids: Vec<Option<Uuid>>,
    /// A fingerprint of them.
    pub(super) log: u64,
}

/// The answer that was found last, also where it is that there is none: a store that is down is not asked by one after the other.
struct Found {
    /// It was looked for after all those had asked whose numbers are smaller.
    before: u64,
    answer: Result<Arc<Place>, LiveError>,
}

/// The store of the read models, as all watches of a process share it.
pub(super) struct Lookout<S> {
    store: Arc<S>,
    partitions: Vec<Partition>,
    /// The number of the next who asks.
    next: AtomicU64,
    found: Mutex<Found>,
    reads: Semaphore,
}

impl<S: ReadModels> Lookout<S> {
    /// Over this store, of which at most so many pages are read at a time.
    pub(super) fn new(store: Arc<S>, partitions: PartitionCount, reads: usize) -> Self {
        let found = Mutex::new(Found { before: 0, answer: Ok(Arc::default()) });
        let (next, reads) = (AtomicU64::new(0), Semaphore::new(reads.max(1)));
        Self { store, partitions: partitions.all().collect(), next, found, reads }
    }

    /// All partitions, in their order.
    pub(super) fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// How far the projection has come, after this was asked.
    pub(super) async fn projected(&self) -> Result<Arc<Place>, LiveError> {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        let mut found = self.found.lock().await;
        if found.before <= number {
            let before = self.next.load(Ordering::Acquire);
            let answer = self.look().await.map(Arc::new);
            *found = Found { before, answer };
        }
        found.answer.clone()
    }

    async fn look(&self) -> Result<Place, LiveError> {
        let projected = self.store.checkpoints(&self.partitions).await.map_err(failed)?;
        let mut at = vec![Sequence::ZERO; self.partitions.len()];
        let mut ids = vec![None; self.partitions.len()];
        for (partition, projected) in projected {
            let index = usize::from(partition.index());
            if let (Some(at), Some(id)) = (at.get_mut(index), ids.get_mut(index)) {
                (*at, *id) = (projected.sequence, projected.record_id);
            }
        }
        let log = fingerprint(&ids);
        Ok(Place { at, ids, log })
    }

    /// A page of rows.
    pub(super) async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, LiveError> {
        // Nobody closes it.
        let _place = self.reads.acquire().await.ok();
        Ok(self.store.rows(query).await.map_err(failed)?)
    }
}

/// Of the records at a place.
pub(super) fn fingerprint(ids: &[Option<Uuid>]) -> u64 {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.unwrap_or_default().into_bytes()).collect();
    let Fingerprint(digest) = Fingerprint::of(&bytes);
    digest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}
