//! The distributed platform: two PostgreSQL databases and the streams of NATS, also while it runs.
//!
//! The rule this module protects: the order in which things are looked at, which the module above explains.

use std::str::FromStr as _;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
use futures_util::{Stream, StreamExt as _};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tokio::time::timeout;

use super::event::CloudEvent;
use super::postgres::statements;
use super::{StoreError, bundle};
use uuid::Uuid;

use crate::{Audit, Bus};

/// A snapshot that stays what it is until it ends, and in which nothing can be written.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How long a stream may say nothing while there is more to come. The client makes its consumer anew for ever, silently.
const SILENCE: Duration = Duration::from_secs(30);

const COMMANDS: &str = "COMMANDS";
/// What stands before the partition in the subjects of the queue.
const SUBJECT: &str = "financing.commands.";
/// Why nobody knows.
const REPLACED: &str = "it was replaced while it was looked at: look again";

/// How often the rest of a bus is looked for that was there a moment ago.
const LOOKS: usize = 3;

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
    let created_at = queue(&jetstream, partitions, &mut audit).await?;
    log.execute(BEGIN).await.map_err(log_failed)?;
    take_in(&mut log, partitions, &mut audit).await.map_err(log_failed)?;
    log.execute("COMMIT").await.map_err(log_failed)?;
    for partition in 0..partitions {
        let last = look(&jetstream, &events(partition)).await?.map_or(0, |stream| stream.last);
        audit.relayed(Bus::AfterTheLog, partition, last, None);
    }
    proof(&jetstream, &mut log, created_at, &mut audit).await?;
    statements::rows(&mut models, &mut audit).await.map_err(models_failed)?;
    log.close().await.map_err(log_failed)?;
    models.close().await.map_err(models_failed)?;
    Ok(audit)
}

/// A connection whose transaction may take its time.
async fn open(url: &str) -> sqlx::Result<PgConnection> {
    let options = parse(url)?
        .application_name("financing verify")
        .options([
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("default_transaction_read_only", "on"),
        ])
        .disable_statement_logging();
    options.connect().await
}

/// What a URL says. Nothing of it is in the error, nor in a log: any part of it may be a secret.
fn parse(url: &str) -> sqlx::Result<PgConnectOptions> {
    let wrong = |what: String| sqlx::Error::Configuration(what.into());
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong("its URL does not begin with postgres://".to_owned()));
    }
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    for (number, parameter) in (1..).zip(parameters.split('&').filter(|parameter| !parameter.is_empty())) {
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        // It would be ignored, and logged with its value.
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            let known = PARAMETERS.join(", ");
            return Err(wrong(format!("parameter {number} of its URL is none of {known}")));
        }
    }
    PgConnectOptions::from_str(url).map_err(|_| wrong("its URL cannot be read".to_owned()))
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

/// A stream, as it was a moment ago.
#[derive(Clone, Copy)]
struct Look {
    /// Microseconds since the Unix epoch.
    created_at: u64,
    /// The last sequence; 0 where nothing was ever stored.
    last: u64,
}

