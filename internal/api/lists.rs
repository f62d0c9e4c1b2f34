//! The paged lists of the query service.
//!
//! The rule this module protects: a page's token belongs to exactly the filters that the page was made with, so every
//! filter of a list is named in its [`PagedQuery`].

use uuid::Uuid;

use domain::ids::{InvestorId, InvoiceId, IssuerId};
use domain::live::LiveQueries;
use domain::views::{
    BidFilter, BidStatus, InvestorFilter, InvoiceFilter, InvoiceStatus, IssuerFilter, Page, Queries,
};
use eventsourcing::environment::Environment;
use eventsourcing::ports::EventBus;

use super::paging::PagedQuery;
use super::parse::Fields;
use super::proto::financing::v1;
use super::query_service::QueryApi;
use super::status::Failure;

/// One row more than the page has room for: whether there is another page.
const fn with_one_more(page: Page) -> Page {
    Page { after: page.after, size: page.size.saturating_add(1) }
}

/// The rows of a page, and the token of the next one.
fn cut<V, W: From<V>>(
    mut rows: Vec<V>,
    page: Page,
    query: &PagedQuery,
    key: impl Fn(&V) -> Uuid,
) -> (Vec<W>, String) {
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let more = rows.len() > size;
    rows.truncate(size);
    let next = rows.last().filter(|_| more).map(|last| query.token(key(last))).unwrap_or_default();
    (rows.into_iter().map(W::from).collect(), next)
}

/// A filter by id, the same however its letters were written.
pub(crate) fn named<T: ToString>(filter: Option<T>) -> String {
    filter.map(|filter| filter.to_string()).unwrap_or_default()
}

impl<E: Environment, Q: Queries, L: LiveQueries, B: EventBus> QueryApi<E, Q, L, B> {
    /// ListIssuers.
    pub(crate) async fn issuers(
        &self,
        request: v1::ListIssuersRequest,
    ) -> Result<v1::ListIssuersResponse, Failure> {
        let mut fields = Fields::default();
        let name = fields.optional_name("name", request.name);
        let query = PagedQuery::of("ListIssuers").filtered(name.as_deref().unwrap_or_default());
        let page = fields.page(request.page_size, &request.page_token, &query);
        let token = fields.token(&request.token, self.partitions);
        let filter = fields.finish(Some(IssuerFilter { name }))?;
        self.until_seen(&token).await?;
        let rows = self.queries.issuers(&filter, with_one_more(page)).await.map_err(Failure::Unread)?;
        let (issuers, next_page_token) = cut(rows, page, &query, |issuer| issuer.id.as_uuid());
        Ok(v1::ListIssuersResponse { issuers, next_page_token })
    }

    /// ListInvestors.
    pub(crate) async fn investors(
        &self,
        request: v1::ListInvestorsRequest,
    ) -> Result<v1::ListInvestorsResponse, Failure> {
        let mut fields = Fields::default();
        let name = fields.optional_name("name", request.name);
        let query = PagedQuery::of("ListInvestors").filtered(name.as_deref().unwrap_or_default());
        let page = fields.page(request.page_size, &request.page_token, &query);
        let token = fields.token(&request.token, self.partitions);
        let filter = fields.finish(Some(InvestorFilter { name }))?;
        self.until_seen(&token).await?;
        let rows = self.queries.investors(&filter, with_one_more(page)).await.map_err(Failure::Unread)?;
        let (investors, next_page_token) = cut(rows, page, &query, |investor| investor.id.as_uuid());
        Ok(v1::ListInvestorsResponse { investors, next_page_token })
    }

    /// ListInvoices.
    pub(crate) async fn invoices(
        &self,
        request: v1::ListInvoicesRequest,
    ) -> Result<v1::ListInvoicesResponse, Failure> {
        let mut fields = Fields::default();
        let issuer_id: Option<IssuerId> = fields.optional_id("issuer_id", &request.issuer_id);
        let investor_id: Option<InvestorId> = fields.optional_id("investor_id", &request.investor_id);
        let status = fields.invoice_status(request.status);
        let query = PagedQuery::of("ListInvoices")
            .filtered(&named(issuer_id))
            .filtered(&named(investor_id))
            .filtered(status.map(InvoiceStatus::code).unwrap_or_default());
        let page = fields.page(request.page_size, &request.page_token, &query);
        let token = fields.token(&request.token, self.partitions);
        let filter = fields.finish(Some(InvoiceFilter { issuer_id, status, investor_id }))?;
        self.until_seen(&token).await?;
        let rows = self.queries.invoices(&filter, with_one_more(page)).await.map_err(Failure::Unread)?;
        let (invoices, next_page_token) = cut(rows, page, &query, |invoice| invoice.id.as_uuid());
        Ok(v1::ListInvoicesResponse { invoices, next_page_token })
    }

    /// ListBids.
    pub(crate) async fn bids(&self, request: v1::ListBidsRequest) -> Result<v1::ListBidsResponse, Failure> {
        let mut fields = Fields::default();
        let investor_id: Option<InvestorId> = fields.optional_id("investor_id", &request.investor_id);
        let invoice_id: Option<InvoiceId> = fields.optional_id("invoice_id", &request.invoice_id);
        let status = fields.bid_status(request.status);
        let query = PagedQuery::of("ListBids")
            .filtered(&named(investor_id))
            .filtered(&named(invoice_id))
            .filtered(status.map(BidStatus::code).unwrap_or_default());
        let page = fields.page(request.page_size, &request.page_token, &query);
        let token = fields.token(&request.token, self.partitions);
        let filter = fields.finish(Some(BidFilter { investor_id, invoice_id, status }))?;
        self.until_seen(&token).await?;
        let rows = self.queries.bids(&filter, with_one_more(page)).await.map_err(Failure::Unread)?;
        let (bids, next_page_token) = cut(rows, page, &query, |bid| bid.id.as_uuid());
        Ok(v1::ListBidsResponse { bids, next_page_token })
    }
}
