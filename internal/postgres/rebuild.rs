//! A second set of the read models, in the same database.
//!
//! The rule this module protects: a projector may write rows and no more, so what makes, renames and drops tables are functions
//! of their owner, without a parameter that anybody could misuse. A shadow is one connection: with it end the right to write
//! it, whatever it holds, and the turn.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::{PortError, PortResult, Projected, ProjectionStep, Table};
use eventsourcing::shadow::{Rebuildable, Shadow};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqlSafeStr};
use tokio::time::timeout;

use super::chain::{Chain, Placed};
use super::connect::Session;
use super::error::{OpenError, port_error};
use super::readmodels::{PostgresReadModels, Shared};
use super::sql::{Values, count, get, partition};
use super::tables::{create_indexes, create_tables, indexed};

/// Before the names of the tables that are built.
pub(super) const REBUILT: &str = "rebuilt_";

/// The limits of the connection that builds, beside those of every connection: an index takes its time, and so may a step. A
/// lock is waited for longer than the server needs to find out that a vacuum is in the way, and to stop that.
const PATIENCE: &str = "SET statement_timeout = '30min'; SET lock_timeout = '3s'";

/// Longer than the server's own limit, for a server that does not answer at all.
const SILENCE: Duration = Duration::from_mins(31);

/// How long the swap may keep readers waiting, who wait behind it.
const BRIEFLY: &str = "300ms";

/// The turn: the key is the schema's name, under a number of ours. Who has just lost it may need a moment to be gone.
const TAKE_TURN: &str =
    "SET lock_timeout = '1s'; SELECT pg_advisory_lock(1179211348, hashtext(current_schema()))";

/// Nobody moves the checkpoints, and so nobody writes rows; whoever reads goes on. The projector's statement asks for this
/// table first of all, so whoever waits here holds nothing.
const HOLD: &str = "BEGIN; LOCK TABLE checkpoints IN EXCLUSIVE MODE";

/// How often that is tried.
const HOLDS: u32 = 5;

const LIVE: &str = "SELECT partition, sequence, record_id FROM checkpoints WHERE sequence > 0";

const LEFTOVERS: &str =
    "SELECT to_regclass('rebuilt_checkpoints') IS NOT NULL AND to_regproc('rebuild_drop') IS NOT NULL";

/// Only where no rebuild is under way.
const DROP_LEFTOVERS: &str = "DO $$ BEGIN IF pg_try_advisory_xact_lock(1179211348, hashtext(current_schema())) THEN \
     PERFORM rebuild_drop(); END IF; END $$";

/// Where one set stands and the other does not.
const APART: &str = "SELECT FROM checkpoints l FULL JOIN rebuilt_checkpoints r ON r.partition = l.partition \
     WHERE coalesce(l.sequence, 0) <> coalesce(r.sequence, 0) OR l.record_id IS DISTINCT FROM r.record_id";

/// Whoever may do something with a live table may do it with the one that takes its place.
const GRANTS: &str = "FOR one IN SELECT format('GRANT %s ON %I TO %s', a.privilege_type, 'rebuilt_' || c.relname, \
     CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END) AS statement \
     FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a \
     WHERE c.oid = ANY (live) AND a.grantee <> c.relowner LOOP EXECUTE one.statement; END LOOP;";

