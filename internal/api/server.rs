//! The servers: of commands, of queries, of what changes a running platform, and of nothing but health.
//!
//! The rule this module protects: a server takes a listener that is bound already, bounds whatever a client can make it
//! hold (connections, messages, headers, streams, calls), and stops within its grace whatever its clients do.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use domain::live::LiveQueries;
use domain::story::Stories;
use domain::views::Queries;
use eventsourcing::environment::{Doorbells, Environment, Stop};
use eventsourcing::listener::Intake;
use eventsourcing::partition::PartitionCount;
use eventsourcing::ports::EventBus;

use super::admin::AdminServices;
use super::admission::Admission;
use super::call::Calls;
use super::command_service::CommandApi;
use super::connections::{affordable, incoming};
use super::gate::Gate;
use super::health::Pulse;
use super::integration_service::IntegrationApi;
use super::observation::CallWatch;
use super::platform::Description;
use super::proto::DESCRIPTORS;
use super::proto::financing::v1::command_service_server::CommandServiceServer;
use super::proto::financing::v1::query_service_server::QueryServiceServer;
use super::proto::registering::v1::integration_service_server::IntegrationServiceServer;
use super::query_service::QueryApi;
use super::serving::serve;
pub use super::watch::WatchLimits;

/// The largest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The services of the command side, as reflection and health name them.
pub(super) const COMMAND_SERVICES: &[&str] =
    &["financing.v1.CommandService", "registering.v1.IntegrationService"];

/// The services of the query side.
const QUERY_SERVICES: &[&str] = &["financing.v1.QueryService"];

/// Operators are few.
const OPERATORS: usize = 16;

/// What is served beside them.
const COMMON_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// What a server takes on at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls that are answered as soon as they can be.
    pub calls: usize,
    /// Calls that wait for something.
    pub waits: usize,
    /// Streams of facts. Far fewer than calls: each holds what it has read and not yet sent.
    pub streams: usize,
    /// Live queries, and what one may take.
    pub watch: WatchLimits,
    /// Connections; at least one.
    pub connections: usize,
    /// How long a new connection has to say that it speaks HTTP/2.
    pub preface: Duration,
    /// Calls on one connection.
    pub calls_per_connection: u32,
    /// How long a quiet connection is left alone before the client is asked whether it is still there.
    pub keepalive_interval: Duration,
    /// How long the client has to answer that.
    pub keepalive_timeout: Duration,
    /// How long a stopping server waits for its clients.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 4096,
            waits: 4096,
            streams: 256,
            watch: WatchLimits::USUAL,
            connections: affordable(),
            preface: Duration::from_secs(10),
            calls_per_connection: 1024,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        }
    }
}

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The contract cannot be published: a defect.
    #[error("the contract cannot be published: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What the query side reads from.
#[derive(Debug, Clone)]
pub struct Sources<Q, L, B> {
    /// The read models.
    pub queries: Q,
    /// The read models, as they change.
    pub live: L,
    /// The bus.
    pub bus: B,
    /// As many as the deployment has.
    pub partitions: PartitionCount,
    /// Rung after a projection.
    pub projected: Doorbells,
    /// Rung when the bus has more.
    pub relayed: Doorbells,
    /// What is told of the platform.
    pub description: Description,
}

/// Serves CommandService and IntegrationService on a bound listener until it is told to stop.
///
/// # Errors
///
/// See [`ServeError`].
pub async fn serve_commands<E: Environment>(
    listener: TcpListener,
    intake: Intake<E>,
    environment: E,
    limits: Limits,
    stop: Stop,
    watch: CallWatch,
) -> Result<(), ServeError> {
    let calls = calls(&environment, limits, &stop, watch);
    let commands = CommandServiceServer::new(CommandApi::new(intake.clone(), calls.clone()))
        .max_decoding_message_size(MAX_REQUEST_BYTES);
    let gate = calls.gate(MAX_REQUEST_BYTES);
    let events = IntegrationServiceServer::new(IntegrationApi::new(intake, calls))
        .max_decoding_message_size(MAX_REQUEST_BYTES);
    let routes = described(COMMAND_SERVICES, Routes::default(), &stop)?;
    let routes = routes.add_service(commands).add_service(events);
    until_stopped(routes, gate, listener, environment, limits, stop).await;
    Ok(())
}

