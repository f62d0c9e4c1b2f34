//! Where the changes come from: the stream of facts, and the query side that has seen them.
//!
//! The rule this module protects: the stream is open before it is asked where things stand, so no change is missed. Whoever
//! prints changes knows only [`Changes`].

use std::collections::VecDeque;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;
use crate::api::proto::financing::v1::{
    Bid, CloudEvent, GetBidRequest, GetInvoiceRequest, Invoice, WatchFactsRequest, WatchFactsResponse,
};
use crate::runtime::client::{ClientError, timed};
use crate::runtime::shell::PlatformAddresses;
use crate::runtime::shell::failure::Failure;
use crate::runtime::shell::settle;

/// How long it is waited for what was accepted a moment ago, and of which nothing is shown yet.
const PATIENCE: Duration = Duration::from_secs(3);

/// What stands somewhere else than before, perhaps.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The invoice.
    Invoice(Invoice),
    /// The bid, or a bid on the invoice.
    Bid(Bid),
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    Invoice,
    Bid,
}

/// First where it stands, and then what comes.
#[derive(Debug)]
pub(super) struct Changes {
    queries: QueryServiceClient<Channel>,
    facts: Streaming<WatchFactsResponse>,
    watched: Watched,
    id: String,
    ready: VecDeque<Change>,
}

impl Changes {
    /// Of the invoice or bid with this id.
    ///
    /// # Errors
    ///
    /// When the platform does not answer, or knows neither.
    pub(super) async fn of(platform: &PlatformAddresses, id: String, token: &str) -> Result<Self, Failure> {
        let mut queries = platform.queries().await?;
        let request = WatchFactsRequest { from_end: true, ..WatchFactsRequest::default() };
        let facts = queries.watch_facts(request).await?.into_inner();
        let mut changes =
            Self { queries, facts, watched: Watched::Invoice, id: id.to_lowercase(), ready: VecDeque::new() };
        let deadline = settle::deadline(PATIENCE);
        loop {
            changes.begin(token).await?;
            if changes.has_more() {
                return Ok(changes);
            }
            if settle::is_past(deadline) {
                let id = changes.id;
                return Err(ClientError::Failed(format!("there is no invoice and no bid {id}")).into());
            }
            settle::pause().await;
        }
    }

    /// Looks where it stands, and what it is.
    async fn begin(&mut self, token: &str) -> Result<(), Failure> {
        let Some(invoice) = self.invoice(token).await? else {
            self.watched = Watched::Bid;
            let bid = self.id.clone();
            return self.look_at_bid(&bid, token).await;
        };
        self.watched = Watched::Invoice;
        let winner = invoice.winning_bid.as_ref().map(|bid| bid.bid_id.clone());
        self.ready.push_back(Change::Invoice(invoice));
        match winner {
            Some(bid) => self.look_at_bid(&bid, token).await,
            None => Ok(()),
        }
    }

    /// Whether there is more already.
    pub(super) fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What comes next. What was not changed may come, too.
    ///
    /// # Errors
    ///
    /// When the platform ends the stream, or does not answer.
    pub(super) async fn next(&mut self) -> Result<Change, Failure> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            let Some(answer) = self.facts.message().await? else {
                return Err(ClientError::Failed("the platform has ended the watch".to_owned()).into());
            };
            // A fact that is about it names it.
            if let Some(fact) = answer.fact.filter(|fact| fact.data.contains(&self.id)) {
                self.look(&fact).await?;
            }
        }
    }

    /// Looks where it stands now that this has happened.
    async fn look(&mut self, fact: &CloudEvent) -> Result<(), Failure> {
        if self.watched == Watched::Bid {
            let bid = self.id.clone();
            return self.look_at_bid(&bid, &fact.id).await;
        }
        if let Some(invoice) = self.invoice(&fact.id).await? {
            self.ready.push_back(Change::Invoice(invoice));
        }
        let unreadable = |error| ClientError::Failed(format!("fact {}: {error}", fact.id));
        let said: serde_json::Value = serde_json::from_str(&fact.data).map_err(unreadable)?;
        match said.get("bid_id").and_then(serde_json::Value::as_str) {
            Some(bid) => self.look_at_bid(bid, &fact.id).await,
            None => Ok(()),
        }
    }

    async fn invoice(&mut self, token: &str) -> Result<Option<Invoice>, Failure> {
        let request = GetInvoiceRequest { invoice_id: self.id.clone(), token: token.to_owned() };
        match self.queries.get_invoice(timed(request)).await {
            Ok(answer) => Ok(answer.into_inner().invoice),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    async fn look_at_bid(&mut self, bid_id: &str, token: &str) -> Result<(), Failure> {
        let request = GetBidRequest { bid_id: bid_id.to_owned(), token: token.to_owned() };
        match self.queries.get_bid(timed(request)).await {
            Ok(answer) => {
                self.ready.extend(answer.into_inner().bid.map(Change::Bid));
                Ok(())
            }
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(status.into()),
        }
    }
}
