//! Connections whose settings were read back.
//!
//! The rule this module protects: no connection is used whose server would lose what it acknowledged; and no session of
//! ours can stand in another's way for longer than a takeover takes.

use std::fmt;
use std::fs::File;
use std::str::FromStr as _;
use std::time::Duration;

use eventsourcing::ports::PortResult;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Executor as _, Row as _, SqlSafeStr};
use tokio::time::timeout;

use super::database::Database;
use super::error::OpenError;
use super::sql::Values;

/// The oldest server that will do, as `server_version_num` says it.
const OLDEST: u32 = 150_000;
/// How long a transaction may do nothing. A takeover takes up to five seconds: whoever is paused while it holds a
/// partition's row has lost it by then.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(2);
/// How long a statement waits for a lock.
const LOCK: Duration = Duration::from_secs(1);
/// How long a connection may take to be made, on the way to opening a database.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a statement may take beyond the server's own limit, before its connection is given up.
const GRACE: Duration = Duration::from_millis(500);
/// Statements that each connection keeps prepared.
const PREPARED: usize = 256;
/// What must be on, or a crash loses what was acknowledged.
const DURABLE: [&str; 3] = ["synchronous_commit", "fsync", "full_page_writes"];

/// The parameters that a URL may have.
const PARAMETERS: [&str; 9] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "options",
    "application_name",
];

/// Those of them that name a file.
const FILES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];

/// How to reach a database. Its `Debug` and its `Display` do not say the password.
#[derive(Clone)]
pub struct Connect {
    /// `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=..&sslcert=..&sslkey=..`
    pub url: String,
    /// How many connections at most.
    pub connections: u32,
    /// How long the server lets a statement run.
    pub statement_timeout: Duration,
    /// What the connections are called in the server's views and logs: the program's name.
    pub application_name: String,
}

impl Connect {
    /// A database, with the limits that suit a takeover within five seconds.
    #[must_use]
    pub fn new(url: impl Into<String>, application_name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections: 8,
            statement_timeout: Duration::from_secs(2),
            application_name: application_name.into(),
        }
    }

    /// What the URL says.
    pub(super) fn parse(&self) -> Result<PgConnectOptions, OpenError> {
        if !self.url.starts_with("postgres://") && !self.url.starts_with("postgresql://") {
            return Err(OpenError::Url { reason: "it does not begin with postgres://".to_owned() });
        }
        let wrong = |reason: String| Err(OpenError::Url { reason });
        let parameters = self.url.split_once('?').map_or("", |(_, parameters)| parameters);
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            // sqlx would ignore it, and log its value, which may be a secret.
            if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
                return wrong(format!("there is no parameter {name}"));
            }
            // sqlx would look for it only at the handshake, and take its absence for that of the server.
            let is_plain = !value.contains(['%', '+']);
            if FILES.contains(&name)
                && is_plain
                && let Err(error) = File::open(value)
            {
                return wrong(format!("{name}: {value}: {error}"));
            }
        }
        // The error names what is wrong with the URL, and never the URL.
        PgConnectOptions::from_str(&self.url).map_err(|error| OpenError::Url { reason: error.to_string() })
    }

    /// Plans do not depend on when the tables were last measured: an empty table that is filled faster than the server
    /// looks again would else be read from end to end by every statement. So every access is by an index, and a
    /// statement is planned once a connection.
    fn options(&self) -> Result<PgConnectOptions, OpenError> {
        let options = self.parse()?;
        let milliseconds = |duration: Duration| duration.as_millis().to_string();
        Ok(options
            .application_name(&self.application_name)
            .statement_cache_capacity(PREPARED)
            .options([
                ("statement_timeout", milliseconds(self.statement_timeout)),
                ("idle_in_transaction_session_timeout", milliseconds(IDLE_IN_TRANSACTION)),
                ("lock_timeout", milliseconds(LOCK)),
            ])
            .options([
                ("synchronous_commit", "on"),
                ("default_transaction_isolation", "read committed"),
                ("timezone", "UTC"),
                ("tcp_keepalives_idle", "10"),
                ("tcp_keepalives_interval", "3"),
                ("tcp_keepalives_count", "3"),
                ("tcp_user_timeout", "5000"),
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("jit", "off"),
            ])
            .disable_statement_logging())
    }

    /// A connection of one's own.
    pub(super) async fn session(&self) -> Result<Session, OpenError> {
        let (options, database) = (self.options()?, self.to_string());
        let late = |_| OpenError::Unreachable {
            database: database.clone(),
            reason: format!("no connection was made within {PATIENCE:?}"),
        };
        let connection = timeout(PATIENCE, verified(&database, &options)).await.map_err(late)??;
        Ok(Session { connection, database })
    }

    /// The connections to work with, made when they are needed.
    pub(super) fn database(&self) -> Result<Database, OpenError> {
        let deadline = self.statement_timeout.saturating_add(GRACE);
        Ok(Database::new(self.to_string(), self.options()?, self.connections, deadline))
    }
}

impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parse() {
            Ok(options) => write!(
                f,
                "postgres://{}@{}:{}/{}",
                options.get_username(),
                options.get_socket().map_or_else(
                    || options.get_host().to_owned(),
                    |directory| directory.display().to_string()
                ),
                options.get_port(),
                options.get_database().unwrap_or_default(),
            ),
            Err(_) => f.write_str("a database with a malformed URL"),
        }
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("database", &self.to_string())
            .field("connections", &self.connections)
            .field("statement_timeout", &self.statement_timeout)
            .field("application_name", &self.application_name)
            .finish_non_exhaustive()
    }
}

/// A connection to a server that is recent enough, and loses nothing that it acknowledges.
pub(super) async fn verified(database: &str, options: &PgConnectOptions) -> Result<PgConnection, OpenError> {
    let failed = |error: sqlx::Error| OpenError::connecting(database, &error);
    let mut connection = options.connect().await.map_err(failed)?;
    let found = connection.server_version_num().unwrap_or_default();
    if found < OLDEST {
        let (found, asked) = (found / 10_000, OLDEST / 10_000);
        return Err(OpenError::Version { database: database.to_owned(), found, asked });
    }
    let settings = sqlx::query(
        "SELECT current_setting('synchronous_commit'), current_setting('fsync'), \
         current_setting('full_page_writes'), pg_is_in_recovery()",
    );
    let row = connection.fetch_one(settings.persistent(false)).await.map_err(failed)?;
    for (column, name) in DURABLE.into_iter().enumerate() {
        let found: String = row.try_get(column).map_err(failed)?;
        if found != "on" {
            return Err(OpenError::Setting { database: database.to_owned(), name, found });
        }
    }
    // What a standby shows may be behind what it has: whoever took that for the log would halt over what is not lost.
    if row.try_get::<bool, _>(DURABLE.len()).map_err(failed)? {
        let reason = "it is a standby, which has to be promoted first".to_owned();
        return Err(OpenError::Unreachable { database: database.to_owned(), reason });
    }
    Ok(connection)
}

/// A connection of one's own, on the way to opening a database. It is never given to anybody else, so a transaction that
/// is left open on it ends with it.
pub(super) struct Session {
    connection: PgConnection,
    pub(super) database: String,
}

impl Session {
    /// The connection, for whoever keeps it to the end.
    pub(super) fn into_connection(self) -> PgConnection {
        self.connection
    }

    /// Runs statements without values.
    pub(super) async fn execute(&mut self, sql: impl SqlSafeStr) -> Result<(), OpenError> {
        let done = self.connection.execute(sqlx::raw_sql(sql)).await;
        done.map(|_| ()).map_err(|error| OpenError::preparing(&self.database, &error))
    }

    /// Runs one statement, for its rows.
    pub(super) async fn rows(&mut self, sql: &'static str, values: Values) -> Result<Vec<PgRow>, OpenError> {
        let found = self.connection.fetch_all(sqlx::query_with(sql, values.0)).await;
        found.map_err(|error| OpenError::preparing(&self.database, &error))
    }

    /// What is made for this session, or read from it.
    pub(super) fn read<T>(&self, of: impl FnOnce() -> PortResult<T>) -> Result<T, OpenError> {
        of().map_err(|reason| OpenError::Store { database: self.database.clone(), reason })
    }

    /// The first column of the one row that the statement answers with.
    pub(super) async fn one<T>(&mut self, sql: &'static str) -> Result<T, OpenError>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let found = self.connection.fetch_one(sqlx::query(sql)).await.and_then(|row| row.try_get(0));
        found.map_err(|error| OpenError::preparing(&self.database, &error))
    }
}
