//! One run: a plan happens, the trouble ends, everything settles, and what is left is audited.
//!
//! The rule this module protects: after the trouble everybody is back, nothing goes wrong any more, and within a bounded
//! time everything that was begun is finished.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use domain::ids::IssuerId;
use domain::issuer::{CreateIssuer, IssuerCommand};
use domain::name::Name;
use eventsourcing::environment::Environment as _;
use eventsourcing::testkit::memory::{Interference, MemoryReadModels, SavedQueue};
use eventsourcing::testkit::world::BEGINNING;
use readmodel::ReadModelQueries;
use uuid::Uuid;

use crate::client::{Client, Memory};
use crate::parts::Part;
use crate::plan::{Act, Message, Plan};
use crate::replaced::Replacement;
use crate::stage::{DeadLetterOffice, Process, Stage};
use crate::story::Teller;
use crate::tally::{Counted, Tally};
use crate::{Breach, Check, audit};

/// The most steps of a run: fifty times what a usual one takes.
const MOST_STEPS: u64 = 400_000;

/// How long the trouble may last, and how long everything may take to settle after it, in microseconds of the run. Any lease
/// runs out, every backoff ends and every client gives up within a quarter of it.
const BOUND: u64 = 120_000_000;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Run {
    /// Which task ran when, and what was written, as one number.
    pub trace: u64,
    /// Steps that were taken.
    pub steps: u64,
    /// What happened.
    pub tally: Tally,
    /// What is not as it must be.
    pub breach: Option<Breach>,
    /// The run as a story, where it was asked for.
    pub story: Vec<String>,
}

/// Runs a plan; with a story, where somebody wants to read it.
#[must_use]
pub fn run(plan: &Plan, telling: bool) -> Run {
    #[cfg(feature = "mutants")]
    crate::mutants::begin_again();
    let teller = Teller::new(telling, &plan.cast);
    let run = || {
        let mut director = Director::new(plan, telling, teller.clone());
        let breach = director.play().err();
        let breach = breach.or_else(|| director.memory.borrow_mut().breach.take());
        let breach = breach.or_else(|| audit::check(&mut director).err());
        director.finish(breach)
    };
    // Whatever a panic leaves behind is dropped with the run.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("something");
        let breach = Breach { check: Check::Panics, what: format!("a loop panics: {said}") };
        let story = teller.story(Some(&breach));
        Run { trace: 0, steps: 0, tally: Tally::default(), breach: Some(breach), story }
    })
}

/// What is to happen at some time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Job {
    /// A mishap of the plan, by its place in it.
    Mishap(usize),
    /// An act of somebody who is no client, by its place in the plan.
    Say(usize),
    /// A process comes back.
    Start(Part),
    /// A process goes on.
    Resume(Part),
    /// A cut is over.
    Mend(Part, crate::parts::Store),
    /// The queue has room again.
    Room,
    /// The event log takes everything again.
    Mended,
    /// Somebody takes a copy of the queue, for the mishap with this place.
    Backup(usize),
}

/// Who lets a plan happen.
pub(crate) struct Director<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) stage: Stage,
    pub(crate) processes: Vec<Option<Process>>,
    pub(crate) agenda: BTreeMap<(u64, u64), Job>,
    jobs: u64,
    /// Mishaps that strike after so many steps.
    pub(crate) pending: Vec<(u32, usize)>,
    pub(crate) backups: Vec<(usize, SavedQueue)>,
    pub(crate) replacement: Option<Replacement>,
    /// What was said on the Registering context's stream.
    pub(crate) streamed: Vec<Vec<u8>>,
    /// Commands that were lost with a queue that was replaced, and are in none since.
    pub(crate) lost: BTreeSet<Uuid>,
    /// How much the queue had ever stored when somebody last looked for those among it.
    pub(crate) searched: u64,
    /// The query service.
    queries: Rc<ReadModelQueries<MemoryReadModels>>,
    /// The admin door.
    letters: Rc<DeadLetterOffice>,
    pub(crate) memory: Rc<RefCell<Memory>>,
    pub(crate) tally: Tally,
    pub(crate) teller: Teller,
    pub(crate) steps: u64,
    /// Records that streams lost.
    pub(crate) lost_records: u64,
}

