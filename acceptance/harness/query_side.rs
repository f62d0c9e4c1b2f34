//! The query side alone, over an empty store, fed with facts: by a bus in files, or by NATS. Nothing of the command side runs.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::events::Event;
use domain::financing::{Command, Financing};
use domain::investor::InvestorEvent;
use domain::invoice::InvoiceEvent;
use domain::issuer::IssuerEvent;
use domain::refusal::Refusal;
use eventsourcing::assignment::Assignment;
use eventsourcing::environment::{Environment as _, Stop, Stopper};
use eventsourcing::model::{AggregateRef, Model as _};
use eventsourcing::partition::{Deployment, LogPosition, Partition, PartitionCount, Sequence, Version};
use eventsourcing::ports::{
    Commit, EventBus as _, EventLog as _, PartitionCommit, Publication, QueuePosition, ReadModelSchema,
};
use eventsourcing::projector::Projector;
use eventsourcing::record::{
    COMMAND_DEAD, COMMAND_REFUSED, COMMAND_UNCHANGED, Record, RefusedData, UnchangedData,
};
use eventsourcing::turn::drive;
use invoice_financing::api::observation::CallWatch;
use invoice_financing::api::server::{Limits, Sources, serve_queries};
use invoice_financing::api::{self, platform::Description};
use invoice_financing::nats::{Connect, NatsBus, Streams};
use invoice_financing::runtime::environment::SystemEnvironment;
use invoice_financing::sqlite::{
    Access, DirectoryLock, PlatformStore, SqliteBus, SqliteLog, SqliteReadModels,
};
use readmodel::{FinancingProjection, LiveReadModels, ReadModelQueries, tables};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use super::home::{Home, Topology};
use super::platform::connect;
use super::program::Running;
use super::proto::query_service_client::QueryServiceClient;

/// A query side with its own store.
pub(crate) struct QuerySide {
    fed: Fed,
    heads: BTreeMap<Partition, Sequence>,
    versions: BTreeMap<AggregateRef, Version>,
    address: String,
    channel: Channel,
}

/// Where the facts go in.
enum Fed {
    /// Into a log and its bus in files, behind a projector and a query service in this process.
    Files { log: SqliteLog, bus: SqliteBus, _directory: TempDir, _stopper: Stopper },
    /// Into NATS, in front of the processes of the query side.
    Nats { bus: NatsBus, _processes: Box<[Running; 2]>, _home: Box<Home> },
}

/// A record before it has a place: whom it is about, its name, its data, and whether it is a fact.
struct Line {
    aggregate: AggregateRef,
    event_type: &'static str,
    data: String,
    is_fact: bool,
}

fn subject(event: &Event) -> AggregateRef {
    match event {
        Event::Issuer(IssuerEvent::IssuerCreated(event)) => event.issuer_id.aggregate(),
        Event::Investor(event) => match event {
            InvestorEvent::InvestorCreated(event) => event.investor_id.aggregate(),
            InvestorEvent::InvestorFundsAdded(event) => event.investor_id.aggregate(),
            InvestorEvent::BidOnInvoicePlaced(event) => event.investor_id.aggregate(),
            InvestorEvent::InvestorFundsReleased(event) => event.investor_id.aggregate(),
            InvestorEvent::InvestorFundsCommitted(event) => event.investor_id.aggregate(),
        },
        Event::Invoice(event) => match event {
            InvoiceEvent::InvoiceCreated(event) => event.invoice_id.aggregate(),
            InvoiceEvent::InvoiceFinanced(event) => event.invoice_id.aggregate(),
            InvoiceEvent::BidOnInvoiceRejected(event) => event.invoice_id.aggregate(),
            InvoiceEvent::InvoiceApproved(event) => event.invoice_id.aggregate(),
            InvoiceEvent::InvoiceReversed(event) => event.invoice_id.aggregate(),
        },
    }
}

impl QuerySide {
    const PARTITIONS: PartitionCount = PartitionCount::DEFAULT;

