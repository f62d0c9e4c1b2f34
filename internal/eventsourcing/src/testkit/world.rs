//! A world under a seed: one thread, a clock that nobody waits for, and dice that always fall the same way.
//!
//! The rule this module protects: a run is a function of its seed. Which task runs next, what time it is and which ids
//! are made come from here and from nowhere else, and [`World::trace`] proves it.
//!
//! A task is to the loops what a process is: it can be paused (it is not polled, as after SIGSTOP), resumed, and
//! killed (its future is dropped between two polls, wherever it stands).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use uuid::Uuid;

use crate::environment::{Environment, Timestamp};

/// When every world begins: 2026-01-01, in microseconds since the Unix epoch.
pub const BEGINNING: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Dice: `SplitMix64`, after Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall as this seed says.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniformly distributed bits.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound; 0 where the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u128::try_from(bound).unwrap_or(u128::MAX);
        usize::try_from((u128::from(self.roll()) * bound) >> 64).unwrap_or(0)
    }

    /// Whether something happens that happens this many times in a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Why a world did not come to what was waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// It ran all the steps that it was given.
    #[error("not after {0} steps")]
    TooLong(u64),
    /// No task can ever run again: each of these waits for another, or is paused.
    #[error("after {steps} steps nothing can run any more; left are {left:?}")]
    Asleep {
        /// The steps that were run.
        steps: u64,
        /// The tasks that are left.
        left: Vec<String>,
    },
}

/// The numbers of the tasks that can run: whoever picks one rolls dice for it.
type Ready = Mutex<Vec<usize>>;

/// In the order of their numbers, and not of their coming: who waits for one thing together is woken in an order that is
/// nobody's business (tokio's `watch` throws dice for it), and must not be the run's.
fn put(ready: &Ready, number: usize) {
    let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
    let place = ready.partition_point(|other| *other < number);
    ready.insert(place, number);
}

/// Puts a task among those that can run when what it waits for is there, once.
struct Flag {
    number: usize,
    awake: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.awake.swap(true, Ordering::Relaxed) {
            put(&self.ready, self.number);
        }
    }
}

type Body = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    name: String,
    flag: Arc<Flag>,
    waker: Waker,
    paused: Cell<bool>,
    /// It was picked while it was paused: whoever resumes it puts it back among those that can run.
    parked: Cell<bool>,
    /// Set while it is polled, too; taken for good when it has ended or was killed.
    over: Cell<bool>,
    body: RefCell<Option<Body>>,
}

/// A task in a [`World`].
pub struct Task<T> {
    slot: Rc<Slot>,
    output: Rc<RefCell<Option<T>>>,
}

impl<T> Task<T> {
    /// Stops running it until it is resumed. What it waits for goes on happening.
    pub fn pause(&self) {
        self.slot.paused.set(true);
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.slot.paused.set(false);
        if self.slot.parked.take() {
            put(&self.slot.flag.ready, self.slot.flag.number);
        }
    }

    /// Drops it where it stands: at once, or, when it does this to itself, as soon as it waits for something.
    pub fn kill(&self) {
        self.slot.over.set(true);
        // Taken before it is dropped: what is dropped may look at this world.
        let body = self.slot.body.try_borrow_mut().ok().and_then(|mut body| body.take());
        drop(body);
    }

    /// Whether it has come to its end, or was killed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.slot.over.get()
    }

    /// What it came to, once.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.output.borrow_mut().take()
    }
}

/// The executor. A clone is the same world.
#[derive(Clone)]
pub struct World(Rc<Core>);

struct Core {
    /// By their numbers, from the first that has not come to its end.
    tasks: RefCell<VecDeque<Option<Rc<Slot>>>>,
    /// How many were taken off the front of the tasks.
    forgotten: Cell<usize>,
    ready: Arc<Ready>,
    latest: Cell<Option<usize>>,
    dice: RefCell<Dice>,
    trace: Cell<u64>,
    environment: WorldEnvironment,
}

