//! An OpenTelemetry collector that keeps what it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::harness::in_time;

/// A span as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) service: String,
    pub(super) trace: String,
    pub(super) id: u64,
    pub(super) parent: u64,
    pub(super) name: String,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: BTreeMap<String, String>,
}

/// A collector that runs as long as its test.
pub(super) struct Collector {
    pub(super) endpoint: String,
    kept: Kept,
    changes: watch::Receiver<usize>,
}

type Kept = Arc<Mutex<Vec<Told>>>;

struct Service {
    kept: Kept,
    changed: watch::Sender<usize>,
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|one| (one.key, text(one.value))).collect()
}

fn id(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_process in request.into_inner().resource_spans {
            let resource = texts(of_process.resource.unwrap().attributes);
            assert!(resource.contains_key("service.version") && resource.contains_key("service.instance.id"));
            for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.kept.lock().unwrap().push(Told {
                    service: resource["service.name"].clone(),
                    trace: format!("{:032x}", u128::from_be_bytes(span.trace_id.try_into().unwrap())),
                    id: id(&span.span_id),
                    parent: id(&span.parent_span_id),
                    name: span.name,
                    start: span.start_time_unix_nano,
                    end: span.end_time_unix_nano,
                    attributes: texts(span.attributes),
                });
            }
        }
        self.changed.send_modify(|changes| *changes += 1);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (changed, changes) = watch::channel(0);
        let kept = Kept::default();
        let service = TraceServiceServer::new(Service { kept: Arc::clone(&kept), changed });
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        Self { endpoint, kept, changes }
    }

    /// Everything that was told so far.
    pub(super) fn all(&self) -> Vec<Told> {
        self.kept.lock().unwrap().clone()
    }

    /// The spans of a trace by their ids, as soon as this holds of them. What is told twice is one span.
    pub(super) async fn trace(
        &self,
        trace: &str,
        holds: impl Fn(&BTreeMap<u64, Told>) -> bool,
    ) -> BTreeMap<u64, Told> {
        let mut changes = self.changes.clone();
        let told = async {
            loop {
                let spans = self.all().into_iter().filter(|span| span.trace == trace);
                let spans: BTreeMap<u64, Told> = spans.map(|span| (span.id, span)).collect();
                if holds(&spans) {
                    return spans;
                }
                changes.changed().await.unwrap();
            }
        };
        in_time("the spans of the trace are told", told).await
    }
}