    /// Starts one over an empty store.
    pub(crate) async fn start() -> Self {
        let (fed, address) = match Topology::configured() {
            Topology::Embedded | Topology::Running { .. } => Self::over_files().await,
            Topology::Distributed => Self::over_nats().await,
        };
        let channel = connect(&address).await;
        Self { fed, heads: BTreeMap::new(), versions: BTreeMap::new(), address, channel }
    }

    fn deployment() -> Deployment {
        Deployment {
            id: SystemEnvironment.uuid(),
            partitions: Self::PARTITIONS,
            created_at: SystemEnvironment.now().as_micros(),
        }
    }

    async fn over_files() -> (Fed, String) {
        let directory = TempDir::new().unwrap();
        let deployment = Self::deployment();
        let lock = DirectoryLock::acquire(directory.path()).unwrap();
        let platform = PlatformStore::open(directory.path(), Access::Alone(lock), &deployment).await.unwrap();
        let schema = ReadModelSchema { version: tables::SCHEMA_VERSION, tables: tables::TABLES };
        let models = SqliteReadModels::open(&directory.path().join("readmodels.db"), &deployment, schema)
            .await
            .unwrap();

        let (stopper, stop) = Stop::new();
        let (log, bus) = (platform.log(), platform.bus());
        let assignment = Assignment::of(Self::PARTITIONS.all());
        let mut projector = Projector::<Financing, _, _, _>::new(
            FinancingProjection,
            bus.clone(),
            models.clone(),
            assignment,
        );
        let (bell, until) = (platform.signals().relayed.hang(), stop.clone());
        tokio::spawn(async move {
            drive(&mut projector, &SystemEnvironment, &bell, Duration::from_millis(100), &until).await
        });

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let sources = Sources {
            queries: ReadModelQueries::new(models.clone()),
            live: LiveReadModels::new(models.clone(), bus.clone(), Self::PARTITIONS, 1),
            bus: bus.clone(),
            partitions: Self::PARTITIONS,
            projected: models.projected().clone(),
            relayed: platform.signals().relayed.clone(),
            description: Description {
                topology: api::platform::Topology::Embedded,
                durability: String::new(),
            },
        };
        tokio::spawn(serve_queries(
            listener,
            sources,
            SystemEnvironment,
            Limits::default(),
            stop,
            CallWatch::default(),
        ));
        (Fed::Files { log, bus, _directory: directory, _stopper: stopper }, address)
    }

    async fn over_nats() -> (Fed, String) {
        let home = Home::distributed();
        let services = home.services().expect("a distributed home");
        let nats = invoice_financing::nats::connect(&Connect::to(&services.nats.url())).await.unwrap();
        let streams = Streams {
            partitions: Self::PARTITIONS,
            deployment: Some(Self::deployment()),
            replicas: 1,
            duplicate_window: Duration::from_mins(2),
            commands_max_bytes: 1 << 20,
        };
        nats.ensure_events(&streams).await.unwrap();
        let projector = services.program(env!("CARGO_BIN_EXE_queryprojectord"));
        let queries =
            services.program(env!("CARGO_BIN_EXE_queriesd")).set("FINANCING_QUERY_ADDR", "127.0.0.1:0");
        let mut processes = [projector.start(home.log("projector")), queries.start(home.log("queries"))];
        processes[0].says("health on ").await;
        let address = format!("http://{}", processes[1].says("queries on ").await);
        let bus = NatsBus::for_relayer(&nats, streams);
        (Fed::Nats { bus, _processes: Box::new(processes), _home: Box::new(home) }, address)
    }

    /// A client that takes little at a time: what it has not asked for, the server has hardly read yet.
    pub(crate) async fn slow_queries(&self) -> QueryServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(self.address.clone()).unwrap().initial_stream_window_size(4096);
        QueryServiceClient::new(endpoint.connect().await.unwrap())
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn queries(&self) -> QueryServiceClient<Channel> {
        QueryServiceClient::new(self.channel.clone())
    }

    /// These facts have happened. Answers with the token of all of them.
    pub(crate) async fn given(&mut self, events: impl IntoIterator<Item = Event>) -> String {
        let mut tokens = BTreeMap::new();
        for event in events {
            let encoded = event.encode().unwrap();
            let line = Line {
                aggregate: subject(&event),
                event_type: encoded.event_type,
                data: encoded.data,
                is_fact: true,
            };
            let position = self.append(SystemEnvironment.uuid(), line).await;
            tokens.insert(position.partition, position.to_string());
        }
        tokens.into_values().collect::<Vec<_>>().join(",")
    }

