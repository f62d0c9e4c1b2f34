//! What stands between a process and its stores.
//!
//! The rule this module protects: a mishap meets one process's call, and whatever it does to it, it does what the real
//! world could do: before the call, after it, twice; or, of messages that are on their way one after the other, half of it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventsourcing::command::Bundle;
use eventsourcing::environment::{Environment, Timestamp};
use eventsourcing::partition::Partition;
use eventsourcing::ports::{CommandQueue, PortResult, QueuedMessage, Role};
use eventsourcing::testkit::memory::{Call, Fault, Interference, MemoryQueue};
use eventsourcing::testkit::world::WorldEnvironment;
use uuid::Uuid;

use crate::parts::{Kind, Part, Store};
use crate::plan::{Harm, TERM};
use crate::tally::{Counted, Tally};

/// What a wire cannot do itself: it is asked in the middle of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// Do not run the process for so many milliseconds.
    Pause(Part, u32),
    /// Kill it, and start another after so many milliseconds.
    Kill(Part, u32),
}

/// A call that was made: for stories.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) part: Part,
    pub(crate) call: Call,
    pub(crate) fault: Fault,
    pub(crate) harm: Option<Harm>,
}

/// What all wires write into.
#[derive(Default)]
pub(crate) struct Book {
    telling: bool,
    urgent: AtomicBool,
    orders: Mutex<Vec<Order>>,
    tally: Mutex<Tally>,
    made: Mutex<Vec<Made>>,
    policies_queued: AtomicU64,
    queued: AtomicU64,
}

impl Book {
    pub(crate) fn new(telling: bool) -> Self {
        Self { telling, ..Self::default() }
    }

    /// Orders that were given since this was last asked.
    pub(crate) fn take_orders(&self) -> Vec<Order> {
        if self.urgent.swap(false, Ordering::Relaxed) {
            std::mem::take(&mut *lock(&self.orders))
        } else {
            Vec::new()
        }
    }

    fn order(&self, order: Order) {
        lock(&self.orders).push(order);
        self.urgent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, what: Counted) {
        lock(&self.tally).count(what);
    }

    pub(crate) fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Calls that were made since this was last asked, where somebody tells a story.
    pub(crate) fn take_made(&self) -> Vec<Made> {
        std::mem::take(&mut *lock(&self.made))
    }

    /// Commands that the policies, and that all, have queued.
    pub(crate) fn queued(&self) -> (u64, u64) {
        (self.policies_queued.load(Ordering::Relaxed), self.queued.load(Ordering::Relaxed))
    }
}

/// One process's way to its stores.
pub(crate) struct Wire {
    part: Part,
    book: Arc<Book>,
    /// Nothing is wrong with it.
    quiet: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cuts: Vec<Store>,
    armed: Vec<(Call, Harm)>,
    /// Stores behind connections that will have to be made anew.
    severed: u8,
}

impl State {
    fn is_quiet(&self) -> bool {
        self.cuts.is_empty() && self.armed.is_empty() && self.severed == 0
    }
}

impl Wire {
    pub(crate) fn new(part: Part, book: Arc<Book>) -> Self {
        Self { part, book, quiet: AtomicBool::new(true), state: Mutex::default() }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        self.quiet.store(state.is_quiet(), Ordering::Relaxed);
    }

    /// The next call of this kind goes wrong.
    pub(crate) fn arm(&self, call: Call, harm: Harm) {
        self.change(|state| state.armed.push((call, harm)));
    }

    pub(crate) fn cut(&self, store: Store) {
        self.change(|state| state.cuts.push(store));
    }

    /// Takes one cut back.
    pub(crate) fn mend(&self, store: Store) {
        self.change(|state| {
            if let Some(index) = state.cuts.iter().position(|cut| *cut == store) {
                state.cuts.swap_remove(index);
            }
        });
    }

    /// The store behind the connection was replaced: the next read hears of it.
    pub(crate) fn sever(&self, store: Store) {
        self.change(|state| state.severed |= store.bit());
    }

    /// Nothing goes wrong any more that was to. A new connection is still a new one.
    pub(crate) fn heal(&self) {
        self.change(|state| {
            state.cuts.clear();
            state.armed.clear();
        });
    }

    /// A new process has new connections.
    pub(crate) fn reconnect(&self) {
        self.change(|state| state.severed = 0);
    }

    fn trouble(&self, call: Call) -> (Fault, Option<Harm>) {
        if self.quiet.load(Ordering::Relaxed) {
            return (Fault::None, None);
        }
        let mut state = lock(&self.state);
        let store = Store::of(call);
        if state.cuts.contains(&store) {
            return (Fault::Fail, None);
        }
        if call == Call::QueuePurge && state.severed & store.bit() != 0 {
            // A number goes by the queue in which it was proven: no adapter purges over a connection that nobody was told of.
            return (Fault::Fail, None);
        }
        if matches!(call, Call::QueueRead | Call::BusRead | Call::ForeignRead)
            && state.severed & store.bit() != 0
        {
            state.severed &= !store.bit();
            self.quiet.store(state.is_quiet(), Ordering::Relaxed);
            return (Fault::Fail, None);
        }
        let armed = |(of, harm): &(Call, Harm)| *of == call && *harm != Harm::Repeated;
        let Some(index) = state.armed.iter().position(armed) else { return (Fault::None, None) };
        let (_, harm) = state.armed.remove(index);
        self.quiet.store(state.is_quiet(), Ordering::Relaxed);
        drop(state);
        self.book.count(counted(call, harm));
        let fault = match harm {
            Harm::Fails => Fault::Fail,
            Harm::Half => Fault::Half,
            Harm::AnswerLost => Fault::LoseAnswer,
            Harm::CallerKilled(down) => {
                self.book.order(Order::Kill(self.part, down));
                Fault::None
            }
            Harm::AnswerLate(pause) => {
                self.book.order(Order::Pause(self.part, pause));
                Fault::None
            }
            Harm::Repeated => Fault::None,
        };
        (fault, Some(harm))
    }

