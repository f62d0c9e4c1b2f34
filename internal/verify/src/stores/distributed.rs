//! The distributed platform: two PostgreSQL databases and the streams of NATS, also while it runs.
//!
//! The rule this module protects: the order in which things are looked at, which the module above explains.

use std::str::FromStr as _;

use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::StreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};

use super::event::CloudEvent;
use super::postgres::statements;
use super::{StoreError, bundle};
use crate::{Audit, Bus};

/// A snapshot that stays what it is until it ends, and in which nothing can be written.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Where a distributed platform stores what it has.
pub struct Distributed<'a> {
    /// The event log's database: `postgres://..`.
    pub log: &'a str,
    /// The read models' database: `postgres://..`.
    pub models: &'a str,
    /// A connection to NATS.
    pub nats: async_nats::Client,
}

/// Takes in a distributed platform: an audit of it, to be finished.
///
/// # Errors
///
/// When a database or a stream is not there, or cannot be read.
pub async fn distributed(platform: Distributed<'_>) -> Result<Audit, StoreError> {
    let log_failed = |error: sqlx::Error| StoreError::new("the event log's database", error);
    let models_failed = |error: sqlx::Error| StoreError::new("the read models' database", error);
    let jetstream = jetstream::new(platform.nats);
    let mut log = open(platform.log).await.map_err(log_failed)?;
    let mut models = open(platform.models).await.map_err(models_failed)?;
    let partitions = partitions(&mut log).await.map_err(log_failed)?;
    let mut audit = Audit::new(partitions);

    models.execute(BEGIN).await.map_err(models_failed)?;
    statements::projected(&mut models, partitions, &mut audit).await.map_err(models_failed)?;
    statements::checkpoints(&mut log, &mut audit).await.map_err(log_failed)?;
    for partition in 0..partitions {
        messages(&jetstream, partition, &mut audit).await?;
    }
    queue(&jetstream, partitions, &mut audit).await?;
    log.execute(BEGIN).await.map_err(log_failed)?;
    take_in(&mut log, partitions, &mut audit).await.map_err(log_failed)?;
    for partition in 0..partitions {
        let name = events(partition);
        let last = ends(&jetstream, &name).await?.map_or(0, |(_, last)| last);
        audit.relayed(Bus::AfterTheLog, partition, last, None);
    }
    statements::rows(&mut models, &mut audit).await.map_err(models_failed)?;
    log.close().await.map_err(log_failed)?;
    models.close().await.map_err(models_failed)?;
    Ok(audit)
}

/// A connection whose transaction may take its time.
async fn open(url: &str) -> sqlx::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?
        .application_name("financing verify")
        .options([
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("default_transaction_read_only", "on"),
        ])
        .disable_statement_logging();
    options.connect().await
}

async fn partitions(log: &mut PgConnection) -> sqlx::Result<u16> {
    let row = log.fetch_one("SELECT partitions FROM deployment").await?;
    let count: i32 = row.try_get(0)?;
    u16::try_from(count).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

async fn take_in(log: &mut PgConnection, partitions: u16, audit: &mut Audit) -> sqlx::Result<()> {
    statements::partitions(log, audit).await?;
    statements::snapshots(log, audit).await?;
    statements::log(log, partitions, audit).await?;
    statements::inbox(log, audit).await
}

fn events(partition: u16) -> String {
    format!("EVENTS_{partition}")
}

/// A stream's first and last sequence; `None` where it is empty, or not there yet.
async fn ends(jetstream: &jetstream::Context, name: &str) -> Result<Option<(u64, u64)>, StoreError> {
    let stream = match jetstream.get_stream(name).await {
        Ok(stream) => stream,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(StoreError::new(name, error)),
    };
    let state = &stream.cached_info().state;
    Ok((state.last_sequence > 0).then_some((state.first_sequence, state.last_sequence)))
}

fn is_missing(error: &jetstream::context::GetStreamError) -> bool {
    match error.kind() {
        jetstream::context::GetStreamErrorKind::JetStream(error) => {
            error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND
        }
        jetstream::context::GetStreamErrorKind::EmptyName
        | jetstream::context::GetStreamErrorKind::Request
        | jetstream::context::GetStreamErrorKind::InvalidStreamName => false,
    }
}

/// Every message of a stream up to a sequence: its subject, its number, and what it says.
async fn read(
    jetstream: &jetstream::Context,
    name: &str,
    last: u64,
    mut take: impl FnMut(&str, u64, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::new(name, error);
    let stream = jetstream.get_stream(name).await.map_err(|error| failed(&error))?;
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
    if consumer.cached_info().num_pending == 0 {
        return Ok(());
    }
    let mut messages = consumer.messages().await.map_err(|error| failed(&error))?;
    while let Some(message) = messages.next().await {
        let message = message.map_err(|error| failed(&error))?;
        let (number, pending) = {
            let info = message.info().map_err(|error| failed(&error))?;
            (info.stream_sequence, info.pending)
        };
        if number > last {
            return Ok(());
        }
        take(&message.subject, number, &message.payload)?;
        // (Of a queue the last message may have been purged meanwhile: then none comes after this one.)
        if number == last || pending == 0 {
            return Ok(());
        }
    }
    Err(failed(&"the messages end before their time"))
}

/// A partition's bus.
async fn messages(
    jetstream: &jetstream::Context,
    partition: u16,
    audit: &mut Audit,
) -> Result<(), StoreError> {
    let name = events(partition);
    let Some((_, last)) = ends(jetstream, &name).await? else {
        audit.relayed(Bus::BeforeTheLog, partition, 0, None);
        return Ok(());
    };
    audit.relayed(Bus::BeforeTheLog, partition, last, None);
    read(jetstream, &name, last, |_, number, payload| {
        let wrong = |reason: &str| not_a_record(&name, number, reason);
        match serde_json::from_slice::<CloudEvent<'_>>(payload) {
            Ok(event) => match event.record(partition, number) {
                Ok(record) => audit.published(&record),
                Err(reason) => audit.unreadable(partition, number, &wrong(&reason)),
            },
            Err(error) => audit.unreadable(partition, number, &wrong(&error.to_string())),
        }
        Ok(())
    })
    .await
}

fn not_a_record(name: &str, number: u64, reason: &str) -> String {
    format!("message {number} of {name}: {reason}")
}

/// The command queue.
async fn queue(jetstream: &jetstream::Context, partitions: u16, audit: &mut Audit) -> Result<(), StoreError> {
    const NAME: &str = "COMMANDS";
    let Some((_, last)) = ends(jetstream, NAME).await? else { return Ok(()) };
    read(jetstream, NAME, last, |subject, number, payload| {
        let partition = subject.strip_prefix("financing.commands.").and_then(|index| index.parse().ok());
        match partition.filter(|partition| *partition < partitions) {
            Some(partition) => {
                bundle::take_in(audit, partition, number, payload);
                Ok(())
            }
            None => Err(StoreError::new(NAME, format!("message {number} is for nobody: {subject}"))),
        }
    })
    .await
}
