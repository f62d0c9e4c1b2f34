//! Reaching NATS and PostgreSQL, also before they are up.
//!
//! The rule this module protects: what is not there yet is waited for, whoever is started first; and what is wrong, a
//! password, a number of partitions, a server that is too old, ends the process with a message at once.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use eventsourcing::command::MAX_BUNDLE_BYTES;
use eventsourcing::environment::{Doorbells, Environment as _};
use eventsourcing::partition::{Deployment, PartitionCount};
use eventsourcing::ports::ReadModelSchema;
use futures_util::FutureExt as _;

use crate::nats::{self, Nats, Streams, Wake};
use crate::postgres::{self, PostgresLog, PostgresReadModels};
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::settings::{CommandDatabase, NatsSettings, QueryDatabase, Secret, StreamSettings};
use crate::runtime::signals::Signals;
use crate::runtime::supervise::Process;
use readmodel::tables;

use super::text;

/// The pause before another attempt: short, so that a platform whose parts are started at once is ready at once.
const PAUSE: Duration = Duration::from_millis(200);

/// The attempts between two log lines.
const SAY_EVERY: u32 = 50;

/// An error that says whether another attempt may help.
pub(super) trait Attempt: Display {
    fn retryable(&self) -> bool;
}

impl Attempt for postgres::OpenError {
    fn retryable(&self) -> bool {
        self.retryable()
    }
}

impl Attempt for nats::NatsError {
    fn retryable(&self) -> bool {
        self.retryable()
    }
}

/// Tries until it succeeds, or fails with what no attempt can cure.
pub(super) async fn until_up<T, E: Attempt>(
    what: &str,
    attempt: impl AsyncFn() -> Result<T, E>,
) -> Result<T, String> {
    let mut attempts: u32 = 0;
    loop {
        match attempt().await {
            Ok(connected) => return Ok(connected),
            Err(error) if error.retryable() => {
                if attempts.is_multiple_of(SAY_EVERY) {
                    tracing::warn!(%error, "waiting for {what}");
                }
                attempts = attempts.wrapping_add(1);
                SystemEnvironment.sleep(PAUSE).await;
            }
            Err(error) => return Err(format!("{what}: {error}")),
        }
    }
}

/// Starts, unless a signal asks to stop first. `None`: it did.
pub(super) async fn unless_stopped<T>(
    signals: &mut Signals,
    start: impl Future<Output = Result<T, String>>,
) -> Result<Option<T>, String> {
    tokio::select! {
        biased;
        _ = signals.next() => {
            tracing::info!("stopped before it was ready");
            Ok(None)
        }
        started = start => started.map(Some),
    }
}

/// Connects to NATS. `name` is what the server shows of this process.
pub(super) async fn nats(settings: &NatsSettings, name: &str) -> Result<Nats, String> {
    let connect = connection(settings, name);
    until_up("NATS", async || nats::connect(&connect).await).await
}

/// Connects to NATS, where it is up.
pub(in crate::runtime) async fn once(settings: &NatsSettings, name: &str) -> Result<Nats, String> {
    nats::connect(&connection(settings, name)).await.map_err(text)
}

fn connection(settings: &NatsSettings, name: &str) -> nats::Connect {
    nats::Connect {
        urls: settings.nats_url.reveal().split(',').map(str::trim).map(str::to_owned).collect(),
        user: settings.nats_user.clone(),
        password: reveal(settings.nats_password.as_ref()),
        token: reveal(settings.nats_token.as_ref()),
        nkey_seed: reveal(settings.nats_nkey.as_ref()),
        credentials_file: settings.nats_credentials.clone(),
        ca_file: settings.nats_ca.clone(),
        client_certificate: settings.nats_certificate.clone(),
        client_key: settings.nats_key.clone(),
        require_tls: settings.nats_tls,
        name: name.to_owned(),
    }
}

/// Bells that ring when another process says so.
pub(super) async fn wakes(nats: &Nats, process: &mut Process, topic: Wake) -> Result<Doorbells, String> {
    let bells = Doorbells::default();
    let heard = nats.listen(topic, bells.clone(), process.loops_stop()).await.map_err(text)?;
    process.loops.start("wake-ups", heard.map(Ok));
    Ok(bells)
}

