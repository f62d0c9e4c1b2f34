//! What the last records have changed, for all watches of a process.
//!
//! The rule this module protects: it says all that records have changed between two places, or that it does not know; and it holds
//! a bounded number of them, however far behind anybody is. Whoever wants to know more reads on, for everybody.
//!
//! Each partition has a ring of its last records: what stands behind its floor, without a gap, up to its end. A watch that stands
//! below the floor reads the bus by itself until it is inside.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use domain::live::LiveError;
use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::{EventBus, PortError};
use eventsourcing::record::Record;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use super::lookout::Place;
use super::touched::{self, Touched};

/// Records that are read at a time.
pub(super) const READ: usize = 1024;

/// What a record has changed.
#[derive(Debug)]
struct Change {
    record_id: Uuid,
    rows: Box<[Touched]>,
}

/// The last records of a partition.
#[derive(Debug, Default)]
struct Ring {
    /// Every record behind this one and up to the end is here.
    floor: Sequence,
    changes: VecDeque<Change>,
    /// How often it has begun.
    beginnings: u64,
}

impl Ring {
    fn end(&self) -> Sequence {
        let count = u64::try_from(self.changes.len()).unwrap_or(u64::MAX);
        Sequence::new(self.floor.get().saturating_add(count))
    }

    fn begin(&mut self, floor: Sequence) {
        (self.floor, self.beginnings) = (floor, self.beginnings.saturating_add(1));
        self.changes.clear();
    }

    /// Where a record stands here, if it does.
    fn index(&self, sequence: Sequence) -> Option<usize> {
        let behind = sequence.get().checked_sub(self.floor.get())?.checked_sub(1)?;
        usize::try_from(behind).ok()
    }

    fn push(&mut self, change: Change, most: usize) {
        self.changes.push_back(change);
        while self.changes.len() > most {
            self.changes.pop_front();
            self.floor = self.floor.next();
        }
    }
}

/// How far a watch was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Up to here: what comes then is not known yet, where more was asked for.
    UpTo(Sequence),
    /// It has no room for more.
    Full,
    /// It stands below the floor.
    Below,
}

/// A partition's ring, as it is when it is read on.
#[derive(Debug, Clone, Copy)]
struct Reading {
    partition: Partition,
    /// The record before the next.
    last: (Sequence, Option<Uuid>),
    beginnings: u64,
}

/// The rings of all partitions.
pub(super) struct Recent<B> {
    bus: Arc<B>,
    /// How many records each ring has at most.
    most: usize,
    /// In the order of the partitions. Held for as long as it takes to look at some of it, and never while anybody waits.
    rings: RwLock<Vec<Ring>>,
    /// The number of the next who wants to read on.
    next: AtomicU64,
    /// Whoever reads on, and what went wrong the last time: a bus that is down is not asked by one after the other.
    reader: Mutex<Failed>,
}

/// Why a read has failed, if it has.
#[derive(Debug, Default)]
struct Failed {
    /// It began after all those wanted to read whose numbers are smaller.
    before: u64,
    error: Option<LiveError>,
}

impl<B: EventBus> Recent<B> {
    /// Of so many records of each partition.
    pub(super) fn new(bus: Arc<B>, partitions: usize, most: usize) -> Self {
        let rings = RwLock::new(std::iter::repeat_with(Ring::default).take(partitions).collect());
        Self { bus, most: most.max(1), rings, next: AtomicU64::new(0), reader: Mutex::default() }
    }

    /// The bus that it is read from.
    pub(super) fn bus(&self) -> &B {
        &self.bus
    }

    fn rings(&self) -> RwLockReadGuard<'_, Vec<Ring>> {
        self.rings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn rings_to_write(&self) -> RwLockWriteGuard<'_, Vec<Ring>> {
        self.rings.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of the rows of a table that were changed between two places of a partition. Whoever is told says whether there is
    /// room for more.
    pub(super) fn tell(
        &self,
        partition: Partition,
        (after, to): (Sequence, Sequence),
        table: &str,
        take: &mut impl FnMut(Uuid) -> bool,
    ) -> Told {
        let rings = self.rings();
        let Some(ring) = rings.get(usize::from(partition.index())) else { return Told::Below };
        if after < ring.floor {
            return Told::Below;
        }
        let (Some(first), Some(count)) = (ring.index(after.next()), to.get().checked_sub(after.get())) else {
            return Told::UpTo(after);
        };
        let mut told = after;
        for change in ring.changes.iter().skip(first).take(usize::try_from(count).unwrap_or(usize::MAX)) {
            for (_, key) in change.rows.iter().filter(|(of, _)| *of == table) {
                if !take(*key) {
                    return Told::Full;
                }
            }
            told = told.next();
        }
        Told::UpTo(told)
    }

    /// Forgets the records of a log that is not the one that was projected: somebody has restored another.
    pub(super) fn agree_with(&self, place: &Place) {
        let differs = |ring: &Ring, at: Sequence, id: Option<Uuid>| {
            let here = ring.index(at).and_then(|index| ring.changes.get(index));
            here.is_some_and(|change| Some(change.record_id) != id)
        };
        let places = || place.at.iter().copied().zip(place.ids.iter().copied());
        if self.rings().iter().zip(places()).any(|(ring, (at, id))| differs(ring, at, id)) {
            for (ring, (at, id)) in self.rings_to_write().iter_mut().zip(places()) {
                if differs(ring, at, id) {
                    ring.begin(at);
                }
            }
        }
    }

