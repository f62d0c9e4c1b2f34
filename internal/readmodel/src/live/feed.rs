//! A watch: batches of rows.
//!
//! The rule this module protects: every state of a row that is delivered is delivered once, in their order, and the last one is
//! delivered; whatever happens meanwhile, and however often somebody else goes on from a [`Resume`].
//!
//! A batch delivers the rows that were changed between two places T and B of the log, in the state that they have at B. No
//! transaction is held open for that. A page of rows is read, and then how far the projection has come by now: to Z. What was
//! changed between B and Z is left out, for the next batch begins at B and so has it; what was not is in the state that
//! it had at B. So rows are told apart by their states at the ends of batches, and a `Resume` (T, B and the last key that
//! was delivered) says all there is to know: nothing of it depends on who goes on, or when.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::ops::Bound;
use std::sync::Arc;

use domain::live::{Delivery, LiveError, LiveRows, Resume, UnderWay};
use domain::views::QueryError;
use eventsourcing::partition::Sequence;
use eventsourcing::ports::{EventBus, PortError, ReadModels, Row, RowQuery};
use uuid::Uuid;

use super::changed::Changed;
use super::lookout::{Lookout, Place, fingerprint};
use super::recent::Recent;
use super::told::Told;
use super::{Bounds, Watched};
use crate::queries::Fields;

/// A batch that is being delivered.
#[derive(Debug)]
struct Batch {
    since: Option<Vec<Sequence>>,
    /// What is still to be delivered; `None`: every row.
    keys: Option<BTreeSet<Uuid>>,
    after: Option<Uuid>,
    left: bool,
}

/// Some rows of a batch.
struct Page {
    rows: Vec<Row>,
    /// What was asked for, where it was asked for by key.
    keys: Vec<Uuid>,
    /// The last key that was looked at; `None`: the batch has no more.
    last: Option<Uuid>,
}

/// What a watch knows once it has begun.
struct Standing<B> {
    place: Arc<Place>,
    batch: Option<Batch>,
    changed: Changed<B>,
    /// What was changed since the place: it comes with the next batch.
    later: BTreeSet<Uuid>,
    complete: bool,
}

/// A watch.
pub(super) struct Feed<S, B, V> {
    lookout: Arc<Lookout<S>>,
    recent: Arc<Recent<B>>,
    watched: Watched<V>,
    ids: BTreeSet<Uuid>,
    bounds: Bounds,
    from: Option<Resume>,
    standing: Option<Standing<B>>,
    told: Told,
}

impl<S: ReadModels, B: EventBus, V> Feed<S, B, V> {
    /// From where somebody has stopped, or from the beginning.
    pub(super) fn new(
        lookout: Arc<Lookout<S>>,
        recent: Arc<Recent<B>>,
        watched: Watched<V>,
        from: Option<Resume>,
        bounds: Bounds,
    ) -> Self {
        let ids = watched.ids.iter().copied().collect();
        Self { lookout, recent, watched, ids, bounds, from, standing: None, told: Told::default() }
    }

    /// The fingerprint of the records that the bus has at these places.
    async fn heard_at(&self, at: &[Sequence]) -> Result<u64, LiveError> {
        let mut ids = Vec::with_capacity(at.len());
        for (partition, sequence) in self.lookout.partitions().iter().zip(at) {
            let Some(before) = sequence.get().checked_sub(1) else {
                ids.push(None);
                continue;
            };
            let after = [(*partition, Sequence::new(before))];
            let records = self.recent.bus().read(&after, 1).await.map_err(LiveError::Unheard)?;
            let record = records.first().ok_or(LiveError::NotYet)?;
            ids.push(Some(record.record_id));
        }
        Ok(fingerprint(&ids))
    }

    fn changed_after(&self, places: &[Sequence]) -> Changed<B> {
        let places = self.lookout.partitions().iter().copied().zip(places.iter().copied());
        Changed::after(Arc::clone(&self.recent), self.watched.table.name, places, self.bounds.records)
    }

