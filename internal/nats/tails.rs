//! Reading streams from any position, and what came last without asking.
//!
//! The rule this module protects: never a gap, never out of order. What a reader has proven of the stream in front of it
//! holds for one connection: when that was made anew, or a follower came out of step, everything remembered is dropped,
//! and each reader that proves its position is told so once, by an error.
//!
//! Every lane that is read to its end gets one follower, which keeps a [`Window`] of what came last. Who stands inside
//! the window is answered from it; who does not gets a page from the server.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use eventsourcing::environment::Doorbells;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{PortError, PortResult};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::connect::Nats;
use super::fetch::{self, Page, Pages, fetch};
use super::follower::{self, Start};
use super::window::Window;

/// What all windows of one handle may hold, in items of each lane, and in bytes of all of them.
const BUDGET: (usize, usize) = (8 * 1024, 16 * 1024 * 1024);
/// How long a reader waits for its follower to bring what it knows is there.
const LAG: Duration = Duration::from_secs(1);
/// A follower that was not read from for so many of its beats ends.
const UNREAD: u32 = 60;

/// What is read: a stream's subjects, cut into lanes.
pub(super) trait Lanes: Send + Sync + 'static {
    /// What a message becomes.
    type Item: Clone + Send + Sync + 'static;
    /// Whether a lane's messages have consecutive numbers.
    const GAPLESS: bool;

    /// The stream that a lane is in.
    fn stream(&self, lane: Partition) -> String;

    /// The lane's subjects in it.
    fn filter(&self, lane: Partition) -> String;

    /// Reads a message.
    fn item(&self, lane: Partition, message: &InStream<'_>) -> PortResult<Self::Item>;
}

/// A message as a stream has it.
pub(super) struct InStream<'a> {
    pub(super) sequence: u64,
    /// By the server's clock, in nanoseconds since the Unix epoch.
    pub(super) stored_at: u64,
    pub(super) subject: &'a str,
    pub(super) payload: &'a Bytes,
}

/// What a lane's follower has brought.
struct Lane<T> {
    window: Window<T>,
    incarnation: u64,
    /// Whether the follower is at work; until then the window knows nothing.
    ready: bool,
    unread: u32,
    following: AbortHandle,
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        self.following.abort();
    }
}

struct State<T> {
    lanes: BTreeMap<Partition, Lane<T>>,
    /// How often the connection was made when this was last looked at.
    connects: u64,
    /// How often a follower came out of step.
    disturbed: u64,
    incarnations: u64,
    /// What this process was told that the stream has.
    acknowledged: BTreeMap<Partition, u64>,
    /// When the streams were created that followers follow, in microseconds since the Unix epoch.
    created: BTreeMap<String, u64>,
}

/// What all clones of a handle share.
pub(super) struct Shared<L: Lanes> {
    pub(super) lanes: L,
    pub(super) nats: Nats,
    bells: Doorbells,
    arrived: Notify,
    state: Mutex<State<L::Item>>,
}

/// A handle for reading. A clone shares what was read, and is a reader of its own.
pub(super) struct Tails<L: Lanes> {
    shared: Arc<Shared<L>>,
    /// Whether this reader proves its position, and wants to be told when to do so again.
    proves: bool,
    seen: AtomicU64,
}

impl<L: Lanes> Clone for Tails<L> {
    fn clone(&self) -> Self {
        let seen = AtomicU64::new(self.seen.load(Ordering::Acquire));
        Self { shared: Arc::clone(&self.shared), proves: self.proves, seen }
    }
}

impl<L: Lanes> Tails<L> {
    pub(super) fn new(nats: Nats, lanes: L, proves: bool) -> Self {
        let connects = nats.connects();
        let state = State {
            lanes: BTreeMap::new(),
            connects,
            disturbed: 0,
            incarnations: 0,
            acknowledged: BTreeMap::new(),
            created: BTreeMap::new(),
        };
        let shared = Shared {
            lanes,
            nats,
            bells: Doorbells::default(),
            arrived: Notify::new(),
            state: Mutex::new(state),
        };
        Self { shared: Arc::new(shared), proves, seen: AtomicU64::new(connects) }
    }

