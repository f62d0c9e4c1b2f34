//! A whole platform on one thread: memory ports, and as many of each loop as a test likes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eventsourcing::assignment::Assignment;
use eventsourcing::command::Envelope;
use eventsourcing::desk::Desk;
use eventsourcing::environment::{Doorbell, Doorbells, Environment as _, Stop, Stopper};
use eventsourcing::listener::{Intake, Listener, ListenerLimits};
use eventsourcing::outcome::Reply;
use eventsourcing::partition::{Partition, PartitionCount};
use eventsourcing::policy::PolicyRunner;
use eventsourcing::projector::Projector;
use eventsourcing::relayer::Relayer;
use eventsourcing::testkit::memory::{
    Interference, MemoryBus, MemoryLog, MemoryQueue, MemoryReadModels, MemoryReplies,
};
use eventsourcing::testkit::world::{Task, World, WorldEnvironment};
use eventsourcing::turn::{Halted, Turn, drive};
use eventsourcing::worker::{Worker, WorkerLimits};
use uuid::Uuid;

use crate::ledger::{self, Balances, Command, Ledger, Transfers};

/// Few partitions, so that aggregates share them.
pub const PARTITIONS: u16 = 3;

const POLL: Duration = Duration::from_millis(100);

pub struct Stage {
    pub world: World,
    pub partitions: PartitionCount,
    pub log: MemoryLog,
    pub queue: MemoryQueue,
    pub bus: MemoryBus,
    pub models: MemoryReadModels,
    pub replies: MemoryReplies,
    pub stop: Stop,
    interference: Option<Arc<dyn Interference>>,
    stopper: Stopper,
}

/// A loop on the stage.
pub struct Part {
    pub task: Task<Result<(), Halted>>,
    pub assignment: Assignment,
}

impl Stage {
    pub fn new(seed: u64) -> Self {
        Self::of(seed, PARTITIONS)
    }

    /// With another number of partitions.
    pub fn of(seed: u64, partitions: u16) -> Self {
        let (stopper, stop) = Stop::new();
        Self {
            world: World::new(seed),
            partitions: PartitionCount::new(partitions).unwrap(),
            log: MemoryLog::default(),
            queue: MemoryQueue::new(1),
            bus: MemoryBus::default(),
            models: MemoryReadModels::new(ledger::TABLES),
            replies: MemoryReplies::default(),
            stop,
            interference: None,
            stopper,
        }
    }

    /// From now on every new part meets with this on its way to every port.
    pub fn interfere(&mut self, interference: Arc<dyn Interference>) {
        self.interference = Some(interference);
    }

    fn log(&self) -> MemoryLog {
        self.interference.as_ref().map_or(self.log.clone(), |one| self.log.interfered(Arc::clone(one)))
    }

    fn queue(&self) -> MemoryQueue {
        self.interference.as_ref().map_or(self.queue.clone(), |one| self.queue.interfered(Arc::clone(one)))
    }

    fn bus(&self) -> MemoryBus {
        self.interference.as_ref().map_or(self.bus.clone(), |one| self.bus.interfered(Arc::clone(one)))
    }

    fn replies(&self) -> MemoryReplies {
        self.interference
            .as_ref()
            .map_or(self.replies.clone(), |one| self.replies.interfered(Arc::clone(one)))
    }

