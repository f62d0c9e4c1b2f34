//! The embedded platform without its servers: every loop, on the files of one directory, for any context.
//!
//! The rule this module protects: nothing here knows an invoice, so whoever builds a domain of their own starts it with the same
//! few lines as this one.

use std::fmt::Display;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use eventsourcing::assignment::Assignment;
use eventsourcing::command::Envelope;
use eventsourcing::deadletters::InTheLog;
use eventsourcing::desk::Desk;
use eventsourcing::environment::{Doorbell, Environment as _, Stop, Stopper, within};
use eventsourcing::listener::{Intake, Listener, ListenerLimits, SubmitError};
use eventsourcing::model::{Model, Policies, Projection};
use eventsourcing::observer::Watch;
use eventsourcing::outcome::{Outcome, Reply};
use eventsourcing::partition::{Deployment, LogPosition, Partition, PartitionCount};
use eventsourcing::policy::PolicyRunner;
use eventsourcing::ports::{PortResult, ReadModelSchema, ReadModels as _};
use eventsourcing::projector::{Projector, prove};
use eventsourcing::relayer::Relayer;
use eventsourcing::worker::{Worker, WorkerLimits};
use uuid::Uuid;

use crate::sqlite::{Access, DirectoryLock, PlatformStore, SqliteReadModels};

use super::environment::SystemEnvironment;
use super::supervise::Parts;

/// How often the relayer looks, also when nobody woke it.
const RELAY_POLL: Duration = Duration::from_millis(100);

/// How often every other loop looks, also when nobody woke it. In one process wake-ups are not lost; this is a net.
const POLL: Duration = Duration::from_secs(1);

/// The file of the read models in the data directory.
const READ_MODELS: &str = "readmodels.db";

/// The name under which the policies keep their checkpoints.
pub(super) const POLICIES: &str = "policies";

/// The files of a data directory.
pub struct Stores {
    platform: PlatformStore,
    read_models: SqliteReadModels,
    partitions: PartitionCount,
    watch: Watch,
}

impl Stores {
    /// Opens the files of a directory, or makes them.
    ///
    /// # Errors
    ///
    /// When they cannot be opened, belong to other partitions or tables, or do not belong together.
    pub async fn open(
        directory: &Path,
        lock: DirectoryLock,
        partitions: PartitionCount,
        schema: ReadModelSchema,
    ) -> Result<Self, String> {
        let new = Deployment {
            id: SystemEnvironment.uuid(),
            partitions,
            created_at: SystemEnvironment.now().as_micros(),
        };
        let platform = PlatformStore::open(directory, Access::Alone(lock), &new).await.map_err(text)?;
        let path = directory.join(READ_MODELS);
        let anew = |error: &dyn Display| {
            format!(
                "{error} To build the read models anew, stop the platform, delete {}* and start it.",
                path.display()
            )
        };
        let read_models = SqliteReadModels::open(&path, &platform.deployment(), schema)
            .await
            .map_err(|error| anew(&error))?;
        let all: Vec<Partition> = partitions.all().collect();
        prove(&platform.bus(), &read_models, &all).await.map_err(|trouble| anew(&trouble))?;
        Ok(Self { platform, read_models, partitions, watch: Watch::default() })
    }

    /// The same files, with somebody who looks on at the loops.
    #[must_use]
    pub fn observed_by(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }

    /// Starts every loop of a context; answers with where its commands come in.
    pub fn start_loops<M: Model>(
        &self,
        policies: impl Policies<M>,
        projection: impl Projection<M>,
        parts: &mut Parts,
        stop: &Stop,
    ) -> Intake<SystemEnvironment> {
        let (log, queue, bus) = (self.platform.log(), self.platform.queue(), self.platform.bus());
        let (signals, partitions) = (self.platform.signals(), self.partitions);
        let everything = || Assignment::of(partitions.all());
        // Of this process alone: addresses are stored with the commands, and outlive it.
        let desk = Desk::new(&format!("here-{}", SystemEnvironment.uuid()));

        let bell = Doorbell::default();
        let (listener, intake) = Listener::new(
            self.platform.intake(),
            partitions,
            ListenerLimits::default(),
            desk.clone(),
            bell.clone(),
            SystemEnvironment,
        );
        parts.start_loop(listener.observed_by(self.watch.clone()), bell, POLL, stop.clone());

        let assignment = everything();
        let worker: Worker<M, _, _, _, _> = Worker::new(
            log.clone(),
            queue.clone(),
            desk,
            SystemEnvironment,
            partitions,
            assignment.clone(),
            WorkerLimits::default(),
        );
        let worker = worker.observed_by(self.watch.clone());
        parts.start_loop(worker, signals.commands.hang(), POLL, stop.clone());
        parts.guard("worker", assignment);

        let assignment = everything();
        let relayer = Relayer::new(log.clone(), bus.clone(), SystemEnvironment, assignment.clone())
            .observed_by(self.watch.clone());
        parts.start_loop(relayer, signals.records.hang(), RELAY_POLL, stop.clone());
        parts.guard("relayer", assignment);

        let assignment = everything();
        let runner: PolicyRunner<M, _, _, _, _, _> = PolicyRunner::new(
            policies,
            POLICIES,
            bus.clone(),
            queue,
            log,
            InTheLog,
            partitions,
            assignment.clone(),
        );
        let runner = runner.observed_by(self.watch.clone());
        parts.start_loop(runner, signals.relayed.hang(), POLL, stop.clone());
        parts.guard("policies", assignment);

        let assignment = everything();
        let projector: Projector<M, _, _, _> =
            Projector::new(projection, bus, self.read_models.clone(), assignment.clone());
        let projector = projector.observed_by(self.watch.clone());
        parts.start_loop(projector, signals.relayed.hang(), POLL, stop.clone());
        parts.guard("projector", assignment);
        intake
    }

