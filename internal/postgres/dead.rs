//! The dead letters in the event log.
//!
//! The rule this module protects: a dead letter is found without reading the log: there is an index of them, and nothing else
//! is looked at.

use std::sync::Arc;

use eventsourcing::ports::{DeadCommands, DeadQuery, PortResult};
use eventsourcing::record::Record;

use super::log::{PostgresLog, record};
use super::sql::{Values, index, signed};

const DEAD: &str = "SELECT r.partition, r.sequence, r.record_id, r.recorded_at, r.aggregate_type, r.aggregate_id, \
     r.version, r.event_type, r.schema, r.data, r.command_id, r.correlation_id, r.causation_id, r.actor, r.traceparent, \
     r.last_of_command FROM records r WHERE r.version IS NULL AND r.event_type = 'CommandDead' \
     AND ($1::int IS NULL OR (r.partition, r.sequence) > ($1::int, $2::bigint)) \
     AND ($3::text IS NULL OR (r.aggregate_type = $3::text AND r.aggregate_id = $4::uuid)) \
     AND ($5::uuid IS NULL OR r.record_id = $5::uuid) \
     ORDER BY r.partition, r.sequence LIMIT $6::bigint";

impl DeadCommands for PostgresLog {
    async fn dead(&self, query: &DeadQuery) -> PortResult<Vec<Arc<Record>>> {
        let (after, aggregate) = (query.after, query.aggregate.as_ref());
        let values = Values::default()
            .and(after.map(|after| index(after.partition)))?
            .and(after.map(|after| signed(after.sequence.get())).transpose()?)?
            .and(aggregate.map(|aggregate| aggregate.kind.as_ref()))?
            .and(aggregate.map(|aggregate| aggregate.id))?
            .and(query.record_id)?
            .and(i64::try_from(query.limit).unwrap_or(i64::MAX))?;
        let rows = self.database.rows(DEAD, values).await?;
        rows.iter().map(|row| record(row).map(Arc::new)).collect()
    }
}
