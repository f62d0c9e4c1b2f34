//! The statements, which are the same over both databases.
//!
//! The rule this module protects: whatever the size of a table, only a page of it is in memory.

use futures_util::TryStreamExt as _;
use sqlx::{Row as _, query};
use uuid::Uuid;

use super::{Connection, Database};
use crate::{Audit, PartitionRow, Record, Row};

type Stored = <Database as sqlx::Database>::Row;

/// Records read at once of one partition.
const PAGE: i64 = 2_000;

fn counter(row: &Stored, column: usize) -> sqlx::Result<u64> {
    unsigned(row.try_get::<i64, _>(column)?)
}

fn unsigned<T: TryFrom<i64>>(value: i64) -> sqlx::Result<T> {
    let wrong = || sqlx::Error::Decode(format!("{value} is stored where it cannot be").into());
    T::try_from(value).map_err(|_| wrong())
}

fn partition(row: &Stored, column: usize) -> sqlx::Result<u16> {
    unsigned(row.try_get::<i64, _>(column)?)
}

/// The read models' checkpoints.
pub(in crate::stores) async fn projected(
    connection: &mut Connection,
    partitions: u16,
    audit: &mut Audit,
) -> sqlx::Result<()> {
    // Where there is no row, nothing is projected yet.
    for index in 0..partitions {
        audit.projected(index, 0, None);
    }
    let mut rows =
        query("SELECT CAST(partition AS bigint), sequence, record_id FROM checkpoints").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        audit.projected(partition(&row, 0)?, counter(&row, 1)?, row.try_get(2)?);
    }
    Ok(())
}

/// How far the policies have come.
pub(in crate::stores) async fn checkpoints(
    connection: &mut Connection,
    audit: &mut Audit,
) -> sqlx::Result<()> {
    let mut rows =
        query("SELECT reader, CAST(partition AS bigint), sequence FROM checkpoints").fetch(connection);
    while let Some(row) = rows.try_next().await? {
        audit.checkpoint(row.try_get(0)?, partition(&row, 1)?, counter(&row, 2)?);
    }
    Ok(())
}

/// Snapshots of aggregates.
pub(in crate::stores) async fn snapshots(connection: &mut Connection, audit: &mut Audit) -> sqlx::Result<()> {
    let mut rows =
        query("SELECT aggregate_type, aggregate_id, version, CAST(schema AS bigint), data FROM snapshots")
            .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let schema = unsigned(row.try_get(3)?)?;
        audit.snapshot(row.try_get(0)?, row.try_get(1)?, counter(&row, 2)?, schema, row.try_get(4)?);
    }
    Ok(())
}

/// The log. The partitions are read side by side, always the one that is furthest behind in time: so a cause and its
/// effect meet soon, wherever they stand.
pub(in crate::stores) async fn log(
    connection: &mut Connection,
    partitions: u16,
    audit: &mut Audit,
) -> sqlx::Result<()> {
    // When the last record that was read was written, the partition, and its sequence.
    let mut lanes: Vec<(u64, u16, u64)> = (0..partitions).map(|partition| (0, partition, 0)).collect();
    while let Some(index) = (0..lanes.len()).min_by_key(|index| lanes[*index].0) {
        let (_, of, after) = lanes[index];
        match page(connection, of, after, audit).await? {
            Some((recorded_at, sequence)) => lanes[index] = (recorded_at, of, sequence),
            None => {
                lanes.swap_remove(index);
            }
        }
    }
    Ok(())
}

/// Answers with the last record's time and sequence; `None` where there is none.
async fn page(
    connection: &mut Connection,
    of: u16,
    after: u64,
    audit: &mut Audit,
) -> sqlx::Result<Option<(u64, u64)>> {
    let mut rows = query(
        "SELECT sequence, record_id, recorded_at, aggregate_type, aggregate_id, version, event_type, \
         CAST(schema AS bigint), data, command_id, correlation_id, causation_id, actor, traceparent, last_of_command \
         FROM records WHERE partition = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
    )
    .bind(i32::from(of))
    .bind(i64::try_from(after).unwrap_or(i64::MAX))
    .bind(PAGE)
    .fetch(connection);
    let mut last = None;
    while let Some(row) = rows.try_next().await? {
        let record = Record {
            partition: of,
            sequence: counter(&row, 0)?,
            record_id: row.try_get(1)?,
            recorded_at: counter(&row, 2)?,
            aggregate_type: row.try_get(3)?,
            aggregate_id: row.try_get(4)?,
            version: row.try_get::<Option<i64>, _>(5)?.map(unsigned).transpose()?,
            event_type: row.try_get(6)?,
            schema: unsigned(row.try_get(7)?)?,
            payload: row.try_get(8)?,
            command_id: row.try_get(9)?,
            correlation_id: row.try_get(10)?,
            causation_id: row.try_get(11)?,
            actor: row.try_get(12)?,
            traceparent: row.try_get(13)?,
            command_last: row.try_get(14)?,
        };
        audit.record(&record);
        last = Some((record.recorded_at, record.sequence));
    }
    Ok(last)
}

