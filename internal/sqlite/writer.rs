//! One writer a file, one flush for everything that waits together.
//!
//! The rule this module protects: a transaction belongs to the writer's task and never to a caller, so a caller that
//! gives up leaves none open. While one commit is being flushed the next jobs gather; they share the next flush, and a
//! job that fails harms nobody but itself.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use eventsourcing::ports::{PortError, PortResult};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};
use tokio::sync::{mpsc, oneshot};

use super::connect;
use super::error::port_error;

/// Jobs that share one flush at most.
const GROUP: usize = 256;
/// Jobs that may wait; beyond that the callers do.
const WAITING: usize = 1024;

/// A few statements that happen together or not at all. It may be run more than once before it is committed.
///
/// When one of its statements fails, nothing of the group is kept, so a statement over many rows need not be able to take back
/// what it has done so far: `OR FAIL` says so, and `SQLite` then copies no page that it changes.
pub(super) trait Job: Send + Sync + 'static {
    /// What the caller is told after the commit.
    type Answer: Send + 'static;

    /// Runs the statements. The transaction around them is the writer's.
    fn run(&self, connection: &mut SqliteConnection)
    -> impl Future<Output = PortResult<Self::Answer>> + Send;

    /// Called once it is on disk, before the caller is answered, in the order of the commits.
    fn committed(&self, answer: &Self::Answer);
}

/// A job with the one who waits for it, whatever its answer is.
trait Waiting: Send {
    fn run<'a>(
        &'a mut self,
        connection: &'a mut SqliteConnection,
    ) -> Pin<Box<dyn Future<Output = PortResult<()>> + Send + 'a>>;

    fn finish(self: Box<Self>, result: PortResult<()>);
}

struct Pending<J: Job> {
    job: J,
    answer: Option<J::Answer>,
    caller: oneshot::Sender<PortResult<J::Answer>>,
}

impl<J: Job> Waiting for Pending<J> {
    fn run<'a>(
        &'a mut self,
        connection: &'a mut SqliteConnection,
    ) -> Pin<Box<dyn Future<Output = PortResult<()>> + Send + 'a>> {
        Box::pin(async move {
            self.answer = Some(self.job.run(connection).await?);
            Ok(())
        })
    }

    fn finish(self: Box<Self>, result: PortResult<()>) {
        let Self { job, answer, caller } = *self;
        let answer = match (result, answer) {
            (Ok(()), Some(answer)) => {
                job.committed(&answer);
                Ok(answer)
            }
            (Ok(()), None) => Err(PortError::Unavailable("the writer did not run the job".to_owned())),
            (Err(error), _) => Err(error),
        };
        // What the job holds is released before its caller goes on.
        drop(job);
        // A caller that gave up is told nothing; what it asked for has happened all the same.
        let _gone = caller.send(answer);
    }
}

enum Message {
    Job(Box<dyn Waiting>),
    Close(oneshot::Sender<()>),
}

/// Called when a commit's outcome is unknown, so that nobody trusts what is remembered.
pub(super) type Doubt = Arc<dyn Fn() + Send + Sync>;

/// The way to a file's only writer.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Message>);

impl Writer {
    /// Starts the writer's task on an open connection. It ends when it is closed or every handle is gone.
    pub(super) fn start(path: &Path, connection: SqliteConnection, doubt: Doubt) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let task = Task { path: path.to_owned(), connection: Some(connection), doubt };
        tokio::spawn(task.work(receiver));
        Self(sender)
    }

    /// Runs a job, and comes back when it is on disk.
    pub(super) async fn submit<J: Job>(&self, job: J) -> PortResult<J::Answer> {
        let (caller, answer) = oneshot::channel();
        let pending = Pending { job, answer: None, caller };
        let closed = || PortError::Unavailable("the store is closed".to_owned());
        self.0.send(Message::Job(Box::new(pending))).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Finishes what was submitted, folds the write-ahead log into the file, and closes it.
    pub(super) async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.0.send(Message::Close(closed)).await.is_ok() {
            // An error means that somebody else closed it first.
            let _done = done.await;
        }
        self.0.closed().await;
    }

    /// Completes when the writer's task has ended, for whatever reason.
    pub(super) async fn ended(&self) {
        self.0.closed().await;
    }
}

