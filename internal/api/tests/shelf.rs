//! A read side that says what it is told to say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use domain::ids::{BidId, InvestorId, InvoiceId, IssuerId};
use domain::story::{Stories, StoryView, StuckView};
use domain::views::{
    BidFilter, BidView, CommandView, InvestorFilter, InvestorView, InvoiceFilter, InvoiceView, IssuerFilter,
    IssuerView, Page, Queries, QueryError,
};
use eventsourcing::environment::Timestamp;
use eventsourcing::partition::LogPosition;
use eventsourcing::ports::EventBus;
use uuid::Uuid;

#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    pub(super) stories: Arc<Mutex<BTreeMap<Uuid, StoryView>>>,
    pub(super) stuck: Arc<Mutex<Vec<StuckView>>>,
    pub(super) issuers: Arc<Mutex<BTreeMap<Uuid, IssuerView>>>,
    pub(super) commands: Arc<Mutex<BTreeMap<Uuid, CommandView>>>,
    /// Whether the projection has seen everything.
    pub(super) seen: Arc<AtomicBool>,
    /// How often that was asked.
    pub(super) asked: Arc<AtomicUsize>,
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
    ) -> Result<Vec<StuckView>, QueryError> {
        let stuck = self.stuck.lock().unwrap();
        Ok(stuck.iter().filter(|step| step.since <= up_to).take(limit as usize).cloned().collect())
    }
}
