//! Loading what a batch of commands needs to know, in four statements at most.
//!
//! The rule this module protects: a history is complete. The snapshot is read before the events, so a snapshot that is
//! written in between leaves an older one and all the events behind it, never a gap.

use std::collections::HashMap;

use eventsourcing::model::{AggregateRef, EncodedSnapshot};
use eventsourcing::outcome::{Fingerprint, Outcome};
use eventsourcing::partition::{LogPosition, Sequence, Version};
use eventsourcing::ports::{
    History, InboxEntry, LoadRequest, Loaded, PortError, PortResult, Snapshot, StoredEvent,
};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::log::partition;
use super::sql::{Many, count, get, unsigned, uuid};

static INBOX: Many = Many::new(
    "SELECT i.command_id, i.fingerprint, i.partition, i.sequence, i.verdict FROM (VALUES ",
    1,
    ") AS v CROSS JOIN inbox AS i ON i.command_id = v.column1",
);

static SNAPSHOTS: Many = Many::new(
    "SELECT v.column1, s.version, s.schema, s.data FROM (VALUES ",
    3,
    ") AS v CROSS JOIN snapshots AS s ON s.aggregate_type = v.column2 AND s.aggregate_id = v.column3",
);

static EVENTS: Many = Many::new(
    "SELECT v.column1, r.version, r.event_type, r.schema, r.data FROM (VALUES ",
    4,
    ") AS v CROSS JOIN records AS r ON r.aggregate_type = v.column2 AND r.aggregate_id = v.column3 \
     AND r.version IS NOT NULL AND r.version > v.column4",
);

static EXISTING: Many = Many::new(
    "SELECT v.column1 FROM (VALUES ",
    3,
    ") AS v CROSS JOIN records AS r ON r.aggregate_type = v.column2 AND r.aggregate_id = v.column3 \
     AND r.version IS NOT NULL AND r.version = 1",
);

/// Answers a worker's request.
pub(super) async fn load(connection: &mut SqliteConnection, request: &LoadRequest) -> PortResult<Loaded> {
    let seen = INBOX.fetch(connection, &request.commands, |values, command| values.uuid(*command)).await?;
    let inbox = seen.iter().map(inbox_entry).collect::<PortResult<_>>()?;
    let histories = histories(connection, &request.aggregates, request.full).await?;
    let references: Vec<(u64, &AggregateRef)> = (0..).zip(&request.references).collect();
    let found = EXISTING
        .fetch(connection, &references, |values, (number, aggregate)| {
            values.count(*number)?;
            values.text(&aggregate.kind)?;
            values.uuid(aggregate.id)
        })
        .await?;
    let mut existing = Vec::with_capacity(found.len());
    for row in &found {
        existing.extend(request.references.get(number(row)?).cloned());
    }
    Ok(Loaded { inbox, histories, existing })
}

async fn histories(
    connection: &mut SqliteConnection,
    aggregates: &[AggregateRef],
    full: bool,
) -> PortResult<Vec<History>> {
    let mut histories = vec![History::default(); aggregates.len()];
    // An aggregate that is asked for twice gets its history twice.
    let numbered: Vec<(u64, &AggregateRef)> = (0..).zip(aggregates).collect();
    if !full {
        let found = SNAPSHOTS
            .fetch(connection, &numbered, |values, (number, aggregate)| {
                values.count(*number)?;
                values.text(&aggregate.kind)?;
                values.uuid(aggregate.id)
            })
            .await?;
        for row in &found {
            let number = number(row)?;
            if let (Some(history), Some(aggregate)) = (histories.get_mut(number), aggregates.get(number)) {
                history.snapshot = Some(Snapshot {
                    aggregate: aggregate.clone(),
                    version: Version::new(count(row, 1)?),
                    state: EncodedSnapshot { schema: unsigned(get(row, 2)?)?, data: get(row, 3)? },
                });
            }
        }
    }
    let from: HashMap<u64, u64> = (0..)
        .zip(&histories)
        .filter_map(|(number, history)| Some((number, history.snapshot.as_ref()?.version.get())))
        .collect();
    let found = EVENTS
        .fetch(connection, &numbered, |values, (number, aggregate)| {
            values.count(*number)?;
            values.text(&aggregate.kind)?;
            values.uuid(aggregate.id)?;
            values.count(from.get(number).copied().unwrap_or_default())
        })
        .await?;
    for row in &found {
        let event = StoredEvent {
            version: Version::new(count(row, 1)?),
            event_type: get(row, 2)?,
            schema: unsigned(get(row, 3)?)?,
            data: get(row, 4)?,
        };
        if let Some(history) = histories.get_mut(number(row)?) {
            history.events.push(event);
        }
    }
    for history in &mut histories {
        history.events.sort_by_key(|event| event.version);
    }
    Ok(histories)
}

fn number(row: &SqliteRow) -> PortResult<usize> {
    unsigned(get(row, 0)?)
}

fn inbox_entry(row: &SqliteRow) -> PortResult<InboxEntry> {
    let broken = |what: String| PortError::Broken(format!("an inbox row cannot be read: {what}"));
    let fingerprint: [u8; 32] =
        get::<&[u8]>(row, 1)?.try_into().map_err(|_| broken("its fingerprint is too short".to_owned()))?;
    let verdict: &str = get(row, 4)?;
    Ok(InboxEntry {
        fingerprint: Fingerprint(fingerprint),
        outcome: Outcome {
            command_id: uuid(row, 0)?,
            position: LogPosition { partition: partition(row, 2)?, sequence: Sequence::new(count(row, 3)?) },
            verdict: serde_json::from_str(verdict).map_err(|error| broken(error.to_string()))?,
        },
    })
}