fn reveal(secret: Option<&Secret>) -> Option<String> {
    secret.map(|secret| secret.reveal().to_owned())
}

/// How the streams are to be.
///
/// # Errors
///
/// When the queue is too small for what every partition keeps of it: the last bundle that was worked off, which a purge
/// spares. A queue that is full of these would take nothing any more, and nothing would ever leave it.
pub(super) fn streams(settings: &StreamSettings, partitions: PartitionCount) -> Result<Streams, String> {
    let least = u64::from(partitions.get()) * 2 * MAX_BUNDLE_BYTES as u64;
    if settings.queue_bytes < least {
        return Err(format!(
            "--queue-bytes {}: with {partitions} partitions at least {least}",
            settings.queue_bytes
        ));
    }
    Ok(Streams {
        partitions,
        deployment: None,
        replicas: usize::from(settings.nats_replicas),
        duplicate_window: settings.nats_duplicate_window,
        commands_max_bytes: settings.queue_bytes,
    })
}

/// How to reach the event log's database.
pub(super) fn log_database(settings: &CommandDatabase, name: &str) -> Result<postgres::Connect, String> {
    let url = settings.command_database_url.as_ref();
    let url = url.ok_or("--command-database-url (FINANCING_COMMAND_DATABASE_URL) is required")?;
    let connections = settings.command_database_connections;
    Ok(postgres::Connect { connections, ..postgres::Connect::new(url.reveal(), name) })
}

/// How to reach the read models' database.
pub(super) fn models_database(settings: &QueryDatabase, name: &str) -> Result<postgres::Connect, String> {
    let url = settings.query_database_url.as_ref();
    let url = url.ok_or("--query-database-url (FINANCING_QUERY_DATABASE_URL) is required")?;
    let connections = settings.query_database_connections;
    Ok(postgres::Connect { connections, ..postgres::Connect::new(url.reveal(), name) })
}

/// A deployment with this number of partitions, for a database that has none yet.
pub(super) fn new_deployment(partitions: PartitionCount) -> Deployment {
    Deployment { id: SystemEnvironment.uuid(), partitions, created_at: SystemEnvironment.now().as_micros() }
}

/// Opens the event log.
pub(super) async fn log(
    connect: &postgres::Connect,
    partitions: PartitionCount,
) -> Result<PostgresLog, String> {
    let new = new_deployment(partitions);
    until_up("the event log", async || PostgresLog::open(connect, &new).await).await
}

/// The tables of the read models.
pub(super) const MODELS: ReadModelSchema =
    ReadModelSchema { version: tables::SCHEMA_VERSION, tables: tables::TABLES };

/// The deployment that the bus belongs to, once the relayer has made its streams.
pub(super) async fn deployment(nats: &Nats, streams: &Streams) -> Result<Deployment, String> {
    until_up("the bus", async || {
        let deployment = nats.events_deployment().await?.ok_or(BusError::NotYet)?;
        nats.check_events(&Streams { deployment: Some(deployment), ..*streams }).await?;
        Ok::<_, BusError>(deployment)
    })
    .await
}

/// Why the bus cannot be read.
#[derive(Debug, thiserror::Error)]
enum BusError {
    #[error("its streams are not there yet: a relayer makes them")]
    NotYet,
    #[error(transparent)]
    Nats(#[from] nats::NatsError),
}

impl Attempt for BusError {
    fn retryable(&self) -> bool {
        match self {
            Self::NotYet => true,
            Self::Nats(error) => error.retryable(),
        }
    }
}

/// Opens the read models to write them.
pub(super) async fn models(
    connect: &postgres::Connect,
    deployment: &Deployment,
) -> Result<PostgresReadModels, String> {
    until_up("the read models", async || PostgresReadModels::open(connect, deployment, MODELS).await).await
}

/// Opens the read models to read them.
pub(super) async fn models_to_read(
    connect: &postgres::Connect,
    deployment: &Deployment,
) -> Result<PostgresReadModels, String> {
    let open = async || PostgresReadModels::open_to_read(connect, deployment, MODELS).await;
    until_up("the read models", open).await.map_err(text)
}