/// Looks at a stream; `None` where there is none.
async fn look(jetstream: &jetstream::Context, name: &str) -> Result<Option<Look>, StoreError> {
    let stream = match jetstream.get_stream(name).await {
        Ok(stream) => stream,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(StoreError::new(name, error)),
    };
    let info = stream.cached_info();
    let created_at = u64::try_from(info.created.unix_timestamp_nanos() / 1_000)
        .map_err(|_| StoreError::new(name, "the server does not say when it was created"))?;
    Ok(Some(Look { created_at, last: info.state.last_sequence }))
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

/// The next message, unless there comes none for too long.
async fn next<M>(
    name: &str,
    messages: &mut (impl Stream<Item = M> + Unpin),
) -> Result<Option<M>, StoreError> {
    let late =
        |_| StoreError::new(name, format!("it has said nothing for {SILENCE:?}, and there is more to come"));
    timeout(SILENCE, messages.next()).await.map_err(late)
}

/// Every message of a stream behind a sequence, up to another: its subject, its number, and what it says. Answers with
/// the last that there was: somebody may take away what is at the end, meanwhile.
async fn read(
    jetstream: &jetstream::Context,
    name: &str,
    (after, last): (u64, u64),
    mut take: impl FnMut(&str, u64, &[u8]) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::new(name, error);
    let stream = match jetstream.get_stream(name).await {
        Ok(stream) => stream,
        Err(error) if is_missing(&error) => return Ok(after),
        Err(error) => return Err(failed(&error)),
    };
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1) };
    let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
    let mut read = after;
    if consumer.cached_info().num_pending == 0 {
        return Ok(read);
    }
    let mut messages = consumer.messages().await.map_err(|error| failed(&error))?;
    while let Some(message) = next(name, &mut messages).await? {
        let message = message.map_err(|error| failed(&error))?;
        let (number, pending) = {
            let info = message.info().map_err(|error| failed(&error))?;
            (info.stream_sequence, info.pending)
        };
        if number > last {
            return Ok(read);
        }
        take(&message.subject, number, &message.payload)?;
        read = number;
        if number == last || pending == 0 {
            return Ok(read);
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
    let mut read_up_to = 0;
    for _ in 0..LOOKS {
        let last = look(jetstream, &name).await?.map_or(0, |stream| stream.last);
        // A tail that goes while it is read is no hole: the bus is shorter now, and that is all.
        if last <= read_up_to {
            break;
        }
        read_up_to = read(jetstream, &name, (read_up_to, last), |_, number, payload| {
            take_in_message(audit, partition, &name, number, payload);
            Ok(())
        })
        .await?;
        if read_up_to >= last {
            break;
        }
    }
    let next = read_up_to.saturating_add(1);
    if is_hole(jetstream, &name, next).await? {
        audit.unreadable(partition, next, &format!("message {next} of {name} is missing, and never comes"));
    }
    audit.relayed(Bus::BeforeTheLog, partition, read_up_to, None);
    Ok(())
}

/// Whether a stream counts on behind a message that it does not have: nobody will ever put that back. A tail that
/// goes is none, so it has to be there before and after.
async fn is_hole(jetstream: &jetstream::Context, name: &str, number: u64) -> Result<bool, StoreError> {
    let Some(before) = look(jetstream, name).await?.filter(|stream| stream.last >= number) else {
        return Ok(false);
    };
    let stream = match jetstream.get_stream(name).await {
        Ok(stream) => stream,
        Err(error) if is_missing(&error) => return Ok(false),
        Err(error) => return Err(StoreError::new(name, error)),
    };
    if message(&stream, name, number).await?.is_some() {
        return Ok(false);
    }
    let after = look(jetstream, name).await?;
    Ok(after.is_some_and(|after| after.created_at == before.created_at && after.last >= number))
}

/// One message; `None` where there is none.
async fn message(
    stream: &jetstream::stream::Stream,
    name: &str,
    number: u64,
) -> Result<Option<jetstream::message::StreamMessage>, StoreError> {
    match stream.get_raw_message(number).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(StoreError::new(name, error)),
    }
}

fn take_in_message(audit: &mut Audit, partition: u16, name: &str, number: u64, payload: &[u8]) {
    let wrong = |reason: &str| format!("message {number} of {name}: {reason}");
    match serde_json::from_slice::<CloudEvent<'_>>(payload) {
        Ok(event) => match event.record(partition, number) {
            Ok(record) => audit.published(&record),
            Err(reason) => audit.unreadable(partition, number, &wrong(&reason)),
        },
        Err(error) => audit.unreadable(partition, number, &wrong(&error.to_string())),
    }
}

