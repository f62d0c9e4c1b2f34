//! The dead letters in the event log.
//!
//! The rule this module protects: a dead letter is found without reading the log: there is an index of them, and nothing else
//! is looked at.

use std::sync::Arc;

use eventsourcing::ports::{DeadCommands, DeadQuery, PortResult};
use eventsourcing::record::Record;

use super::log::{SqliteLog, record};
use super::sql::{Values, rows};

/// The index says which; its name makes sure that it is used.
const DEAD: &str = "SELECT r.partition, r.sequence, r.record_id, r.recorded_at, r.aggregate_type, r.aggregate_id, \
     r.version, r.event_type, r.schema, r.data, r.command_id, r.correlation_id, r.causation_id, r.actor, r.traceparent, \
     r.last_of_command FROM records AS r INDEXED BY dead_commands \
     WHERE r.version IS NULL AND r.event_type = 'CommandDead'";

impl DeadCommands for SqliteLog {
    async fn dead(&self, query: &DeadQuery) -> PortResult<Vec<Arc<Record>>> {
        let (mut text, mut values) = (DEAD.to_owned(), Values::default());
        if let Some(after) = query.after {
            text.push_str(" AND (r.partition, r.sequence) > (?, ?)");
            values.count(u64::from(after.partition.index()))?;
            values.count(after.sequence.get())?;
        }
        if let Some(aggregate) = &query.aggregate {
            text.push_str(" AND r.aggregate_type = ? AND r.aggregate_id = ?");
            values.text(&aggregate.kind)?;
            values.uuid(aggregate.id)?;
        }
        if let Some(record_id) = query.record_id {
            text.push_str(" AND r.record_id = ?");
            values.uuid(record_id)?;
        }
        text.push_str(" ORDER BY r.partition, r.sequence LIMIT ?");
        values.count(u64::try_from(query.limit).unwrap_or(u64::from(u32::MAX)))?;
        let mut reader = self.0.reader().await?;
        rows(&mut reader, text, values).await?.iter().map(|row| record(row).map(Arc::new)).collect()
    }
}
