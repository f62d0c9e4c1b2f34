//! What watches read of the read models.
//!
//! The rule this module protects: however many watches there are, the store is asked once at a time how far the projection is, and for
//! few pages of rows at a time. Whoever asks gets an answer that was looked for after it had asked, and perhaps for others as well.

use std::sync::Arc;

use domain::live::LiveError;
use domain::views::QueryError;
use eventsourcing::outcome::Fingerprint;
use eventsourcing::partition::{Partition, PartitionCount, Sequence};
use eventsourcing::ports::{ReadModels, Row, RowQuery};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::queries::failed;
use crate::together::Together;

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

/// The store of the read models, as all watches of a process share it.
pub(super) struct Lookout<S> {
    store: Arc<S>,
    partitions: Vec<Partition>,
    places: Together<(), Arc<Place>>,
    reads: Semaphore,
}

impl<S: ReadModels> Lookout<S> {
    /// Over this store, of which at most so many pages are read at a time.
    pub(super) fn new(store: Arc<S>, partitions: PartitionCount, reads: usize) -> Self {
        let (places, reads) = (Together::new(usize::MAX), Semaphore::new(reads.max(1)));
        Self { store, partitions: partitions.all().collect(), places, reads }
    }

    /// All partitions, in their order.
    pub(super) fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// How far the projection has come, after this was asked.
    pub(super) async fn projected(&self) -> Result<Arc<Place>, LiveError> {
        let look = |askers: Vec<()>| {
            let (store, partitions) = (Arc::clone(&self.store), self.partitions.clone());
            async move {
                let place = Arc::new(look(store.as_ref(), &partitions).await?);
                Ok(vec![place; askers.len()])
            }
        };
        Ok(self.places.ask((), look).await?)
    }

    /// A page of rows.
    pub(super) async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>, LiveError> {
        // Nobody closes it.
        let _place = self.reads.acquire().await.ok();
        Ok(self.store.rows(query).await.map_err(failed)?)
    }
}

async fn look<S: ReadModels>(store: &S, partitions: &[Partition]) -> Result<Place, QueryError> {
    let projected = store.checkpoints(partitions).await.map_err(failed)?;
    let mut at = vec![Sequence::ZERO; partitions.len()];
    let mut ids = vec![None; partitions.len()];
    for (partition, projected) in projected {
        let index = usize::from(partition.index());
        if let (Some(at), Some(id)) = (at.get_mut(index), ids.get_mut(index)) {
            (*at, *id) = (projected.sequence, projected.record_id);
        }
    }
    let log = fingerprint(&ids);
    Ok(Place { at, ids, log })
}

/// Of the records at a place.
pub(super) fn fingerprint(ids: &[Option<Uuid>]) -> u64 {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.unwrap_or_default().into_bytes()).collect();
    let Fingerprint(digest) = Fingerprint::of(&bytes);
    digest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}