impl World {
    /// A world under a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // The order of tasks and what they draw come from dice of their own, so that one does not shift the other.
        let mut dice = Dice::new(seed);
        let nature = Nature { dice: Dice::new(dice.roll()), timers: BTreeMap::new(), timers_set: 0 };
        Self(Rc::new(Core {
            tasks: RefCell::default(),
            forgotten: Cell::new(0),
            ready: Arc::default(),
            latest: Cell::new(None),
            dice: RefCell::new(dice),
            trace: Cell::new(0xcbf2_9ce4_8422_2325),
            environment: WorldEnvironment(Arc::new(Surroundings {
                now: AtomicU64::new(BEGINNING.as_micros()),
                nature: Mutex::new(nature),
            })),
        }))
    }

    /// The world as the loops see it.
    #[must_use]
    pub fn environment(&self) -> WorldEnvironment {
        self.0.environment.clone()
    }

    /// Adds a task. It runs only within [`World::run_until`].
    pub fn spawn<F>(&self, name: &str, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
    {
        let output = Rc::new(RefCell::new(None));
        let result = Rc::clone(&output);
        let body = async move {
            let came_to = future.await;
            *result.borrow_mut() = Some(came_to);
        };
        let mut tasks = self.0.tasks.borrow_mut();
        let number = self.0.forgotten.get() + tasks.len();
        let flag = Arc::new(Flag { number, awake: AtomicBool::new(true), ready: Arc::clone(&self.0.ready) });
        let slot = Rc::new(Slot {
            name: name.to_owned(),
            waker: Waker::from(Arc::clone(&flag)),
            flag,
            paused: Cell::new(false),
            parked: Cell::new(false),
            over: Cell::new(false),
            body: RefCell::new(Some(Box::pin(body))),
        });
        tasks.push_back(Some(Rc::clone(&slot)));
        put(&self.0.ready, number);
        Task { slot, output }
    }

    /// Runs tasks, one poll a step, until the condition holds. Time passes only while no task can run. Answers with
    /// the number of steps.
    ///
    /// # Errors
    ///
    /// When the condition does not hold after so many steps, or nothing can ever run again.
    pub fn run_until(&self, mut condition: impl FnMut() -> bool, max_steps: u64) -> Result<u64, Stuck> {
        let mut steps = 0;
        while !condition() {
            if steps == max_steps {
                return Err(Stuck::TooLong(steps));
            }
            while !self.step() {
                if !self.pass(None) {
                    return Err(Stuck::Asleep { steps, left: self.left() });
                }
            }
            steps += 1;
        }
        Ok(steps)
    }

    /// Runs until this future has come to its end, together with whatever else there is to run.
    ///
    /// # Errors
    ///
    /// As [`World::run_until`].
    pub fn block_on<F>(&self, future: F, max_steps: u64) -> Result<F::Output, Stuck>
    where
        F: Future + 'static,
    {
        let task = self.spawn("block_on", future);
        let steps = self.run_until(|| task.is_finished(), max_steps)?;
        task.take().ok_or_else(|| Stuck::Asleep { steps, left: self.left() })
    }

    /// Which tasks ran in which order and when, as one number: two runs under one seed have the same.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.0.trace.get()
    }

    /// The names of the tasks that have not come to an end.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let tasks = self.0.tasks.borrow();
        tasks.iter().flatten().filter(|slot| !slot.over.get()).map(|slot| slot.name.clone()).collect()
    }

    /// The name of the task that ran in the last step, while it has not come to its end.
    #[must_use]
    pub fn latest(&self) -> Option<String> {
        self.task(self.0.latest.get()?).map(|slot| slot.name.clone())
    }

    /// Lets time pass: until the next timer is due, or the given moment, whichever is first. Only to be called where no
    /// task can run. `false`: there is neither.
    #[must_use]
    pub fn pass(&self, at_most: Option<Timestamp>) -> bool {
        self.0.environment.pass(at_most.map(Timestamp::as_micros))
    }

    /// Whether there may be a task that can run.
    #[must_use]
    pub fn can_run(&self) -> bool {
        !self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Polls one task that can run. `false`: none can.
    #[must_use]
    pub fn step(&self) -> bool {
        loop {
            let number = {
                let mut ready = self.0.ready.lock().unwrap_or_else(PoisonError::into_inner);
                if ready.is_empty() {
                    return false;
                }
                let pick = self.0.dice.borrow_mut().below(ready.len());
                ready.remove(pick)
            };
            let Some(slot) = self.task(number) else { continue };
            if slot.over.get() {
                self.forget(number);
            } else if slot.paused.get() {
                slot.parked.set(true);
            } else {
                self.run(number, &slot);
                return true;
            }
        }
    }

    fn task(&self, number: usize) -> Option<Rc<Slot>> {
        let index = number.checked_sub(self.0.forgotten.get())?;
        self.0.tasks.borrow().get(index)?.clone()
    }

    fn forget(&self, number: usize) {
        let mut tasks = self.0.tasks.borrow_mut();
        let index = number.checked_sub(self.0.forgotten.get());
        if let Some(task) = index.and_then(|index| tasks.get_mut(index)) {
            *task = None;
        }
        while tasks.front().is_some_and(Option::is_none) {
            tasks.pop_front();
            self.0.forgotten.set(self.0.forgotten.get() + 1);
        }
    }

    fn run(&self, number: usize, slot: &Slot) {
        self.note(number);
        slot.flag.awake.store(false, Ordering::Relaxed);
        let Some(mut body) = slot.body.borrow_mut().take() else { return };
        let poll = body.as_mut().poll(&mut Context::from_waker(&slot.waker));
        match poll {
            Poll::Ready(()) => slot.over.set(true),
            Poll::Pending if slot.over.get() => drop(body),
            Poll::Pending => *slot.body.borrow_mut() = Some(body),
        }
        if slot.over.get() {
            self.forget(number);
        }
    }

    fn note(&self, number: usize) {
        self.0.latest.set(Some(number));
        // FNV-1a, a word at a time: it need not resist anybody.
        let mut trace = self.0.trace.get();
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        for word in [number, self.0.environment.now().as_micros()] {
            trace = (trace ^ word).wrapping_mul(0x0100_0000_01b3);
            trace ^= trace >> 29;
        }
        self.0.trace.set(trace);
    }
}

