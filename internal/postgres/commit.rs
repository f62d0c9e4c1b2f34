//! Appending: facts, outcomes and the progress in the queue, together or not at all.
//!
//! The rule this module protects: a partition's row is locked first, then compared with all that its owner remembers, and
//! only what moved it is written. All of that is one statement: nothing is held open between the owner and the server.

use std::collections::{BTreeMap, BTreeSet};

use eventsourcing::partition::Partition;
use eventsourcing::ports::{Commit, InboxEntry, PartitionCommit, PortError, PortResult, Snapshot};
use eventsourcing::record::Record;

use super::database::Database;
use super::sql::{Values, counts, each, index, indices, partition, signed};

/// `locked` answers with the rows as they are once the lock is had, whatever the statement's snapshot says: an owner that
/// waited for its successor sees the successor's epoch. What is compared afterwards is that row, so nothing that was
/// decided before the wait counts. The records of a part that was not moved are not looked at, so they are in conflict
/// with nothing. Rows are locked in the order of their partitions and outcomes are inserted in the order of their ids, so
/// that two commits do not wait for each other.
macro_rules! append {
    ($kept:literal) => {
        concat!(
            "WITH part AS MATERIALIZED (SELECT * FROM unnest(\
     $1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::uuid[], $7::bigint[], \
     $8::bigint[], $9::bigint[], $10::bigint[], $11::uuid[], $12::bigint[]) \
     AS v(partition, epoch, head, created_at, message, first, index, \
     new_head, new_created_at, new_message, new_first, new_index)), \
     locked AS MATERIALIZED (SELECT * FROM partitions WHERE partition = ANY($1::int[]) ORDER BY partition FOR UPDATE), \
     owned AS MATERIALIZED (SELECT part.* FROM part JOIN locked l ON l.partition = part.partition \
     WHERE l.epoch = part.epoch AND l.head = part.head AND l.queue_created_at IS NOT DISTINCT FROM part.created_at \
     AND l.queue_message IS NOT DISTINCT FROM part.message AND l.queue_first IS NOT DISTINCT FROM part.first \
     AND l.queue_index IS NOT DISTINCT FROM part.index), \
     moved AS (UPDATE partitions p SET head = o.new_head, queue_created_at = o.new_created_at, \
     queue_message = o.new_message, queue_first = o.new_first, queue_index = o.new_index \
     FROM owned o WHERE p.partition = o.partition RETURNING p.partition), \
     written AS (INSERT INTO records (partition, sequence, record_id, recorded_at, aggregate_type, aggregate_id, version, \
     event_type, schema, data, command_id, correlation_id, causation_id, actor, traceparent, last_of_command) \
     SELECT * FROM unnest($13::int[], $14::bigint[], $15::uuid[], $16::bigint[], $17::text[], $18::uuid[], $19::bigint[], \
     $20::text[], $21::int[], $22::text[], $23::uuid[], $24::uuid[], $25::uuid[], $26::text[], $27::text[], $28::bool[]) \
     AS r(partition, sequence, record_id, recorded_at, aggregate_type, aggregate_id, version, \
     event_type, schema, data, command_id, correlation_id, causation_id, actor, traceparent, last_of_command) \
     WHERE r.partition IN (SELECT partition FROM moved)), \
     answered AS (INSERT INTO inbox (command_id, fingerprint, partition, sequence, verdict) \
     SELECT i.command_id, i.fingerprint, i.partition, i.sequence, i.verdict \
     FROM unnest($29::int[], $30::uuid[], $31::bytea[], $32::int[], $33::bigint[], $34::text[]) \
     AS i(part, command_id, fingerprint, partition, sequence, verdict) \
     WHERE i.part IN (SELECT partition FROM moved) ORDER BY i.command_id)",
            $kept,
            " SELECT partition FROM moved"
        )
    };
}

/// Most commits keep no snapshot: the server need not get ready to write one.
const COMMIT: &str = append!("");
const COMMIT_WITH_SNAPSHOTS: &str = append!(
    ", kept AS (INSERT INTO snapshots AS s (aggregate_type, aggregate_id, version, schema, data) \
     SELECT k.aggregate_type, k.aggregate_id, k.version, k.schema, k.data \
     FROM unnest($35::int[], $36::text[], $37::uuid[], $38::bigint[], $39::int[], $40::text[]) \
     AS k(part, aggregate_type, aggregate_id, version, schema, data) \
     WHERE k.part IN (SELECT partition FROM moved) ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET \
     version = excluded.version, schema = excluded.schema, data = excluded.data)"
);

/// Appends the parts whose rows are what their owners remember. One answer a part, in order.
pub(super) async fn commit(database: &Database, parts: &[PartitionCommit]) -> PortResult<Vec<Commit>> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let partitions: BTreeSet<Partition> = parts.iter().map(|part| part.partition).collect();
    if partitions.len() < parts.len() {
        return Err(PortError::Broken("a partition has two parts in one commit".to_owned()));
    }
    parts.iter().try_for_each(follows)?;
    let values = of_parts(Values::default(), parts)?;
    let records: Vec<&Record> = parts.iter().flat_map(|part| &part.records).collect();
    let values = of_records(values, &records)?;
    let values = of_inbox(values, parts)?;
    let rows = if parts.iter().all(|part| part.snapshots.is_empty()) {
        database.rows(COMMIT, values).await?
    } else {
        database.rows(COMMIT_WITH_SNAPSHOTS, of_snapshots(values, parts)?).await?
    };
    let moved: BTreeSet<Partition> = rows.iter().map(|row| partition(row, 0)).collect::<PortResult<_>>()?;
    let answer = |part: &PartitionCommit| {
        if moved.contains(&part.partition) { Commit::Done } else { Commit::Fenced }
    };
    Ok(each(parts, answer))
}

