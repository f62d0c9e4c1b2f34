//! What was committed last, so that most reads need no SQL.
//!
//! The rule this module protects: what is not here may still exist. Only the process that holds the directory's lock
//! may conclude from its own memory that there is nothing more, and only while no commit of its is in doubt; everybody
//! else asks the file, with one small statement for all partitions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eventsourcing::partition::{Partition, PartitionCount};
use eventsourcing::ports::{PortResult, QueuedMessage};
use eventsourcing::record::Record;
use sqlx::sqlite::SqlitePool;

use super::error::port_error;
use super::sql::{Values, count, rows};
use super::tail::{Budget, Tail, shares};

/// What all tails of one kind may hold together: records of a third of a second under full load. Whoever reads them is milliseconds
/// behind, or so far that they are in the file's pages all the same. Four times as much made nothing faster.
const TAIL_BYTES: usize = 4 * 1024 * 1024;
const TAIL_ITEMS: usize = 32 * 1024;
/// What a record takes beside its texts, about.
const RECORD_BYTES: usize = 320;

const MARKS: &str = "SELECT p.partition, p.head, r.sequence, \
    COALESCE((SELECT MAX(q.message) FROM queue AS q WHERE q.partition = p.partition), 0) \
    FROM partitions AS p JOIN relayed AS r ON r.partition = p.partition";

const WAITING: &str = "SELECT p.partition, q.message, LENGTH(q.payload) FROM partitions AS p CROSS JOIN queue AS q \
    ON q.partition = p.partition AND q.message >= COALESCE(p.queue_message, 0) ORDER BY q.message";

/// How far one partition has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    /// The last record.
    pub(super) head: u64,
    /// The last record that is on the bus.
    pub(super) relayed: u64,
    /// The last message in the queue.
    pub(super) queued: u64,
}

impl Marks {
    fn raise(&mut self, other: Self) {
        self.head = self.head.max(other.head);
        self.relayed = self.relayed.max(other.relayed);
        self.queued = self.queued.max(other.queued);
    }
}

#[derive(Default)]
struct Remembered {
    marks: Marks,
    records: Tail<Arc<Record>>,
    messages: Tail<Arc<[u8]>>,
    /// The messages that have no outcome yet, and their bytes.
    waiting: VecDeque<(u64, u64)>,
}

#[derive(Default)]
struct State {
    partitions: Vec<Remembered>,
    /// Whether the marks are those of the file.
    certain: bool,
    /// Grows with every doubt: what was asked before it teaches nothing after it.
    doubts: u64,
    last_message: u64,
    waiting_bytes: u64,
    reserved_bytes: u64,
}

/// What is behind a position, where it is known.
pub(super) struct Found<T> {
    /// What the tails have.
    pub(super) items: Vec<T>,
    /// What has to be read: partition, position, and how many from there.
    pub(super) missing: Vec<(Partition, u64, usize)>,
}

/// What one store remembers of its file.
pub(super) struct Memory {
    alone: bool,
    budget: Budget,
    turn: AtomicUsize,
    state: Mutex<State>,
}