/// The command queue. Answers with when it was created.
async fn queue(
    jetstream: &jetstream::Context,
    partitions: u16,
    audit: &mut Audit,
) -> Result<Option<u64>, StoreError> {
    let found = look(jetstream, COMMANDS).await?;
    let created_at = found.map(|stream| stream.created_at);
    audit.queue(created_at);
    let Some(last) = found.map(|stream| stream.last).filter(|last| *last > 0) else { return Ok(created_at) };
    // (What is at its end may have been purged meanwhile.)
    read(jetstream, COMMANDS, (0, last), |subject, number, payload| {
        let partition = subject.strip_prefix(SUBJECT).and_then(|index| index.parse().ok());
        match partition.filter(|partition| *partition < partitions) {
            Some(partition) => {
                bundle::take_in(audit, partition, number, payload);
                Ok(())
            }
            None => Err(StoreError::new(COMMANDS, format!("message {number} is for nobody: {subject}"))),
        }
    })
    .await?;
    Ok(created_at)
}

/// Looks in the queue for what the partitions' rows remember of it, as every worker does at its start. The log was read after
/// the queue: the message at a position may have come since, and gone since, when the position moved on.
async fn proof(
    jetstream: &jetstream::Context,
    log: &mut PgConnection,
    created_at: Option<u64>,
    audit: &mut Audit,
) -> Result<(), StoreError> {
    let Some(created_at) = created_at else { return Ok(()) };
    let stream = match jetstream.get_stream(COMMANDS).await {
        Ok(stream) => stream,
        Err(error) if is_missing(&error) => return Err(StoreError::new(COMMANDS, REPLACED)),
        Err(error) => return Err(StoreError::new(COMMANDS, error)),
    };
    let mut unproven = Vec::new();
    for (partition, (message, index), first) in audit.positions() {
        let subject = format!("{SUBJECT}{partition}");
        let found = self::message(&stream, COMMANDS, message).await?;
        let found = found.filter(|found| found.subject.as_str() == subject);
        // The row remembers a message by its first command and by when it was stored.
        let mark = |found: StreamMessage| {
            let stored_at = u64::try_from(found.time.unix_timestamp_nanos())
                .map_err(|error| StoreError::new(COMMANDS, error))?;
            let first = bundle::first(partition, message, &found.payload);
            Ok::<_, StoreError>(Uuid::new_v5(&first, &stored_at.to_be_bytes()))
        };
        let stands = found.map(mark).transpose()?;
        audit.stands(partition, stands);
        if stands != Some(first) {
            unproven.push((partition, (message, index), first));
        }
    }
    let again = look(jetstream, COMMANDS).await?;
    if again.is_none_or(|again| again.created_at != created_at) {
        return Err(StoreError::new(COMMANDS, REPLACED));
    }
    if unproven.is_empty() {
        return Ok(());
    }
    let rows = statements::rows_of_partitions(log).await;
    let rows = rows.map_err(|error| StoreError::new("the event log's database", error))?;
    for (partition, position, first) in unproven {
        let now = rows.iter().find(|(of, ..)| *of == partition);
        if now.is_none_or(|(_, row, _)| row.position != Some(position)) {
            audit.stands(partition, Some(first));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_says_nothing_any_more_is_not_waited_for_for_ever() {
        let mut messages = futures_util::stream::iter([1]).chain(futures_util::stream::pending());
        assert_eq!(next("EVENTS_0", &mut messages).await.unwrap(), Some(1));
        let error = next("EVENTS_0", &mut messages).await.unwrap_err().to_string();
        assert_eq!(error, "EVENTS_0: it has said nothing for 30s, and there is more to come");
    }

    #[test]
    fn nothing_of_a_url_is_in_an_error() {
        for url in [
            "postgres://u:hidden@h/d?pasword=hidden",
            "postgres://u:hidden@h/d?hidden",
            "postgres://u:hidden@h/d?sslmode=hidden",
            "postgres://u:hidden@h:hidden/d",
            "hidden",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains("URL") && !error.contains("hidden"), "{error}");
        }
        assert!(parse("postgres://u:hidden@h/d?sslmode=verify-full&application_name=a").is_ok());
    }
}