    /// Whether the next enqueue happens twice; if so, this is it.
    fn repeats(&self) -> bool {
        if self.quiet.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = lock(&self.state);
        let Some(index) = state.armed.iter().position(|(_, harm)| *harm == Harm::Repeated) else {
            return false;
        };
        state.armed.remove(index);
        self.quiet.store(state.is_quiet(), Ordering::Relaxed);
        self.book.count(Counted::EnqueueRepeated);
        true
    }
}

/// As what a mishap counts.
fn counted(call: Call, harm: Harm) -> Counted {
    match harm {
        Harm::CallerKilled(_) => Counted::KilledInACall,
        Harm::AnswerLate(pause) if pause > TERM => Counted::Zombie,
        Harm::AnswerLate(_) => Counted::Delayed,
        Harm::Repeated => Counted::EnqueueRepeated,
        Harm::Half if call == Call::BusPublish => Counted::PublishBrokeOff,
        Harm::Half => Counted::EnqueueBrokeOff,
        Harm::Fails if call == Call::LogCommit => Counted::CommitFailed,
        Harm::AnswerLost if call == Call::LogCommit => Counted::CommitAnswerLost,
        Harm::Fails if call == Call::BusPublish => Counted::PublishFailed,
        Harm::AnswerLost if call == Call::BusPublish => Counted::PublishAnswerLost,
        Harm::Fails if call == Call::QueueEnqueue => Counted::EnqueueFailed,
        Harm::AnswerLost if call == Call::QueueEnqueue => Counted::EnqueueAnswerLost,
        Harm::Fails => Counted::OtherCallFailed,
        Harm::AnswerLost => Counted::OtherAnswerLost,
    }
}

impl Interference for Wire {
    fn before(&self, call: Call) -> Fault {
        let (fault, harm) = self.trouble(call);
        if self.book.telling {
            lock(&self.book.made).push(Made { part: self.part, call, fault, harm });
        }
        fault
    }
}

/// The command queue behind a wire: whose publishes may happen twice.
#[derive(Clone)]
pub(crate) struct Door {
    queue: MemoryQueue,
    wire: Arc<Wire>,
}

impl Door {
    pub(crate) fn new(queue: &MemoryQueue, wire: &Arc<Wire>) -> Self {
        let interference: Arc<dyn Interference> = Arc::clone(wire) as Arc<dyn Interference>;
        Self { queue: queue.interfered(interference), wire: Arc::clone(wire) }
    }

    fn count(&self, bundles: &[Bundle]) {
        let commands = bundles.iter().map(|bundle| u64::try_from(bundle.commands).unwrap_or(0)).sum();
        let book = &self.wire.book;
        book.queued.fetch_add(commands, Ordering::Relaxed);
        if self.wire.part.kind() == Kind::Member(Role::Policies) {
            book.policies_queued.fetch_add(commands, Ordering::Relaxed);
        }
    }
}

impl CommandQueue for Door {
    async fn created_at(&self) -> PortResult<u64> {
        self.queue.created_at().await
    }

    async fn enqueue(&self, bundles: Vec<Bundle>) -> Vec<PortResult<()>> {
        if self.wire.repeats() {
            let first = bundles.clone();
            let answers = self.queue.enqueue(first).await;
            if answers.iter().all(Result::is_ok) {
                self.count(&bundles);
            }
        }
        let all = bundles.clone();
        let answers = self.queue.enqueue(bundles).await;
        if answers.iter().all(Result::is_ok) {
            self.count(&all);
        }
        answers
    }

    async fn message(&self, partition: Partition, message: u64) -> PortResult<Option<QueuedMessage>> {
        self.queue.message(partition, message).await
    }

    async fn read(&self, after: &[(Partition, u64)], limit: usize) -> PortResult<Vec<QueuedMessage>> {
        self.queue.read(after, limit).await
    }

    async fn purge(&self, before: &[(Partition, u64)]) -> PortResult<()> {
        self.queue.purge(before).await
    }
}

/// A process's environment: the world's, with a clock of its own that may be wrong.
#[derive(Clone)]
pub(crate) struct Clock {
    world: WorldEnvironment,
    /// How much it is ahead, in microseconds.
    ahead: Arc<AtomicI64>,
}

impl Clock {
    pub(crate) fn new(world: WorldEnvironment) -> Self {
        Self { world, ahead: Arc::default() }
    }

    /// Jumps by so many milliseconds.
    pub(crate) fn jump(&self, millis: i32) {
        self.ahead.fetch_add(i64::from(millis) * 1_000, Ordering::Relaxed);
    }
}

impl Environment for Clock {
    fn now(&self) -> Timestamp {
        let now = self.world.now().as_micros();
        Timestamp::from_micros(now.saturating_add_signed(self.ahead.load(Ordering::Relaxed)))
    }

    fn uuid(&self) -> Uuid {
        self.world.uuid()
    }

    fn random(&self) -> u64 {
        self.world.random()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.world.sleep(duration)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding the lock ends the run anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