    /// The first batch: every row, or those that are named, behind a key.
    fn snapshot(&self, after: Option<Uuid>, left: bool) -> Batch {
        let keys = (!self.ids.is_empty()).then(|| behind(&self.ids, after));
        Batch { since: None, keys, after, left }
    }

    async fn stand(&self, from: Option<Resume>) -> Result<Standing<B>, LiveError> {
        let now = self.lookout.projected().await?;
        let Some(Resume { at, log, under_way, complete }) = from else {
            let (changed, batch) = (self.changed_after(&now.at), Some(self.snapshot(None, false)));
            return Ok(Standing { place: now, batch, changed, later: BTreeSet::new(), complete: false });
        };
        if at.len() != now.at.len() || !precedes(&at, &now.at) || self.heard_at(&at).await? != log {
            return Err(LiveError::Astray);
        }
        let (changed, batch) = match under_way {
            None => (self.changed_after(&at), None),
            Some(UnderWay { since: None, after, left }) => {
                (self.changed_after(&at), Some(self.snapshot(Some(after), left)))
            }
            Some(UnderWay { since: Some(since), after, left }) => {
                if since.len() != at.len() || !precedes(&since, &at) {
                    return Err(LiveError::Astray);
                }
                let (mut changed, mut keys) = (self.changed_after(&since), BTreeSet::new());
                changed.take(&at, |key| self.collect(&mut keys, key, 0)).await?;
                let keys = Some(behind(&keys, Some(after)));
                (changed, Some(Batch { since: Some(since), keys, after: Some(after), left }))
            }
        };
        let place = Arc::new(Place { at, ids: Vec::new(), log });
        Ok(Standing { place, batch, changed, later: BTreeSet::new(), complete })
    }

    /// A key among those that are watched. Whether no more are held than may be, with those that are held elsewhere.
    fn collect(&self, keys: &mut BTreeSet<Uuid>, key: Uuid, elsewhere: usize) -> bool {
        if self.ids.is_empty() || self.ids.contains(&key) {
            keys.insert(key);
        }
        keys.len().saturating_add(elsewhere) <= self.bounds.keys
    }

    /// Learns what was changed up to where the projection is now, and answers with that place.
    async fn catch_up(&self, standing: &mut Standing<B>) -> Result<Arc<Place>, LiveError> {
        let now = self.lookout.projected().await?;
        if !precedes(&standing.place.at, &now.at) {
            return Err(LiveError::Astray);
        }
        self.recent.agree_with(&now);
        let Standing { changed, later, batch, .. } = standing;
        let held = batch.as_ref().and_then(|batch| batch.keys.as_ref()).map_or(0, BTreeSet::len);
        changed.take(&now.at, |key| self.collect(later, key, held)).await?;
        Ok(now)
    }

    /// Begins the next batch, where anything was changed.
    async fn next_batch(&self, standing: &mut Standing<B>) -> Result<(), LiveError> {
        // First what the bus has, so that little time passes between the looks at the store, and few rows change meanwhile.
        standing.changed.look_ahead().await?;
        let now = self.catch_up(standing).await?;
        let since = std::mem::replace(&mut standing.place, now);
        let keys = std::mem::take(&mut standing.later);
        if keys.is_empty() {
            standing.complete = true;
        } else {
            let since = Some(since.at.clone());
            standing.batch = Some(Batch { since, keys: Some(keys), after: None, left: false });
        }
        Ok(())
    }

