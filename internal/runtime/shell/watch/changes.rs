//! What changes of an invoice or a bid, from the live queries.
//!
//! The rule this module protects: everything that is said of it while it is watched comes, in its order; of what was over
//! before only what still matters does. Whoever prints changes knows only [`Changes`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;
use crate::api::proto::financing::v1::{Bid, GetBidRequest, GetInvoiceRequest, Invoice};
use crate::runtime::client::{ClientError, timed};
use crate::runtime::shell::PlatformAddresses;
use crate::runtime::shell::failure::Failure;
use crate::runtime::shell::settle;

use super::live::{Live, Rows, Watched};

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

/// First where it stands, and then what comes.
pub(super) struct Changes {
    live: Live,
    order: Order,
}

impl Changes {
    /// Of the invoice or bid with this id.
    ///
    /// # Errors
    ///
    /// When the platform does not answer, or knows neither.
    pub(super) async fn of(platform: PlatformAddresses, id: String, token: &str) -> Result<Self, Failure> {
        let mut queries = platform.queries().await?;
        let deadline = settle::deadline(PATIENCE);
        let id = id.to_lowercase();
        loop {
            if let Some(watched) = look(&mut queries, &id, token).await? {
                let is_one_bid = matches!(watched, Watched::Bid(_));
                return Ok(Self { live: Live::of(platform, watched), order: Order::new(is_one_bid) });
            }
            if settle::is_past(deadline) {
                return Err(ClientError::Failed(format!("there is no invoice and no bid {id}")).into());
            }
            settle::pause().await;
        }
    }

    /// Whether there is more already.
    pub(super) fn has_more(&self) -> bool {
        !self.order.ready.is_empty()
    }

    /// What comes next. What was not changed may come, too.
    ///
    /// # Errors
    ///
    /// When the platform says that it will not go on.
    pub(super) async fn next(&mut self) -> Result<Change, Failure> {
        loop {
            if let Some(change) = self.order.ready.pop_front() {
                return Ok(change);
            }
            let has_begun = self.live.has_begun();
            match self.live.next().await? {
                Rows::Invoices(invoices) => {
                    for invoice in invoices {
                        self.order.invoice(invoice);
                    }
                }
                Rows::Bids(bids) => {
                    for bid in bids {
                        self.order.bid(bid, has_begun);
                    }
                }
            }
        }
    }
}

/// What it is, once it is there.
async fn look(
    queries: &mut QueryServiceClient<Channel>,
    id: &str,
    token: &str,
) -> Result<Option<Watched>, Failure> {
    let request = GetInvoiceRequest { invoice_id: id.to_owned(), token: token.to_owned() };
    if is_there(queries.get_invoice(timed(request)).await)? {
        return Ok(Some(Watched::Invoice(id.to_owned())));
    }
    let request = GetBidRequest { bid_id: id.to_owned(), token: token.to_owned() };
    Ok(is_there(queries.get_bid(timed(request)).await)?.then(|| Watched::Bid(id.to_owned())))
}

fn is_there<T>(answer: Result<Response<T>, Status>) -> Result<bool, Failure> {
    match answer {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(status.into()),
    }
}

/// What is to be said, and in which order.
#[derive(Debug, Default)]
struct Order {
    ready: VecDeque<Change>,
    is_one_bid: bool,
    winner: Option<String>,
    /// Bids that were over before anybody watched.
    over: BTreeMap<String, Bid>,
}

impl Order {
    fn new(is_one_bid: bool) -> Self {
        Self { is_one_bid, ..Self::default() }
    }

    fn invoice(&mut self, invoice: Invoice) {
        self.winner = invoice.winning_bid.as_ref().map(|bid| bid.bid_id.clone());
        let winner = self.winner.as_ref().and_then(|winner| self.over.remove(winner));
        self.ready.push_back(Change::Invoice(invoice));
        self.ready.extend(winner.map(Change::Bid));
    }

    fn bid(&mut self, bid: Bid, has_begun: bool) {
        let is_watched = self.is_one_bid || self.winner.as_ref() == Some(&bid.id);
        let was_over = !has_begun && settle::is_settled(bid.status());
        if !is_watched && (was_over || self.over.get(&bid.id) == Some(&bid)) {
            self.over.insert(bid.id.clone(), bid);
        } else {
            self.ready.push_back(Change::Bid(bid));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::api::proto::financing::v1::{BidStatus, WinningBid};

    use super::*;

    fn bid(id: &str, status: BidStatus) -> Bid {
        Bid { id: id.to_owned(), status: status.into(), ..Bid::default() }
    }

    fn won_by(id: &str) -> Invoice {
        let winning_bid = Some(WinningBid { bid_id: id.to_owned(), ..WinningBid::default() });
        Invoice { winning_bid, ..Invoice::default() }
    }

    fn said(order: &mut Order) -> Vec<String> {
        let name = |change| match change {
            Change::Invoice(_) => "invoice".to_owned(),
            Change::Bid(bid) => bid.id,
        };
        order.ready.drain(..).map(name).collect()
    }

    #[test]
    fn bids_that_were_over_before_are_not_mentioned_but_the_one_that_won_is() {
        let mut order = Order::new(false);
        order.invoice(Invoice::default());
        order.bid(bid("lost", BidStatus::Released), false);
        order.bid(bid("open", BidStatus::Placed), false);
        order.bid(bid("won", BidStatus::Committed), false);
        assert_eq!(said(&mut order), ["invoice", "open"]);
        // The invoice was read a moment before the bids were.
        order.invoice(won_by("won"));
        assert_eq!(said(&mut order), ["invoice", "won"]);
        order.bid(bid("lost", BidStatus::Released), true);
        assert!(said(&mut order).is_empty(), "the same again, after a new beginning");
        order.bid(bid("open", BidStatus::Released), true);
        assert_eq!(said(&mut order), ["open"]);
    }

    #[test]
    fn one_bid_is_shown_wherever_it_stands() {
        let mut order = Order::new(true);
        order.bid(bid("lost", BidStatus::Released), false);
        assert_eq!(said(&mut order), ["lost"]);
    }
}
