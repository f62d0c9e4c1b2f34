//! Real servers on free ports, over the kernel's ports in memory.

mod commands;
mod connections;
mod dead_letters;
mod facts;
mod queries;
mod shelf;
mod story;
mod transport;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use uuid::Uuid;

use domain::financing::Financing;
use eventsourcing::assignment::Assignment;
use eventsourcing::desk::Desk;
use eventsourcing::environment::{Doorbell, Doorbells, Environment, Stop, Stopper, Timestamp};
use eventsourcing::listener::{Listener, ListenerLimits};
use eventsourcing::partition::PartitionCount;
use eventsourcing::testkit::memory::{MemoryBus, MemoryLog, MemoryQueue};
use eventsourcing::turn::drive;
use eventsourcing::worker::{Worker, WorkerLimits};

use super::observation::CallWatch;
use super::platform::{Description, Topology};
use super::server::{Limits, ServeError, Sources, WatchLimits, serve_commands, serve_queries};
use shelf::Shelf;

const PARTITIONS: PartitionCount = PartitionCount::DEFAULT;

/// Real timers, which are remembered; a clock and ids that count.
#[derive(Debug, Clone, Default)]
struct Counting {
    count: Arc<AtomicU64>,
    slept: Arc<Mutex<Vec<Duration>>>,
}

impl Counting {
    /// The timers so far.
    fn slept(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().clone()
    }
}

impl Environment for Counting {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.count.fetch_add(1, Ordering::Relaxed))
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.count.fetch_add(1, Ordering::Relaxed)) + 1)
    }

    fn random(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    async fn sleep(&self, duration: Duration) {
        self.slept.lock().unwrap().push(duration);
        tokio::time::sleep(duration).await;
    }
}

/// A server that runs.
struct Served {
    channel: Channel,
    address: String,
    stopper: Stopper,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    /// Stops it, and waits until it has ended by itself.
    async fn end(self) {
        self.stopper.stop();
        drop(self.channel);
        self.server.await.expect("no panic").expect("a graceful end");
    }
}

/// Longer than any test may take: a server that does not end by itself is not ended by its grace either.
const PATIENT: Limits = Limits {
    calls: 64,
    waits: 64,
    streams: 64,
    watch: WatchLimits::USUAL,
    connections: 64,
    preface: Duration::from_hours(1),
    calls_per_connection: 100,
    keepalive_interval: Duration::from_secs(30),
    keepalive_timeout: Duration::from_secs(10),
    grace: Duration::from_hours(1),
};

async fn bound() -> (TcpListener, String, Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    (listener, address, endpoint.connect_lazy())
}

/// A command side: server, listener, and where it is asked for a worker.
struct CommandSide {
    served: Served,
    queue: MemoryQueue,
    log: MemoryLog,
    /// The loops go on until the test ends: a server stops before what is behind it.
    _loops: Stopper,
}

async fn command_side(
    queue: MemoryQueue,
    listening: ListenerLimits,
    limits: Limits,
    works: bool,
) -> CommandSide {
    let environment = Counting::default();
    let (stopper, stop) = Stop::new();
    let (desk, bell) = (Desk::new("here"), Doorbell::default());
    let (mut listener, intake) =
        Listener::new(queue.clone(), PARTITIONS, listening, desk.clone(), bell.clone(), environment.clone());
    let (loops, never) = Stop::new();
    let (clock, until) = (environment.clone(), never.clone());
    tokio::spawn(async move { drive(&mut listener, &clock, &bell, Duration::from_millis(5), &until).await });
    let log = MemoryLog::default();
    if works {
        let mut worker = Worker::<Financing, _, _, _, _>::new(
            log.clone(),
            queue.clone(),
            desk,
            environment.clone(),
            PARTITIONS,
            Assignment::of(PARTITIONS.all()),
            WorkerLimits::default(),
        );
        let (clock, bell) = (environment.clone(), queue.bells().hang());
        tokio::spawn(
            async move { drive(&mut worker, &clock, &bell, Duration::from_millis(5), &never).await },
        );
    }
    let (socket, address, channel) = bound().await;
    let server =
        tokio::spawn(serve_commands(socket, intake, environment, limits, stop, CallWatch::default()));
    CommandSide { served: Served { channel, address, stopper, server }, queue, log, _loops: loops }
}

/// A command side with a worker.
async fn working() -> CommandSide {
    command_side(MemoryQueue::new(1), ListenerLimits::default(), PATIENT, true).await
}

/// A command side whose commands wait in the queue.
async fn queueing() -> CommandSide {
    command_side(MemoryQueue::new(1), ListenerLimits::default(), PATIENT, false).await
}

/// A query side.
struct QuerySide {
    served: Served,
    shelf: Shelf,
    bus: MemoryBus,
    projected: Doorbells,
    environment: Counting,
}

async fn query_side(limits: Limits) -> QuerySide {
    let (stopper, stop) = Stop::new();
    let (shelf, bus, projected) = (Shelf::default(), MemoryBus::default(), Doorbells::default());
    let sources = Sources {
        queries: shelf.clone(),
        live: shelf.clone(),
        bus: bus.clone(),
        partitions: PARTITIONS,
        projected: projected.clone(),
        relayed: bus.bells().clone(),
        description: Description { topology: Topology::Embedded, durability: "in memory".to_owned() },
    };
    let environment = Counting::default();
    let (socket, address, channel) = bound().await;
    let server =
        tokio::spawn(serve_queries(socket, sources, environment.clone(), limits, stop, CallWatch::default()));
    QuerySide { served: Served { channel, address, stopper, server }, shelf, bus, projected, environment }
}