/// The functions that do what only the tables' owner may do. Made by the owner, who says whom else they are for
/// (scripts/roles.sql).
pub(super) fn functions(tables: &[Table]) -> String {
    let names: Vec<&str> = ["checkpoints"].into_iter().chain(tables.iter().map(|table| table.name)).collect();
    let list = |prefix: &str| {
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{prefix}{name}\"")).collect();
        quoted.join(", ")
    };
    let literals: Vec<String> = names.iter().map(|name| format!("'{name}'::regclass")).collect();
    let (live, rebuilt, literals) = (list(""), list(REBUILT), literals.join(", "));
    let drop = format!("DROP TABLE IF EXISTS {rebuilt};");
    let create = create_tables(tables, REBUILT);
    let indexes = create_indexes(tables, REBUILT);
    let mut renames = String::new();
    for name in &names {
        // Writing to a String does not fail.
        let _written = writeln!(
            renames,
            "ALTER TABLE \"rebuilt_{name}\" RENAME TO \"{name}\"; \
             ALTER INDEX \"rebuilt_{name}_pkey\" RENAME TO \"{name}_pkey\";"
        );
    }
    for (Table { name, .. }, column) in indexed(tables) {
        let index = format!("{name}_by_{}", column.name);
        let _written = writeln!(renames, "ALTER INDEX IF EXISTS \"rebuilt_{index}\" RENAME TO \"{index}\";");
    }
    let bodies = [
        ("rebuild_drop", "void", String::new(), drop.clone()),
        (
            "rebuild_begin",
            "void",
            format!("one record; live oid[] := ARRAY[{literals}]::oid[];"),
            format!(
                "{drop}\n{create}CREATE TABLE rebuilt_checkpoints (partition integer PRIMARY KEY, \
                 sequence bigint NOT NULL, record_id uuid) WITH (fillfactor = 30);\n\
                 INSERT INTO rebuilt_checkpoints (partition, sequence) SELECT partition, 0 FROM checkpoints;\n{GRANTS}"
            ),
        ),
        ("rebuild_index", "void", String::new(), indexes),
        (
            "rebuild_swap",
            "boolean",
            String::new(),
            format!(
                "IF EXISTS ({APART}) THEN RETURN false; END IF;\n\
                 PERFORM set_config('lock_timeout', '{BRIEFLY}', true);\n\
                 LOCK TABLE {live} IN ACCESS EXCLUSIVE MODE;\nDROP TABLE {live};\n{renames}RETURN true;"
            ),
        ),
    ];
    let mut sql = String::new();
    for (name, returns, declare, body) in bodies {
        let _written = write!(
            sql,
            "CREATE OR REPLACE FUNCTION {name}() RETURNS {returns} LANGUAGE plpgsql SECURITY DEFINER \
             SET search_path FROM CURRENT AS $body$ DECLARE {declare} BEGIN\n{body}\nEND $body$;\n\
             REVOKE ALL ON FUNCTION {name}() FROM PUBLIC;\n"
        );
    }
    sql
}

/// Drops what a rebuild has left behind whose process is gone.
pub(super) async fn drop_leftovers(session: &mut Session) -> Result<(), OpenError> {
    if session.one::<bool>(LEFTOVERS).await? {
        session.execute(DROP_LEFTOVERS).await?;
    }
    Ok(())
}

/// The tables of a rebuild. See [`Shadow`].
pub struct PostgresShadow {
    shared: Arc<Shared>,
    connection: PgConnection,
    held: bool,
}

impl Rebuildable for PostgresReadModels {
    type Shadow = PostgresShadow;

    async fn begin_rebuild(&self) -> PortResult<Option<PostgresShadow>> {
        let shared = Arc::clone(&self.0);
        let session = shared.connect.session().await;
        let connection =
            session.map_err(|error| PortError::Unavailable(error.to_string()))?.into_connection();
        let mut shadow = PostgresShadow { shared, connection, held: false };
        match shadow.try_run(TAKE_TURN).await? {
            Done::Yes => {}
            Done::Locked => return Ok(None),
        }
        shadow.run(PATIENCE).await?;
        shadow.run("SELECT rebuild_begin()").await.map_err(unprepared)?;
        Ok(Some(shadow))
    }
}

/// The functions are not there, or not for this role.
fn unprepared(error: PortError) -> PortError {
    match error {
        PortError::Broken(reason) => PortError::Broken(format!(
            "{reason}: run `financing migrate`, and scripts/roles.sql, as the database's owner"
        )),
        PortError::Unavailable(_) | PortError::Content(_) | PortError::Conflict(_) | PortError::Full(_) => {
            error
        }
    }
}

/// Whether statements were run, or somebody else's lock was in the way.
enum Done {
    Yes,
    Locked,
}

fn silent() -> PortError {
    PortError::Unavailable(format!("the database has not answered for {SILENCE:?}"))
}

