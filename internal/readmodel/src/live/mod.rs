//! Live queries: rows as they are, and then as they change.
//!
//! The rule this module protects: nothing is written for a watcher, and nobody waits for one. Which rows a record has changed
//! is what the projection says of it, and the bus keeps every record; so a watcher needs no more than its own place.
//!
//! # Layout
//!
//! - [`feed`]: the batches, and why no state is missing and none comes twice
//! - [`changed`]: the keys that records have changed; [`touched`]: those of one record
//! - [`told`]: what was delivered last
//! - what all watches of a process share: [`recent`], what the last records have changed, and [`lookout`], the store

mod changed;
mod feed;
mod lookout;
mod recent;
#[cfg(test)]
mod tests;
mod told;
mod touched;

use std::sync::Arc;

use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::live::{BidWatch, InvestorWatch, InvoiceWatch, LiveQueries, LiveRows, Resume};
use domain::views::{BidView, InvestorView, InvoiceView};
use eventsourcing::partition::PartitionCount;
use eventsourcing::ports::{EventBus, ReadModels, Table, Test};
use uuid::Uuid;

use crate::queries::{Read, bid, by_id, investor, invoice};
use crate::tables::{BIDS, INVESTORS, INVOICES};
use feed::Feed;
use lookout::Lookout;
use recent::Recent;

/// How many records are remembered that were read last, of all partitions together: some four megabytes.
const RECENT: usize = 32 * 1024;

/// How much a watch may hold.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Rows that are read and delivered at a time.
    page: u32,
    /// Keys of rows that have changed and are not delivered yet.
    keys: usize,
    /// Records between two looks.
    records: u64,
}

impl Bounds {
    /// A page is worth its round trip and far below the largest message. The keys take some 10 MB; to read the
    /// records takes some seconds. Who is further behind is faster with a snapshot.
    const USUAL: Self = Self { page: 256, keys: 250_000, records: 1_000_000 };
}

/// Which rows of which table are watched, and how they are read.
struct Watched<V> {
    table: Table,
    /// Of columns that never change once they are there.
    conditions: Vec<(&'static str, Test)>,
    /// Only these; all, where there are none.
    ids: Vec<Uuid>,
    read: Read<V>,
}

/// The live queries, over a store of read models and the bus that they are projected from.
pub struct LiveReadModels<S, B> {
    lookout: Arc<Lookout<S>>,
    recent: Arc<Recent<B>>,
    bounds: Bounds,
}

impl<S: ReadModels, B: EventBus> LiveReadModels<S, B> {
    /// Over this store, of which at most so many pages are read at a time, and one look more; and over this bus, of which nothing has
    /// to be proven: it is read at any number of positions.
    pub fn new(store: S, bus: B, partitions: PartitionCount, reads: usize) -> Self {
        let count = usize::from(partitions.get());
        let recent = Recent::new(Arc::new(bus), count, RECENT / count.max(1));
        let lookout = Lookout::new(Arc::new(store), partitions, reads);
        Self { lookout: Arc::new(lookout), recent: Arc::new(recent), bounds: Bounds::USUAL }
    }

    fn feed<V>(&self, watched: Watched<V>, from: Option<Resume>) -> Feed<S, B, V> {
        let (lookout, recent) = (Arc::clone(&self.lookout), Arc::clone(&self.recent));
        Feed::new(lookout, recent, watched, from, self.bounds)
    }
}

impl<S: ReadModels, B: EventBus> LiveQueries for LiveReadModels<S, B> {
    fn watch_invoices(&self, which: InvoiceWatch, from: Option<Resume>) -> impl LiveRows<View = InvoiceView> {
        let InvoiceWatch { ids, issuer_id } = which;
        let conditions = by_id("issuer_id", issuer_id.map(IssuerId::as_uuid)).into_iter().collect();
        let ids = ids.into_iter().map(InvoiceId::as_uuid).collect();
        self.feed(Watched { table: INVOICES, conditions, ids, read: invoice }, from)
    }

    fn watch_investors(
        &self,
        which: InvestorWatch,
        from: Option<Resume>,
    ) -> impl LiveRows<View = InvestorView> {
        let ids = which.ids.into_iter().map(InvestorId::as_uuid).collect();
        self.feed(Watched { table: INVESTORS, conditions: Vec::new(), ids, read: investor }, from)
    }

    fn watch_bids(&self, which: BidWatch, from: Option<Resume>) -> impl LiveRows<View = BidView> {
        let BidWatch { ids, investor_id, invoice_id } = which;
        // A bid of which only the invoice's half is there says nothing yet; it comes with its other half.
        let conditions = by_id("investor_id", investor_id.map(InvestorId::as_uuid))
            .or(Some(("investor_id", Test::Present)))
            .into_iter()
            .chain(by_id("invoice_id", invoice_id.map(InvoiceId::as_uuid)))
            .collect();
        let ids = ids.into_iter().map(BidId::as_uuid).collect();
        self.feed(Watched { table: BIDS, conditions, ids, read: bid }, from)
    }
}
