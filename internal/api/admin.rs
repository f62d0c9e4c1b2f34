//! The admin door: what changes a running platform.
//!
//! The rule this module protects: what can be undone ends with its client, and what cannot goes on to its end. Whoever hangs up
//! has cancelled a rebuild, of which there is one at a time; an adoption that was begun is done.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use eventsourcing::environment::{Environment, Stop};
use eventsourcing::ports::{PortError, PortResult};
use eventsourcing::rebuild::{Phase, RebuildError, RebuildProgress, Rebuilds, RunningRebuild};

use super::proto::financing::v1::queue_admin_service_server::{QueueAdminService, QueueAdminServiceServer};
use super::proto::financing::v1::read_model_admin_service_server::{
    ReadModelAdminService, ReadModelAdminServiceServer,
};
use super::proto::financing::v1::{
    AdoptQueueRequest, AdoptQueueResponse, RebuildPhase, RebuildReadModelsRequest, RebuildReadModelsResponse,
};
use super::server::MAX_REQUEST_BYTES;
use super::status::ERROR_DOMAIN;

/// The pause between two messages of one phase: a person reads no faster.
const PAUSE: Duration = Duration::from_millis(100);

/// The reason where a rebuild is under way already.
const REBUILD_UNDER_WAY: &str = "REBUILD_UNDER_WAY";
/// The reason where the log is not the one that the read models were built from.
const ANOTHER_LOG: &str = "ANOTHER_LOG";
/// The reason where a queue cannot be adopted because somebody works with it.
const POLICIES_RUN: &str = "POLICIES_RUN";

