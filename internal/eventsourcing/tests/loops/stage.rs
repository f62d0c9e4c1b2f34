//! A whole platform on one thread: memory ports, and as many of each loop as a test likes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventsourcing::assignment::Assignment;
use eventsourcing::command::Envelope;
use eventsourcing::desk::Desk;
use eventsourcing::environment::{Doorbell, Doorbells, Environment as _, Stop, Stopper};
use eventsourcing::importer::Importer;
use eventsourcing::letters::Letters;
use eventsourcing::listener::{Intake, Listener, ListenerLimits};
use eventsourcing::membership::{Membership, RENEWAL};
use eventsourcing::observer::Watch;
use eventsourcing::outcome::Reply;
use eventsourcing::partition::{Partition, PartitionCount};
use eventsourcing::policy::PolicyRunner;
use eventsourcing::ports::Role;
use eventsourcing::projector::Projector;
use eventsourcing::relayer::Relayer;
use eventsourcing::testkit::memory::{
    Call, Fault, Interference, MemoryBus, MemoryDeadLetters, MemoryForeignEvents, MemoryLeases, MemoryLog,
    MemoryQueue, MemoryReadModels, MemoryReplies,
};
use eventsourcing::testkit::world::{Task, World, WorldEnvironment};
use eventsourcing::turn::{Halted, Turn, drive};
use eventsourcing::worker::{Worker, WorkerLimits};
use uuid::Uuid;

use crate::ledger::{self, Balances, Command, Ledger, Openings, Transfers};

/// Few partitions, so that aggregates share them.
pub const PARTITIONS: u16 = 3;

const POLL: Duration = Duration::from_millis(100);

/// The name under which the policies keep their checkpoints.
pub const POLICIES: &str = "policies";

/// The name under which the importer keeps its position.
pub const IMPORTER: &str = "importer";

pub struct Stage {
    pub world: World,
    pub partitions: PartitionCount,
    pub log: MemoryLog,
    pub queue: MemoryQueue,
    pub bus: MemoryBus,
    pub models: MemoryReadModels,
    pub replies: MemoryReplies,
    pub leases: MemoryLeases,
    pub foreign: MemoryForeignEvents,
    pub dead_letters: MemoryDeadLetters,
    pub stop: Stop,
    /// Who looks on at every new part.
    pub watch: Watch,
    interference: Option<Arc<dyn Interference>>,
    stopper: Stopper,
}

/// A loop on the stage.
pub struct Part {
    pub task: Task<Result<(), Halted>>,
    pub assignment: Assignment,
}

/// A process that shares a role with others.
pub struct Member {
    pub id: Uuid,
    pub part: Part,
    membership: Task<Result<(), Halted>>,
}

impl Member {
    /// As after SIGSTOP.
    pub fn pause(&self) {
        self.part.task.pause();
        self.membership.pause();
    }

    /// It goes on, and believes what it believed.
    pub fn resume(&self) {
        self.part.task.resume();
        self.membership.resume();
    }

    /// As after SIGKILL.
    pub fn kill(&self) {
        self.part.task.kill();
        self.membership.kill();
    }

    /// Whether it has stopped, and given everything back.
    pub fn is_left(&self) -> bool {
        self.part.task.is_finished() && self.membership.is_finished()
    }

    /// Whether either of its loops has come to its end.
    pub fn is_finished(&self) -> bool {
        self.part.task.is_finished() || self.membership.is_finished()
    }
}

impl Stage {
    pub fn new(seed: u64) -> Self {
        Self::of(seed, PARTITIONS)
    }