impl PostgresShadow {
    async fn try_run(&mut self, sql: &'static str) -> PortResult<Done> {
        match timeout(SILENCE, self.connection.execute(sqlx::raw_sql(sql))).await.map_err(|_| silent())? {
            Ok(_) => Ok(Done::Yes),
            Err(error) if is_locked(&error) => Ok(Done::Locked),
            Err(error) => Err(port_error(&error)),
        }
    }

    async fn run(&mut self, sql: &'static str) -> PortResult<()> {
        match self.try_run(sql).await? {
            Done::Yes => Ok(()),
            Done::Locked => Err(PortError::Unavailable(format!("{sql}: somebody else has a lock"))),
        }
    }

    async fn rows(&mut self, sql: impl SqlSafeStr, values: Values) -> sqlx::Result<PortResult<Vec<PgRow>>> {
        match timeout(SILENCE, self.connection.fetch_all(sqlx::query_with(sql, values.0))).await {
            Ok(rows) => rows.map(Ok),
            Err(_) => Ok(Err(silent())),
        }
    }

    /// Ends the transaction that holds the live ones.
    async fn let_go(&mut self) -> PortResult<()> {
        if std::mem::take(&mut self.held) {
            self.run("ROLLBACK").await?;
        }
        Ok(())
    }
}

/// 55P03: a lock was not to be had in time. 40P01: nor would it ever have been.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["55P03", "40P01"].contains(&code.as_ref()))
}

impl Shadow for PostgresShadow {
    async fn apply(&mut self, steps: Vec<ProjectionStep>) -> PortResult<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let placed: Vec<Placed<'_>> = steps.iter().enumerate().collect();
        let chains = Chain::of(&placed);
        let follow = chains.iter().flat_map(Chain::places).count() == steps.len();
        let (text, values) = shared.rebuilt.statement(&chains)?;
        let rows = self.rows(AssertSqlSafe(text), values).await.map_err(|error| port_error(&error))??;
        let ready: BTreeSet<Partition> =
            rows.iter().map(|row| partition(row, 0)).collect::<PortResult<_>>()?;
        if follow && ready.len() == chains.len() {
            return Ok(());
        }
        Err(PortError::Conflict("a step does not follow those before it".to_owned()))
    }

    async fn index(&mut self) -> PortResult<()> {
        self.run("SELECT rebuild_index()").await
    }

    async fn hold(&mut self, partitions: &[Partition]) -> PortResult<Vec<(Partition, Projected)>> {
        for _ in 0..HOLDS {
            if self.held {
                break;
            }
            match self.try_run(HOLD).await? {
                Done::Yes => self.held = true,
                Done::Locked => self.run("ROLLBACK").await?,
            }
        }
        if !self.held {
            return Err(PortError::Unavailable("the checkpoints are locked by somebody else".to_owned()));
        }
        let rows = self.rows(LIVE, Values::default()).await.map_err(|error| port_error(&error))??;
        let mut live = std::collections::BTreeMap::new();
        for row in &rows {
            let (sequence, record_id) = (Sequence::new(count(row, 1)?), get(row, 2)?);
            live.insert(partition(row, 0)?, Projected { sequence, record_id });
        }
        Ok(partitions.iter().map(|one| (*one, live.get(one).copied().unwrap_or_default())).collect())
    }

    async fn swap(&mut self) -> PortResult<bool> {
        if !self.held {
            return Err(PortError::Conflict("the read models are not held".to_owned()));
        }
        let rows = match self.rows("SELECT rebuild_swap()", Values::default()).await {
            Ok(rows) => rows?,
            Err(error) if is_locked(&error) => {
                self.let_go().await?;
                return Ok(false);
            }
            Err(error) => return Err(port_error(&error)),
        };
        let swapped: bool = rows.first().map(|row| get(row, 0)).transpose()?.unwrap_or_default();
        if !swapped {
            return Err(PortError::Conflict("the shadow is not where the read models are".to_owned()));
        }
        self.held = false;
        self.run("COMMIT").await?;
        Ok(true)
    }

    async fn abandon(mut self) -> PortResult<()> {
        self.let_go().await?;
        self.run("SELECT rebuild_drop()").await?;
        // The turn ends with the connection: said to the server, it ends at once.
        self.connection.close().await.map_err(|error| port_error(&error))
    }
}
