//! The command queue in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Call, Interference, Way, lock};
use crate::command::{Bundle, Slot, unpack};
use crate::environment::Doorbells;
use crate::partition::Partition;
use crate::ports::{CommandQueue, PortError, PortResult, QueuedMessage};

/// A [`CommandQueue`] in memory. Numbers are given over all partitions and never twice.
#[derive(Clone)]
pub struct MemoryQueue {
    state: Arc<Mutex<SavedQueue>>,
    /// When the last message was stored: it goes on, also when the queue goes back.
    clock: Arc<AtomicU64>,
    /// Whose bundles are refused.
    refused: Arc<Mutex<Option<Partition>>>,
    bells: Doorbells,
    way: Way,
}

/// What a queue held at some time.
#[derive(Debug, Clone)]
pub struct SavedQueue {
    created_at: u64,
    last: u64,
    messages: BTreeMap<(Partition, u64), Stored>,
}

/// When a payload was stored, and the payload.
type Stored = (u64, Arc<[u8]>);

impl SavedQueue {
    fn new(created_at: u64) -> Self {
        Self { created_at, last: 0, messages: BTreeMap::new() }
    }

    fn after(&self, partition: Partition, after: u64) -> impl Iterator<Item = QueuedMessage> {
        let from = (partition, after.saturating_add(1));
        self.messages.range(from..=(partition, u64::MAX)).map(move |((_, message), (stored_at, payload))| {
            let (message, stored_at) = (*message, *stored_at);
            QueuedMessage { partition, message, stored_at, payload: Arc::clone(payload) }
        })
    }
}

#[expect(clippy::must_use_candidate, reason = "what changes the queue may be called for that alone")]
impl MemoryQueue {
    /// An empty queue, created at this time: microseconds since the Unix epoch.
    #[must_use]
    pub fn new(created_at: u64) -> Self {
        let state = Arc::new(Mutex::new(SavedQueue::new(created_at)));
        Self {
            state,
            clock: Arc::default(),
            refused: Arc::default(),
            bells: Doorbells::default(),
            way: Way::default(),
        }
    }

    /// Another handle on the same queue, on whose way somebody stands.
    #[must_use]
    pub fn interfered(&self, interference: Arc<dyn Interference>) -> Self {
        Self { way: Way(Some(interference)), ..self.clone() }
    }

    /// What rings when commands are queued.
    #[must_use]
    pub fn bells(&self) -> &Doorbells {
        &self.bells
    }

    /// When it was created, in microseconds since the Unix epoch.
    pub fn born(&self) -> u64 {
        lock(&self.state).created_at
    }

    /// The number of a partition's last message; 0 where it has none.
    pub fn last(&self, partition: Partition) -> u64 {
        let state = lock(&self.state);
        state
            .messages
            .range((partition, 0)..=(partition, u64::MAX))
            .next_back()
            .map_or(0, |((_, last), _)| *last)
    }

    /// Every message of a partition that is not purged.
    #[must_use]
    pub fn messages(&self, partition: Partition) -> Vec<QueuedMessage> {
        lock(&self.state).after(partition, 0).collect()
    }

    /// Every command of a partition that is not purged, in order.
    #[must_use]
    pub fn commands(&self, partition: Partition) -> Vec<Slot> {
        let messages = self.messages(partition);
        messages.iter().flat_map(|message| unpack(partition, message.message, &message.payload)).collect()
    }

    /// Queues a payload as it is, whatever it says. Answers with its number.
    pub fn push(&self, partition: Partition, payload: &[u8]) -> u64 {
        let number = {
            let mut state = lock(&self.state);
            state.last += 1;
            let number = state.last;
            state.messages.insert((partition, number), (self.now(), Arc::from(payload)));
            number
        };
        self.bells.ring();
        number
    }

    /// How many messages were ever stored or overwritten, also in queues that this one has replaced.
    pub fn stored(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Overwrites a message. `false`: there is none with this number.
    pub fn overwrite(&self, partition: Partition, message: u64, payload: &[u8]) -> bool {
        let mut state = lock(&self.state);
        let found = state.messages.get_mut(&(partition, message));
        found.map(|stored| *stored = (self.now(), Arc::from(payload))).is_some()
    }

    /// Has no room from now on for this partition's bundles. `None` takes it back.
    pub fn refuse(&self, partition: Option<Partition>) {
        *lock(&self.refused) = partition;
    }

    /// Loses a message. `false`: there is none with this number.
    pub fn lose(&self, partition: Partition, message: u64) -> bool {
        lock(&self.state).messages.remove(&(partition, message)).is_some()
    }

    /// The queue as it is, to restore later.
    #[must_use]
    pub fn save(&self) -> SavedQueue {
        lock(&self.state).clone()
    }

    /// Goes back to an earlier state, numbers and creation time included: a restore.
    pub fn restore(&self, saved: SavedQueue) {
        *lock(&self.state) = saved;
    }

    /// Drops everything: a new stream under the same name, whose numbers begin anew.
    pub fn recreate(&self, created_at: u64) {
        self.restore(SavedQueue::new(created_at));
    }
}

impl CommandQueue for MemoryQueue {
    async fn created_at(&self) -> PortResult<u64> {
        self.way.call(Call::QueueCreatedAt, || Ok(lock(&self.state).created_at)).await
    }

    async fn enqueue(&self, bundles: Vec<Bundle>) -> Vec<PortResult<()>> {
        let items = bundles.len();
        let happen = |breaks_off: bool| {
            let stored = if breaks_off { items / 2 } else { items };
            bundles
                .into_iter()
                .enumerate()
                .map(|(index, bundle)| {
                    if index >= stored {
                        return Err(PortError::Unavailable("the connection broke".to_owned()));
                    }
                    if *lock(&self.refused) == Some(bundle.partition) {
                        return Err(PortError::Full(format!("no room for partition {}", bundle.partition)));
                    }
                    self.push(bundle.partition, &bundle.payload);
                    Ok(())
                })
                .collect()
        };
        self.way.call_each(Call::QueueEnqueue, items, happen).await
    }

    async fn message(&self, partition: Partition, message: u64) -> PortResult<Option<QueuedMessage>> {
        let find = || {
            let state = lock(&self.state);
            let found = state.messages.get(&(partition, message)).cloned();
            Ok(found.map(|(stored_at, payload)| QueuedMessage { partition, message, stored_at, payload }))
        };
        self.way.call(Call::QueueMessage, find).await
    }

    async fn read(&self, after: &[(Partition, u64)], limit: usize) -> PortResult<Vec<QueuedMessage>> {
        let read = || {
            let state = lock(&self.state);
            let messages = after.iter().flat_map(|(partition, after)| state.after(*partition, *after));
            Ok(messages.take(limit).collect())
        };
        self.way.call(Call::QueueRead, read).await
    }

    async fn purge(&self, before: &[(Partition, u64)]) -> PortResult<()> {
        let purge = || {
            let mut state = lock(&self.state);
            for (partition, before) in before {
                state.messages.retain(|(of, message), _| of != partition || message >= before);
            }
            Ok(())
        };
        self.way.call(Call::QueuePurge, purge).await
    }
}
