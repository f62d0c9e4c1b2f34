//! How much waits in the command queue.
//!
//! The rule this module protects: whoever counts reads, and no more: counting neither locks nor changes anything.

use eventsourcing::partition::Partition;
use eventsourcing::ports::{PortResult, QueuePosition};
use eventsourcing::queue::{Depth, Waiting};

use super::queue::SqliteQueue;
use super::sql::{Many, count};

static DEPTH: Many = Many::new(
    "SELECT COUNT(*), COALESCE(SUM(LENGTH(q.payload)), 0) FROM (VALUES ",
    2,
    ") AS v CROSS JOIN queue AS q ON q.partition = v.column1 AND q.message > v.column2",
);

impl Waiting for SqliteQueue {
    async fn depth(&self, behind: &[(Partition, Option<QueuePosition>)]) -> PortResult<Depth> {
        let mut reader = self.0.reader().await?;
        let rows = DEPTH
            .fetch(&mut reader, behind, |values, (partition, position)| {
                values.count(u64::from(partition.index()))?;
                values.count(position.map_or(0, |position| position.message))
            })
            .await?;
        let mut depth = Depth::default();
        for row in &rows {
            depth.messages = depth.messages.saturating_add(count(row, 0)?);
            depth.bytes = depth.bytes.saturating_add(count(row, 1)?);
        }
        Ok(depth)
    }
}
