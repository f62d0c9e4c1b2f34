//! Who tries which partition, in either database.
//!
//! The rule this module protects: what a member takes, it takes from the state that it has looked at. Whenever something
//! changes hands in a role, the role's round goes up by compare-and-set; a member that was overtaken looks again. So
//! takings follow one another, though nobody holds a lock while it thinks; and the server's clock is the only one.
//!
//! A renewal that takes nothing, which is nearly every one, is one round trip.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eventsourcing::membership::spread;
use eventsourcing::partition::{Partition, PartitionCount};
use eventsourcing::ports::{Leases, PortError, PortResult, Role};
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::database::Database;
use super::log::PostgresLog;
use super::readmodels::PostgresReadModels;
use super::sql::{Values, count, get, indices, partition, signed};

/// Says that the member lives, forgets the dead, and answers with the role's round, then with the living, then with who
/// holds what. A member's own row is not in the statement's snapshot, but it knows of itself. It writes its own row before
/// it looks for the dead, and does not wait for them: whom another is just forgetting, or who just speaks up again, is
/// skipped. So members that come back together after an outage do not wait for each other. Who claims to live for longer
/// than a term spoke before the server's clock was set back: it is dead as well, until it speaks again.
const RENEW: &str = "WITH clock AS MATERIALIZED (\
     SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now), \
     alive AS (INSERT INTO members (role, member, lives_until) SELECT $1::text, $2::uuid, now + $3::bigint FROM clock \
     ON CONFLICT (role, member) DO UPDATE SET lives_until = excluded.lives_until RETURNING role), \
     dead AS (DELETE FROM members m USING (SELECT d.role, d.member FROM alive CROSS JOIN clock CROSS JOIN members d \
     WHERE d.role = $1::text AND d.member <> $2::uuid \
     AND (d.lives_until <= clock.now OR d.lives_until > clock.now + $3::bigint) FOR UPDATE OF d SKIP LOCKED) d \
     WHERE m.role = d.role AND m.member = d.member) \
     SELECT 0, NULL::uuid, NULL::int, COALESCE((SELECT round FROM lease_rounds WHERE role = $1::text), 0) \
     UNION ALL SELECT 1, m.member, NULL, NULL FROM members m CROSS JOIN clock \
     WHERE m.role = $1::text AND m.lives_until > clock.now AND m.lives_until <= clock.now + $3::bigint \
     UNION ALL SELECT 2, l.member, l.partition, NULL FROM leases l WHERE l.role = $1::text";

/// Takes partitions, where nothing has changed hands since round `$3`.
const TAKE: &str = "WITH won AS (INSERT INTO lease_rounds (role, round) VALUES ($1::text, 1) \
     ON CONFLICT (role) DO UPDATE SET round = lease_rounds.round + 1 WHERE lease_rounds.round = $3::bigint \
     RETURNING role) \
     INSERT INTO leases (role, partition, member) \
     SELECT won.role, t.partition, $2::uuid FROM won CROSS JOIN unnest($4::int[]) AS t(partition) ORDER BY t.partition \
     ON CONFLICT (role, partition) DO UPDATE SET member = excluded.member RETURNING partition";

const LEAVE: &str = "WITH gone AS (DELETE FROM members WHERE role = $1::text AND member = $2::uuid), \
     won AS (INSERT INTO lease_rounds (role, round) VALUES ($1::text, 1) \
     ON CONFLICT (role) DO UPDATE SET round = lease_rounds.round + 1 RETURNING role) \
     DELETE FROM leases l USING won WHERE l.role = won.role AND l.member = $2::uuid";

/// How often a member looks again that was overtaken by others, before it is content with what it holds for now.
const ATTEMPTS: usize = 16;

impl Leases for PostgresLog {
    async fn renew(
        &self,
        role: Role,
        member: Uuid,
        partitions: PartitionCount,
        term: Duration,
    ) -> PortResult<Vec<Partition>> {
        renew(&self.database, role, member, partitions, term).await
    }

    async fn leave(&self, role: Role, member: Uuid) -> PortResult<()> {
        leave(&self.database, role, member).await
    }
}

impl Leases for PostgresReadModels {
    async fn renew(
        &self,
        role: Role,
        member: Uuid,
        partitions: PartitionCount,
        term: Duration,
    ) -> PortResult<Vec<Partition>> {
        renew(self.database(), role, member, partitions, term).await
    }

    async fn leave(&self, role: Role, member: Uuid) -> PortResult<()> {
        leave(self.database(), role, member).await
    }
}

async fn renew(
    database: &Database,
    role: Role,
    member: Uuid,
    partitions: PartitionCount,
    term: Duration,
) -> PortResult<Vec<Partition>> {
    let term = i64::try_from(term.as_micros()).unwrap_or(i64::MAX / 2);
    let mut mine = Vec::new();
    for _ in 0..ATTEMPTS {
        let values = Values::default().and(role.name())?.and(member)?.and(term)?;
        let seen = Seen::of(&database.rows(RENEW, values).await?)?;
        mine = seen.of_member(member, partitions);
        let wanted = spread(&seen.living, &seen.held, member, partitions);
        if wanted.is_empty() {
            break;
        }
        let values = Values::default()
            .and(role.name())?
            .and(member)?
            .and(signed(seen.round)?)?
            .and(indices(&wanted, |partition| *partition))?;
        if !database.rows(TAKE, values).await?.is_empty() {
            mine.extend(wanted);
            break;
        }
    }
    mine.sort_unstable();
    Ok(mine)
}

async fn leave(database: &Database, role: Role, member: Uuid) -> PortResult<()> {
    database.rows(LEAVE, Values::default().and(role.name())?.and(member)?).await.map(|_| ())
}

/// A role, as it is.
#[derive(Default)]
struct Seen {
    round: u64,
    living: BTreeSet<Uuid>,
    held: BTreeMap<Partition, Uuid>,
}

impl Seen {
    fn of(rows: &[PgRow]) -> PortResult<Self> {
        let mut seen = Self::default();
        for row in rows {
            match get::<i32>(row, 0)? {
                0 => seen.round = count(row, 3)?,
                1 => {
                    seen.living.insert(get(row, 1)?);
                }
                2 => {
                    seen.held.insert(partition(row, 2)?, get(row, 1)?);
                }
                other => return Err(PortError::Broken(format!("a row about leases is about {other}"))),
            }
        }
        Ok(seen)
    }

    fn of_member(&self, member: Uuid, partitions: PartitionCount) -> Vec<Partition> {
        let mine = self.held.iter().filter(|(_, holder)| **holder == member);
        mine.map(|(partition, _)| *partition).filter(|one| one.index() < partitions.get()).collect()
    }
}
