//! Reading what a story is made of: the rows of its commands, and their records on the bus.
//!
//! The rule this module protects: a story costs what it tells. The rows say where its records stand, so no log is searched, and
//! what may be told at once is bounded.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use domain::ids::InvoiceId;
use domain::story::{Stories, StoryView, StuckView, UnreadableStep};
use domain::views::{Queries as _, QueryError};
use eventsourcing::environment::Timestamp;
use eventsourcing::letters::resolution_id;
use eventsourcing::partition::{LogPosition, Partition};
use eventsourcing::ports::{
    EventBus, PortError, PortResult, Projected, RankedQuery, ReadModels, Row, RowQuery, Test, Value,
};
use eventsourcing::record::Record;
use uuid::Uuid;

use crate::queries::{Fields, ReadModelQueries, failed};
use crate::story::{Known, Records, assemble, before, first_of, stuck, unanswered};
use crate::tables::COMMANDS;

/// The most commands that a story tells, but for what was done about those of them that died.
pub const MOST_COMMANDS: u32 = 1_000;

/// The most rows that are looked up at once by their keys.
const MOST_KEYS: usize = 1_000;

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

/// Reads the records of these commands: the last of each, and those before it of the same command.
async fn read<B: EventBus>(bus: &B, known: &[Known], records: &mut Records) -> Result<(), QueryError> {
    let mut wanted: Vec<LogPosition> = known.iter().map(|known| known.position()).collect();
    loop {
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        fetch(bus, &wanted, records).await?;
        // Only facts come several at a time.
        let is_fact = |record: &Arc<Record>| record.version.is_some();
        let earlier = |known: &Known| {
            let first = first_of(records, known.position());
            records.get(&first).filter(|record| is_fact(record)).and_then(|_| before(first))
        };
        let earlier = known.iter().filter_map(earlier).filter(|position| !records.contains_key(position));
        // What was asked for and is not there is not asked for again.
        wanted = earlier.filter(|position| wanted.binary_search(position).is_err()).collect();
    }
}

/// What was done about these dead letters. That one was discarded is about no invoice, and so is the retry of what cannot be read; but
/// the id of either says which letter it is of.
async fn resolutions<S: ReadModels>(models: &S, letters: &[Uuid]) -> Result<Vec<Known>, QueryError> {
    let mut resolutions = Vec::new();
    for letters in letters.chunks(MOST_KEYS) {
        let query = RowQuery {
            table: COMMANDS.name,
            conditions: vec![("state", Test::Present)],
            keys: Some(letters.iter().map(|letter| resolution_id(*letter)).collect()),
            after: None,
            limit: u32::try_from(letters.len()).unwrap_or(u32::MAX),
        };
        let rows = models.rows(&query).await.map_err(failed)?;
        resolutions.extend(rows.iter().map(known).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(resolutions)
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

/// A step's row, as far as it can be read.
struct Step {
    command_id: Uuid,
    since: Option<Timestamp>,
    cause: Result<LogPosition, QueryError>,
}

impl Step {
    fn of(row: &Row) -> Self {
        let row = Fields::of(COMMANDS, row);
        let since = row.integer("since").ok().and_then(|since| u64::try_from(since).ok());
        let cause = row.position("cause_partition", "cause_sequence");
        Self { command_id: row.key, since: since.map(Timestamp::from_micros), cause }
    }

    /// A cause was projected, or there would be no row of it.
    fn prove(&mut self, projected: &BTreeMap<Partition, Projected>) {
        let Ok(cause) = self.cause else { return };
        if projected.get(&cause.partition).is_none_or(|projected| projected.sequence < cause.sequence) {
            let what = format!("its cause is at {cause}, which was not projected");
            self.cause = Err(QueryError::Corrupt(what));
        }
    }

    fn told(self, causes: &Causes) -> Result<StuckView, UnreadableStep> {
        let Self { command_id, since, cause } = self;
        let told = cause.and_then(|cause| match causes.unread.get(&cause) {
            Some(error) => Err(failed(error.clone())),
            None => stuck(command_id, cause, &causes.records),
        });
        told.map_err(|error| UnreadableStep { command_id, since, what: error.to_string() })
    }
}

/// What the bus says of the causes of steps.
#[derive(Default)]
struct Causes {
    records: Records,
    /// Why it does not say it of these.
    unread: BTreeMap<LogPosition, PortError>,
}

impl Causes {
    async fn read<B: EventBus>(bus: &B, positions: &[LogPosition]) -> Result<Self, QueryError> {
        let mut causes = Self::default();
        match bus.records(positions).await {
            Ok(found) => causes.take(found),
            Err(error @ PortError::Unavailable(_)) => return Err(failed(error)),
            // One of them is broken, and hides no other.
            Err(_) => {
                for position in positions {
                    match bus.records(&[*position]).await {
                        Ok(found) => causes.take(found),
                        Err(error @ PortError::Unavailable(_)) => return Err(failed(error)),
                        Err(error) => {
                            causes.unread.insert(*position, error);
                        }
                    }
                }
            }
        }
        Ok(causes)
    }

    fn take(&mut self, found: Vec<Option<Arc<Record>>>) {
        self.records.extend(found.into_iter().flatten().map(|record| (record.position(), record)));
    }
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
        let mut rows = self.store.ranked(&query).await.map_err(failed)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let truncated = rows.len() > most;
        rows.truncate(most);
        let mut known = rows.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        let mut records = Records::new();
        read(bus, &known, &mut records).await?;
        let mut asked = HashSet::new();
        loop {
            let mut letters = unanswered(&known, &records);
            letters.retain(|letter| asked.insert(*letter));
            if letters.is_empty() {
                break;
            }
            // A retry may have died itself: then it is looked for what was done about that.
            let resolutions = resolutions(self.store.as_ref(), &letters).await?;
            read(bus, &resolutions, &mut records).await?;
            known.extend(resolutions);
        }
        let invoice = if truncated { self.invoice(invoice_id).await? } else { None };
        assemble(invoice_id, &known, &records, invoice.as_ref(), truncated).map(Some)
    }

    async fn stuck<B: EventBus>(
        &self,
        bus: &B,
        up_to: Timestamp,
        limit: u32,
    ) -> Result<Vec<Result<StuckView, UnreadableStep>>, QueryError> {
        let query = open_steps(i64::try_from(up_to.as_micros()).unwrap_or(i64::MAX), limit);
        let rows = self.store.ranked(&query).await.map_err(failed)?;
        let mut steps: Vec<Step> = rows.iter().map(Step::of).collect();
        let mut partitions: Vec<Partition> =
            steps.iter().filter_map(|step| step.cause.as_ref().ok()).map(|cause| cause.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        // Read after the rows, so it is at least as far as they are.
        let projected = self.store.checkpoints(&partitions).await.map_err(failed)?.into_iter().collect();
        for step in &mut steps {
            step.prove(&projected);
        }
        let known: Vec<LogPosition> =
            steps.iter().filter_map(|step| step.cause.as_ref().ok()).copied().collect();
        let causes = Causes::read(bus, &known).await?;
        Ok(steps.into_iter().map(|step| step.told(&causes)).collect())
    }
}
