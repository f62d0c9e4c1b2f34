//! The platform on one thread: memory stores, and two processes in every role over them.
//!
//! The rule this module protects: what runs here are the platform's own loops and its own business, put together as the
//! real processes put them together. Nothing is copied.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use domain::financing::Financing;
use domain::integration::Registering;
use domain::saga::Saga;
use eventsourcing::assignment::Assignment;
use eventsourcing::command::unpack;
use eventsourcing::desk::Desk;
use eventsourcing::environment::{Doorbell, Doorbells, Environment as _, Stop, Stopper};
use eventsourcing::importer::Importer;
use eventsourcing::letters::Letters;
use eventsourcing::listener::{Intake, Listener, ListenerLimits};
use eventsourcing::membership::{Membership, RENEWAL};
use eventsourcing::partition::{Partition, PartitionCount};
use eventsourcing::policy::PolicyRunner;
use eventsourcing::ports::{QueuePosition, Role};
use eventsourcing::projector::Projector;
use eventsourcing::relayer::Relayer;
use eventsourcing::testkit::memory::{
    Interference, MemoryBus, MemoryDeadLetters, MemoryForeignEvents, MemoryLeases, MemoryLog, MemoryQueue,
    MemoryReadModels, MemoryReplies,
};
use eventsourcing::testkit::world::{Task, World};
use eventsourcing::turn::{Halted, Turn, drive};
use eventsourcing::worker::{Worker, WorkerLimits};
use readmodel::FinancingProjection;
use uuid::Uuid;

use crate::parts::{Kind, Part};
use crate::plan::Plan;
use crate::wire::{Book, Clock, Door, Wire};

/// Under which name the policies keep their checkpoints, and the importer its position: those of the platform.
pub(crate) const POLICIES: &str = "policies";
/// See [`POLICIES`].
pub(crate) const IMPORTER: &str = "registering";

/// How long an idle loop waits for a wake-up. The platform polls more often; here that would only cost steps.
const POLL: Duration = Duration::from_secs(1);

/// How long an idle relayer waits: after ten times it looks again where the streams end, and somebody may wait for that.
const RELAYER_POLL: Duration = Duration::from_millis(300);

/// How long a client waits for a listener: less than in the platform, so that a run is short.
const PATIENCE: Duration = Duration::from_secs(2);

/// The dead letters of a simulated platform.
pub(crate) type DeadLetterOffice = Letters<Financing, Registering, MemoryLog, MemoryDeadLetters, MemoryBus>;

/// The stores, and everybody who works with them.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) partitions: PartitionCount,
    pub(crate) log: MemoryLog,
    pub(crate) queue: MemoryQueue,
    pub(crate) bus: MemoryBus,
    pub(crate) models: MemoryReadModels,
    pub(crate) foreign: MemoryForeignEvents,
    pub(crate) letters: MemoryDeadLetters,
    pub(crate) book: Arc<Book>,
    pub(crate) wires: Vec<Arc<Wire>>,
    pub(crate) clocks: Vec<Clock>,
    /// The listeners' doors, as clients find them.
    pub(crate) intakes: Rc<RefCell<Vec<Option<Intake<Clock>>>>>,
    replies: MemoryReplies,
    leases: MemoryLeases,
    limits: WorkerLimits,
    desks: u64,
}

/// A process that runs.
pub(crate) struct Process {
    pub(crate) body: Task<Result<(), Halted>>,
    pub(crate) membership: Option<Task<Result<(), Halted>>>,
    pub(crate) stopper: Stopper,
    /// Until when it is paused.
    pub(crate) paused_until: u64,
    pub(crate) stopping: bool,
}

impl Process {
    fn each(&self, act: impl Fn(&Task<Result<(), Halted>>)) {
        act(&self.body);
        self.membership.iter().for_each(act);
    }

    /// As after SIGSTOP.
    pub(crate) fn pause(&self) {
        self.each(Task::pause);
    }

    /// It goes on, and believes what it believed.
    pub(crate) fn resume(&self) {
        self.each(Task::resume);
    }

    /// As after SIGKILL.
    pub(crate) fn kill(&self) {
        self.each(Task::kill);
    }

