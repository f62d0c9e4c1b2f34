//! `financing.v1.QueryService`.
//!
//! The rule this module protects: it only reads; and a caller that presents a token is answered out of a read model that
//! has seen it, or not at all.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use futures_util::stream::BoxStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use domain::live::LiveQueries;
use domain::story::Stories;
use domain::views::{CommandView, Queries};
use eventsourcing::environment::{Doorbell, Doorbells, Environment, within};
use eventsourcing::partition::{LogPosition, PartitionCount};
use eventsourcing::ports::EventBus;

use super::call::{Call, Calls};
use super::deadline::Budget;
use super::facts::{Feed, ends};
use super::parse::Fields;
use super::platform::Description;
use super::proto::financing::v1;
use super::proto::financing::v1::query_service_server::QueryService;
use super::status::Failure;
use super::watch::{WatchLimits, WatchStream};
use super::wire::pending;

/// How often the read model is looked at where no bell rings. Seldom: who waits is woken, and this is only for a bell that was lost.
const POLL: Duration = Duration::from_secs(1);

/// How long WaitCommand waits where nothing is said.
const DEFAULT_WAIT: prost_types::Duration = prost_types::Duration { seconds: 30, nanos: 0 };

/// The service, in front of read models and a bus.
pub(crate) struct QueryApi<E, Q, L, B> {
    pub(crate) queries: Arc<Q>,
    pub(crate) live: Arc<L>,
    pub(crate) bus: Arc<B>,
    /// As many as the deployment has.
    pub(crate) partitions: PartitionCount,
    /// Rung after a projection.
    pub(crate) projected: Doorbells,
    /// Rung when the bus has more.
    pub(crate) relayed: Doorbells,
    pub(crate) description: Description,
    /// What a live query may take.
    pub(crate) watching: WatchLimits,
    pub(crate) calls: Calls<E>,
}

impl<E: Environment, Q: Queries, L: LiveQueries, B: EventBus> QueryApi<E, Q, L, B> {
    /// A read; one with a token may have to wait.
    pub(crate) fn reading(method: &'static str, metadata: &MetadataMap, token: &str) -> Call {
        if token.is_empty() { Call::short(method, metadata) } else { Call::long(method, metadata, None) }
    }

    /// Completes when the read model has seen all of these. The call's deadline bounds it.
    pub(crate) async fn until_seen(&self, positions: &[LogPosition]) -> Result<(), Failure> {
        if positions.is_empty() {
            return Ok(());
        }
        let bell = self.projected.hang();
        while !self.queries.seen(positions).await.map_err(Failure::Unread)? {
            self.until_projected(&bell).await?;
        }
        Ok(())
    }

    async fn until_outcome(&self, id: Uuid) -> Result<CommandView, Failure> {
        let bell = self.projected.hang();
        loop {
            if let Some(command) = self.queries.command(id).await.map_err(Failure::Unread)? {
                return Ok(command);
            }
            self.until_projected(&bell).await?;
        }
    }

    async fn until_projected(&self, bell: &Doorbell) -> Result<(), Failure> {
        if self.calls.stop.is_given() {
            return Err(Failure::Stopping);
        }
        let (rung, stopping) = (pin!(bell.rung()), pin!(self.calls.stop.given()));
        within(&self.calls.environment, POLL, select(rung, stopping)).await;
        Ok(())
    }
}

