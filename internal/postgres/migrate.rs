//! The tables, made once, by whoever may.
//!
//! The rule this module protects: of several processes that start at once one makes the tables and the others find them
//! made; and no release works on tables that it does not know.

use eventsourcing::outcome::Fingerprint;

use super::connect::Session;
use super::error::OpenError;
use super::sql::{Values, get};

/// A step of a schema. Once it is released it is never changed.
pub(super) struct Migration {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// The command side's schema.
pub(super) static LOG: &[Migration] = &[
    Migration { name: "0001_event_log", sql: include_str!("migrations/log/0001_event_log.sql") },
    Migration { name: "0002_dead_letters", sql: include_str!("migrations/log/0002_dead_letters.sql") },
];

/// The query side's schema.
pub(super) static QUERY: &[Migration] =
    &[Migration { name: "0001_projection", sql: include_str!("migrations/query/0001_projection.sql") }];

/// How long somebody waits for another who is making the tables, and how long making them may take.
const PATIENCE: &str = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '10min'; \
     SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// One at a time in a schema: the key is the schema's name, under a number of ours.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1179211347, hashtext(current_schema()))";

const TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations (name text COLLATE \"C\" PRIMARY KEY, checksum bytea NOT NULL, \
     applied_at timestamptz NOT NULL DEFAULT clock_timestamp())";

/// The owner of what is there, or, where there is nothing, whoever may create something.
const MAY_MIGRATE: &str = "SELECT CASE WHEN to_regclass('migrations') IS NULL \
     THEN COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) \
     ELSE (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('migrations')) END";

/// Begins a transaction in which nobody else makes tables. It ends with [`commit`], or with the session.
pub(super) async fn begin(session: &mut Session) -> Result<(), OpenError> {
    session.execute("BEGIN").await?;
    session.execute(PATIENCE).await?;
    session.execute(LOCK).await
}

/// Makes what was begun durable.
pub(super) async fn commit(session: &mut Session) -> Result<(), OpenError> {
    session.execute("COMMIT").await
}

/// Whether this role may make the tables.
pub(super) async fn allowed(session: &mut Session) -> Result<bool, OpenError> {
    session.one(MAY_MIGRATE).await
}

/// Applies what is missing.
pub(super) async fn apply(session: &mut Session, migrations: &[Migration]) -> Result<(), OpenError> {
    session.execute(TABLE).await?;
    let applied = applied(session, migrations).await?;
    for migration in migrations.iter().skip(applied) {
        session.execute(migration.sql).await?;
        let checksum = Fingerprint::of(migration.sql.as_bytes()).0;
        let values = session.read(|| Values::default().and(migration.name)?.and(checksum.as_slice()))?;
        session.rows("INSERT INTO migrations (name, checksum) VALUES ($1, $2)", values).await?;
    }
    Ok(())
}

/// Checks that everything was applied, for a role that may not do it.
pub(super) async fn check(session: &mut Session, migrations: &[Migration]) -> Result<(), OpenError> {
    let unprepared = |session: &Session, reason: String| {
        Err(OpenError::Unprepared { database: session.database.clone(), reason })
    };
    if !session.one::<bool>("SELECT to_regclass('migrations') IS NOT NULL").await? {
        return unprepared(session, "there are no tables that this role may see".to_owned());
    }
    let applied = applied(session, migrations).await?;
    match migrations.get(applied) {
        Some(missing) => unprepared(session, format!("{} is missing", missing.name)),
        None => Ok(()),
    }
}

/// How many of the migrations are applied: the first ones, as they are known here, and no others.
async fn applied(session: &mut Session, migrations: &[Migration]) -> Result<usize, OpenError> {
    let found =
        session.rows("SELECT name, checksum FROM migrations ORDER BY name", Values::default()).await?;
    for (index, row) in found.iter().enumerate() {
        let (name, checksum): (String, Vec<u8>) = session.read(|| Ok((get(row, 0)?, get(row, 1)?)))?;
        let schema = |stored: String, asked: String| {
            Err(OpenError::Schema { database: session.database.clone(), stored, asked })
        };
        let Some(known) = migrations.get(index) else {
            let last = migrations.last().map_or("no migration", |migration| migration.name);
            return schema(format!("migration {name}"), format!("nothing after {last}"));
        };
        if known.name != name {
            return schema(format!("migration {name}"), format!("{} in its place", known.name));
        }
        if Fingerprint::of(known.sql.as_bytes()).0.as_slice() != checksum {
            return schema(format!("another migration {name}"), "the one that it was built with".to_owned());
        }
    }
    Ok(found.len())
}
