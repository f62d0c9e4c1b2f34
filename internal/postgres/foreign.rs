//! How far other contexts' streams are imported, beside the log.
//!
//! The rule this module protects: a position moves from where its reader remembers it, or not at all.

use eventsourcing::outcome::Fingerprint;
use eventsourcing::ports::{ForeignPosition, ForeignPositions, PortError, PortResult};

use super::log::PostgresLog;
use super::sql::{Values, count, get, signed};

const LOAD: &str = "SELECT created_at, message, fingerprint FROM foreign_positions WHERE reader = $1::text";

const BEGIN: &str = "INSERT INTO foreign_positions (reader, created_at, message, fingerprint) \
     VALUES ($1::text, $2::bigint, $3::bigint, $4::bytea) ON CONFLICT DO NOTHING RETURNING reader";

const MOVE: &str = "UPDATE foreign_positions SET created_at = $5::bigint, message = $6::bigint, fingerprint = $7::bytea \
     WHERE reader = $1::text AND created_at = $2::bigint AND message = $3::bigint AND fingerprint = $4::bytea \
     RETURNING reader";

const FORGET: &str = "DELETE FROM foreign_positions WHERE reader = $1::text AND created_at = $2::bigint \
     AND message = $3::bigint AND fingerprint = $4::bytea RETURNING reader";

impl ForeignPositions for PostgresLog {
    async fn position(&self, reader: &str) -> PortResult<Option<ForeignPosition>> {
        let rows = self.database.rows(LOAD, Values::default().and(reader)?).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let length =
            |_| PortError::Broken(format!("the fingerprint of {reader}'s position has another length"));
        Ok(Some(ForeignPosition {
            created_at: count(row, 0)?,
            message: count(row, 1)?,
            fingerprint: Fingerprint(get::<&[u8]>(row, 2)?.try_into().map_err(length)?),
        }))
    }

    async fn advance(
        &self,
        reader: &str,
        from: Option<ForeignPosition>,
        to: Option<ForeignPosition>,
    ) -> PortResult<bool> {
        let reader_only = Values::default().and(reader)?;
        let (sql, values) = match (from, to) {
            (None, None) => return Ok(self.position(reader).await?.is_none()),
            (None, Some(to)) => (BEGIN, position(reader_only, &to)?),
            (Some(from), Some(to)) => (MOVE, position(position(reader_only, &from)?, &to)?),
            (Some(from), None) => (FORGET, position(reader_only, &from)?),
        };
        Ok(!self.database.rows(sql, values).await?.is_empty())
    }
}

fn position(values: Values, position: &ForeignPosition) -> PortResult<Values> {
    values
        .and(signed(position.created_at)?)?
        .and(signed(position.message)?)?
        .and(position.fingerprint.0.as_slice())
}