impl<'a> Director<'a> {
    fn new(plan: &'a Plan, telling: bool, teller: Teller) -> Self {
        let stage = Stage::new(plan, telling);
        let wire = stage.wire(Part::QUERIES).map(|wire| Arc::clone(wire) as Arc<dyn Interference>);
        let models = wire.map_or(stage.models.clone(), |wire| stage.models.interfered(wire));
        teller.begin(stage.world.environment());
        Self {
            plan,
            processes: Part::all().map(|_| None).collect(),
            agenda: BTreeMap::new(),
            jobs: 0,
            pending: Vec::new(),
            backups: Vec::new(),
            replacement: None,
            streamed: Vec::new(),
            lost: BTreeSet::new(),
            searched: 0,
            queries: Rc::new(ReadModelQueries::new(models)),
            letters: Rc::new(stage.dead_letters()),
            memory: Rc::default(),
            tally: Tally::default(),
            teller,
            steps: 0,
            lost_records: 0,
            stage,
        }
    }

    /// Puts something on the agenda.
    pub(crate) fn at(&mut self, time: u64, job: Job) {
        self.jobs += 1;
        self.agenda.insert((time, self.jobs), job);
    }

    fn begin(&mut self) {
        for part in Part::loops() {
            self.start(part);
        }
        let plan = self.plan;
        for (place, mishap) in plan.mishaps.iter().enumerate() {
            if let crate::plan::MishapKind::QueueRestored { back } = mishap.kind {
                self.at(mishap.at.saturating_sub(u64::from(back) * 1_000), Job::Backup(place));
            }
            self.at(mishap.at, Job::Mishap(place));
        }
        for (place, act) in plan.acts.iter().enumerate() {
            match act.message {
                Message::Streamed { .. } | Message::Stray { .. } => self.at(act.at, Job::Say(place)),
                Message::Command { .. } | Message::Published { .. } | Message::Operated { .. } => {
                    self.comes(act.clone());
                }
            }
        }
    }

    /// A client comes, for one act.
    fn comes(&mut self, act: Act) {
        let client = Client {
            act,
            environment: self.stage.world.environment(),
            intakes: Rc::clone(&self.stage.intakes),
            queries: Rc::clone(&self.queries),
            log: self.stage.log.clone(),
            letters: Rc::clone(&self.letters),
            news: self.stage.models.bells().clone(),
            memory: Rc::clone(&self.memory),
            teller: self.teller.clone(),
        };
        self.memory.borrow_mut().busy += 1;
        self.stage.world.spawn("client", client.live());
    }

    /// Starts a process, where none runs.
    pub(crate) fn start(&mut self, part: Part) {
        if self.processes.get(part.index()).is_some_and(Option::is_none) {
            let process = self.stage.start(part);
            if let Some(place) = self.processes.get_mut(part.index()) {
                *place = process;
            }
        }
    }

    pub(crate) fn process(&mut self, part: Part) -> Option<&mut Process> {
        self.processes.get_mut(part.index()).and_then(Option::as_mut)
    }

    fn play(&mut self) -> Result<(), Breach> {
        self.begin();
        self.until("the trouble does not end", Self::trouble_is_over)?;
        self.heal();
        self.until("not everything settles", |director| director.is_settled() && director.is_whole())?;
        let last_words = self.last_words();
        self.until("the last words do not settle", Self::is_settled)?;
        self.are_answered(&last_words)
    }

    /// A client of each listener that says something new once nothing goes wrong any more.
    fn last_words(&mut self) -> Vec<Uuid> {
        let environment = self.stage.world.environment();
        let Ok(name) = Name::try_new("Issuer of the last word") else { return Vec::new() };
        let said = [false, true].map(|second_listener| {
            let (id, issuer_id) = (environment.uuid(), environment.uuid());
            let create = CreateIssuer { issuer_id: IssuerId::new(issuer_id), name: name.clone() };
            let command = IssuerCommand::CreateIssuer(create).into();
            let number = self.plan.acts.len() + 1 + usize::from(second_listener);
            let message = Message::Command { id, command };
            let (wait, reads) = (Some(20_000), true);
            self.comes(Act { number, at: 0, message, second_listener, wait, reads, tries: 1, again: false });
            id
        });
        said.to_vec()
    }

