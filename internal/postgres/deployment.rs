//! The refusal to open another deployment's database.
//!
//! The rule this module protects: a database belongs to the deployment that it was first prepared for, with its number of
//! partitions, whoever starts later and in whatever numbers.

use eventsourcing::partition::{Deployment, PartitionCount};
use sqlx::types::Uuid;

use super::connect::Session;
use super::error::OpenError;
use super::sql::{Values, count, get, signed};

/// Writes who the database belongs to, where nobody has: the first one wins.
pub(super) async fn write(session: &mut Session, new: &Deployment) -> Result<(), OpenError> {
    let values = session.read(|| {
        let created_at = signed(new.created_at)?;
        Values::default().and(new.id)?.and(i32::from(new.partitions.get()))?.and(created_at)
    })?;
    let insert =
        "INSERT INTO deployment (id, partitions, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    session.rows(insert, values).await.map(|_| ())
}

/// Who the database belongs to. `None`: nobody has written it yet.
///
/// # Errors
///
/// When it was made for another number of partitions.
pub(super) async fn read(
    session: &mut Session,
    asked: PartitionCount,
) -> Result<Option<Deployment>, OpenError> {
    let rows = session.rows("SELECT id, partitions, created_at FROM deployment", Values::default()).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (id, partitions): (Uuid, i32) = session.read(|| Ok((get(row, 0)?, get(row, 1)?)))?;
    if partitions != i32::from(asked.get()) {
        return Err(OpenError::Partitions { database: session.database.clone(), stored: partitions, asked });
    }
    let created_at = session.read(|| count(row, 2))?;
    Ok(Some(Deployment { id, partitions: asked, created_at }))
}

/// Whether an import was begun here and has not ended: a table says so, which it makes first and drops last.
///
/// # Errors
///
/// [`OpenError::Unfinished`] where it has not.
pub(super) async fn refuse_unfinished(session: &mut Session) -> Result<(), OpenError> {
    if session.one::<bool>("SELECT to_regclass('import_under_way') IS NOT NULL").await? {
        return Err(OpenError::Unfinished { database: session.database.clone() });
    }
    Ok(())
}
