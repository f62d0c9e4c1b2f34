//! The event bus.
//!
//! The rule this module protects: the n-th message of a partition's stream is the n-th record of its log.

use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use super::PortResult;
use crate::partition::{LogPosition, Partition, Sequence};
use crate::record::Record;

/// Records for one partition's stream.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Which partition.
    pub partition: Partition,
    /// The stream's last sequence as the relayer remembers it: where it is another, the bus refuses.
    pub expected: Sequence,
    /// The records, from `expected + 1`.
    pub records: Vec<Arc<Record>>,
}

/// The end of a partition's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusTail {
    /// Which partition.
    pub partition: Partition,
    /// The last sequence; zero for an empty stream.
    pub last: Sequence,
    /// The id of that record; `None` for an empty stream.
    pub record_id: Option<Uuid>,
}

/// The event bus: one stream a partition, whose n-th message is the n-th record of that partition of the log.
pub trait EventBus: Send + Sync + 'static {
    /// Where the streams end.
    fn tails(&self, partitions: &[Partition]) -> impl Future<Output = PortResult<Vec<BusTail>>> + Send;

    /// Publishes. One answer a publication, in order. An unexpected end of the stream is a [`PortError::Conflict`](super::PortError::Conflict);
    /// after any error what happened is unknown: ask for the tail.
    fn publish(&self, publications: Vec<Publication>) -> impl Future<Output = Vec<PortResult<()>>> + Send;

    /// Published records after the given sequences, at most `limit` in all, in order within each partition. The
    /// partitions are served in the order of the request: a caller with a limit rotates it.
    ///
    /// Behind a connection that was made anew may be another bus: the first read of this handle after it is a
    /// [`PortError::Unavailable`](super::PortError::Unavailable), so that its reader compares where it stands.
    fn read(
        &self,
        after: &[(Partition, Sequence)],
        limit: usize,
    ) -> impl Future<Output = PortResult<Vec<Arc<Record>>>> + Send;

    /// The published records at these positions, one answer a position, in order; `None` where the stream has none there
    /// (yet). For whoever knows what to look for: nothing is proven by it.
    fn records(
        &self,
        positions: &[LogPosition],
    ) -> impl Future<Output = PortResult<Vec<Option<Arc<Record>>>>> + Send;
}