    /// Reads the next rows of a batch.
    async fn page(&self, batch: &Batch) -> Result<Page, LiveError> {
        let limit = usize::try_from(self.bounds.page).unwrap_or(usize::MAX);
        let keys: Option<Vec<Uuid>> =
            batch.keys.as_ref().map(|keys| keys.iter().take(limit).copied().collect());
        if keys.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Page { rows: Vec::new(), keys: Vec::new(), last: None });
        }
        let query = RowQuery {
            table: self.watched.table.name,
            conditions: self.watched.conditions.clone(),
            after: if keys.is_none() { batch.after } else { None },
            keys: keys.clone(),
            limit: self.bounds.page,
        };
        let rows = self.lookout.rows(&query).await?;
        let (is_last, last) = match (&batch.keys, &keys) {
            (Some(all), Some(keys)) => (keys.len() >= all.len(), keys.last().copied()),
            (None, _) | (_, None) => (rows.len() < limit, rows.last().map(|row| row.key)),
        };
        Ok(Page { rows, keys: keys.unwrap_or_default(), last: last.filter(|_| !is_last) })
    }

    fn view(&self, row: &Row) -> Result<Option<V>, QueryError> {
        (self.watched.read)(&Fields::of(self.watched.table, row))
    }
}

impl<B> Standing<B> {
    /// A page was delivered; it may have been the last one of its batch.
    fn settle(&mut self, keys: &[Uuid], last: Option<Uuid>, left: bool) {
        let Some(batch) = &mut self.batch else { return };
        batch.left |= left;
        batch.after = last;
        for key in keys {
            batch.keys.as_mut().map(|all| all.remove(key));
        }
        if last.is_none() {
            // Whatever was left to this batch has come with it, unless it left something itself.
            self.complete |= !batch.left;
            self.batch = None;
        }
    }

    fn resume(&self) -> Resume {
        let (at, log) = (self.place.at.clone(), self.place.log);
        let under_way = self.batch.as_ref().and_then(|batch| {
            let (since, after) = (batch.since.clone(), batch.after?);
            Some(UnderWay { since, after, left: batch.left })
        });
        Resume { at, log, under_way, complete: self.complete }
    }
}

impl<S: ReadModels, B: EventBus, V: Hash> Feed<S, B, V> {
    /// The next rows. Where the bus is not ready, nothing has changed of what is to be delivered.
    async fn deliver(&mut self, standing: &mut Standing<B>) -> Result<Delivery<V>, LiveError> {
        if standing.batch.is_none() {
            self.next_batch(standing).await?;
        }
        let Some(batch) = &standing.batch else {
            return Ok(Delivery { rows: Vec::new(), resume: standing.resume(), caught_up: true });
        };
        let Page { rows, keys, last } = self.page(batch).await?;
        // Only now: a row is in the state that it had at the place, unless it was changed before this look.
        self.catch_up(standing).await?;
        let mut views = Vec::with_capacity(rows.len());
        let mut left = false;
        for row in &rows {
            let Some(view) = self.view(row)? else { continue };
            if standing.later.contains(&row.key) {
                left = true;
            } else if self.told.is_news(row.key, &view) {
                views.push(view);
            }
        }
        standing.settle(&keys, last, left);
        Ok(Delivery { rows: views, resume: standing.resume(), caught_up: false })
    }
}

impl<S: ReadModels, B: EventBus, V: Hash + Send + 'static> LiveRows for Feed<S, B, V> {
    type View = V;

    async fn begin(&mut self) -> Result<(), LiveError> {
        self.standing = Some(self.stand(self.from.clone()).await?);
        Ok(())
    }

    async fn next(&mut self) -> Result<Delivery<V>, LiveError> {
        let over =
            || LiveError::Unheard(PortError::Broken("a watch that has not begun, or is over".to_owned()));
        let mut standing = self.standing.take().ok_or_else(over)?;
        let delivery = self.deliver(&mut standing).await;
        if matches!(delivery, Ok(_) | Err(LiveError::NotYet)) {
            self.standing = Some(standing);
        }
        delivery
    }
}

/// Those behind a key.
fn behind(keys: &BTreeSet<Uuid>, after: Option<Uuid>) -> BTreeSet<Uuid> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    keys.range((from, Bound::Unbounded)).copied().collect()
}

/// Whether one place is nowhere behind another.
fn precedes(one: &[Sequence], other: &[Sequence]) -> bool {
    one.iter().zip(other).all(|(one, other)| one <= other)
}