    /// Whether it has come to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_finished() && self.membership.as_ref().is_none_or(Task::is_finished)
    }

    /// What its loops came to where one of them has ended.
    pub(crate) fn end(&self) -> Option<Result<(), Halted>> {
        let membership = self.membership.as_ref().filter(|task| task.is_finished()).and_then(Task::take);
        let body = if self.body.is_finished() { self.body.take() } else { None };
        match (body, membership) {
            (Some(Err(halted)), _) | (_, Some(Err(halted))) => Some(Err(halted)),
            (Some(Ok(())), _) | (_, Some(Ok(()))) => Some(Ok(())),
            (None, None) => None,
        }
    }
}

impl Stage {
    pub(crate) fn new(plan: &Plan, telling: bool) -> Self {
        let world = World::new(plan.seed);
        let environment = world.environment();
        let book = Arc::new(Book::new(telling));
        Self {
            partitions: PartitionCount::new(plan.partitions).unwrap_or(PartitionCount::ONE),
            log: MemoryLog::default(),
            queue: MemoryQueue::new(environment.now().as_micros()),
            bus: MemoryBus::default(),
            models: MemoryReadModels::new(readmodel::tables::TABLES),
            foreign: MemoryForeignEvents::new(environment.now().as_micros()),
            letters: MemoryDeadLetters::default(),
            wires: Part::all().map(|part| Arc::new(Wire::new(part, Arc::clone(&book)))).collect(),
            clocks: Part::all().map(|_| Clock::new(environment.clone())).collect(),
            intakes: Rc::new(RefCell::new(vec![None, None])),
            replies: MemoryReplies::default(),
            leases: MemoryLeases::new(environment),
            limits: plan.limits,
            desks: 0,
            book,
            world,
        }
    }

