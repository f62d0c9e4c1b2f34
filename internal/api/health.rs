//! `grpc.health.v1`.
//!
//! The rule this module protects: from the moment that the platform stops, whoever asks or watches is told so, and no
//! watch holds the stop up. (Those of tonic-health never end.)

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use eventsourcing::environment::Stop;

/// The health of one server: its services serve until it stops.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    /// The full names of the services; the empty one is the server's.
    services: Arc<[&'static str]>,
    stop: Stop,
}

impl Pulse {
    /// Of a server with these services.
    pub(crate) fn new(services: &[&'static str], stop: Stop) -> Self {
        Self { services: services.into(), stop }
    }

    fn status(&self, service: &str) -> Option<ServingStatus> {
        let known = service.is_empty() || self.services.contains(&service);
        known.then(|| if self.stop.is_given() { ServingStatus::NotServing } else { ServingStatus::Serving })
    }
}

fn says(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Pulse {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.status(&request.get_ref().service)
            .map(|status| Response::new(says(status)))
            .ok_or_else(|| Status::not_found("no such service on this port"))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let now = self.status(&request.get_ref().service).unwrap_or(ServingStatus::ServiceUnknown);
        let stop = self.stop.clone();
        let last = async move {
            stop.given().await;
            Ok(says(ServingStatus::NotServing))
        };
        let first = stream::iter([Ok(says(now))]);
        Ok(Response::new(first.chain(stream::once(last)).boxed()))
    }
}
