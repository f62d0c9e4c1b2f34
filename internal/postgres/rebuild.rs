//! A second set of the read models, in the same database.
//!
//! The rule this module protects: a projector may write rows and no more, so what makes, renames and drops tables are functions
//! of their owner, without a parameter that anybody could misuse. They belong to the tables' owner,
//! whoever made them. A shadow is one connection: with it end the right to write it, whatever it holds, and the turn.

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
/// lock is waited for longer than the server needs to find out that a vacuum is in the way, and to stop that. Nor does the
/// server go on with an index when whoever wanted it is gone.
const PATIENCE: &str =
    "SET statement_timeout = '30min'; SET lock_timeout = '3s'; SET client_connection_check_interval = '1s'";

/// Longer than the server's own limit, for a server that does not answer at all.
const SILENCE: Duration = Duration::from_mins(31);

/// How long the swap may keep readers waiting, who wait behind it. That is less than the server takes to stop a vacuum that
/// is in the way, so there is none by then: see [`hold`].
const BRIEFLY: &str = "300ms";

/// The turn: the key is the schema's name, under a number of ours. Who has just lost it may need a moment to be gone.
const TAKE_TURN: &str =
    "SET lock_timeout = '1s'; SELECT pg_advisory_lock(1179211348, hashtext(current_schema()))";

/// How often it is tried to have the turn that a connection of ours had which is gone, a second each time.
const TURNS: u32 = 5;

/// What is in the shadow is kept, whatever becomes of the swap.
const BEFORE_SWAP: &str = "SAVEPOINT before_swap";
const NO_SWAP: &str = "ROLLBACK TO SAVEPOINT before_swap; COMMIT";

/// How often it is tried to hold the live ones.
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

/// In this schema and no other, whoever calls: who may make temporary tables would else put one in another's place.
const IN_THIS_SCHEMA: &str = "DO $$ BEGIN PERFORM set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true); END $$;\n";

/// What the functions make belongs to whom they belong to, so that is whose the tables are, whoever migrates.
const OWNERS: &str = "DO $$ DECLARE name text; BEGIN FOREACH name IN ARRAY ARRAY[{names}] LOOP \
     EXECUTE format('ALTER FUNCTION %I() OWNER TO %s', name, \
     (SELECT relowner::regrole FROM pg_class WHERE oid = 'read_models'::regclass)); END LOOP; END $$;\n";

/// A vacuum of tables that were just filled would stand in the way of the swap.
const NO_VACUUM: &str = ", autovacuum_enabled = off";

/// The tables that are swapped.
fn names(tables: &[Table]) -> Vec<&str> {
    ["checkpoints"].into_iter().chain(tables.iter().map(|table| table.name)).collect()
}

fn list(names: &[&str], prefix: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{prefix}{name}\"")).collect();
    quoted.join(", ")
}

/// Nobody moves the checkpoints, and so nobody writes rows; whoever reads goes on. The projector's statement asks for this
/// table first of all, so whoever waits here holds nothing. Before that whoever vacuums has ended or was stopped, and nobody
/// begins to, of the tables that the swap wants.
pub(super) fn hold(tables: &[Table]) -> String {
    let names = names(tables);
    let (live, rebuilt) = (list(&names, ""), list(&names, REBUILT));
    format!(
        "BEGIN; LOCK TABLE {live}, {rebuilt} IN SHARE UPDATE EXCLUSIVE MODE; LOCK TABLE checkpoints IN EXCLUSIVE MODE"
    )
}