/// Why a group was not committed.
enum Failed {
    /// One of its jobs failed, and nothing of the group happened.
    Job(PortError),
    /// The file failed.
    File(PortError),
}

struct Task {
    path: PathBuf,
    /// `None`: broken, to be opened again.
    connection: Option<SqliteConnection>,
    doubt: Doubt,
}

impl Task {
    async fn work(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut closing: Vec<oneshot::Sender<()>> = Vec::new();
        while closing.is_empty() {
            let Some(first) = messages.recv().await else { break };
            let mut group: Vec<Box<dyn Waiting>> = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Job(job) => group.push(job),
                    Message::Close(closed) => closing.push(closed),
                }
                next =
                    if group.len() < GROUP && closing.is_empty() { messages.try_recv().ok() } else { None };
            }
            if !group.is_empty() {
                self.commit(group).await;
            }
        }
        if let Some(mut connection) = self.connection.take() {
            if let Err(error) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await {
                tracing::debug!(path = %self.path.display(), %error, "the write-ahead log stays for the next start");
            }
            if let Err(error) = connection.close().await {
                tracing::warn!(path = %self.path.display(), %error, "the file was not closed in order");
            }
        }
        drop(messages);
        for closed in closing {
            let _gone = closed.send(());
        }
    }

    async fn commit(&mut self, mut group: Vec<Box<dyn Waiting>>) {
        match self.attempt(&mut group).await {
            Ok(()) => finish(group, &Ok(())),
            Err(Failed::File(error)) => finish(group, &Err(error)),
            Err(Failed::Job(error)) if group.len() == 1 => finish(group, &Err(error)),
            Err(Failed::Job(error)) => {
                tracing::debug!(%error, jobs = group.len(), "one job of a group failed: each goes alone");
                for mut job in group {
                    let result = match self.attempt(std::slice::from_mut(&mut job)).await {
                        Ok(()) => Ok(()),
                        Err(Failed::Job(error) | Failed::File(error)) => Err(error),
                    };
                    job.finish(result);
                }
            }
        }
    }

    async fn attempt(&mut self, group: &mut [Box<dyn Waiting>]) -> Result<(), Failed> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect::writer(&self.path)
                .await
                .map_err(|error| Failed::File(PortError::Unavailable(error.to_string())))?,
        };
        if let Err(error) = connection.execute("BEGIN IMMEDIATE").await {
            // Dropping the connection closes it: whatever state it is in ends with it.
            return Err(Failed::File(unavailable(&error)));
        }
        for job in group {
            if let Err(error) = job.run(&mut connection).await {
                if let Err(error) = connection.execute("ROLLBACK").await {
                    // SQLite ends the transaction by itself after some errors. A new connection has none either way.
                    tracing::debug!(%error, "no rollback: opening the file again");
                } else {
                    self.connection = Some(connection);
                }
                return Err(Failed::Job(error));
            }
        }
        if let Err(error) = connection.execute("COMMIT").await {
            tracing::error!(path = %self.path.display(), %error, "a commit failed");
            (self.doubt)();
            let _ended = connection.execute("ROLLBACK").await;
            let _closed = connection.close().await;
            // Once more: who asked meanwhile may have seen either state.
            (self.doubt)();
            return Err(Failed::File(unavailable(&error)));
        }
        self.connection = Some(connection);
        Ok(())
    }
}

/// Answers all of a group, in order.
fn finish(group: Vec<Box<dyn Waiting>>, result: &PortResult<()>) {
    for job in group {
        job.finish(result.clone());
    }
}

/// At the edges of a transaction every error is the file's, and says nothing of any job.
fn unavailable(error: &sqlx::Error) -> PortError {
    PortError::Unavailable(port_error(error).to_string())
}