    /// This fact has happened, brought about by this command.
    pub(crate) async fn applied(&mut self, command_id: Uuid, event: &Event) -> String {
        let encoded = event.encode().unwrap();
        let (event_type, data) = (encoded.event_type, encoded.data);
        let line = Line { aggregate: subject(event), event_type, data, is_fact: true };
        self.append(command_id, line).await.to_string()
    }

    /// A command was refused.
    pub(crate) async fn refused(&mut self, command_id: Uuid, command: Command, refusal: Refusal) -> String {
        let data = RefusedData {
            reason: refusal.code().into(),
            message: refusal.to_string(),
            refusal,
            method: Financing::method(&command).into(),
            command: command.clone(),
        };
        self.outcome(command_id, &command, COMMAND_REFUSED, serde_json::to_string(&data).unwrap()).await
    }

    /// A command changed nothing.
    pub(crate) async fn unchanged(&mut self, command_id: Uuid, command: Command) -> String {
        let data = UnchangedData { method: Financing::method(&command).into(), command: command.clone() };
        self.outcome(command_id, &command, COMMAND_UNCHANGED, serde_json::to_string(&data).unwrap()).await
    }

    /// A command can never succeed.
    pub(crate) async fn dead(&mut self, command_id: Uuid, command: Command, message: &str) -> String {
        let data = serde_json::json!({ "reason": "UNSTORABLE", "message": message });
        self.outcome(command_id, &command, COMMAND_DEAD, data.to_string()).await
    }

    async fn outcome(
        &mut self,
        command_id: Uuid,
        command: &Command,
        event_type: &'static str,
        data: String,
    ) -> String {
        let line = Line { aggregate: Financing::target(command), event_type, data, is_fact: false };
        self.append(command_id, line).await.to_string()
    }

    async fn append(&mut self, command_id: Uuid, line: Line) -> LogPosition {
        let partition = Self::PARTITIONS.partition_of(line.aggregate.id);
        let head = self.heads.get(&partition).copied().unwrap_or_default();
        let version = line.is_fact.then(|| {
            let version = self.versions.entry(line.aggregate.clone()).or_default();
            *version = version.next();
            *version
        });
        let record = Record {
            partition,
            sequence: head.next(),
            record_id: SystemEnvironment.uuid(),
            recorded_at: SystemEnvironment.now(),
            aggregate: line.aggregate,
            version,
            event_type: line.event_type.into(),
            schema: 1,
            data: line.data,
            command_id,
            correlation_id: command_id,
            causation_id: command_id,
            actor: "test".to_owned(),
            traceparent: None,
            last_of_command: true,
        };
        let at = record.position();
        self.heads.insert(partition, at.sequence);
        self.publish(head, record).await;
        at
    }

    async fn publish(&self, expected: Sequence, record: Record) {
        let partition = record.partition;
        let publication =
            |record: Record| vec![Publication { partition, expected, records: vec![record.into()] }];
        let mut answers = match &self.fed {
            Fed::Files { log, bus, .. } => {
                commit(log, record.clone()).await;
                bus.publish(publication(record)).await
            }
            Fed::Nats { bus, .. } => bus.publish(publication(record)).await,
        };
        answers.remove(0).unwrap();
    }
}

/// The bus in files is a view of the log: what is published must be committed.
async fn commit(log: &SqliteLog, record: Record) {
    let partition = record.partition;
    let (_, expected) = log.take_over(&[partition]).await.unwrap().remove(0);
    let message = expected.position.map_or(1, |position| position.message + 1);
    let position = QueuePosition { created_at: 1, message, mark: record.command_id, index: 0 };
    let commit = PartitionCommit {
        partition,
        expected,
        position,
        records: vec![record],
        inbox: Vec::new(),
        snapshots: Vec::new(),
    };
    assert_eq!(log.commit(vec![commit]).await.unwrap(), [Commit::Done]);
}