    /// And that hears what became of it: a listener, or replies, that do not work any more would lose nothing.
    fn are_answered(&self, commands: &[Uuid]) -> Result<(), Breach> {
        let memory = self.memory.borrow();
        let told = |id: &Uuid| memory.answers.iter().any(|(_, reply)| reply.command_id() == *id);
        if memory.breach.is_some() || commands.iter().all(told) {
            return Ok(());
        }
        let what = "a client is not answered, although nothing goes wrong any more".to_owned();
        Err(Breach { check: Check::Liveness, what })
    }

    /// Lets the world run until something holds, which is only asked when nothing can run.
    fn until(&mut self, otherwise: &str, holds: impl Fn(&Self) -> bool) -> Result<(), Breach> {
        let from = self.stage.now();
        loop {
            if self.stage.world.step() {
                self.after_a_step();
                if self.steps < MOST_STEPS {
                    continue;
                }
            } else {
                self.between()?;
                if self.memory.borrow().breach.is_some() {
                    return Ok(());
                }
                if holds(self) {
                    return Ok(());
                }
            }
            let late = self.stage.now().saturating_sub(from) > BOUND;
            if late || self.steps >= MOST_STEPS {
                return Err(self.stuck(otherwise));
            }
            let due = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let due =
                due.map(|at| eventsourcing::environment::Timestamp::from_micros(BEGINNING.as_micros() + at));
            // Due jobs may have woken somebody: then no time passes.
            if !self.stage.world.can_run() && !self.stage.world.pass(due) {
                return Err(self.stuck("nothing can ever run again"));
            }
        }
    }

    fn stuck(&self, what: &str) -> Breach {
        let mut where_ = Vec::new();
        for partition in self.stage.partitions.all() {
            let row = self.stage.log.row(partition);
            where_.push(format!(
                "partition {partition}: log at {}, bus at {}, read models at {}, policies at {}, queue at {} of {}",
                row.head,
                self.stage.bus.last(partition),
                self.stage.models.checkpoint(partition),
                self.stage.log.checkpoints().at(crate::stage::POLICIES, partition),
                row.position.map_or(0, |position| position.message),
                self.stage.queue.last(partition),
            ));
        }
        let (steps, clients) = (self.steps, self.memory.borrow().busy);
        let what = format!("{what} after {steps} steps; {clients} clients wait; {}", where_.join("; "));
        Breach { check: Check::Liveness, what }
    }

    fn trouble_is_over(&self) -> bool {
        self.agenda.is_empty() && self.pending.is_empty() && self.replacement.is_none()
    }

    fn is_settled(&self) -> bool {
        self.memory.borrow().busy == 0 && self.replacement.is_none() && self.stage.is_settled()
    }

    /// Everybody is there, and nobody is about to stop.
    fn is_whole(&self) -> bool {
        let lives = |part: Part| {
            self.processes.get(part.index()).and_then(Option::as_ref).is_some_and(|one| !one.stopping)
        };
        Part::loops().all(lives)
    }

    fn finish(self, breach: Option<Breach>) -> Run {
        let Self { stage, mut tally, memory, teller, steps, .. } = self;
        tally.merge(&stage.book.tally());
        tally.merge(&memory.borrow().tally);
        tally.add(Counted::Accepted, u64::try_from(memory.borrow().accepted.len()).unwrap_or(0));
        let mut trace = stage.world.trace();
        for record in stage.log.all_records() {
            let id = record.record_id.as_u64_pair();
            for word in [id.0, id.1, record.sequence.get()] {
                trace = (trace ^ word).wrapping_mul(0x0100_0000_01b3);
                trace ^= trace >> 29;
            }
        }
        let story = teller.story(breach.as_ref());
        Run { trace, steps, tally, breach, story }
    }
}