    /// Reads what the bus has behind these places, or waits for whoever does so already.
    pub(super) async fn look_ahead(&self, after: &[(Partition, Sequence)]) -> Result<(), LiveError> {
        let Ok(reader) = self.reader.try_lock() else {
            // A moment later is soon enough.
            drop(self.reader.lock().await);
            return Ok(());
        };
        self.read(reader, after).await.map(|_| ())
    }

    /// Reads what the bus has behind these places, up to which everything was told, unless somebody has done so meanwhile.
    /// Whether there is any more.
    pub(super) async fn read_on(&self, after: &[(Partition, Sequence)]) -> Result<bool, LiveError> {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        let reader = self.reader.lock().await;
        if let Some(error) = reader.error.as_ref().filter(|_| reader.before > number) {
            return Err(error.clone());
        }
        let is_known = |(partition, at): &(Partition, Sequence)| {
            let rings = self.rings();
            rings.get(usize::from(partition.index())).is_some_and(|ring| ring.floor > *at || ring.end() > *at)
        };
        if after.iter().any(is_known) {
            return Ok(true);
        }
        self.read(reader, after).await
    }

    async fn read(
        &self,
        mut reader: MutexGuard<'_, Failed>,
        after: &[(Partition, Sequence)],
    ) -> Result<bool, LiveError> {
        let before = self.next.load(Ordering::Acquire);
        let any = self.read_for_all(after).await;
        *reader = Failed { before, error: any.as_ref().err().cloned() };
        any
    }

    async fn read_for_all(&self, after: &[(Partition, Sequence)]) -> Result<bool, LiveError> {
        let readings = self.begin(after);
        // The last one again: whether it is still the same.
        let from = |reading: &Reading| match reading.last {
            (sequence, Some(_)) => (reading.partition, Sequence::new(sequence.get().saturating_sub(1))),
            (sequence, None) => (reading.partition, sequence),
        };
        let from: Vec<_> = readings.iter().map(from).collect();
        let records = self.bus.read(&from, READ).await.map_err(LiveError::Unheard)?;
        let mut any = false;
        for reading in readings {
            let of_ring = records.iter().filter(|record| record.partition == reading.partition);
            any |= self.fill(reading, of_ring.map(AsRef::as_ref))?;
        }
        Ok(any)
    }

    /// Where each ring is read on, so that it leads to these places.
    fn begin(&self, after: &[(Partition, Sequence)]) -> Vec<Reading> {
        let mut rings = self.rings_to_write();
        let mut readings = Vec::with_capacity(after.len());
        for (partition, at) in after {
            let Some(ring) = rings.get_mut(usize::from(partition.index())) else { continue };
            let ahead = at.get().saturating_sub(ring.end().get());
            // Nobody has read on for long: what lies between would be forgotten at once.
            if ring.beginnings == 0 || usize::try_from(ahead).unwrap_or(usize::MAX) >= self.most {
                ring.begin(*at);
            }
            let last = (ring.end(), ring.changes.back().map(|change| change.record_id));
            readings.push(Reading { partition: *partition, last, beginnings: ring.beginnings });
        }
        readings
    }

    /// Takes what was read into its ring. Whether anything has become known.
    fn fill<'a>(
        &self,
        reading: Reading,
        records: impl Iterator<Item = &'a Record>,
    ) -> Result<bool, LiveError> {
        let Reading { partition, last: (mut last, mut proven), beginnings } = reading;
        let mut changes = Vec::new();
        let mut is_another = false;
        for record in records {
            if let Some(id) = proven.take() {
                if record.sequence == last && record.record_id == id {
                    continue;
                }
                is_another = record.sequence == last;
            }
            if is_another {
                break;
            }
            last = follows(record, last)?;
            let rows = touched::rows(record).map_err(|error| unreadable(record, &error))?;
            changes.push(Change { record_id: record.record_id, rows: rows.into_iter().collect() });
        }
        let mut rings = self.rings_to_write();
        let ring = rings.get_mut(usize::from(partition.index())).filter(|ring| ring.beginnings == beginnings);
        // Where it was begun anew meanwhile, it is looked at again.
        let Some(ring) = ring else { return Ok(true) };
        if is_another {
            ring.begin(last);
            return Ok(true);
        }
        let any = !changes.is_empty();
        for change in changes {
            ring.push(change, self.most);
        }
        Ok(any)
    }
}

/// The record's sequence, where it is the one behind the last.
pub(super) fn follows(record: &Record, last: Sequence) -> Result<Sequence, LiveError> {
    if record.sequence == last.next() {
        return Ok(record.sequence);
    }
    let reason = format!("the bus does not go on with {}", record.position());
    Err(LiveError::Unheard(PortError::Broken(reason)))
}

/// A record that this release does not know.
pub(super) fn unreadable(record: &Record, error: &eventsourcing::model::DecodeError) -> LiveError {
    let reason = format!("record {} cannot be read: {error}", record.position());
    LiveError::Unheard(PortError::Broken(reason))
}