/// Serves QueryService on a bound listener until it is told to stop.
///
/// # Errors
///
/// See [`ServeError`].
pub async fn serve_queries<E: Environment, Q: Queries + Stories, L: LiveQueries, B: EventBus>(
    listener: TcpListener,
    sources: Sources<Q, L, B>,
    environment: E,
    limits: Limits,
    stop: Stop,
    watch: CallWatch,
) -> Result<(), ServeError> {
    let Sources { queries, live, bus, partitions, projected, relayed, description } = sources;
    let queries = QueryServiceServer::new(QueryApi {
        queries: Arc::new(queries),
        live: Arc::new(live),
        bus: Arc::new(bus),
        partitions,
        projected,
        relayed,
        description,
        watching: limits.watch,
        calls: calls(&environment, limits, &stop, watch),
    })
    .max_decoding_message_size(MAX_REQUEST_BYTES);
    let routes = described(QUERY_SERVICES, Routes::default(), &stop)?.add_service(queries);
    until_stopped(routes, Gate::default(), listener, environment, limits, stop).await;
    Ok(())
}

/// Serves the services of the admin door on a bound listener until it is told to stop.
///
/// # Errors
///
/// See [`ServeError`].
pub async fn serve_admin<E: Environment>(
    listener: TcpListener,
    services: AdminServices<E>,
    environment: E,
    limits: Limits,
    stop: Stop,
) -> Result<(), ServeError> {
    let limits = Limits { connections: limits.connections.min(OPERATORS), ..limits };
    let (names, routes) = services.into_parts();
    let routes = described(&names, routes, &stop)?;
    until_stopped(routes, Gate::default(), listener, environment, limits, stop).await;
    Ok(())
}

/// Serves nothing but health and reflection on a bound listener until it is told to stop: for a process that takes no
/// requests.
///
/// # Errors
///
/// See [`ServeError`].
pub async fn serve_health<E: Environment>(
    listener: TcpListener,
    environment: E,
    limits: Limits,
    stop: Stop,
) -> Result<(), ServeError> {
    let routes = described(&[], Routes::default(), &stop)?;
    until_stopped(routes, Gate::default(), listener, environment, limits, stop).await;
    Ok(())
}

pub(super) fn calls<E: Environment>(
    environment: &E,
    limits: Limits,
    stop: &Stop,
    watch: CallWatch,
) -> Calls<E> {
    let admission = Admission::new(limits.calls, limits.waits, limits.streams, limits.watch.places);
    Calls::new(environment.clone(), admission, stop.clone(), watch)
}

/// These routes, with health and with reflection, which describes these services.
fn described(services: &[&'static str], routes: Routes, stop: &Stop) -> Result<Routes, ServeError> {
    let contract = || {
        let builder = Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET);
        let names = services.iter().chain(&COMMON_SERVICES);
        names.fold(builder, |builder, name| builder.with_service_name(*name))
    };
    let health = HealthServer::new(Pulse::new(services, stop.clone()));
    Ok(routes
        .add_service(health.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(contract().build_v1()?.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(contract().build_v1alpha()?.max_decoding_message_size(MAX_REQUEST_BYTES)))
}

/// Serves; then lets calls end that have begun, for as long as the grace lasts.
async fn until_stopped<E: Environment>(
    routes: Routes,
    gate: Gate,
    listener: TcpListener,
    environment: E,
    limits: Limits,
    stop: Stop,
) {
    let incoming = incoming(listener, limits.connections, limits.preface, environment.clone());
    let serving = serve(incoming, routes, gate, limits, stop.clone());
    let overdue = async {
        stop.given().await;
        environment.sleep(limits.grace).await;
    };
    if let Either::Right(_) = select(pin!(serving), pin!(overdue)).await {
        tracing::warn!("some clients did not hang up in time");
    }
}
