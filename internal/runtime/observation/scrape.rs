//! Metrics over HTTP: `GET /metrics`.
//!
//! The rule this module protects: whoever asks, and however often, takes little: few connections at a time, one request on each,
//! and the stores are asked once a second at most. A store that does not answer costs its own metrics, and no others.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use eventsourcing::environment::{Environment as _, Stop, Timestamp};
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::lookup::Lookup;
use super::metrics::Metrics;
use super::{Owned, age};
use crate::runtime::environment::SystemEnvironment;

/// Connections at a time.
const CONNECTIONS: usize = 16;

/// How long a connection may take, from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a lookup may take.
const LOOKING: Duration = Duration::from_secs(2);

/// How long what was looked up is good enough.
const FRESH: Duration = Duration::from_secs(1);

/// The pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// The text format of OpenMetrics.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What is answered.
pub(super) struct Scrape {
    metrics: Metrics,
    lookups: Vec<Lookup>,
    owned: Owned,
    looked: Mutex<Option<Timestamp>>,
}

impl Scrape {
    pub(super) fn new(metrics: Metrics, lookups: Vec<Lookup>, owned: Owned) -> Self {
        Self { metrics, lookups, owned, looked: Mutex::new(None) }
    }

    /// The metrics as they are now.
    async fn text(&self) -> Result<String, std::fmt::Error> {
        for (role, partitions) in self.owned.counts() {
            self.metrics.owns(role.name(), partitions);
        }
        let mut looked = self.looked.lock().await;
        // A clock that was set back makes it look again, too.
        let fresh = looked.is_some_and(|at| at <= SystemEnvironment.now() && age(at) < FRESH);
        if !fresh {
            self.look().await;
            *looked = Some(SystemEnvironment.now());
        }
        self.metrics.text()
    }

    async fn look(&self) {
        let looking = self
            .lookups
            .iter()
            .map(async |lookup| (lookup.what, tokio::time::timeout(LOOKING, (lookup.look)()).await));
        let answers = join_all(looking).await;
        self.metrics.forget_readings();
        for (what, answer) in answers {
            match answer {
                Ok(Ok(readings)) => readings.into_iter().for_each(|reading| self.metrics.read(reading)),
                Ok(Err(error)) => {
                    tracing::debug!(what, %error, "a metric could not be looked up");
                    self.metrics.lookup_failed(what);
                }
                Err(_) => {
                    tracing::debug!(what, "a metric could not be looked up in time");
                    self.metrics.lookup_failed(what);
                }
            }
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/metrics" {
            return say(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = say(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match self.text().await {
            Ok(text) => {
                let mut answer = Response::new(Full::from(text));
                answer.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
                answer
            }
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written down");
                say(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written down\n")
            }
        }
    }
}

fn say(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, PLAIN);
    answer
}

/// Answers on a bound listener until it is told to stop.
///
/// # Errors
///
/// None: what is wrong with a connection is its own.
pub(super) async fn serve(listener: TcpListener, scrape: Arc<Scrape>, stop: Stop) -> Result<(), String> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Those who find no place wait in the operating system's queue.
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async { (place.await, listener.accept().await) };
        tokio::select! {
            biased;
            () = stop.given() => return Ok(()),
            Some(_ended) = connections.join_next() => {}
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let scrape = Arc::clone(&scrape);
                    connections.spawn(async move {
                        let _place = place;
                        converse(stream, &scrape).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection for metrics was not accepted");
                    SystemEnvironment.sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One request, and its answer.
async fn converse(stream: TcpStream, scrape: &Scrape) {
    let service =
        service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(scrape.answer(&request).await));
    let mut protocol = hyper::server::conn::http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    let conversation = protocol.serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(PATIENCE, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics broke"),
        Err(_) => tracing::debug!("a connection for metrics took too long"),
    }
}
