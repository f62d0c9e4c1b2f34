//! The connection to the server.
//!
//! The rule this module protects: nobody works with a server that he may not trust: it is recent enough, it stores, and
//! whoever reads knows when the connection is not the one that he began with.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ConnectErrorKind, Event, Statistics};
use eventsourcing::ports::{PortError, PortResult};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::error::{NatsError, request_error};
use super::settings::Connect;
use super::wake::Rings;
use super::watchman;

/// The oldest server that is accepted: the first that knows `persist_mode`.
const LEAST_VERSION: (u64, u64, u64) = (2, 12, 0);
/// How long the server may take to acknowledge a message, or to send a page.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to answer a question. While a cluster chooses who answers it, nobody does, and nobody will: so whoever asks
/// in that time must soon ask again.
const ANSWER: Duration = Duration::from_secs(3);
/// Acknowledgements under way, of everybody on the connection.
const UNACKNOWLEDGED: usize = 64 * 1024;

/// How often the connection came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Turns {
    made: u64,
    lost: u64,
}

/// A connection that comes back by itself, for ever. A clone is the same connection.
#[derive(Clone)]
pub struct Nats(Arc<Link>);

struct Link {
    client: Client,
    jetstream: jetstream::Context,
    statistics: Arc<Statistics>,
    turns: watch::Receiver<Turns>,
    rings: Rings,
    /// Tasks of the connection's own.
    tasks: Vec<AbortHandle>,
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.0.client.server_info();
        f.debug_struct("Nats").field("host", &info.host).field("port", &info.port).finish_non_exhaustive()
    }
}

/// Connects, and makes sure that the server can do what the platform relies on. It tries once: who starts decides
/// whether to try again, by [`NatsError::retryable`]. Once made, the connection comes back for ever.
///
/// # Errors
///
/// See [`NatsError`].
pub async fn connect(settings: &Connect) -> Result<Nats, NatsError> {
    settings.check()?;
    let (turned, turns) = watch::channel(Turns::default());
    let turned = Arc::new(turned);
    let options = settings.options().await?.event_callback(move |event| {
        tell(&event, &turned);
        std::future::ready(())
    });
    let client = options.connect(settings.urls.clone()).await.map_err(|error| connect_error(&error))?;
    let info = client.server_info();
    check_version(&info.version)?;
    if !info.jetstream {
        return Err(NatsError::NoJetStream);
    }
    let jetstream = ContextBuilder::new()
        .timeout(ANSWER)
        // Longer than whoever waits is patient: what never comes has to decide the fate of what is behind it, once for all of
        // it, and the client's own clock would run for each of them anew.
        .ack_timeout(PATIENCE * 2)
        .max_ack_inflight(UNACKNOWLEDGED)
        .build(client.clone());
    let rings = Rings::default();
    let mut tasks = rings.send_by(&client);
    tasks.push(watchman::watch(&client, &jetstream, settings.urls.len()));
    let statistics = client.statistics();
    let nats = Nats(Arc::new(Link { client, jetstream, statistics, turns, rings, tasks }));
    match nats.request::<serde_json::Value>("INFO", &()).await? {
        Ok(_) => Ok(nats),
        Err(error) => Err(match error.error_code() {
            ErrorCode::JETSTREAM_NOT_ENABLED => NatsError::NoJetStream,
            ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => NatsError::NotForAccount,
            _ => NatsError::Unavailable(error.to_string()),
        }),
    }
}

fn tell(event: &Event, turned: &watch::Sender<Turns>) {
    match event {
        Event::Connected => {
            tracing::info!("connected to NATS");
            turned.send_modify(|turns| turns.made += 1);
        }
        Event::Disconnected => {
            tracing::warn!("the connection to NATS is lost");
            turned.send_modify(|turns| turns.lost += 1);
        }
        Event::SlowConsumer(subscription) => {
            tracing::warn!(subscription, "messages were dropped: a reader is too slow");
        }
        Event::LameDuckMode => tracing::warn!("the NATS server is about to stop"),
        Event::ServerError(error) => tracing::warn!(%error, "the NATS server reports an error"),
        Event::ClientError(error) => tracing::warn!(%error, "no connection to NATS yet"),
        Event::Draining | Event::Closed => tracing::info!(%event, "the connection to NATS ends"),
    }
}

fn connect_error(error: &async_nats::ConnectError) -> NatsError {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match error.kind() {
        ConnectErrorKind::ServerParse => NatsError::Settings("a server's URL cannot be read".to_owned()),
        ConnectErrorKind::Authentication => {
            NatsError::Settings("the nkey seed or the credentials cannot sign".to_owned())
        }
        ConnectErrorKind::AuthorizationViolation => NatsError::Refused("authorization violation".to_owned()),
        ConnectErrorKind::Tls => NatsError::Refused(error.to_string()),
        // A handshake that fails is reported as an error of the stream below.
        ConnectErrorKind::Io if io.is_some_and(|io| io.kind() == io::ErrorKind::InvalidData) => {
            NatsError::Refused(error.to_string())
        }
        ConnectErrorKind::Io
        | ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::MaxReconnects => NatsError::Unreachable(error.to_string()),
    }
}

