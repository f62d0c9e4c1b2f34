//! The connections that the ports work with.
//!
//! The rule this module protects: a connection is used again only after its statement has come to an end. One whose
//! caller gave up, or whose server did not answer, is closed: nobody knows what it is in the middle of. And every
//! operation is one statement and its own transaction, so a process that is paused, wherever it is, holds no lock.
//!
//! Both keep away what the pool of sqlx 0.9.0 does (its issue 4393): a `begin` that is cancelled leaves its connection inside
//! a transaction in the pool, and a later statement is acknowledged and then lost. Nothing here begins a transaction, and
//! what is cancelled does not come back; where nothing is cancelled that costs nothing.
//!
//! It is not that pool for another reason: whatever comes back to it is asked for a sign of life without a deadline, which
//! costs a round trip of the connection's time, and on a network that carries nothing it holds the place of a new connection
//! until the operating system gives up, a quarter of an hour later. Here every wait has a deadline.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventsourcing::ports::{PortError, PortResult};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection as _, Executor as _, SqlSafeStr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connect;
use super::error::{leaves_connection_alone, port_error};
use super::sql::Values;

/// How long a caller waits for its turn, and how long a connection may take to be made.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A database, and at most so many connections to it.
#[derive(Clone)]
pub(super) struct Database(Arc<Shared>);

struct Shared {
    name: String,
    options: PgConnectOptions,
    /// How long a statement may take.
    deadline: Duration,
    connections: u32,
    turns: Arc<Semaphore>,
    /// Those that nobody uses. The one that was used last is used next.
    idle: Mutex<Vec<PgConnection>>,
}

impl Database {
    /// No connection is made before it is needed.
    pub(super) fn new(name: String, options: PgConnectOptions, connections: u32, deadline: Duration) -> Self {
        let turns = Arc::new(Semaphore::new(usize::try_from(connections).unwrap_or(usize::MAX)));
        Self(Arc::new(Shared { name, options, deadline, connections, turns, idle: Mutex::default() }))
    }

    /// Runs one statement, for its rows: one round trip, one transaction.
    pub(super) async fn rows(&self, sql: impl SqlSafeStr + Send, values: Values) -> PortResult<Vec<PgRow>> {
        let query = sqlx::query_with(sql, values.0);
        let mut lent = self.lend().await?;
        match timeout(self.0.deadline, lent.fetch_all(query)).await {
            Ok(Ok(rows)) => {
                lent.give_back();
                Ok(rows)
            }
            Ok(Err(error)) if leaves_connection_alone(&error) => {
                lent.give_back();
                Err(port_error(&error))
            }
            Ok(Err(error)) => {
                self.0.suspect();
                Err(port_error(&error))
            }
            Err(_) => {
                self.0.suspect();
                Err(PortError::Unavailable(format!(
                    "{} has not answered for {:?}",
                    self.0.name, self.0.deadline
                )))
            }
        }
    }

    /// A connection, for one statement.
    pub(super) async fn lend(&self) -> PortResult<Lent> {
        let late =
            |what: &str| PortError::Unavailable(format!("{}: {what} within {PATIENCE:?}", self.0.name));
        let turn = timeout(PATIENCE, Arc::clone(&self.0.turns).acquire_owned())
            .await
            .map_err(|_| late("no connection was free"))?
            .map_err(|_| PortError::Unavailable(format!("{} is closed", self.0.name)))?;
        let idle = self.0.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => timeout(PATIENCE, connect::verified(&self.0.name, &self.0.options))
                .await
                .map_err(|_| late("no connection was made"))?
                .map_err(|error| PortError::Unavailable(error.to_string()))?,
        };
        Ok(Lent { connection, home: Home { shared: Arc::clone(&self.0), _turn: turn } })
    }

    /// Waits for what is under way, and closes the connections. Later calls answer that the database is unavailable.
    pub(super) async fn close(&self) {
        let Ok(all) = self.0.turns.acquire_many(self.0.connections).await else { return };
        self.0.turns.close();
        drop(all);
        let idle = std::mem::take(&mut *self.0.idle());
        for connection in idle {
            // It is gone in any case; saying goodbye is a courtesy to the server's log.
            let _courtesy = timeout(PATIENCE, connection.close()).await;
        }
    }
}

impl Shared {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What broke one connection has broken the others as well: nobody has to find that out for each of them.
    fn suspect(&self) {
        self.idle().clear();
    }
}

/// A connection that is closed, unless it is given back.
pub(super) struct Lent {
    connection: PgConnection,
    home: Home,
}

struct Home {
    shared: Arc<Shared>,
    _turn: OwnedSemaphorePermit,
}

impl Lent {
    /// Its statement has come to an end.
    pub(super) fn give_back(self) {
        self.home.shared.idle().push(self.connection);
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