/// What [`World`] is for whoever lives in it: a clock, dice and timers.
#[derive(Clone)]
pub struct WorldEnvironment(Arc<Surroundings>);

struct Surroundings {
    now: AtomicU64,
    nature: Mutex<Nature>,
}

struct Nature {
    dice: Dice,
    timers: BTreeMap<(u64, u64), Waker>,
    timers_set: u64,
}

impl WorldEnvironment {
    fn nature(&self) -> MutexGuard<'_, Nature> {
        self.0.nature.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn micros(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Lets time pass until the next timer is due, or the given moment. `false`: there is neither.
    fn pass(&self, at_most: Option<u64>) -> bool {
        let mut nature = self.nature();
        let next = nature.timers.first_key_value().map(|((at, _), _)| *at);
        let Some(at) = next.into_iter().chain(at_most).min() else { return false };
        let now = at.max(self.micros());
        self.0.now.store(now, Ordering::Relaxed);
        let mut due = Vec::new();
        while let Some(timer) = nature.timers.first_entry().filter(|timer| timer.key().0 <= now) {
            due.push(timer.remove());
        }
        drop(nature);
        due.into_iter().for_each(Waker::wake);
        true
    }
}

impl Environment for WorldEnvironment {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros())
    }

    fn uuid(&self) -> Uuid {
        let now = self.micros();
        let mut nature = self.nature();
        let mut bits = [0; 10];
        let (first, second) = (nature.dice.roll().to_be_bytes(), nature.dice.roll().to_be_bytes());
        for (bit, random) in bits.iter_mut().zip(first.into_iter().chain(second)) {
            *bit = random;
        }
        uuid::Builder::from_unix_timestamp_millis(now / 1000, &bits).into_uuid()
    }

    fn random(&self) -> u64 {
        self.nature().dice.roll()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        let now = self.micros();
        let mut nature = self.nature();
        nature.timers_set += 1;
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let timer = (now.saturating_add(micros), nature.timers_set);
        Sleep { environment: self.clone(), timer, set: false }
    }
}

/// A timer that was set. Dropping it takes it back.
struct Sleep {
    environment: WorldEnvironment,
    timer: (u64, u64),
    /// Whether it is among the timers, or was.
    set: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.timer.0 <= self.environment.micros() {
            return Poll::Ready(());
        }
        self.set = true;
        // The waker that was there before is dropped after the lock is given back.
        let _before = self.environment.nature().timers.insert(self.timer, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.set {
            // As above.
            let _waker = self.environment.nature().timers.remove(&self.timer);
        }
    }
}

#[cfg(test)]
mod tests;