fn refused(reason: &str, message: String) -> Status {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// Whoever gets in here is the operator, so the operator is told what is wrong.
fn port_failed(method: &'static str, error: &PortError) -> Status {
    tracing::warn!(method, %error, "an operation failed");
    match error {
        PortError::Unavailable(_) | PortError::Conflict(_) => Status::unavailable(error.to_string()),
        PortError::Full(_) => Status::resource_exhausted(error.to_string()),
        PortError::Content(_) | PortError::Broken(_) => Status::internal(error.to_string()),
    }
}

fn rebuild_failed(error: &RebuildError) -> Status {
    match error {
        RebuildError::UnderWay => refused(REBUILD_UNDER_WAY, error.to_string()),
        RebuildError::Astray(_) => refused(ANOTHER_LOG, error.to_string()),
        RebuildError::Cancelled => Status::cancelled(error.to_string()),
        RebuildError::Port(error) => port_failed("RebuildReadModels", error),
    }
}

/// What the admin door of a process is for: a line for each of its services.
pub struct AdminServices<E> {
    environment: E,
    stop: Stop,
    names: Vec<&'static str>,
    routes: Routes,
}

impl<E: Environment> AdminServices<E> {
    /// None yet. The stop is the server's.
    #[must_use]
    pub fn new(environment: E, stop: Stop) -> Self {
        Self { environment, stop, names: Vec::new(), routes: Routes::default() }
    }

    /// With rebuilds of the read models.
    #[must_use]
    pub fn with_rebuilds(self, rebuilds: impl Rebuilds) -> Self {
        let (environment, stop) = (self.environment.clone(), self.stop.clone());
        let service = ReadModelAdminServiceServer::new(ReadModelAdmin { environment, rebuilds, stop });
        self.with(service.max_decoding_message_size(MAX_REQUEST_BYTES))
    }

    /// With care for the command queue.
    #[must_use]
    pub fn with_queue(self, queue: impl QueueAdmin) -> Self {
        let service = QueueAdminServiceServer::new(QueueAdminApi(Arc::new(queue)));
        self.with(service.max_decoding_message_size(MAX_REQUEST_BYTES))
    }

    /// With another service.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Their names, and the way to each.
    pub(super) fn into_parts(self) -> (Vec<&'static str>, Routes) {
        (self.names, self.routes)
    }
}

/// `ReadModelAdminService`.
struct ReadModelAdmin<E, R> {
    environment: E,
    rebuilds: R,
    stop: Stop,
}

#[tonic::async_trait]
impl<E: Environment, R: Rebuilds> ReadModelAdminService for ReadModelAdmin<E, R> {
    type RebuildReadModelsStream = BoxStream<'static, Result<RebuildReadModelsResponse, Status>>;

    async fn rebuild_read_models(
        &self,
        _request: Request<RebuildReadModelsRequest>,
    ) -> Result<Response<Self::RebuildReadModelsStream>, Status> {
        let running = self.rebuilds.start().map_err(|error| rebuild_failed(&error))?;
        let telling = Telling { running, environment: self.environment.clone(), last: None };
        let stop = self.stop.clone();
        let told = stream::unfold(Some(telling), |telling| async {
            let mut telling = telling?;
            match telling.next().await {
                Ok(Some(progress)) => Some((Ok(response(&progress)), Some(telling))),
                Ok(None) => None,
                Err(error) => Some((Err(rebuild_failed(&error)), None)),
            }
        });
        // With the stream ends what it was told of: a server that stops cancels.
        Ok(Response::new(told.take_until(async move { stop.given().await }).boxed()))
    }
}

/// A rebuild on its way to a client. Dropping it cancels.
struct Telling<E> {
    running: RunningRebuild,
    environment: E,
    last: Option<Phase>,
}

impl<E: Environment> Telling<E> {
    async fn next(&mut self) -> Result<Option<RebuildProgress>, RebuildError> {
        if self.last.is_some_and(|phase| phase != Phase::Swapped) {
            self.environment.sleep(PAUSE).await;
        }
        let progress = self.running.next().await?;
        self.last = progress.map(|progress| progress.phase);
        Ok(progress)
    }
}

fn response(progress: &RebuildProgress) -> RebuildReadModelsResponse {
    let phase = match progress.phase {
        Phase::Building => RebuildPhase::Building,
        Phase::Indexing => RebuildPhase::Indexing,
        Phase::CatchingUp => RebuildPhase::CatchingUp,
        Phase::Swapped => RebuildPhase::Swapped,
    };
    RebuildReadModelsResponse {
        phase: phase.into(),
        partitions: progress.partitions.get().into(),
        records_done: progress.done,
        records_total: progress.all,
        records_per_second: progress.rate(),
        time_left: progress.time_left().map(wire_duration),
        elapsed: Some(wire_duration(progress.elapsed)),
    }
}

fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Less than a second has fewer nanoseconds than the type holds.
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

/// Where the command queue is looked after.
pub trait QueueAdmin: Send + Sync + 'static {
    /// Whether policies run in this process, which an adoption must not find.
    fn policies_run(&self) -> bool;

    /// Goes on with the queue that is there; answers with where everybody stood, in words.
    fn adopt(&self) -> impl Future<Output = PortResult<String>> + Send;
}

/// `QueueAdminService`.
struct QueueAdminApi<Q>(Arc<Q>);

#[tonic::async_trait]
impl<Q: QueueAdmin> QueueAdminService for QueueAdminApi<Q> {
    async fn adopt_queue(
        &self,
        _request: Request<AdoptQueueRequest>,
    ) -> Result<Response<AdoptQueueResponse>, Status> {
        if self.0.policies_run() {
            let message =
                "this process runs the policies: stop them everywhere, and ask a process that runs none";
            return Err(refused(POLICIES_RUN, message.to_owned()));
        }
        let adopting = Arc::clone(&self.0);
        // It is repeatable, and worse half done than done twice: so a client that hangs up does not end it.
        let adopted = tokio::spawn(async move { adopting.adopt().await }).await;
        let adopted = adopted.map_err(|error| Status::internal(error.to_string()))?;
        let summary = adopted.map_err(|error| port_failed("AdoptQueue", &error))?;
        tracing::info!(%summary, "the command queue was adopted");
        Ok(Response::new(AdoptQueueResponse { summary }))
    }
}