    /// Microseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        let now = self.world.environment().now().as_micros();
        now.saturating_sub(eventsourcing::testkit::world::BEGINNING.as_micros())
    }

    pub(crate) fn wire(&self, part: Part) -> Option<&Arc<Wire>> {
        self.wires.get(part.index())
    }

    /// Starts a process. The query service and the admin door have no loop, so there is none to start.
    pub(crate) fn start(&mut self, part: Part) -> Option<Process> {
        let wire = Arc::clone(self.wires.get(part.index())?);
        let clock = self.clocks.get(part.index())?.clone();
        wire.reconnect();
        let (stopper, stop) = Stop::new();
        let (body, membership) = match part.kind() {
            Kind::Listener => (self.listener(part, &wire, clock, stop), None),
            Kind::Member(role) => {
                let assignment = Assignment::default();
                let body = self.member(part, role, &wire, &clock, &assignment, stop.clone());
                let membership = self.membership(part, role, &wire, clock, assignment, stop);
                (body, Some(membership))
            }
            Kind::Queries | Kind::Door => return None,
        };
        Some(Process { body, membership, stopper, paused_until: 0, stopping: false })
    }

    fn listener(
        &mut self,
        part: Part,
        wire: &Arc<Wire>,
        clock: Clock,
        stop: Stop,
    ) -> Task<Result<(), Halted>> {
        self.desks += 1;
        // An address that no other desk ever had.
        let desk = Desk::new(&self.desks.to_string());
        self.replies.connect(desk.clone());
        let bell = Doorbell::default();
        let limits = ListenerLimits { patience: PATIENCE, ..ListenerLimits::default() };
        let door = Door::new(&self.queue, wire);
        let (mut body, intake) =
            Listener::new(door, self.partitions, limits, desk, bell.clone(), clock.clone());
        if let Some(place) = self.intakes.borrow_mut().get_mut(part.index()) {
            *place = Some(intake);
        }
        self.world.spawn(part.name(), async move { drive(&mut body, &clock, &bell, POLL, &stop).await })
    }

    fn member(
        &self,
        part: Part,
        role: Role,
        wire: &Arc<Wire>,
        clock: &Clock,
        assignment: &Assignment,
        stop: Stop,
    ) -> Task<Result<(), Halted>> {
        let between = || Arc::clone(wire) as Arc<dyn Interference>;
        let log = self.log.interfered(between());
        let queue = Door::new(&self.queue, wire);
        let letters = self.letters.interfered(between());
        let own = assignment.clone();
        let play = Play { world: &self.world, part, clock: clock.clone(), stop };
        match role {
            Role::Worker => {
                let replies = self.replies.interfered(between());
                let worker: Worker<Financing, _, _, _, _> =
                    Worker::new(log, queue, replies, clock.clone(), self.partitions, own, self.limits);
                play.start(worker, self.queue.bells(), assignment)
            }
            Role::Relayer => {
                let relayer = Relayer::new(log, self.bus.interfered(between()), clock.clone(), own);
                play.start(relayer, self.log.bells(), assignment)
            }
            Role::Policies => {
                let (bus, checkpoints) = (self.bus.interfered(between()), log.checkpoints());
                let runner: PolicyRunner<Financing, _, _, _, _, _> =
                    PolicyRunner::new(Saga, POLICIES, bus, queue, checkpoints, letters, self.partitions, own);
                // A run is short: so that moves while something else fails are a part of it.
                play.start(runner.saving_after(2), self.bus.bells(), assignment)
            }
            Role::Projector => {
                let (bus, models) = (self.bus.interfered(between()), self.models.interfered(between()));
                let projector: Projector<Financing, _, _, _> =
                    Projector::new(FinancingProjection, bus, models, own);
                play.start(projector, self.bus.bells(), assignment)
            }
            Role::Importer => {
                let (events, positions) = (self.foreign.interfered(between()), log.checkpoints());
                let importer: Importer<Financing, _, _, _, _, _, _> = Importer::new(
                    Registering,
                    IMPORTER,
                    events,
                    queue,
                    log,
                    positions,
                    letters,
                    self.partitions,
                    own,
                );
                play.start(importer, self.foreign.bells(), assignment)
            }
        }
    }

    fn membership(
        &self,
        part: Part,
        role: Role,
        wire: &Arc<Wire>,
        clock: Clock,
        assignment: Assignment,
        stop: Stop,
    ) -> Task<Result<(), Halted>> {
        let partitions = if role == Role::Importer { PartitionCount::ONE } else { self.partitions };
        let leases = self.leases.interfered(Arc::clone(wire) as Arc<dyn Interference>);
        let member: Uuid = clock.uuid();
        let mut body = Membership::new(leases, role, member, partitions, assignment);
        self.world.spawn(part.name(), async move {
            drive(&mut body, &clock, &Doorbell::default(), RENEWAL, &stop).await?;
            // Where the store does not answer, the leases run out by themselves.
            let _run_out = body.leave().await;
            Ok(())
        })
    }

    /// The dead letters, as the admin door finds them.
    pub(crate) fn dead_letters(&self) -> DeadLetterOffice {
        let wire = self.wire(Part::DOOR).map(|wire| Arc::clone(wire) as Arc<dyn Interference>);
        let (log, letters, bus) = match wire {
            Some(wire) => (
                self.log.interfered(Arc::clone(&wire)),
                self.letters.interfered(Arc::clone(&wire)),
                self.bus.interfered(wire),
            ),
            None => (self.log.clone(), self.letters.clone(), self.bus.clone()),
        };
        Letters::new(Registering, log, letters, bus, self.partitions)
    }

    /// Everything is done: whatever was queued has an outcome, and everybody has seen every record.
    pub(crate) fn is_settled(&self) -> bool {
        self.partitions.all().all(|partition| self.is_settled_in(partition))
            && self.log.checkpoints().imported(IMPORTER).map_or(0, |position| position.message)
                == self.foreign.last()
    }

    /// Whether the last command of the last message has an outcome.
    fn is_worked_off(&self, partition: Partition, position: Option<QueuePosition>) -> bool {
        let Some(position) = position else { return self.queue.last(partition) == 0 };
        let last = self.queue.messages(partition).pop();
        last.is_none_or(|last| {
            let slots = unpack(partition, last.message, &last.payload).len();
            let index = usize::try_from(position.index).unwrap_or(usize::MAX);
            (last.message, slots) <= (position.message, index.saturating_add(1))
        })
    }

    fn is_settled_in(&self, partition: Partition) -> bool {
        let row = self.log.row(partition);
        self.is_worked_off(partition, row.position)
            && self.bus.last(partition) == row.head
            && self.models.checkpoint(partition) == row.head
            && self.log.checkpoints().at(POLICIES, partition) == row.head
    }
}

/// Where and how a loop is driven.
struct Play<'a> {
    world: &'a World,
    part: Part,
    clock: Clock,
    stop: Stop,
}

impl Play<'_> {
    fn start<T: Turn + Send + 'static>(
        self,
        mut body: T,
        wakes: &Doorbells,
        assignment: &Assignment,
    ) -> Task<Result<(), Halted>> {
        let Self { world, part, clock, stop } = self;
        let bell = wakes.hang();
        assignment.bells().add(&bell);
        let poll = if part.role() == Some(Role::Relayer) { RELAYER_POLL } else { POLL };
        world.spawn(part.name(), async move { drive(&mut body, &clock, &bell, poll, &stop).await })
    }
}