    pub(super) fn nats(&self) -> &Nats {
        &self.shared.nats
    }

    pub(super) fn lanes(&self) -> &L {
        &self.shared.lanes
    }

    /// What rings when something arrives, or when everything must be looked at again.
    pub(super) fn bells(&self) -> &Doorbells {
        &self.shared.bells
    }

    /// What holds for as long as this number stays.
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation()
    }

    /// A publish was acknowledged, which began in this generation: the next read has it.
    pub(super) fn acknowledged(&self, generation: u64, lane: Partition, sequence: u64) {
        if self.shared.generation() == generation {
            let mut state = self.shared.state();
            let known = state.acknowledged.entry(lane).or_default();
            *known = sequence.max(*known);
        }
    }

    /// The stream was created at this time: what is followed from now on must be of that stream.
    pub(super) fn created(&self, stream: &str, created_at: u64) {
        self.shared.state().created.insert(stream.to_owned(), created_at);
    }

    /// The stream has nothing before this number any more.
    pub(super) fn purged(&self, lane: Partition, before: u64) {
        if let Some(lane) = self.shared.state().lanes.get_mut(&lane) {
            lane.window.forget_before(before);
        }
    }

    /// Everything that is remembered is of no use any more.
    pub(super) fn disturb(&self, reason: &str) {
        self.shared.disturb(reason);
    }

    /// Items after the given positions, at most `limit` in all, in order within each lane. Lanes are served in the order
    /// of the request. Fewer than `limit` mean that there are no more, but for pages that are very large, and for a lane that
    /// cannot be read now.
    ///
    /// # Errors
    ///
    /// Once for each reader that proves its positions, when it has to do so again: also after it was given what the other
    /// lanes have where one could not be read. Where that is nothing, with what was wrong.
    pub(super) async fn read(&self, after: &[(Partition, u64)], limit: usize) -> PortResult<Vec<L::Item>> {
        let generation = self.prove()?;
        if limit == 0 || after.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.catch_up(after).await;
        let unknown = self.shared.unknown(after, self.proves);
        let mut pages = if unknown.is_empty() {
            Pages::default()
        } else {
            let pages = fetch(&self.shared, &unknown, limit).await;
            // What broke with the connection is told as that.
            self.prove()?;
            pages?
        };
        let items = self.assemble(after, limit, &mut pages.lanes, generation);
        let now = self.prove()?;
        match pages.unread {
            Some(error) if items.is_empty() => Err(error),
            Some(error) => {
                tracing::warn!(%error, "a lane cannot be read now, the others go on");
                // The next read tells: what is there when that lane can be read again may be another stream.
                self.seen.store(now.wrapping_sub(1), Ordering::Release);
                Ok(items)
            }
            None => Ok(items),
        }
    }

    /// The items at these positions, one answer a position, in order. Nothing is remembered of them, and nothing proven.
    pub(super) async fn at(&self, positions: &[(Partition, u64)]) -> PortResult<Vec<Option<L::Item>>> {
        fetch::at(&self.shared, positions).await
    }

    /// Does what is only right while this reader's proof holds. It is neither begun nor gone on with behind anything that
    /// this reader has not been told of.
    pub(super) async fn while_proven<T>(&self, doing: impl Future<Output = PortResult<T>>) -> PortResult<T> {
        let holds = || !self.proves || self.seen.load(Ordering::Acquire) == self.shared.generation();
        // Looked at before every step of what is done, and woken by nothing else.
        let disproven = poll_fn(|_| if holds() { Poll::Pending } else { Poll::Ready(()) });
        tokio::select! {
            biased;
            () = disproven => Err(made_anew()),
            done = doing => done,
        }
    }

    /// The generation, where this reader's proof is of it.
    fn prove(&self) -> PortResult<u64> {
        let now = self.shared.generation();
        if self.proves && self.seen.swap(now, Ordering::AcqRel) != now {
            return Err(made_anew());
        }
        Ok(now)
    }

    fn assemble(
        &self,
        after: &[(Partition, u64)],
        limit: usize,
        pages: &mut BTreeMap<Partition, Page<L::Item>>,
        generation: u64,
    ) -> Vec<L::Item> {
        let mut items = Vec::new();
        let mut ends = Vec::new();
        let mut state = self.shared.state();
        for (partition, after) in after {
            let left = limit.saturating_sub(items.len());
            if let Some(page) = pages.remove(partition) {
                if page.at_end && page.items.len() <= left {
                    ends.push((*partition, page.last));
                }
                items.extend(page.items.into_iter().take(left));
            } else if let Some(lane) = state.lanes.get_mut(partition).filter(|lane| lane.ready) {
                lane.unread = 0;
                // It may have moved on in the meantime: then this lane is read the next time.
                if lane.window.knows(*after) {
                    items.extend(lane.window.take(*after, left));
                }
            }
        }
        drop(state);
        for (partition, last) in ends {
            self.shared.follow(partition, last, generation);
        }
        items
    }
}