    /// The event log, the queue and the bus.
    #[must_use]
    pub const fn platform(&self) -> &PlatformStore {
        &self.platform
    }

    /// The read models.
    #[must_use]
    pub const fn read_models(&self) -> &SqliteReadModels {
        &self.read_models
    }

    /// The number of partitions.
    #[must_use]
    pub const fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    /// Completes when a store can no longer be written.
    pub async fn death(&self) -> String {
        tokio::select! {
            biased;
            () = self.platform.ended() => "the writer of the event log died".to_owned(),
            () = self.read_models.ended() => "the writer of the read models died".to_owned(),
        }
    }

    /// Closes the files: what was written is on disk.
    pub async fn close(&self) {
        self.platform.close().await;
        self.read_models.close().await;
    }
}

/// A context that runs in this process: stores and loops, for whoever puts servers of their own in front of them, or none.
pub struct Running {
    stores: Stores,
    loops: Parts,
    stopper: Stopper,
    front: Front,
}

impl Running {
    /// Opens the files of a directory, or makes them, with the usual number of partitions, and starts every loop.
    ///
    /// # Errors
    ///
    /// As [`Stores::open`]; and when another process has the directory.
    pub async fn start<M: Model>(
        directory: &Path,
        schema: ReadModelSchema,
        policies: impl Policies<M>,
        projection: impl Projection<M>,
    ) -> Result<Self, String> {
        let lock = DirectoryLock::acquire(directory).map_err(text)?;
        let stores = Stores::open(directory, lock, PartitionCount::DEFAULT, schema).await?;
        let (mut loops, (stopper, stop)) = (Parts::default(), Stop::new());
        let intake = stores.start_loops::<M>(policies, projection, &mut loops, &stop);
        let front = Front { intake, read_models: stores.read_models().clone() };
        Ok(Self { stores, loops, stopper, front })
    }

    /// What a server needs of it. A clone is the same one, for a handler of its own.
    #[must_use]
    pub const fn front(&self) -> &Front {
        &self.front
    }

    /// Completes when a loop has died or a store can no longer be written, with the reason: then it is time to end.
    pub async fn death(&mut self) -> String {
        tokio::select! {
            biased;
            reason = self.loops.death() => reason,
            reason = self.stores.death() => reason,
        }
    }

    /// Finishes what is under way and closes the files.
    ///
    /// # Errors
    ///
    /// When a loop has died.
    pub async fn stop(self) -> Result<(), String> {
        self.stopper.stop();
        let ended = self.loops.ended().await;
        self.stores.close().await;
        ended
    }
}

/// Why there is no outcome to tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It was not accepted, or nobody knows whether it was.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// Its id was used for another command. Nothing was done.
    #[error("{0} was used for another command")]
    Reused(Uuid),
    /// The time was up first. The command is accepted; asking again under the same id gets its outcome.
    #[error("no outcome in {0:?}; the command is accepted")]
    Pending(Duration),
}

/// The front of a running context: where its commands come in, and its read models.
#[derive(Clone)]
pub struct Front {
    intake: Intake<SystemEnvironment>,
    read_models: SqliteReadModels,
}

impl Front {
    /// Hands a command in, under an id of the caller's, and waits for its outcome. The same id again gets the same outcome.
    ///
    /// # Errors
    ///
    /// When it is not accepted, its id was used for another command, or there is no outcome in time.
    pub async fn ask<M: Model>(
        &self,
        command_id: Uuid,
        actor: &str,
        command: &M::Command,
        wait: Duration,
    ) -> Result<Outcome, AskError> {
        let envelope = Envelope::first::<M>(command_id, actor.to_owned(), command)
            .map_err(|error| SubmitError::Unqueueable(error.to_string()))?;
        match self.intake.submit_and_wait(envelope, wait).await? {
            Some(Reply::Outcome(outcome)) => Ok(outcome),
            Some(Reply::Reused { command_id }) => Err(AskError::Reused(command_id)),
            None => Err(AskError::Pending(wait)),
        }
    }

    /// Looks into the read models, and again after every projection, until there is something to see. `None`: the time was
    /// up first.
    ///
    /// # Errors
    ///
    /// What the look ends with.
    pub async fn until<T, L: Future<Output = PortResult<Option<T>>>>(
        &self,
        wait: Duration,
        look: impl Fn() -> L,
    ) -> PortResult<Option<T>> {
        // Hung up before the first look: what is projected after it rings.
        let bell = self.read_models.projected().hang();
        let looking = async {
            loop {
                if let Some(seen) = look().await? {
                    return Ok(Some(seen));
                }
                bell.rung().await;
            }
        };
        within(&SystemEnvironment, wait, looking).await.unwrap_or(Ok(None))
    }

    /// Waits until the read models show what an outcome wrote. `false`: the time was up first.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn shows(&self, position: LogPosition, wait: Duration) -> PortResult<bool> {
        let look = || async move {
            let projected = self.read_models.checkpoints(&[position.partition]).await?;
            Ok(projected.iter().any(|(_, projected)| projected.sequence >= position.sequence).then_some(()))
        };
        Ok(self.until(wait, look).await?.is_some())
    }

    /// The read models.
    #[must_use]
    pub const fn read_models(&self) -> &SqliteReadModels {
        &self.read_models
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