/// Sequences follow the head that is expected.
fn follows(part: &PartitionCommit) -> PortResult<()> {
    let mut next = part.expected.head;
    for record in &part.records {
        next = next.next();
        if record.sequence != next || record.partition != part.partition {
            return Err(PortError::Broken(format!(
                "record {} does not follow {}-{}: nothing was written",
                record.position(),
                part.partition,
                part.expected.head
            )));
        }
    }
    Ok(())
}

fn of_parts(values: Values, parts: &[PartitionCommit]) -> PortResult<Values> {
    let before = each(parts, |part| part.expected.position);
    let known = |of: &dyn Fn(eventsourcing::ports::QueuePosition) -> u64| -> PortResult<Vec<Option<i64>>> {
        before.iter().map(|position| position.map(|position| signed(of(position))).transpose()).collect()
    };
    values
        .and(indices(parts, |part| part.partition))?
        .and(counts(parts, |part| part.expected.epoch.get())?)?
        .and(counts(parts, |part| part.expected.head.get())?)?
        .and(known(&|position| position.created_at)?)?
        .and(known(&|position| position.message)?)?
        .and(each(&before, |position| position.map(|position| position.mark)))?
        .and(known(&|position| u64::from(position.index))?)?
        .and(counts(parts, |part| part.row_after().head.get())?)?
        .and(counts(parts, |part| part.position.created_at)?)?
        .and(counts(parts, |part| part.position.message)?)?
        .and(each(parts, |part| part.position.mark))?
        .and(each(parts, |part| i64::from(part.position.index)))
}

pub(super) fn of_records(values: Values, records: &[&Record]) -> PortResult<Values> {
    let version = |record: &&Record| record.version.map(|version| signed(version.get())).transpose();
    values
        .and(indices(records, |record| record.partition))?
        .and(counts(records, |record| record.sequence.get())?)?
        .and(each(records, |record| record.record_id))?
        .and(counts(records, |record| record.recorded_at.as_micros())?)?
        .and(each(records, |record| record.aggregate.kind.as_ref()))?
        .and(each(records, |record| record.aggregate.id))?
        .and(records.iter().map(version).collect::<PortResult<Vec<_>>>()?)?
        .and(each(records, |record| record.event_type.as_ref()))?
        .and(each(records, |record| i32::from(record.schema)))?
        .and(each(records, |record| record.data.as_str()))?
        .and(each(records, |record| record.command_id))?
        .and(each(records, |record| record.correlation_id))?
        .and(each(records, |record| record.causation_id))?
        .and(each(records, |record| record.actor.as_str()))?
        .and(each(records, |record| record.traceparent.as_deref()))?
        .and(each(records, |record| record.last_of_command))
}

fn of_inbox(values: Values, parts: &[PartitionCommit]) -> PortResult<Values> {
    let entries: Vec<(Partition, &InboxEntry)> =
        parts.iter().flat_map(|part| part.inbox.iter().map(|entry| (part.partition, entry))).collect();
    let verdict = |(_, entry): &(Partition, &InboxEntry)| {
        let verdict = serde_json::to_string(&entry.outcome.verdict);
        verdict.map_err(|error| PortError::Content(error.to_string()))
    };
    values
        .and(indices(&entries, |(partition, _)| *partition))?
        .and(each(&entries, |(_, entry)| entry.outcome.command_id))?
        .and(each(&entries, |(_, entry)| entry.fingerprint.0.as_slice()))?
        .and(indices(&entries, |(_, entry)| entry.outcome.position.partition))?
        .and(counts(&entries, |(_, entry)| entry.outcome.position.sequence.get())?)?
        .and(entries.iter().map(verdict).collect::<PortResult<Vec<_>>>()?)
}

fn of_snapshots(values: Values, parts: &[PartitionCommit]) -> PortResult<Values> {
    // Of two snapshots of one aggregate the later counts: one statement changes a row once.
    let latest: BTreeMap<_, (Partition, &Snapshot)> = parts
        .iter()
        .flat_map(|part| part.snapshots.iter().map(|snapshot| (part.partition, snapshot)))
        .map(|(partition, snapshot)| (&snapshot.aggregate, (partition, snapshot)))
        .collect();
    let snapshots: Vec<(Partition, &Snapshot)> = latest.into_values().collect();
    values
        .and(each(&snapshots, |(partition, _)| index(*partition)))?
        .and(each(&snapshots, |(_, snapshot)| snapshot.aggregate.kind.as_ref()))?
        .and(each(&snapshots, |(_, snapshot)| snapshot.aggregate.id))?
        .and(counts(&snapshots, |(_, snapshot)| snapshot.version.get())?)?
        .and(each(&snapshots, |(_, snapshot)| i32::from(snapshot.state.schema)))?
        .and(each(&snapshots, |(_, snapshot)| snapshot.state.data.as_str()))
}
