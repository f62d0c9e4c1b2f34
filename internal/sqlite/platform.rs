//! The store of log, queue and bus in one file.
//!
//! The rule this module protects: the log, the queue, the bus and the policies' checkpoints share a file and its one
//! writer, so that what happens at one moment shares one flush.

use std::path::Path;
use std::sync::Arc;

use eventsourcing::environment::Doorbells;
use eventsourcing::partition::Deployment;
use eventsourcing::ports::{PortError, PortResult};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqlitePool};

use super::bus::{For, SqliteBus};
use super::connect;
use super::error::{OpenError, port_error};
use super::lock::DirectoryLock;
use super::log::SqliteLog;
use super::memory::Memory;
use super::queue::SqliteQueue;
use super::schema;
use super::writer::Writer;

/// The file's name in the data directory.
pub(super) const FILE: &str = "platform.db";
/// What an import writes, until it is whole and gets the name of the store.
pub(super) const IMPORTING: &str = "platform.db.importing";
/// Bytes of commands without an outcome that the queue takes at most, unless told otherwise.
const QUEUE_BYTES: u64 = 256 * 1024 * 1024;

/// Who else may write the file.
#[derive(Debug)]
pub enum Access {
    /// Nobody: the directory is locked. What the store remembers is all there is.
    Alone(DirectoryLock),
    /// Others may: the store asks the file whether there is more.
    Shared,
}

/// The wake-ups of those who wait for something in the file.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// Commands were queued.
    pub commands: Doorbells,
    /// Records were committed.
    pub records: Doorbells,
    /// Records are on the bus.
    pub relayed: Doorbells,
}

/// What the handles share.
pub(super) struct Shared {
    pub(super) writer: Writer,
    pub(super) readers: SqlitePool,
    /// For [`For::Watchers`].
    pub(super) watchers: SqlitePool,
    pub(super) memory: Arc<Memory>,
    pub(super) signals: Signals,
    pub(super) deployment: Deployment,
    pub(super) queue_bytes: u64,
    _lock: Option<DirectoryLock>,
}

impl Shared {
    pub(super) async fn reader(&self) -> PortResult<PoolConnection<Sqlite>> {
        self.readers.acquire().await.map_err(|error| port_error(&error))
    }
}

/// The event log, the command queue and the event bus of one data directory.
#[derive(Clone)]
pub struct PlatformStore(Arc<Shared>);

impl PlatformStore {
    /// Opens the store in a directory, and creates it where there is none: then as the deployment that is given.
    /// A store that exists keeps its id and the time of its creation.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, does not flush as it must, has another schema, or was created with another
    /// number of partitions.
    pub async fn open(directory: &Path, access: Access, new: &Deployment) -> Result<Self, OpenError> {
        Self::open_with(directory, access, new, QUEUE_BYTES).await
    }

    /// The same, with another limit for the bytes of commands that wait for their outcome.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn open_with(
        directory: &Path,
        access: Access,
        new: &Deployment,
        queue_bytes: u64,
    ) -> Result<Self, OpenError> {
        let io =
            |error: std::io::Error| OpenError::Io { path: directory.to_owned(), reason: error.to_string() };
        if let Access::Alone(lock) = &access
            && lock.directory() != directory
        {
            let other = format!("the lock is that of {}", lock.directory().display());
            return Err(io(std::io::Error::other(other)));
        }
        std::fs::create_dir_all(directory).map_err(io)?;
        let (path, importing) = (directory.join(FILE), directory.join(IMPORTING));
        if importing.exists() {
            return Err(OpenError::Unfinished { path: importing });
        }
        let mut connection = connect::writer(&path).await?;
        let deployment = schema::settle(&path, &mut connection, new).await?;
        let readers = connect::readers(&path).await?;
        let watchers = connect::readers(&path).await?;
        let lock = match access {
            Access::Alone(lock) => Some(lock),
            Access::Shared => None,
        };
        let memory = Arc::new(Memory::new(deployment.partitions, lock.is_some()));
        let doubted = Arc::clone(&memory);
        let writer = Writer::start(&path, connection, Arc::new(move || doubted.doubt()));
        let failed = |reason: PortError| OpenError::Store { path: path.clone(), reason };
        memory.marks(&readers).await.map_err(failed)?;
        memory.recount(&readers).await.map_err(failed)?;
        Ok(Self(Arc::new(Shared {
            writer,
            readers,
            watchers,
            memory,
            signals: Signals::default(),
            deployment,
            queue_bytes,
            _lock: lock,
        })))
    }

    /// The event log, which keeps the policies' checkpoints as well.
    #[must_use]
    pub fn log(&self) -> SqliteLog {
        SqliteLog(Arc::clone(&self.0))
    }

    /// The command queue.
    #[must_use]
    pub fn queue(&self) -> SqliteQueue {
        SqliteQueue(Arc::clone(&self.0), self.0.queue_bytes)
    }

    /// The command queue for those who send the first command of a saga. It is full a quarter earlier: however much
    /// comes in, there is room for the commands that follow from what was accepted, or nothing would ever settle.
    #[must_use]
    pub fn intake(&self) -> SqliteQueue {
        SqliteQueue(Arc::clone(&self.0), self.0.queue_bytes / 4 * 3)
    }

    /// The event bus.
    #[must_use]
    pub fn bus(&self) -> SqliteBus {
        SqliteBus(Arc::clone(&self.0), For::Loops)
    }

    /// The event bus for readers that may stop in the middle and stay there.
    #[must_use]
    pub fn watched_bus(&self) -> SqliteBus {
        SqliteBus(Arc::clone(&self.0), For::Watchers)
    }

    /// What wakes the loops.
    #[must_use]
    pub fn signals(&self) -> &Signals {
        &self.0.signals
    }

    /// The deployment as the file knows it.
    #[must_use]
    pub fn deployment(&self) -> Deployment {
        self.0.deployment
    }

    /// Finishes what was submitted and closes the file. Later calls answer that the store is unavailable.
    pub async fn close(&self) {
        self.0.readers.close().await;
        self.0.watchers.close().await;
        self.0.writer.close().await;
    }

    /// Completes when the writer has ended. Before [`Self::close`] that is a defect, and nothing can be written any
    /// more.
    pub async fn ended(&self) {
        self.0.writer.ended().await;
    }
}
