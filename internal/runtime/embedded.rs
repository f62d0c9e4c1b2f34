//! The platform in one process: every part, on the files of one directory.
//!
//! The rule this module protects: intake stops first and the loops last, so that whatever a client was told is accepted
//! is worked on until the end, and what is left at the end is on disk.

use std::fmt::Display;
use std::io::Write as _;

use domain::financing::Financing;
use domain::integration::Registering;
use domain::saga::Saga;
use eventsourcing::assignment::Assignment;
use eventsourcing::deadletters::InTheLog;
use eventsourcing::environment::Stop;
use eventsourcing::letters::Letters;
use eventsourcing::listener::Intake;
use eventsourcing::ports::{ReadModelSchema, Role};
use readmodel::{FinancingProjection, LiveReadModels, ReadModelQueries, tables};
use tokio::net::TcpListener;

use crate::api::admin::AdminServices;
use crate::api::dead_letters::dead_letter_service;
use crate::api::observation::CallWatch;
use crate::api::platform::{Description, Topology};
use crate::api::proto::financing::v1::dead_letter_service_server::{
    DeadLetterService, DeadLetterServiceServer,
};
use crate::api::server::{Limits, Sources, serve_commands, serve_queries};
use crate::sqlite::{DirectoryLock, SqliteBus, SqliteReadModels};

use super::config::EmbeddedSettings;
use super::door;
use super::environment::SystemEnvironment;
use super::observation::Telemetry;
use super::observation::lookup::{projection_age, projection_lag, queue_depth, relay_lag, unsettled};
use super::rebuild::ReadModelRebuilds;
use super::signals::Signals;
use super::stores::Stores;
use super::supervise::Process;

/// How durable a command is when it is answered.
const DURABILITY: &str =
    "flushed to disk in the queue's SQLite file (WAL, synchronous=FULL) before it is answered";

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
    let mut telemetry = Telemetry::start(&settings.telemetry, "financing").await?;
    let schema = ReadModelSchema { version: tables::SCHEMA_VERSION, tables: tables::TABLES };
    let admin_listener = match settings.admin_addr {
        Some(address) => bind(address, "--admin-addr").await?,
        None => door::usual().await?,
    };
    let stores = Stores::open(&settings.data_dir, lock, settings.partitions, schema).await?;
    let stores = stores.observed_by(telemetry.watch());
    look_up(&mut telemetry, &stores);

    let mut process = Process::default();
    let loops_stop = process.loops_stop();
    let intake = stores.start_loops::<Financing>(Saga, FinancingProjection, &mut process.loops, &loops_stop);

    announce(&settings, &command_listener, &query_listener)?;
    let limits = Limits { grace: settings.grace_seconds, ..Limits::default() };
    let letters = letters(&stores, intake.clone(), limits, &process.intake_stop(), telemetry.calls());
    let (stop, sources) = (process.intake_stop(), sources(&stores));
    let watch = telemetry.calls();
    process.servers.start("command server", async move {
        serve_commands(command_listener, intake, SystemEnvironment, limits, stop, watch).await.map_err(text)
    });
    let (stop, watch) = (process.intake_stop(), telemetry.calls());
    process.servers.start("query server", async move {
        serve_queries(query_listener, sources, SystemEnvironment, limits, stop, watch).await.map_err(text)
    });

    let rebuilds = ReadModelRebuilds::new(
        stores.platform().watched_bus(),
        stores.read_models().clone(),
        settings.partitions,
    );
    let services = AdminServices::new(SystemEnvironment, process.intake_stop())
        .with_rebuilds(rebuilds.clone())
        .with(letters);
    door::open(&mut process, admin_listener, services, limits)?;
    telemetry.serve(&mut process)?;

    let ended = process.run(signals, stores.death()).await;
    rebuilds.ended(settings.grace_seconds).await;
    stores.close().await;
    telemetry.finish().await;
    ended?;
    tracing::info!("stopped");
    Ok(())
}

/// What is looked up when somebody asks for metrics.
fn look_up(telemetry: &mut Telemetry, stores: &Stores) {
    let (platform, partitions) = (stores.platform(), stores.partitions());
    for role in [Role::Worker, Role::Relayer, Role::Policies, Role::Projector] {
        telemetry.owned().add(role, &Assignment::of(partitions.all()));
    }
    telemetry.looks_up(queue_depth(platform.log(), platform.queue(), partitions));
    telemetry.looks_up(relay_lag(platform.log(), platform.bus(), partitions));
    let models = stores.read_models().clone();
    telemetry.looks_up(projection_lag(platform.watched_bus(), models.clone(), partitions));
    telemetry.looks_up(projection_age(platform.watched_bus(), models.clone(), partitions));
    telemetry.looks_up(unsettled(models));
}

fn letters(
    stores: &Stores,
    intake: Intake<SystemEnvironment>,
    limits: Limits,
    stop: &Stop,
    watch: CallWatch,
) -> DeadLetterServiceServer<impl DeadLetterService> {
    let platform = stores.platform();
    let letters =
        Letters::new(Registering, platform.log(), InTheLog, platform.watched_bus(), stores.partitions());
    dead_letter_service(letters, intake, &SystemEnvironment, limits, stop, watch)
}

/// What the query side reads from, in the embedded platform.
type EmbeddedSources =
    Sources<ReadModelQueries<SqliteReadModels>, LiveReadModels<SqliteReadModels, SqliteBus>, SqliteBus>;

fn sources(stores: &Stores) -> EmbeddedSources {
    let (platform, read_models) = (stores.platform(), stores.read_models());
    Sources {
        queries: ReadModelQueries::new(read_models.clone()),
        // Of three connections one is left to those who ask once, also while watches look and read.
        live: LiveReadModels::new(read_models.clone(), platform.watched_bus(), stores.partitions(), 1),
        bus: platform.watched_bus(),
        partitions: stores.partitions(),
        projected: read_models.projected().clone(),
        relayed: platform.signals().relayed.clone(),
        description: Description { topology: Topology::Embedded, durability: DURABILITY.to_owned() },
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