    fn play<T: Turn + Send + 'static>(
        &self,
        name: &str,
        mut body: T,
        wakes: &Doorbells,
        assignment: Assignment,
    ) -> Part {
        let (environment, stop) = (self.world.environment(), self.stop.clone());
        let bell = wakes.hang();
        assignment.bells().add(&bell);
        let task =
            self.world.spawn(name, async move { drive(&mut body, &environment, &bell, POLL, &stop).await });
        Part { task, assignment }
    }

    pub fn listener(&self, name: &'static str) -> (Intake<WorldEnvironment>, Part) {
        let desk = Desk::new(name);
        self.replies.connect(desk.clone());
        let bell = Doorbell::default();
        let limits = ListenerLimits::default();
        let environment = self.world.environment();
        let (mut body, intake) =
            Listener::new(self.queue(), self.partitions, limits, desk, bell.clone(), environment.clone());
        let stop = self.stop.clone();
        let task =
            self.world.spawn(name, async move { drive(&mut body, &environment, &bell, POLL, &stop).await });
        (intake, Part { task, assignment: Assignment::default() })
    }

    pub fn worker(&self, name: &str, limits: WorkerLimits) -> Part {
        let assignment = Assignment::of(self.partitions.all());
        let body: Worker<Ledger, _, _, _, _> = Worker::new(
            self.log(),
            self.queue(),
            self.replies(),
            self.world.environment(),
            self.partitions,
            assignment.clone(),
            limits,
        );
        self.play(name, body, self.queue.bells(), assignment)
    }

    pub fn relayer(&self, name: &str) -> Part {
        let assignment = Assignment::of(self.partitions.all());
        let body = Relayer::new(self.log(), self.bus(), assignment.clone());
        self.play(name, body, self.log.bells(), assignment)
    }

    pub fn policies(&self, name: &str) -> Part {
        let assignment = Assignment::of(self.partitions.all());
        let checkpoints = self.log().checkpoints();
        let body: PolicyRunner<Ledger, _, _, _, _> = PolicyRunner::new(
            Transfers,
            "policies",
            self.bus(),
            self.queue(),
            checkpoints,
            self.partitions,
            assignment.clone(),
        );
        self.play(name, body, self.bus.bells(), assignment)
    }

    pub fn projector(&self, name: &str) -> Part {
        let assignment = Assignment::of(self.partitions.all());
        let models = self
            .interference
            .as_ref()
            .map_or(self.models.clone(), |one| self.models.interfered(Arc::clone(one)));
        let body: Projector<Ledger, _, _, _> =
            Projector::new(Balances, self.bus(), models, assignment.clone());
        self.play(name, body, self.bus.bells(), assignment)
    }

    pub fn stop(&self) {
        self.stopper.stop();
    }

    pub fn envelope(&self, command: &Command) -> Envelope {
        let id = self.world.environment().uuid();
        Envelope::first::<Ledger>(id, "test".to_owned(), command).unwrap()
    }

    /// An id whose aggregate lives in this partition.
    pub fn id_in(&self, partition: u16) -> Uuid {
        loop {
            let id = self.world.environment().uuid();
            if self.partitions.partition_of(id) == Partition::from_index(partition) {
                return id;
            }
        }
    }

    /// A client that hands a command in and waits for its outcome, again and again with the same ids until it has it.
    pub fn client(
        &self,
        intake: &Intake<WorldEnvironment>,
        envelope: Envelope,
        replies: &Rc<RefCell<Vec<Reply>>>,
    ) {
        let (intake, replies) = (intake.clone(), Rc::clone(replies));
        self.world.spawn("client", async move {
            loop {
                let wait = Duration::from_secs(4);
                if let Ok(Some(reply)) = intake.submit_and_wait(envelope.clone(), wait).await {
                    replies.borrow_mut().push(reply);
                    return;
                }
            }
        });
    }

    /// Everything is done: whatever was queued has an outcome, and everybody has seen every record.
    pub fn is_settled(&self) -> bool {
        self.partitions.all().all(|partition| {
            let head = self.log.row(partition).head;
            let done = self.log.row(partition).position.map_or(0, |position| position.message);
            let last = self.queue.messages(partition).last().map_or(0, |message| message.message);
            let published =
                self.bus.stream(partition).last().map(|record| record.sequence).unwrap_or_default();
            done == last
                && published == head
                && self.log.checkpoints().at("policies", partition) == head
                && self.models.checkpoint(partition) == head
        })
    }

    /// Everybody who looks at the read models sees every record.
    pub fn is_projected(&self) -> bool {
        let head = |partition| self.log.row(partition).head;
        let seen = |partition| self.models.checkpoint(partition) == head(partition);
        !self.log.all_records().is_empty() && self.partitions.all().all(seen)
    }

    /// The balances as the log tells them.
    pub fn balances(&self) -> BTreeMap<Uuid, i64> {
        use eventsourcing::model::{Aggregate as _, Model as _};
        let mut accounts: BTreeMap<Uuid, ledger::Account> = BTreeMap::new();
        for record in self.log.all_records().iter().filter(|record| record.version.is_some()) {
            let event = Ledger::decode_event(&record.event_type, record.schema, &record.data).unwrap();
            let account = accounts.remove(&record.aggregate.id).unwrap_or_default();
            accounts.insert(record.aggregate.id, account.evolve(&event));
        }
        accounts.into_iter().map(|(id, account)| (id, account.balance)).collect()
    }
}
