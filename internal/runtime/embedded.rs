//! The platform in one process: every part, on the files of one directory.
//!
//! The rule this module protects: intake stops first and the loops last, so that whatever a client was told is accepted
//! is worked on until the end, and what is left at the end is on disk.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use domain::financing::Financing;
use domain::saga::Saga;
use eventsourcing::assignment::Assignment;
use eventsourcing::deadletters::InTheLog;
use eventsourcing::desk::Desk;
use eventsourcing::environment::{Doorbell, Environment as _, Stop};
use eventsourcing::listener::{Intake, Listener, ListenerLimits};
use eventsourcing::partition::{Deployment, Partition, PartitionCount};
use eventsourcing::policy::PolicyRunner;
use eventsourcing::ports::ReadModelSchema;
use eventsourcing::projector::{Projector, prove};
use eventsourcing::relayer::Relayer;
use eventsourcing::worker::{Worker, WorkerLimits};
use tokio::net::TcpListener;

use crate::api::server::{Limits, Sources, serve_commands, serve_queries};
use crate::sqlite::{Access, DirectoryLock, PlatformStore, SqliteReadModels};
use readmodel::{FinancingProjection, ReadModelQueries, tables};

use super::config::EmbeddedSettings;
use super::environment::SystemEnvironment;
use super::signals::Signals;
use super::supervise::{Parts, Process};

/// How often the relayer looks, also when nobody woke it.
const RELAY_POLL: Duration = Duration::from_millis(100);

/// How often every other loop looks, also when nobody woke it. In one process wake-ups are not lost; this is a net.
const POLL: Duration = Duration::from_secs(1);

/// The file of the read models in the data directory.
const READ_MODELS: &str = "readmodels.db";

/// The name under which the policies keep their checkpoints.
const POLICIES: &str = "policies";

/// Runs the platform until it is told to stop, or a part of it dies.
///
/// # Errors
///
/// When it cannot start, or a part has died.
pub async fn run(settings: EmbeddedSettings) -> Result<(), String> {
    let signals = Signals::listen().map_err(text)?;
    let lock = DirectoryLock::acquire(&settings.data_dir).map_err(text)?;
    let command_listener = bind(settings.command_addr, "--command-addr").await?;
    let query_listener = bind(settings.query_addr, "--query-addr").await?;
    let stores = Stores::open(&settings.data_dir, lock, settings.partitions).await?;

    let mut process = Process::default();
    let loops_stop = process.loops_stop();
    let intake = stores.start_loops(&mut process.loops, &loops_stop);

    announce(&settings, &command_listener, &query_listener)?;
    let limits = Limits { grace: settings.grace_seconds, ..Limits::default() };
    let (stop, sources) = (process.intake_stop(), stores.sources());
    process.servers.start("command server", async move {
        serve_commands(command_listener, intake, SystemEnvironment, limits, stop).await.map_err(text)
    });
    let stop = process.intake_stop();
    process.servers.start("query server", async move {
        serve_queries(query_listener, sources, SystemEnvironment, limits, stop).await.map_err(text)
    });

    let ended = process.run(signals, stores.death()).await;
    stores.close().await;
    ended?;
    tracing::info!("stopped");
    Ok(())
}

/// The files of a data directory.
struct Stores {
    platform: PlatformStore,
    read_models: SqliteReadModels,
    partitions: PartitionCount,
}

impl Stores {
    async fn open(directory: &Path, lock: DirectoryLock, partitions: PartitionCount) -> Result<Self, String> {
        let new = Deployment {
            id: SystemEnvironment.uuid(),
            partitions,
            created_at: SystemEnvironment.now().as_micros(),
        };
        let platform = PlatformStore::open(directory, Access::Alone(lock), &new).await.map_err(text)?;
        let schema = ReadModelSchema { version: tables::SCHEMA_VERSION, tables: tables::TABLES };
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
        Ok(Self { platform, read_models, partitions })
    }

    /// Starts every loop; answers with where commands come in.
    fn start_loops(&self, parts: &mut Parts, stop: &Stop) -> Intake<SystemEnvironment> {
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
        parts.start_loop(listener, bell, POLL, stop.clone());

        let assignment = everything();
        let worker: Worker<Financing, _, _, _, _> = Worker::new(
            log.clone(),
            queue.clone(),
            desk,
            SystemEnvironment,
            partitions,
            assignment.clone(),
            WorkerLimits::default(),
        );
        parts.start_loop(worker, signals.commands.hang(), POLL, stop.clone());
        parts.guard("worker", assignment);

        let assignment = everything();
        let relayer = Relayer::new(log.clone(), bus.clone(), assignment.clone());
        parts.start_loop(relayer, signals.records.hang(), RELAY_POLL, stop.clone());
        parts.guard("relayer", assignment);

        let assignment = everything();
        let policies: PolicyRunner<Financing, _, _, _, _, _> = PolicyRunner::new(
            Saga,
            POLICIES,
            bus.clone(),
            queue,
            log,
            InTheLog,
            partitions,
            assignment.clone(),
        );
        parts.start_loop(policies, signals.relayed.hang(), POLL, stop.clone());
        parts.guard("policies", assignment);

        let assignment = everything();
        let projector: Projector<Financing, _, _, _> =
            Projector::new(FinancingProjection, bus, self.read_models.clone(), assignment.clone());
        parts.start_loop(projector, signals.relayed.hang(), POLL, stop.clone());
        parts.guard("projector", assignment);
        intake
    }

    fn sources(&self) -> Sources<ReadModelQueries<SqliteReadModels>, crate::sqlite::SqliteBus> {
        Sources {
            queries: ReadModelQueries::new(self.read_models.clone()),
            bus: self.platform.watched_bus(),
            partitions: self.partitions,
            projected: self.read_models.projected().clone(),
            relayed: self.platform.signals().relayed.clone(),
        }
    }

    /// Completes when a store can no longer be written.
    async fn death(&self) -> String {
        tokio::select! {
            biased;
            () = self.platform.ended() => "the writer of the event log died".to_owned(),
            () = self.read_models.ended() => "the writer of the read models died".to_owned(),
        }
    }

    async fn close(&self) {
        self.platform.close().await;
        self.read_models.close().await;
    }
}

async fn bind(address: std::net::SocketAddr, setting: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{setting} {address}: {error}"))
}

/// Says where it listens, on standard output and in this form, for people and for programs.
fn announce(
    settings: &EmbeddedSettings,
    commands: &TcpListener,
    queries: &TcpListener,
) -> Result<(), String> {
    let (commands, queries) = (commands.local_addr().map_err(text)?, queries.local_addr().map_err(text)?);
    let mut out = std::io::stdout();
    let data = settings.data_dir.display();
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, %commands, %queries, %data, partitions = %settings.partitions, "listening");
    writeln!(out, "commands on {commands}\nqueries on {queries}\ndata in {data}")
        .and_then(|()| out.flush())
        .map_err(text)
}

fn text(error: impl Display) -> String {
    error.to_string()
}