/// The inbox.
pub(in crate::stores) async fn inbox(connection: &mut Connection, audit: &mut Audit) -> sqlx::Result<()> {
    let mut rows =
        query("SELECT command_id, fingerprint, CAST(partition AS bigint), sequence, verdict FROM inbox")
            .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let fingerprint: &[u8] = row.try_get(1)?;
        let (partition, sequence) = (partition(&row, 2)?, counter(&row, 3)?);
        audit.inbox(row.try_get(0)?, fingerprint, partition, sequence, row.try_get(4)?);
    }
    Ok(())
}

/// The partitions' rows.
pub(in crate::stores) async fn partitions(
    connection: &mut Connection,
    audit: &mut Audit,
) -> sqlx::Result<()> {
    for (partition, row, remembered) in rows_of_partitions(connection).await? {
        audit.partition(partition, row);
        if let Some((created_at, first)) = remembered {
            audit.remembers(partition, created_at, first);
        }
    }
    Ok(())
}

/// A partition, its row, and what the row remembers of the queue: when it was created, and the mark of the message
/// at the position.
pub(in crate::stores) type Partition = (u16, PartitionRow, Option<(u64, Uuid)>);

/// The partitions' rows, as they are.
pub(in crate::stores) async fn rows_of_partitions(
    connection: &mut Connection,
) -> sqlx::Result<Vec<Partition>> {
    let mut rows = query(
        "SELECT CAST(partition AS bigint), epoch, head, queue_message, queue_index, queue_created_at, queue_first \
         FROM partitions",
    )
    .fetch(connection);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let message = row.try_get::<Option<i64>, _>(3)?.map(unsigned).transpose()?;
        let index = row.try_get::<Option<i64>, _>(4)?.map(unsigned).transpose()?;
        let created_at = row.try_get::<Option<i64>, _>(5)?.map(unsigned).transpose()?;
        let first = row.try_get::<Option<Uuid>, _>(6)?;
        let (position, remembered) = (message.zip(index), created_at.zip(first));
        let partition = partition(&row, 0)?;
        let parts = [message.is_some(), index.is_some(), created_at.is_some(), first.is_some()];
        if parts.contains(&true) && parts.contains(&false) {
            let what = format!("partition {partition} has only a part of a queue position");
            return Err(sqlx::Error::Decode(what.into()));
        }
        let row = PartitionRow { epoch: counter(&row, 1)?, head: counter(&row, 2)?, position };
        found.push((partition, row, remembered));
    }
    Ok(found)
}

/// The rows of the read models.
pub(in crate::stores) async fn rows(connection: &mut Connection, audit: &mut Audit) -> sqlx::Result<()> {
    each(connection, "SELECT key, name FROM issuers", |row| {
        audit.row(&Row::Issuer { key: row.try_get(0)?, name: row.try_get(1)? });
        Ok(())
    })
    .await?;
    let sql = "SELECT key, name, currency, available, reserved, committed FROM investors";
    each(connection, sql, |row| {
        audit.row(&Row::Investor {
            key: row.try_get(0)?,
            name: row.try_get(1)?,
            currency: row.try_get(2)?,
            available: row.try_get(3)?,
            reserved: row.try_get(4)?,
            committed: row.try_get(5)?,
        });
        Ok(())
    })
    .await?;
    let sql = "SELECT key, issuer_id, currency, asking_price, status, winning_bid, winning_investor, winning_amount \
               FROM invoices";
    each(connection, sql, |row| {
        audit.row(&Row::Invoice {
            key: row.try_get(0)?,
            issuer_id: row.try_get(1)?,
            currency: row.try_get(2)?,
            asking_price: row.try_get(3)?,
            status: row.try_get(4)?,
            winning_bid: row.try_get(5)?,
            winning_investor: row.try_get(6)?,
            winning_amount: row.try_get(7)?,
        });
        Ok(())
    })
    .await?;
    let sql = "SELECT key, investor_id, invoice_id, currency, amount, settlement, verdict, reason FROM bids";
    each(connection, sql, |row| {
        audit.row(&Row::Bid {
            key: row.try_get(0)?,
            investor_id: row.try_get(1)?,
            invoice_id: row.try_get(2)?,
            currency: row.try_get(3)?,
            amount: row.try_get(4)?,
            settlement: row.try_get(5)?,
            verdict: row.try_get(6)?,
            reason: row.try_get(7)?,
        });
        Ok(())
    })
    .await?;
    let sql = "SELECT key, state, reason, message, log_partition, log_sequence, invoice_id, since, cause_partition, \
               cause_sequence FROM commands";
    each(connection, sql, |row| {
        audit.row(&Row::Command {
            key: row.try_get::<Uuid, _>(0)?,
            state: row.try_get(1)?,
            reason: row.try_get(2)?,
            message: row.try_get(3)?,
            log_partition: row.try_get(4)?,
            log_sequence: row.try_get(5)?,
            invoice_id: row.try_get(6)?,
            since: row.try_get(7)?,
            cause_partition: row.try_get(8)?,
            cause_sequence: row.try_get(9)?,
        });
        Ok(())
    })
    .await
}

async fn each(
    connection: &mut Connection,
    sql: &'static str,
    mut take: impl FnMut(&Stored) -> sqlx::Result<()>,
) -> sqlx::Result<()> {
    let mut rows = query(sql).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        take(&row)?;
    }
    Ok(())
}