    /// With another number of partitions.
    pub fn of(seed: u64, partitions: u16) -> Self {
        let (stopper, stop) = Stop::new();
        let world = World::new(seed);
        Self {
            leases: MemoryLeases::new(world.environment()),
            world,
            partitions: PartitionCount::new(partitions).unwrap(),
            log: MemoryLog::default(),
            queue: MemoryQueue::new(1),
            bus: MemoryBus::default(),
            models: MemoryReadModels::new(ledger::TABLES),
            replies: MemoryReplies::default(),
            foreign: MemoryForeignEvents::new(1),
            dead_letters: MemoryDeadLetters::default(),
            stop,
            watch: Watch::default(),
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

    pub fn bus(&self) -> MemoryBus {
        self.interference.as_ref().map_or(self.bus.clone(), |one| self.bus.interfered(Arc::clone(one)))
    }

    pub fn models(&self) -> MemoryReadModels {
        self.interference.as_ref().map_or(self.models.clone(), |one| self.models.interfered(Arc::clone(one)))
    }

    fn replies(&self) -> MemoryReplies {
        self.interference
            .as_ref()
            .map_or(self.replies.clone(), |one| self.replies.interfered(Arc::clone(one)))
    }

    fn dead_letters(&self) -> MemoryDeadLetters {
        self.interference
            .as_ref()
            .map_or(self.dead_letters.clone(), |one| self.dead_letters.interfered(Arc::clone(one)))
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
        body = body.observed_by(self.watch.clone());
        let stop = self.stop.clone();
        let task =
            self.world.spawn(name, async move { drive(&mut body, &environment, &bell, POLL, &stop).await });
        (intake, Part { task, assignment: Assignment::default() })
    }

    pub fn worker(&self, name: &str, limits: WorkerLimits) -> Part {
        self.worker_of(name, limits, Assignment::of(self.partitions.all()))
    }

    fn worker_of(&self, name: &str, limits: WorkerLimits, assignment: Assignment) -> Part {
        let body: Worker<Ledger, _, _, _, _> = Worker::new(
            self.log(),
            self.queue(),
            self.replies(),
            self.world.environment(),
            self.partitions,
            assignment.clone(),
            limits,
        );
        self.play(name, body.observed_by(self.watch.clone()), self.queue.bells(), assignment)
    }

    pub fn relayer(&self, name: &str) -> Part {
        self.relayer_of(name, Assignment::of(self.partitions.all()))
    }

    fn relayer_of(&self, name: &str, assignment: Assignment) -> Part {
        let body = Relayer::new(self.log(), self.bus(), self.world.environment(), assignment.clone());
        self.play(name, body.observed_by(self.watch.clone()), self.log.bells(), assignment)
    }

    pub fn policies(&self, name: &str) -> Part {
        self.policies_of(name, Assignment::of(self.partitions.all()))
    }

    fn policies_of(&self, name: &str, assignment: Assignment) -> Part {
        let body: PolicyRunner<Ledger, _, _, _, _, _> = PolicyRunner::new(
            Transfers,
            POLICIES,
            self.bus(),
            self.queue(),
            self.log().checkpoints(),
            self.dead_letters(),
            self.partitions,
            assignment.clone(),
        );
        self.play(name, body.observed_by(self.watch.clone()), self.bus.bells(), assignment)
    }

    pub fn projector(&self, name: &str) -> Part {
        self.projector_of(name, Assignment::of(self.partitions.all()))
    }

    fn projector_of(&self, name: &str, assignment: Assignment) -> Part {
        let body: Projector<Ledger, _, _, _> =
            Projector::new(Balances, self.bus(), self.models(), assignment.clone());
        self.play(name, body.observed_by(self.watch.clone()), self.bus.bells(), assignment)
    }

    pub fn importer(&self, name: &str) -> Part {
        self.importer_of(name, Assignment::of([Partition::from_index(0)]))
    }

    fn importer_of(&self, name: &str, assignment: Assignment) -> Part {
        let events = self
            .interference
            .as_ref()
            .map_or(self.foreign.clone(), |one| self.foreign.interfered(Arc::clone(one)));
        let body: Importer<Ledger, _, _, _, _, _, _> = Importer::new(
            Openings,
            IMPORTER,
            events,
            self.queue(),
            self.log(),
            self.log().checkpoints(),
            self.dead_letters(),
            self.partitions,
            assignment.clone(),
        );
        self.play(name, body.observed_by(self.watch.clone()), self.foreign.bells(), assignment)
    }

    /// A process that takes part in a role: its loop, and the loop that renews its leases.
    pub fn member(&self, role: Role, name: &str, limits: WorkerLimits) -> Member {
        let (assignment, partitions) = (Assignment::default(), self.partitions);
        let (part, partitions) = match role {
            Role::Worker => (self.worker_of(name, limits, assignment), partitions),
            Role::Relayer => (self.relayer_of(name, assignment), partitions),
            Role::Policies => (self.policies_of(name, assignment), partitions),
            Role::Projector => (self.projector_of(name, assignment), partitions),
            Role::Importer => (self.importer_of(name, assignment), PartitionCount::ONE),
        };
        let leases = self
            .interference
            .as_ref()
            .map_or(self.leases.clone(), |one| self.leases.interfered(Arc::clone(one)));
        let (environment, stop) = (self.world.environment(), self.stop.clone());
        let id = environment.uuid();
        let mut body = Membership::new(leases, role, id, partitions, part.assignment.clone());
        let membership = self.world.spawn(name, async move {
            drive(&mut body, &environment, &Doorbell::default(), RENEWAL, &stop).await?;
            body.leave().await.unwrap();
            Ok(())
        });
        Member { id, part, membership }
    }

    /// The dead letters, as people see them.
    pub fn letters(&self) -> Letters<Ledger, Openings, MemoryLog, MemoryDeadLetters, MemoryBus> {
        let (log, dead_letters, bus) = (self.log.clone(), self.dead_letters.clone(), self.bus.clone());
        Letters::new(Openings, log, dead_letters, bus, self.partitions)
    }

    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// Whoever comes from now on has not been told to stop.
    pub fn start_again(&mut self) {
        (self.stopper, self.stop) = Stop::new();
    }

    /// New parts meet with a trap on their way: once it is set, the next call of this kind fails, and no other.
    pub fn fail_once(&mut self, call: Call) -> Arc<AtomicBool> {
        let armed = Arc::new(AtomicBool::new(false));
        let trap = Arc::clone(&armed);
        self.interfere(Arc::new(move |made: Call| {
            if made == call && trap.swap(false, Ordering::Relaxed) { Fault::Fail } else { Fault::None }
        }));
        armed
    }

    pub fn envelope(&self, command: &Command) -> Envelope {
        let id = self.world.environment().uuid();
        Envelope::first::<Ledger>(id, "test".to_owned(), command).unwrap()
    }

    /// Microseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        self.world.environment().now().as_micros()
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
                && self.log.checkpoints().at(POLICIES, partition) == head
                && self.models.checkpoint(partition) == head
        }) && self.imported() == self.foreign.last()
    }

    /// The number of the last message that was imported.
    pub fn imported(&self) -> u64 {
        self.log.checkpoints().imported(IMPORTER).map_or(0, |position| position.message)
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