fn check_version(found: &str) -> Result<(), NatsError> {
    let (major, minor, patch) = LEAST_VERSION;
    let too_old = || NatsError::TooOld { found: found.to_owned(), least: format!("{major}.{minor}.{patch}") };
    let plain = found.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = plain.split('.').map(|number| number.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    match (next(), next(), next()) {
        (Some(major), Some(minor), Some(patch)) if (major, minor, patch) >= LEAST_VERSION => Ok(()),
        _ => Err(too_old()),
    }
}

impl Nats {
    /// The connection itself, for whoever reads the streams without this module.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    pub(super) fn jetstream(&self) -> &jetstream::Context {
        &self.0.jetstream
    }

    pub(super) fn rings(&self) -> &Rings {
        &self.0.rings
    }

    /// How often the connection was made. It grows before anything arrives over the new one.
    pub(super) fn connects(&self) -> u64 {
        self.0.statistics.connects.load(Ordering::Acquire)
    }

    /// Sends what waits to be sent, for at most a second: the replies to what was just committed. Without a connection it
    /// is lost, and whoever waits asks again.
    pub async fn flush(&self) {
        if self.is_connected() {
            let flushed = tokio::time::timeout(Duration::from_secs(1), self.0.client.flush()).await;
            if !matches!(flushed, Ok(Ok(()))) {
                tracing::debug!("the last replies may not have been sent");
            }
        }
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.client.connection_state() == State::Connected
    }

    /// The most bytes of a message, its headers included.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.0.client.max_payload()
    }

    /// Refuses where there is no connection: what is sent now would be sent some time later.
    pub(super) fn connected(&self) -> PortResult<()> {
        if self.is_connected() {
            return Ok(());
        }
        Err(PortError::Unavailable("there is no connection to NATS".to_owned()))
    }

    /// Completes when the connection is lost, or was lost since this call.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut turns = self.0.turns.clone();
        let before = turns.borrow_and_update().lost;
        async move {
            // An error means that the client is gone, and its connection with it.
            let _closed = turns.wait_for(|turns| turns.lost != before).await;
        }
    }

    /// Completes when a connection was made since this call.
    pub(super) fn made(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut turns = self.0.turns.clone();
        let before = turns.borrow_and_update().made;
        async move {
            if turns.wait_for(|turns| turns.made != before).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Asks JetStream's API. The outer error: it did not answer; the inner one: it said no.
    pub(super) async fn request<V: DeserializeOwned>(
        &self,
        subject: &str,
        payload: &(impl Serialize + Sync),
    ) -> PortResult<Result<V, jetstream::Error>> {
        let asking = async {
            let answer = self.0.jetstream.request(subject.to_owned(), payload).await;
            answer.map_err(|error| request_error(subject, &error))
        };
        match self.answered(asking).await? {
            Response::Err { error } => Ok(Err(error)),
            Response::Ok(value) => Ok(Ok(value)),
        }
    }

    /// Waits for an answer over the connection that there is now. The client bounds how long the server may take, but not
    /// how long the request may wait to be written.
    pub(super) async fn answered<T>(&self, asking: impl Future<Output = PortResult<T>>) -> PortResult<T> {
        self.connected()?;
        let lost = self.lost();
        tokio::select! {
            biased;
            () = lost => Err(connection_lost()),
            answer = tokio::time::timeout(PATIENCE * 2, asking) => answer.unwrap_or_else(|_| Err(stuck())),
        }
    }
}

/// What it says that nothing can be handed to the connection.
pub(super) fn stuck() -> PortError {
    PortError::Unavailable("the connection to NATS does not write, and what waits for it is full".to_owned())
}

/// What it says that an answer will never come.
pub(super) fn connection_lost() -> PortError {
    PortError::Unavailable("the connection to NATS was lost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_refused() {
        for good in ["2.12.0", "2.12.1", "2.15.1", "3.0.0", "2.13.0-RC.1", "2.12.0+build"] {
            assert_eq!(check_version(good), Ok(()), "{good}");
        }
        for old in ["2.11.9", "2.9.10", "1.99.99", "", "2.12", "x.y.z"] {
            let refused = check_version(old).unwrap_err();
            assert!(!refused.retryable());
            assert!(refused.to_string().contains("at least 2.12.0 is needed"), "{refused}");
        }
    }
}