impl<L: Lanes> Shared<L> {
    fn state(&self) -> MutexGuard<'_, State<L::Item>> {
        // A panic while holding the lock leaves collections behind that are never half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds for as long as this number stays. Drops everything when the connection was made anew.
    pub(super) fn generation(&self) -> u64 {
        let mut state = self.state();
        let renewed = self.renew(&mut state);
        let generation = state.connects.wrapping_add(state.disturbed);
        drop(state);
        if renewed {
            self.wake();
        }
        generation
    }

    fn renew(&self, state: &mut State<L::Item>) -> bool {
        let connects = self.nats.connects();
        let renewed = state.connects != connects;
        if renewed {
            state.connects = connects;
            state.lanes.clear();
            state.acknowledged.clear();
        }
        renewed
    }

    fn wake(&self) {
        self.arrived.notify_waiters();
        self.bells.ring();
    }

    fn disturb(&self, reason: &str) {
        tracing::warn!(reason, "reading begins anew");
        let mut state = self.state();
        state.disturbed = state.disturbed.wrapping_add(1);
        state.lanes.clear();
        state.acknowledged.clear();
        drop(state);
        self.wake();
    }

    /// Waits until the windows have what was acknowledged here. Where that takes long, they are given up.
    async fn catch_up(&self, after: &[(Partition, u64)]) {
        let wait = async {
            loop {
                let mut arrived = pin!(self.arrived.notified());
                arrived.as_mut().enable();
                if self.lagging(after).is_empty() {
                    return;
                }
                arrived.await;
            }
        };
        if !self.lagging(after).is_empty() && tokio::time::timeout(LAG, wait).await.is_err() {
            let lagging = self.lagging(after);
            self.state().lanes.retain(|lane, _| !lagging.contains(lane));
        }
    }

    fn lagging(&self, after: &[(Partition, u64)]) -> Vec<Partition> {
        let state = self.state();
        let lags = |lane: &Partition, after: u64| {
            let acknowledged = state.acknowledged.get(lane).copied().unwrap_or_default();
            let followed = state.lanes.get(lane).filter(|lane| lane.ready && lane.window.knows(after));
            followed.is_some_and(|lane| acknowledged > lane.window.end().max(after))
        };
        after.iter().filter(|(lane, after)| lags(lane, *after)).map(|(lane, _)| *lane).collect()
    }

    /// The lanes whose windows cannot answer.
    fn unknown(&self, after: &[(Partition, u64)], alone: bool) -> Vec<(Partition, u64)> {
        let mut state = self.state();
        let mut unknown = Vec::new();
        for (partition, after) in after {
            let lane = state.lanes.get_mut(partition);
            let known = lane.as_ref().is_some_and(|lane| lane.ready && lane.window.knows(*after));
            if known {
                continue;
            }
            unknown.push((*partition, *after));
            // A single reader has fallen behind: what its follower brings is not wanted for a while.
            if alone && lane.is_some_and(|lane| lane.ready) {
                state.lanes.remove(partition);
            }
        }
        unknown
    }