/// The functions that do what only the tables' owner may do. They are its own, and it says whom else they are for
/// (scripts/roles.sql). The path is that of the transaction that makes them from here on.
pub(super) fn functions(tables: &[Table]) -> String {
    let names = names(tables);
    let literals: Vec<String> = names.iter().map(|name| format!("'{name}'::regclass")).collect();
    let (live, rebuilt, literals) = (list(&names, ""), list(&names, REBUILT), literals.join(", "));
    let drop = format!("DROP TABLE IF EXISTS {rebuilt};");
    let create = create_tables(tables, REBUILT, NO_VACUUM);
    let indexes = create_indexes(tables, REBUILT);
    let mut renames = String::new();
    for name in &names {
        // Writing to a String does not fail.
        let _written = writeln!(
            renames,
            "ALTER TABLE \"rebuilt_{name}\" RENAME TO \"{name}\"; \
             ALTER INDEX \"rebuilt_{name}_pkey\" RENAME TO \"{name}_pkey\"; \
             ALTER TABLE \"{name}\" RESET (autovacuum_enabled);"
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
                 sequence bigint NOT NULL, record_id uuid) WITH (fillfactor = 30{NO_VACUUM});\n\
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
    let functions: Vec<String> = bodies.iter().map(|(name, ..)| format!("'{name}'")).collect();
    let mut sql = IN_THIS_SCHEMA.to_owned();
    for (name, returns, declare, body) in bodies {
        let _written = write!(
            sql,
            "CREATE OR REPLACE FUNCTION {name}() RETURNS {returns} LANGUAGE plpgsql SECURITY DEFINER \
             SET search_path FROM CURRENT AS $body$ DECLARE {declare} BEGIN\n{body}\nEND $body$;\n\
             REVOKE ALL ON FUNCTION {name}() FROM PUBLIC;\n"
        );
    }
    sql.push_str(&OWNERS.replace("{names}", &functions.join(", ")));
    sql
}

/// Drops what a rebuild has left behind whose process is gone. Where that cannot be now, it waits for the next start or the
/// next rebuild: it is in nobody's way.
pub(super) async fn drop_leftovers(session: &mut Session) {
    if let Err(error) = try_drop_leftovers(session).await {
        tracing::warn!(%error, "what a rebuild has left behind stays for now");
    }
}

async fn try_drop_leftovers(session: &mut Session) -> Result<(), OpenError> {
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
    /// Whether there is a statement whose end nobody has seen.
    unanswered: bool,
}

impl Rebuildable for PostgresReadModels {
    type Shadow = PostgresShadow;

    async fn begin_rebuild(&self) -> PortResult<Option<PostgresShadow>> {
        let shared = Arc::clone(&self.0);
        let mut shadow = PostgresShadow::connect(shared).await?;
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
    async fn connect(shared: Arc<Shared>) -> PortResult<Self> {
        let session = shared.connect.session().await;
        let connection =
            session.map_err(|error| PortError::Unavailable(error.to_string()))?.into_connection();
        Ok(Self { shared, connection, held: false, unanswered: false })
    }

    async fn try_run(&mut self, sql: impl SqlSafeStr) -> PortResult<Done> {
        self.unanswered = true;
        let done =
            timeout(SILENCE, self.connection.execute(sqlx::raw_sql(sql))).await.map_err(|_| silent())?;
        self.unanswered = false;
        match done {
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
        self.unanswered = true;
        match timeout(SILENCE, self.connection.fetch_all(sqlx::query_with(sql, values.0))).await {
            Ok(rows) => {
                self.unanswered = false;
                rows.map(Ok)
            }
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

    /// The same turn on another connection. What the first one was at, the server stops a moment after it is gone.
    async fn afresh(self) -> PortResult<Self> {
        let shared = Arc::clone(&self.shared);
        drop(self);
        let mut shadow = Self::connect(shared).await?;
        for _ in 0..TURNS {
            if let Done::Yes = shadow.try_run(TAKE_TURN).await? {
                shadow.run(PATIENCE).await?;
                return Ok(shadow);
            }
        }
        Err(PortError::Unavailable("the server goes on with what nobody waits for any more".to_owned()))
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
            match self.try_run(AssertSqlSafe(self.shared.hold.clone())).await? {
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
        self.run(BEFORE_SWAP).await?;
        let rows = match self.rows("SELECT rebuild_swap()", Values::default()).await {
            Ok(rows) => rows?,
            Err(error) if is_locked(&error) => {
                self.run(NO_SWAP).await?;
                self.held = false;
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

    async fn abandon(self) -> PortResult<()> {
        let mut shadow = if self.unanswered { self.afresh().await? } else { self };
        shadow.let_go().await?;
        shadow.run("SELECT rebuild_drop()").await?;
        // The turn ends with the connection: said to the server, it ends at once.
        shadow.connection.close().await.map_err(|error| port_error(&error))
    }
}