impl Memory {
    /// Nothing yet. `alone`: nobody else writes the file.
    pub(super) fn new(partitions: PartitionCount, alone: bool) -> Self {
        let count = usize::from(partitions.get());
        let remembered = std::iter::repeat_with(Remembered::default).take(count).collect();
        Self {
            alone,
            budget: Budget { items: TAIL_ITEMS / count, bytes: TAIL_BYTES / count },
            turn: AtomicUsize::new(0),
            state: Mutex::new(State { partitions: remembered, ..State::default() }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit may or may not have happened: nothing here is certain.
    pub(super) fn doubt(&self) {
        let mut state = self.state();
        state.certain = false;
        state.doubts += 1;
        for partition in &mut state.partitions {
            partition.records.clear();
            partition.messages.clear();
        }
    }

    /// How far the partitions have come: all of them, by index.
    pub(super) async fn marks(&self, readers: &SqlitePool) -> PortResult<Vec<Marks>> {
        let doubts = {
            let state = self.state();
            if self.alone && state.certain {
                return Ok(state.partitions.iter().map(|partition| partition.marks).collect());
            }
            state.doubts
        };
        let mut connection = readers.acquire().await.map_err(|error| port_error(&error))?;
        let mut marks = vec![Marks::default(); self.state().partitions.len()];
        for row in rows(&mut connection, MARKS, Values::default()).await? {
            let found = Marks { head: count(&row, 1)?, relayed: count(&row, 2)?, queued: count(&row, 3)? };
            let index = usize::try_from(count(&row, 0)?).unwrap_or(usize::MAX);
            if let Some(marks) = marks.get_mut(index) {
                *marks = found;
            }
        }
        if self.alone {
            self.recount(readers).await?;
            let mut state = self.state();
            if state.doubts == doubts {
                for (partition, found) in state.partitions.iter_mut().zip(&mut marks) {
                    // Commits of ours may have come in between.
                    partition.marks.raise(*found);
                    *found = partition.marks;
                }
                state.certain = true;
            }
        }
        Ok(marks)
    }

    /// Counts in the file what waits in the queue.
    pub(super) async fn recount(&self, readers: &SqlitePool) -> PortResult<()> {
        let mut connection = readers.acquire().await.map_err(|error| port_error(&error))?;
        let mut counted: Vec<VecDeque<(u64, u64)>> = vec![VecDeque::new(); self.state().partitions.len()];
        for row in rows(&mut connection, WAITING, Values::default()).await? {
            let index = usize::try_from(count(&row, 0)?).unwrap_or(usize::MAX);
            if let Some(waiting) = counted.get_mut(index) {
                waiting.push_back((count(&row, 1)?, count(&row, 2)?));
            }
        }
        let mut state = self.state();
        for (partition, mut counted) in state.partitions.iter_mut().zip(counted) {
            let last = counted.back().map_or(0, |(message, _)| *message);
            // Committed after the file was read.
            counted.extend(partition.waiting.iter().filter(|(message, _)| *message > last));
            partition.waiting = counted;
        }
        state.waiting_bytes =
            state.partitions.iter().flat_map(|partition| &partition.waiting).map(|(_, bytes)| bytes).sum();
        Ok(())
    }

    // ------------------------------------------------------------------------------------------ writing

    /// Records of one partition, contiguous, are on disk, and its queue is worked off up to a message.
    pub(super) fn appended(&self, partition: Partition, records: &[Arc<Record>], worked: u64) {
        let mut state = self.state();
        let mut freed = 0_u64;
        if let Some(remembered) = state.partitions.get_mut(usize::from(partition.index())) {
            for record in records {
                let sequence = record.sequence.get();
                let bytes = RECORD_BYTES + record.data.len() + record.actor.len();
                remembered.records.push(sequence - 1, sequence, bytes, Arc::clone(record), self.budget);
                remembered.marks.head = remembered.marks.head.max(sequence);
            }
            while remembered.waiting.front().is_some_and(|(message, _)| *message < worked) {
                freed += remembered.waiting.pop_front().map_or(0, |(_, bytes)| bytes);
            }
        }
        state.waiting_bytes = state.waiting_bytes.saturating_sub(freed);
    }

    /// A partition's stream ends here now.
    pub(super) fn relayed(&self, partition: Partition, sequence: u64) {
        if let Some(remembered) = self.state().partitions.get_mut(usize::from(partition.index())) {
            remembered.marks.relayed = remembered.marks.relayed.max(sequence);
        }
    }

    /// Messages with numbers from `first` on are on disk.
    pub(super) fn enqueued(&self, first: u64, bundles: &[(Partition, Arc<[u8]>)]) {
        let mut state = self.state();
        if first != state.last_message + 1 {
            // Somebody else put messages in between.
            for partition in &mut state.partitions {
                partition.messages.clear();
            }
        }
        let certain = self.alone && state.certain;
        for (message, (partition, payload)) in (first..).zip(bundles) {
            let bytes = payload.len() as u64;
            if let Some(remembered) = state.partitions.get_mut(usize::from(partition.index())) {
                // Alone we know that there is none since the last of the partition; otherwise since our first.
                let known = if certain { remembered.marks.queued } else { first - 1 };
                let after = remembered.messages.last().unwrap_or(known);
                remembered.messages.push(after, message, payload.len(), Arc::clone(payload), self.budget);
                remembered.marks.queued = remembered.marks.queued.max(message);
                remembered.waiting.push_back((message, bytes));
            }
            state.waiting_bytes = state.waiting_bytes.saturating_add(bytes);
            state.last_message = message;
        }
    }

    /// Messages before this one are no longer there.
    pub(super) fn purged(&self, partition: Partition, before: u64) {
        if let Some(remembered) = self.state().partitions.get_mut(usize::from(partition.index())) {
            remembered.messages.forget_before(before);
        }
    }

    /// Makes room for a message that is about to be stored. `false`: there is none.
    pub(super) fn reserve(&self, bytes: u64, capacity: u64) -> bool {
        let mut state = self.state();
        let full = state.waiting_bytes.saturating_add(state.reserved_bytes).saturating_add(bytes) > capacity;
        if !full {
            state.reserved_bytes = state.reserved_bytes.saturating_add(bytes);
        }
        !full
    }

    /// The room is used, or not needed any more.
    pub(super) fn release(&self, bytes: u64) {
        let mut state = self.state();
        state.reserved_bytes = state.reserved_bytes.saturating_sub(bytes);
    }

    // ------------------------------------------------------------------------------------------ reading

    /// Records behind positions and up to ends, at most `limit` in all.
    pub(super) fn records(&self, wanted: &[(Partition, u64, u64)], limit: usize) -> Found<Arc<Record>> {
        let sizes: Vec<u64> = wanted.iter().map(|(_, after, end)| end.saturating_sub(*after)).collect();
        let shares = shares(&sizes, limit, self.turn.fetch_add(1, Ordering::Relaxed));
        let state = self.state();
        let mut found = Found { items: Vec::new(), missing: Vec::new() };
        for ((partition, after, _), share) in wanted.iter().zip(shares).filter(|(_, share)| *share > 0) {
            let tail =
                state.partitions.get(usize::from(partition.index())).map(|partition| &partition.records);
            match tail.filter(|tail| tail.behind(*after).is_some()) {
                Some(tail) => found.items.extend(tail.take(*after, share).map(|(_, record)| record)),
                None => found.missing.push((*partition, *after, share)),
            }
        }
        found
    }

    /// Messages behind positions, where there are any, at most `limit` in all.
    pub(super) fn messages(&self, wanted: &[(Partition, u64)], limit: usize) -> Found<QueuedMessage> {
        let state = self.state();
        let tails: Vec<_> = wanted
            .iter()
            .map(|(partition, after)| {
                let tail = &state.partitions.get(usize::from(partition.index()))?.messages;
                tail.behind(*after).map(|behind| (tail, behind))
            })
            .collect();
        let sizes: Vec<u64> =
            tails.iter().map(|tail| tail.map_or(limit, |(_, behind)| behind) as u64).collect();
        let shares = shares(&sizes, limit, self.turn.fetch_add(1, Ordering::Relaxed));
        let mut found = Found { items: Vec::new(), missing: Vec::new() };
        for (((partition, after), tail), share) in wanted.iter().zip(tails).zip(shares) {
            match tail {
                Some((tail, _)) => found.items.extend(tail.take(*after, share).map(|(message, payload)| {
                    let partition = *partition;
                    QueuedMessage { partition, message, stored_at: 0, payload }
                })),
                None if share > 0 => found.missing.push((*partition, *after, share)),
                None => {}
            }
        }
        found
    }
}
