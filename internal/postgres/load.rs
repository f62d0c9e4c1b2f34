//! Loading what a batch of commands needs to know, in one statement.
//!
//! The rule this module protects: a history is complete. The snapshots and the events behind them are read from one
//! snapshot of the database, so whatever is written meanwhile, there is no gap between them.

use eventsourcing::model::{AggregateRef, EncodedSnapshot};
use eventsourcing::outcome::{Fingerprint, Outcome};
use eventsourcing::partition::Version;
use eventsourcing::ports::{
    History, InboxEntry, LoadRequest, Loaded, PortError, PortResult, Snapshot, StoredEvent,
};
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::database::Database;
use super::sql::{Values, count, each, get, position, unsigned};

/// What a row is about: its first column.
mod about {
    pub(super) const OUTCOME: i32 = 0;
    pub(super) const SNAPSHOT: i32 = 1;
    pub(super) const EVENT: i32 = 2;
    pub(super) const EXISTING: i32 = 3;
}

/// Four questions, and one shape for their answers: what it is about, the place in the request, then a partition or a
/// schema, a sequence or a version, a name, a text, and what only outcomes have. `OFFSET 0` keeps each look-up a look-up
/// by its index, one for each item of the request.
const LOAD: &str = "WITH wanted AS MATERIALIZED (\
     SELECT w.place, w.kind, w.id, s.version, s.schema, s.data \
     FROM unnest($2::text[], $3::uuid[]) WITH ORDINALITY AS w(kind, id, place) \
     LEFT JOIN LATERAL (SELECT s.version, s.schema, s.data FROM snapshots s \
     WHERE s.aggregate_type = w.kind AND s.aggregate_id = w.id AND NOT $4::bool OFFSET 0) s ON true) \
     SELECT 0, 0::bigint, i.partition, i.sequence, NULL::text, i.verdict, i.command_id, i.fingerprint \
     FROM unnest($1::uuid[]) AS c(id) \
     CROSS JOIN LATERAL (SELECT * FROM inbox WHERE command_id = c.id OFFSET 0) i \
     UNION ALL SELECT 1, w.place, w.schema, w.version, NULL, w.data, NULL, NULL FROM wanted w WHERE w.version IS NOT NULL \
     UNION ALL SELECT 2, w.place, r.schema, r.version, r.event_type, r.data, NULL, NULL FROM wanted w \
     CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.aggregate_type = w.kind AND r.aggregate_id = w.id \
     AND r.version > COALESCE(w.version, 0) ORDER BY r.version) r \
     UNION ALL SELECT 3, e.place, NULL, NULL, NULL, NULL, NULL, NULL \
     FROM unnest($5::text[], $6::uuid[]) WITH ORDINALITY AS e(kind, id, place) \
     CROSS JOIN LATERAL (SELECT FROM records r \
     WHERE r.aggregate_type = e.kind AND r.aggregate_id = e.id AND r.version = 1 OFFSET 0) r";

/// Answers a worker's request.
pub(super) async fn load(database: &Database, request: &LoadRequest) -> PortResult<Loaded> {
    let mut loaded =
        Loaded { histories: vec![History::default(); request.aggregates.len()], ..Loaded::default() };
    if request.commands.is_empty() && request.aggregates.is_empty() && request.references.is_empty() {
        return Ok(loaded);
    }
    let values = Values::default()
        .and(request.commands.as_slice())?
        .and(each(&request.aggregates, |aggregate| aggregate.kind.as_ref()))?
        .and(each(&request.aggregates, |aggregate| aggregate.id))?
        .and(request.full)?
        .and(each(&request.references, |aggregate| aggregate.kind.as_ref()))?
        .and(each(&request.references, |aggregate| aggregate.id))?;
    for row in &database.rows(LOAD, values).await? {
        take(row, request, &mut loaded)?;
    }
    for history in &mut loaded.histories {
        history.events.sort_by_key(|event| event.version);
    }
    Ok(loaded)
}

fn take(row: &PgRow, request: &LoadRequest, loaded: &mut Loaded) -> PortResult<()> {
    // Ordinality counts from 1; an outcome has no place.
    let place = usize::try_from(count(row, 1)?.saturating_sub(1)).unwrap_or(usize::MAX);
    match get::<i32>(row, 0)? {
        about::OUTCOME => loaded.inbox.push(outcome(row)?),
        about::SNAPSHOT => {
            let history = loaded.histories.get_mut(place);
            if let (Some(history), Some(aggregate)) = (history, request.aggregates.get(place)) {
                history.snapshot = Some(snapshot(row, aggregate)?);
            }
        }
        about::EVENT => {
            let event = event(row)?;
            if let Some(history) = loaded.histories.get_mut(place) {
                history.events.push(event);
            }
        }
        about::EXISTING => loaded.existing.extend(request.references.get(place).cloned()),
        other => return Err(PortError::Broken(format!("a row that was loaded is about {other}"))),
    }
    Ok(())
}

fn snapshot(row: &PgRow, aggregate: &AggregateRef) -> PortResult<Snapshot> {
    Ok(Snapshot {
        aggregate: aggregate.clone(),
        version: Version::new(count(row, 3)?),
        state: EncodedSnapshot { schema: unsigned(get::<i32>(row, 2)?)?, data: get(row, 5)? },
    })
}

fn event(row: &PgRow) -> PortResult<StoredEvent> {
    Ok(StoredEvent {
        version: Version::new(count(row, 3)?),
        event_type: get(row, 4)?,
        schema: unsigned(get::<i32>(row, 2)?)?,
        data: get(row, 5)?,
    })
}

fn outcome(row: &PgRow) -> PortResult<InboxEntry> {
    let broken = |what: String| PortError::Broken(format!("an inbox row cannot be read: {what}"));
    let fingerprint: [u8; 32] = get::<&[u8]>(row, 7)?
        .try_into()
        .map_err(|_| broken("its fingerprint has another length".to_owned()))?;
    let verdict: &str = get(row, 5)?;
    Ok(InboxEntry {
        fingerprint: Fingerprint(fingerprint),
        outcome: Outcome {
            command_id: get::<Uuid>(row, 6)?,
            position: position(row, 2)?,
            verdict: serde_json::from_str(verdict).map_err(|error| broken(error.to_string()))?,
        },
    })
}
