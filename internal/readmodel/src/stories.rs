//! Reading what a story is made of: the rows of its commands, and their records on the bus.
//!
//! The rule this module protects: a story costs what it tells. The rows say where its records stand, so no log is searched, and
//! what may be told at once is bounded.

use std::sync::Arc;

use domain::ids::InvoiceId;
use domain::story::{Stories, StoryView, StuckView};
use domain::views::{Queries as _, QueryError};
use eventsourcing::environment::Timestamp;
use eventsourcing::partition::LogPosition;
use eventsourcing::ports::{EventBus, PortResult, RankedQuery, ReadModels, Row, Test, Value};
use eventsourcing::record::Record;

use crate::queries::{Fields, ReadModelQueries, failed};
use crate::story::{Known, Records, assemble, before, first_of, stuck};
use crate::tables::COMMANDS;

/// The most commands that a story tells.
pub const MOST_COMMANDS: u32 = 1_000;

fn known(row: &Row) -> Result<Known, QueryError> {
    let row = Fields::of(COMMANDS, row);
    if row.has("state") {
        return row.position("log_partition", "log_sequence").map(Known::Ended);
    }
    let cause = row.position("cause_partition", "cause_sequence")?;
    Ok(Known::Expected { command_id: row.key, cause })
}

/// Records of the bus, put beside those that are there.
async fn fetch<B: EventBus>(
    bus: &B,
    positions: &[LogPosition],
    records: &mut Records,
) -> Result<(), QueryError> {
    let found = bus.records(positions).await.map_err(failed)?;
    records.extend(found.into_iter().flatten().map(|record| (record.position(), record)));
    Ok(())
}

/// The records of these commands: the last of each, and those before it of the same command.
async fn records<B: EventBus>(bus: &B, known: &[Known]) -> Result<Records, QueryError> {
    let mut records = Records::new();
    let mut wanted: Vec<LogPosition> = known.iter().map(|known| known.position()).collect();
    loop {
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(records);
        }
        fetch(bus, &wanted, &mut records).await?;
        // Only facts come several at a time.
        let is_fact = |record: &Arc<Record>| record.version.is_some();
        let earlier = |known: &Known| {
            let first = first_of(&records, known.position());
            records.get(&first).filter(|record| is_fact(record)).and_then(|_| before(first))
        };
        let earlier = known.iter().filter_map(earlier).filter(|position| !records.contains_key(position));
        // What was asked for and is not there is not asked for again.
        wanted = earlier.filter(|position| wanted.binary_search(position).is_err()).collect();
    }
}

/// Steps of sagas that should have been taken and were not, the oldest first: those whose cause is at most so new.
fn open_steps(up_to: i64, limit: u32) -> RankedQuery {
    RankedQuery { table: COMMANDS.name, conditions: vec![("state", Test::Absent)], by: "since", up_to, limit }
}

/// Since when the oldest step of a saga waits that was not taken; `None` where all were taken.
///
/// # Errors
///
/// When the read models cannot be read.
pub async fn oldest_unsettled<S: ReadModels>(models: &S) -> PortResult<Option<Timestamp>> {
    let rows = models.ranked(&open_steps(i64::MAX, 1)).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let column = COMMANDS.columns.iter().position(|column| column.name == "since");
    let since = column.and_then(|column| row.values.get(column)?.as_ref()?.integer());
    Ok(since.and_then(|since| u64::try_from(since).ok()).map(Timestamp::from_micros))
}

impl<S: ReadModels> Stories for ReadModelQueries<S> {
    async fn story<B: EventBus>(
        &self,
        bus: &B,
        invoice_id: InvoiceId,
    ) -> Result<Option<StoryView>, QueryError> {
        let most = usize::try_from(MOST_COMMANDS).unwrap_or(usize::MAX);
        let query = RankedQuery {
            table: COMMANDS.name,
            conditions: vec![("invoice_id", Test::Is(Value::Uuid(invoice_id.as_uuid())))],
            by: "since",
            up_to: i64::MAX,
            limit: MOST_COMMANDS.saturating_add(1),
        };
        let mut rows = self.0.ranked(&query).await.map_err(failed)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let truncated = rows.len() > most;
        rows.truncate(most);
        let known = rows.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        let records = records(bus, &known).await?;
        let invoice = if truncated { self.invoice(invoice_id).await? } else { None };
        assemble(invoice_id, &known, &records, invoice.as_ref(), truncated).map(Some)
    }

    async fn stuck<B: EventBus>(
        &self,
        bus: &B,
        up_to: Timestamp,
        limit: u32,
    ) -> Result<Vec<StuckView>, QueryError> {
        let query = open_steps(i64::try_from(up_to.as_micros()).unwrap_or(i64::MAX), limit);
        let rows = self.0.ranked(&query).await.map_err(failed)?;
        let mut steps = Vec::with_capacity(rows.len());
        for row in &rows {
            let row = Fields::of(COMMANDS, row);
            steps.push((row.key, row.position("cause_partition", "cause_sequence")?));
        }
        let causes: Vec<LogPosition> = steps.iter().map(|(_, cause)| *cause).collect();
        let mut records = Records::new();
        fetch(bus, &causes, &mut records).await?;
        steps.into_iter().map(|(command_id, cause)| stuck(command_id, cause, &records)).collect()
    }
}
