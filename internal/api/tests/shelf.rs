//! A read side that says what it is told to say.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::live::{
    BidWatch, Delivery, InvestorWatch, InvoiceWatch, LiveError, LiveQueries, LiveRows, Resume,
};
use domain::story::{Stories, StoryView, StuckView, UnreadableStep};
use domain::views::{
    BidFilter, BidView, CommandView, InvestorFilter, InvestorView, InvoiceFilter, InvoiceView, IssuerFilter,
    IssuerView, Page, Queries, QueryError,
};
use eventsourcing::environment::Timestamp;
use eventsourcing::partition::{LogPosition, Sequence};
use eventsourcing::ports::EventBus;
use uuid::Uuid;

#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    pub(super) stories: Arc<Mutex<BTreeMap<Uuid, StoryView>>>,
    pub(super) stuck: Arc<Mutex<Vec<Result<StuckView, UnreadableStep>>>>,
    pub(super) issuers: Arc<Mutex<BTreeMap<Uuid, IssuerView>>>,
    pub(super) commands: Arc<Mutex<BTreeMap<Uuid, CommandView>>>,
    /// Whether the projection has seen everything.
    pub(super) seen: Arc<AtomicBool>,
    /// How often that was asked.
    pub(super) asked: Arc<AtomicUsize>,
    /// What has happened to investors, in that order.
    pub(super) changes: Arc<Mutex<Vec<InvestorView>>>,
}

impl Queries for Shelf {
    async fn issuer(&self, id: IssuerId) -> Result<Option<IssuerView>, QueryError> {
        Ok(self.issuers.lock().unwrap().get(&id.as_uuid()).cloned())
    }

    async fn issuers(&self, filter: &IssuerFilter, page: Page) -> Result<Vec<IssuerView>, QueryError> {
        let issuers = self.issuers.lock().unwrap();
        let rows = issuers.values().filter(|row| Some(row.id.as_uuid()) > page.after);
        let rows = rows.filter(|row| filter.name.as_ref().is_none_or(|name| *name == row.name));
        Ok(rows.take(page.size as usize).cloned().collect())
    }

    async fn investor(&self, _: InvestorId) -> Result<Option<InvestorView>, QueryError> {
        panic!("a defect, for a test")
    }

    async fn investors(&self, _: &InvestorFilter, _: Page) -> Result<Vec<InvestorView>, QueryError> {
        Err(QueryError::Corrupt("for a test".to_owned()))
    }

    async fn invoice(&self, _: InvoiceId) -> Result<Option<InvoiceView>, QueryError> {
        Err(QueryError::Unavailable("for a test".to_owned()))
    }

    async fn invoices(&self, _: &InvoiceFilter, _: Page) -> Result<Vec<InvoiceView>, QueryError> {
        Ok(Vec::new())
    }

    async fn bid(&self, _: BidId) -> Result<Option<BidView>, QueryError> {
        Ok(None)
    }

    async fn bids(&self, _: &BidFilter, _: Page) -> Result<Vec<BidView>, QueryError> {
        Ok(Vec::new())
    }

    async fn command(&self, id: Uuid) -> Result<Option<CommandView>, QueryError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.commands.lock().unwrap().get(&id).cloned())
    }

    async fn seen(&self, _: &[LogPosition]) -> Result<bool, QueryError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.seen.load(Ordering::SeqCst))
    }
}

impl Stories for Shelf {
    async fn story<B: EventBus>(
        &self,
        _: &B,
        invoice_id: InvoiceId,
    ) -> Result<Option<StoryView>, QueryError> {
        Ok(self.stories.lock().unwrap().get(&invoice_id.as_uuid()).cloned())
    }

    async fn stuck<B: EventBus>(
        &self,
        _: &B,
        up_to: Timestamp,
        limit: u32,
    ) -> Result<Vec<Result<StuckView, UnreadableStep>>, QueryError> {
        let stuck = self.stuck.lock().unwrap();
        Ok(stuck
            .iter()
            .filter(|step| step.as_ref().is_ok_and(|step| step.since <= up_to) || step.is_err())
            .take(limit as usize)
            .cloned()
            .collect())
    }
}

/// Rows a page has.
const PAGE: usize = 2;

/// A watch that says what it is told to say.
pub(super) struct Told<V> {
    changes: Arc<Mutex<Vec<V>>>,
    at: usize,
    partitions: usize,
    fails: VecDeque<LiveError>,
}

impl<V> Told<V> {
    fn new(changes: Arc<Mutex<Vec<V>>>, from: Option<Resume>, fails: &[LiveError]) -> Self {
        let at = from.map_or(0, |from| usize::try_from(from.at[0].get()).unwrap());
        let partitions = usize::from(super::PARTITIONS.get());
        Self { changes, at, partitions, fails: fails.iter().cloned().collect() }
    }
}

impl<V: Clone + Send + 'static> LiveRows for Told<V> {
    type View = V;

    async fn begin(&mut self) -> Result<(), LiveError> {
        if self.fails.len() > 1 { Err(self.fails.pop_front().unwrap()) } else { Ok(()) }
    }

    async fn next(&mut self) -> Result<Delivery<V>, LiveError> {
        if let Some(error) = self.fails.pop_front() {
            return Err(error);
        }
        let changes = self.changes.lock().unwrap();
        let rows: Vec<V> = changes.iter().skip(self.at).take(PAGE).cloned().collect();
        self.at += rows.len();
        let at = vec![Sequence::new(self.at as u64); self.partitions];
        let resume = Resume { at, log: 0, under_way: None, complete: self.at >= PAGE };
        Ok(Delivery { caught_up: rows.is_empty(), rows, resume })
    }
}

impl LiveQueries for Shelf {
    fn watch_invoices(&self, _: InvoiceWatch, _: Option<Resume>) -> impl LiveRows<View = InvoiceView> {
        Told::new(Arc::default(), None, &[LiveError::Astray, LiveError::Astray])
    }

    fn watch_investors(&self, _: InvestorWatch, from: Option<Resume>) -> impl LiveRows<View = InvestorView> {
        Told::new(Arc::clone(&self.changes), from, &[])
    }

    fn watch_bids(&self, _: BidWatch, _: Option<Resume>) -> impl LiveRows<View = BidView> {
        Told::new(Arc::default(), None, &[LiveError::TooFarBehind])
    }
}