    /// Follows a lane from its end, where nobody does yet. A reader that is ahead of the stream finds its end there, too. A
    /// follower of what is behind that, which has not come yet, makes way for who stands where the stream does: its window
    /// knows both places, and so it comes to rest.
    fn follow(self: &Arc<Self>, partition: Partition, after: u64, generation: u64) {
        let mut state = self.state();
        let renewed = self.nats.connects() != state.connects;
        if renewed || state.connects.wrapping_add(state.disturbed) != generation {
            return;
        }
        let stays = |lane: &Lane<L::Item>| lane.window.knows(after) || !lane.window.is_empty();
        if state.lanes.get(&partition).is_some_and(stays) {
            return;
        }
        state.incarnations += 1;
        let incarnation = state.incarnations;
        let start = Start { lane: partition, after, incarnation };
        let following = tokio::spawn(follower::follow(Arc::downgrade(self), self.nats.clone(), start));
        let window = Window::behind(after);
        let following = following.abort_handle();
        state.lanes.insert(partition, Lane { window, incarnation, ready: false, unread: 0, following });
    }
}

/// What a follower says.
impl<L: Lanes> Shared<L> {
    fn own<'a>(state: &'a mut State<L::Item>, start: &Start) -> Option<&'a mut Lane<L::Item>> {
        state.lanes.get_mut(&start.lane).filter(|lane| lane.incarnation == start.incarnation)
    }

    /// The follower is at work, on a stream that was created then. `false`: it is not wanted any more.
    pub(super) fn ready(&self, start: &Start, created_at: u64) -> bool {
        let stream = self.lanes.stream(start.lane);
        let mut state = self.state();
        let another = state.created.insert(stream, created_at).is_some_and(|before| before != created_at);
        if let Some(lane) = Self::own(&mut state, start) {
            lane.ready = !another;
        } else {
            return false;
        }
        drop(state);
        if another {
            self.disturb("the stream was created anew");
        }
        !another
    }

    /// An item has arrived. `false`: it is not wanted any more.
    pub(super) fn take_in(&self, start: &Start, sequence: u64, bytes: usize, item: L::Item) -> bool {
        let mut state = self.state();
        if self.renew(&mut state) {
            drop(state);
            self.wake();
            return false;
        }
        let most = (BUDGET.0, BUDGET.1 / state.lanes.len().max(1));
        let Some(lane) = Self::own(&mut state, start) else { return false };
        lane.window.push(sequence, bytes, item, most);
        true
    }

    /// Everything that has come for now is taken in.
    pub(super) fn arrived(&self) {
        self.wake();
    }

    /// A beat has passed. `false`: nobody has read from it for a long time.
    pub(super) fn beat(&self, start: &Start) -> bool {
        let mut state = self.state();
        let Some(lane) = Self::own(&mut state, start) else { return false };
        lane.unread += 1;
        lane.unread < UNREAD
    }

    /// The follower ends, and nothing is wrong.
    pub(super) fn leave(&self, start: &Start) {
        let mut state = self.state();
        if Self::own(&mut state, start).is_some() {
            state.lanes.remove(&start.lane);
        }
    }

    /// The follower came out of step.
    pub(super) fn fell_out(&self, start: &Start, reason: &str) {
        let mut state = self.state();
        let own = Self::own(&mut state, start).is_some();
        drop(state);
        if own {
            self.disturb(reason);
        }
    }
}

/// What a reader is told that proves its positions.
fn made_anew() -> PortError {
    let what =
        "the connection was made anew, or a stream: what is remembered of the streams has to be proven again";
    PortError::Unavailable(what.to_owned())
}