#[tonic::async_trait]
impl<E: Environment, Q: Queries + Stories, L: LiveQueries, B: EventBus> QueryService
    for QueryApi<E, Q, L, B>
{
    async fn get_issuer(
        &self,
        request: Request<v1::GetIssuerRequest>,
    ) -> Result<Response<v1::GetIssuerResponse>, Status> {
        let call = Self::reading("GetIssuer", request.metadata(), &request.get_ref().token);
        let body = async {
            let v1::GetIssuerRequest { issuer_id, token } = request.into_inner();
            let mut fields = Fields::default();
            let id = fields.id("issuer_id", &issuer_id);
            let token = fields.token(&token, self.partitions);
            let id = fields.finish(id)?;
            self.until_seen(&token).await?;
            let issuer = self.queries.issuer(id).await.map_err(Failure::Unread)?;
            let issuer = issuer.ok_or(Failure::NotFound("issuer"))?;
            Ok(v1::GetIssuerResponse { issuer: Some(issuer.into()) })
        };
        self.calls.answer(call, body).await
    }

    async fn list_issuers(
        &self,
        request: Request<v1::ListIssuersRequest>,
    ) -> Result<Response<v1::ListIssuersResponse>, Status> {
        let call = Self::reading("ListIssuers", request.metadata(), &request.get_ref().token);
        self.calls.answer(call, async { self.issuers(request.into_inner()).await }).await
    }

    async fn get_investor(
        &self,
        request: Request<v1::GetInvestorRequest>,
    ) -> Result<Response<v1::GetInvestorResponse>, Status> {
        let call = Self::reading("GetInvestor", request.metadata(), &request.get_ref().token);
        let body = async {
            let v1::GetInvestorRequest { investor_id, token } = request.into_inner();
            let mut fields = Fields::default();
            let id = fields.id("investor_id", &investor_id);
            let token = fields.token(&token, self.partitions);
            let id = fields.finish(id)?;
            self.until_seen(&token).await?;
            let investor = self.queries.investor(id).await.map_err(Failure::Unread)?;
            let investor = investor.ok_or(Failure::NotFound("investor"))?;
            Ok(v1::GetInvestorResponse { investor: Some(investor.into()) })
        };
        self.calls.answer(call, body).await
    }

    async fn list_investors(
        &self,
        request: Request<v1::ListInvestorsRequest>,
    ) -> Result<Response<v1::ListInvestorsResponse>, Status> {
        let call = Self::reading("ListInvestors", request.metadata(), &request.get_ref().token);
        self.calls.answer(call, async { self.investors(request.into_inner()).await }).await
    }

    async fn get_invoice(
        &self,
        request: Request<v1::GetInvoiceRequest>,
    ) -> Result<Response<v1::GetInvoiceResponse>, Status> {
        let call = Self::reading("GetInvoice", request.metadata(), &request.get_ref().token);
        let body = async {
            let v1::GetInvoiceRequest { invoice_id, token } = request.into_inner();
            let mut fields = Fields::default();
            let id = fields.id("invoice_id", &invoice_id);
            let token = fields.token(&token, self.partitions);
            let id = fields.finish(id)?;
            self.until_seen(&token).await?;
            let invoice = self.queries.invoice(id).await.map_err(Failure::Unread)?;
            let invoice = invoice.ok_or(Failure::NotFound("invoice"))?;
            Ok(v1::GetInvoiceResponse { invoice: Some(invoice.into()) })
        };
        self.calls.answer(call, body).await
    }

    async fn list_invoices(
        &self,
        request: Request<v1::ListInvoicesRequest>,
    ) -> Result<Response<v1::ListInvoicesResponse>, Status> {
        let call = Self::reading("ListInvoices", request.metadata(), &request.get_ref().token);
        self.calls.answer(call, async { self.invoices(request.into_inner()).await }).await
    }

    async fn get_bid(
        &self,
        request: Request<v1::GetBidRequest>,
    ) -> Result<Response<v1::GetBidResponse>, Status> {
        let call = Self::reading("GetBid", request.metadata(), &request.get_ref().token);
        let body = async {
            let v1::GetBidRequest { bid_id, token } = request.into_inner();
            let mut fields = Fields::default();
            let id = fields.id("bid_id", &bid_id);
            let token = fields.token(&token, self.partitions);
            let id = fields.finish(id)?;
            self.until_seen(&token).await?;
            let bid = self.queries.bid(id).await.map_err(Failure::Unread)?;
            let bid = bid.ok_or(Failure::NotFound("bid"))?;
            Ok(v1::GetBidResponse { bid: Some(bid.into()) })
        };
        self.calls.answer(call, body).await
    }

    async fn list_bids(
        &self,
        request: Request<v1::ListBidsRequest>,
    ) -> Result<Response<v1::ListBidsResponse>, Status> {
        let call = Self::reading("ListBids", request.metadata(), &request.get_ref().token);
        self.calls.answer(call, async { self.bids(request.into_inner()).await }).await
    }

    async fn get_command(
        &self,
        request: Request<v1::GetCommandRequest>,
    ) -> Result<Response<v1::GetCommandResponse>, Status> {
        let call = Self::reading("GetCommand", request.metadata(), &request.get_ref().token);
        let body = async {
            let v1::GetCommandRequest { command_id, token } = request.into_inner();
            let mut fields = Fields::default();
            let id = fields.id("command_id", &command_id);
            let token = fields.token(&token, self.partitions);
            let id = fields.finish(id)?;
            self.until_seen(&token).await?;
            let command = self.queries.command(id).await.map_err(Failure::Unread)?;
            Ok(v1::GetCommandResponse { command: Some(command.map_or_else(|| pending(id), Into::into)) })
        };
        self.calls.answer(call, body).await
    }

    async fn wait_command(
        &self,
        request: Request<v1::WaitCommandRequest>,
    ) -> Result<Response<v1::WaitCommandResponse>, Status> {
        let wait = request.get_ref().wait.unwrap_or(DEFAULT_WAIT);
        let call = Call::long("WaitCommand", request.metadata(), Some(&wait));
        let body = async {
            let mut fields = Fields::default();
            let id = fields.id("command_id", &request.get_ref().command_id);
            let wait = fields.wait("wait", Some(&wait));
            let (id, wait) = fields.finish(id.zip(wait))?;
            let outcome = self.until_outcome(id);
            let command = match within(&self.calls.environment, call.budget.wait(wait), outcome).await {
                Some(outcome) => outcome?.into(),
                None => pending(id),
            };
            Ok(v1::WaitCommandResponse { command: Some(command) })
        };
        self.calls.answer(call, body).await
    }

    async fn get_platform(
        &self,
        request: Request<v1::GetPlatformRequest>,
    ) -> Result<Response<v1::GetPlatformResponse>, Status> {
        let call = Call::short("GetPlatform", request.metadata());
        let platform = Some(self.description.of(self.partitions));
        self.calls.answer(call, async { Ok(v1::GetPlatformResponse { platform }) }).await
    }

    async fn get_story(
        &self,
        request: Request<v1::GetStoryRequest>,
    ) -> Result<Response<v1::GetStoryResponse>, Status> {
        let call = Self::reading("GetStory", request.metadata(), &request.get_ref().token);
        self.calls.answer(call, async { self.story(request.into_inner()).await }).await
    }

    async fn list_stuck(
        &self,
        request: Request<v1::ListStuckRequest>,
    ) -> Result<Response<v1::ListStuckResponse>, Status> {
        let call = Call::short("ListStuck", request.metadata());
        self.calls.answer(call, async { self.stuck(request.into_inner()).await }).await
    }

    type WatchFactsStream = BoxStream<'static, Result<v1::WatchFactsResponse, Status>>;

    async fn watch_facts(
        &self,
        request: Request<v1::WatchFactsRequest>,
    ) -> Result<Response<Self::WatchFactsStream>, Status> {
        // The call is answered at once; its stream takes a place of its own.
        let call = Call::short("WatchFacts", request.metadata());
        let lasts = Budget::of(request.metadata(), Duration::MAX).call();
        let body = async {
            let mut fields = Fields::default();
            let v1::WatchFactsRequest { after: named, from_end } = request.into_inner();
            let after = fields.positions(&named, self.partitions);
            let mut after = fields.finish(Some(after))?;
            if from_end {
                after.extend(ends(self.bus.as_ref(), &named, self.partitions).await?);
            }
            let place = self.calls.admit_stream()?;
            let feed = Feed::new(
                Arc::clone(&self.bus),
                after,
                self.partitions,
                self.relayed.hang(),
                self.calls.environment.clone(),
                self.calls.stop.clone(),
            );
            Ok(feed.stream(place, lasts))
        };
        self.calls.answer(call, body).await
    }
    type WatchInvoicesStream = WatchStream<v1::WatchInvoicesResponse>;

    async fn watch_invoices(
        &self,
        request: Request<v1::WatchInvoicesRequest>,
    ) -> Result<Response<Self::WatchInvoicesStream>, Status> {
        self.invoices_watched(request).await
    }

    type WatchInvestorsStream = WatchStream<v1::WatchInvestorsResponse>;

    async fn watch_investors(
        &self,
        request: Request<v1::WatchInvestorsRequest>,
    ) -> Result<Response<Self::WatchInvestorsStream>, Status> {
        self.investors_watched(request).await
    }

    type WatchBidsStream = WatchStream<v1::WatchBidsResponse>;

    async fn watch_bids(
        &self,
        request: Request<v1::WatchBidsRequest>,
    ) -> Result<Response<Self::WatchBidsStream>, Status> {
        self.bids_watched(request).await
    }
}
