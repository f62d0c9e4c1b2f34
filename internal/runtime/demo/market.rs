//! The market: everything that the plan asks for, some invoices at a time.
//!
//! The rule this module protects: whatever does not come out as the plan says ends the demo with an error that names it. A refusal that
//! the plan asks for is no error; that it does not come is one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use tonic::transport::Channel;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;
use crate::api::proto::financing::v1::{
    ApproveFinancingRequest, Bid, BidOnInvoiceRequest, BidStatus, CommandState, GetInvestorRequest,
    GetInvoiceRequest, Investor, Invoice, ReverseFinancingRequest, SellInvoiceRequest, WaitCommandRequest,
};
use crate::api::proto::registering::v1::integration_event::Event;
use crate::api::proto::registering::v1::{
    IntegrationEvent, InvestorRegistered, IssuerRegistered, PublishIntegrationEventsRequest,
};
use crate::runtime::client::{ClientError, Commands, timed};
use crate::runtime::shell::settle;

use super::plan::{Lot, Offer, Party, Plan, Step, command_id, wire};
use super::sheet::cents;
use super::story::{EXCESS, Ending, REFUSED, SETTLED};

/// Invoices that are on the market at the same time.
const AT_ONCE: usize = 4;

/// How long an outcome is waited for, and how long a bid's money.
const PATIENCE: Duration = Duration::from_secs(30);

const WAIT: prost_types::Duration = prost_types::Duration { seconds: 30, nanos: 0 };

/// A platform with a plan for it.
pub(super) struct Market<'a> {
    plan: &'a Plan,
    commands: Commands,
    queries: QueryServiceClient<Channel>,
}

/// How it has ended.
pub(super) struct Closing {
    /// Everybody, with what they opened with, in cents.
    pub(super) investors: Vec<(Investor, i64)>,
    /// What was sold.
    pub(super) invoices: Vec<Invoice>,
    /// Every bid that was placed.
    pub(super) bids: Vec<Bid>,
    /// How many commands were refused.
    pub(super) refused: usize,
    /// What the stream of facts must have told.
    pub(super) endings: BTreeSet<Ending>,
}

/// What became of an approval or of a reversal, with its token; or the reason of its refusal.
type Decision = Result<(CommandState, String), String>;

fn failed<T>(what: String) -> Result<T, ClientError> {
    Err(ClientError::Failed(what))
}

/// What a call of the command side came to: the answer, or the reason of a refusal.
fn refusal<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<Result<T, String>, ClientError> {
    match answer {
        Ok(answer) => Ok(Ok(answer.into_inner())),
        Err(status) => match (status.get_details_error_info(), ClientError::from(status)) {
            (Some(_), ClientError::Refused { reason, .. }) => Ok(Err(reason)),
            (_, error) => Err(error),
        },
    }
}

/// The answer to a call that has no reason to be refused.
fn planned<T>(what: &str, answer: Result<tonic::Response<T>, tonic::Status>) -> Result<T, ClientError> {
    refusal(answer)?.or_else(|reason| failed(format!("{what}: it was refused: {reason}")))
}

fn decided(what: &str, state: CommandState) -> Result<(), ClientError> {
    match state {
        CommandState::Applied | CommandState::Unchanged => Ok(()),
        CommandState::Unspecified | CommandState::Pending | CommandState::Refused | CommandState::Dead => {
            failed(format!("{what}: there is no outcome within {PATIENCE:?}"))
        }
    }
}

impl<'a> Market<'a> {
    /// Of this plan, on the platform behind these connections.
    pub(super) fn new(plan: &'a Plan, commands: Commands, queries: QueryServiceClient<Channel>) -> Self {
        Self { plan, commands, queries }
    }

    /// All of it, until every bid has settled.
    ///
    /// # Errors
    ///
    /// When the platform does not answer, or anything comes out differently than planned.
    pub(super) async fn run(&self) -> Result<Closing, ClientError> {
        self.register().await?;
        let lots = stream::iter(&self.plan.lots).map(|lot| self.sell(lot)).buffer_unordered(AT_ONCE);
        let (mut sold, ()) = future::try_join(lots.try_collect::<Vec<_>>(), self.stray()).await?;
        sold.sort_by_key(|(lot, _)| lot.number);
        self.close(sold).await
    }

    /// Registers everybody, as the Registering context would.
    async fn register(&self) -> Result<(), ClientError> {
        let mut events = Vec::new();
        for party in &self.plan.issuers {
            let (issuer_id, name) = (party.id.to_string(), party.name.to_owned());
            events.push((party, Event::IssuerRegistered(IssuerRegistered { issuer_id, name })));
        }
        for party in &self.plan.investors {
            let (investor_id, name) = (party.id.to_string(), party.name.to_owned());
            let balance = Some(money(party.opens_with)?);
            events
                .push((party, Event::InvestorRegistered(InvestorRegistered { investor_id, name, balance })));
        }
        let events = events.into_iter().map(|(party, event)| IntegrationEvent {
            event: Some(event),
            event_id: Uuid::new_v5(&party.id, b"registered").to_string(),
        });
        let request = PublishIntegrationEventsRequest { events: events.collect() };
        let answer = self.commands.integration().publish_integration_events(timed(request)).await;
        let answer = planned("registering", answer)?;
        for command_id in answer.command_ids {
            let request = WaitCommandRequest { command_id, wait: Some(WAIT) };
            let answer = self.queries.clone().wait_command(timed(request)).await?.into_inner();
            let command = answer.command.unwrap_or_default();
            if command.state() == CommandState::Refused {
                return failed(format!(
                    "registering: it was refused: {} ({})",
                    command.message, command.reason
                ));
            }
            decided("registering", command.state())?;
        }
        Ok(())
    }

    /// Sells an invoice, and does with it what is planned. Answers with the token of what was decided about it last.
    async fn sell<'l>(&self, lot: &'l Lot) -> Result<(&'l Lot, String), ClientError> {
        let what = format!("invoice #{}", lot.number);
        let request = SellInvoiceRequest {
            issuer_id: self
                .plan
                .issuers
                .get(lot.issuer)
                .map(|party| party.id.to_string())
                .unwrap_or_default(),
            asking_price: Some(money(lot.asking_price)?),
            request_id: lot.request.to_string(),
            wait: Some(WAIT),
        };
        let answer = planned(&what, self.commands.client().sell_invoice(timed(request)).await)?;
        decided(&what, answer.state())?;
        let invoice_id = lot.invoice_id().to_string();
        if answer.invoice_id != invoice_id {
            return failed(format!("{what} has the id {}, and not {invoice_id}", answer.invoice_id));
        }
        let mut last = answer.token;
        for step in &lot.steps {
            last = self.step(&what, &invoice_id, step).await?.unwrap_or(last);
        }
        Ok((lot, last))
    }

    /// Answers with the token of an approval or of a reversal.
    async fn step(&self, what: &str, invoice_id: &str, step: &Step) -> Result<Option<String>, ClientError> {
        match step {
            Step::Win(offer) => self.bid(what, invoice_id, offer, "").await?,
            Step::Lose(offer, reason) => self.bid(what, invoice_id, offer, reason).await?,
            Step::Race(offers) => {
                let bids = offers.iter().map(|offer| self.place(what, invoice_id, offer));
                let bids = future::try_join_all(bids).await?;
                let winners = bids.iter().filter(|bid| bid.reason.is_empty()).count();
                if winners != 1 {
                    return failed(format!("{what}: {winners} bids of a race have won"));
                }
            }
            Step::Twice(offer) => {
                let place = || self.bid(what, invoice_id, offer, "");
                future::try_join(place(), place()).await?;
            }
            Step::Overdraw(offer) => {
                let refused =
                    refusal(self.commands.client().bid_on_invoice(self.request(invoice_id, offer)?).await)?;
                expect_refused(what, refused.err(), "INSUFFICIENT_FUNDS")?;
            }
            Step::Approve(request) => match self.approve(invoice_id, *request).await? {
                Ok((state, token)) => return decided(what, state).map(|()| Some(token)),
                Err(reason) => return failed(format!("{what}: the approval was refused: {reason}")),
            },
            Step::Reverse(request) => match self.reverse(invoice_id, *request).await? {
                Ok((state, token)) => return decided(what, state).map(|()| Some(token)),
                Err(reason) => return failed(format!("{what}: the reversal was refused: {reason}")),
            },
            Step::ApproveAgain(request) => {
                let refused = self.approve(invoice_id, *request).await?.err();
                expect_refused(what, refused, "INVOICE_NOT_FINANCED")?;
            }
            Step::ReverseAfterwards(request) => {
                let refused = self.reverse(invoice_id, *request).await?.err();
                expect_refused(what, refused, "INVOICE_NOT_FINANCED")?;
            }
        }
        Ok(None)
    }

    async fn approve(&self, invoice_id: &str, request: Uuid) -> Result<Decision, ClientError> {
        let request = ApproveFinancingRequest {
            invoice_id: invoice_id.to_owned(),
            request_id: request.to_string(),
            wait: Some(WAIT),
        };
        let answer = self.commands.client().approve_financing(timed(request)).await;
        Ok(refusal(answer)?.map(|answer| (answer.state(), answer.token)))
    }

    async fn reverse(&self, invoice_id: &str, request: Uuid) -> Result<Decision, ClientError> {
        let request = ReverseFinancingRequest {
            invoice_id: invoice_id.to_owned(),
            request_id: request.to_string(),
            wait: Some(WAIT),
        };
        let answer = self.commands.client().reverse_financing(timed(request)).await;
        Ok(refusal(answer)?.map(|answer| (answer.state(), answer.token)))
    }

    /// Bids on an invoice that does not exist.
    async fn stray(&self) -> Result<(), ClientError> {
        let (offer, nowhere) = &self.plan.stray;
        self.bid("the invoice that does not exist", &nowhere.to_string(), offer, "INVOICE_NOT_FOUND").await
    }

    /// A bid that wins (no reason), or loses for this reason.
    async fn bid(
        &self,
        what: &str,
        invoice_id: &str,
        offer: &Offer,
        reason: &str,
    ) -> Result<(), ClientError> {
        let bid = self.place(what, invoice_id, offer).await?;
        if bid.reason == reason {
            return Ok(());
        }
        failed(format!("{what}: bid {} was to end with {reason:?}, and ended with {:?}", bid.id, bid.reason))
    }

    /// Places a bid, and waits until nothing more happens to it by itself.
    async fn place(&self, what: &str, invoice_id: &str, offer: &Offer) -> Result<Bid, ClientError> {
        let answer = self.commands.client().bid_on_invoice(self.request(invoice_id, offer)?).await;
        let answer = planned(what, answer)?;
        decided(what, answer.state())?;
        let expected = offer.bid_id().to_string();
        if answer.bid_id != expected {
            return failed(format!("{what}: a bid has the id {}, and not {expected}", answer.bid_id));
        }
        let bid = self.until(&answer.bid_id, &answer.token, settle::stands).await?;
        if settle::stands(bid.status()) { Ok(bid) } else { failed(format!("{what}: bid {} hangs", bid.id)) }
    }

    fn request(
        &self,
        invoice_id: &str,
        offer: &Offer,
    ) -> Result<tonic::Request<BidOnInvoiceRequest>, ClientError> {
        let investor = self.plan.investors.get(offer.investor);
        Ok(timed(BidOnInvoiceRequest {
            investor_id: investor.map(|party| party.id.to_string()).unwrap_or_default(),
            invoice_id: invoice_id.to_owned(),
            amount: Some(money(offer.cents)?),
            request_id: offer.request.to_string(),
            wait: Some(WAIT),
        }))
    }

    async fn until(
        &self,
        bid_id: &str,
        token: &str,
        is_so: fn(BidStatus) -> bool,
    ) -> Result<Bid, ClientError> {
        settle::until(&mut self.queries.clone(), bid_id, token, settle::deadline(PATIENCE), is_so).await
    }

    /// Waits until all money is where it belongs, and looks at everything once more: at every lot as it is behind its token.
    async fn close(&self, sold: Vec<(&Lot, String)>) -> Result<Closing, ClientError> {
        let mut bids = Vec::new();
        for offer in self.plan.offers() {
            let bid = self.until(&offer.bid_id().to_string(), "", settle::is_settled).await?;
            if !settle::is_settled(bid.status()) {
                return failed(format!("bid {} has not settled within {PATIENCE:?}", bid.id));
            }
            bids.push(bid);
        }
        let mut invoices = Vec::new();
        for (lot, token) in sold {
            let request = GetInvoiceRequest { invoice_id: lot.invoice_id().to_string(), token };
            let answer = self.queries.clone().get_invoice(timed(request)).await?.into_inner();
            invoices.push(answer.invoice.unwrap_or_default());
        }
        let mut investors = Vec::new();
        for party in &self.plan.investors {
            investors.push((self.at_rest(party).await?, party.opens_with));
        }
        let refused = self.refused();
        let endings = endings(&bids, &invoices)?.into_iter().chain(refused.iter().cloned()).collect();
        Ok(Closing { investors, invoices, bids, refused: refused.len(), endings })
    }

    /// The investor as soon as nothing is reserved, or as it is when the time is up: the balance sheet tells.
    async fn at_rest(&self, party: &Party) -> Result<Investor, ClientError> {
        let deadline = settle::deadline(PATIENCE);
        loop {
            let request = GetInvestorRequest { investor_id: party.id.to_string(), token: String::new() };
            let answer = self.queries.clone().get_investor(timed(request)).await?.into_inner();
            let investor = answer.investor.unwrap_or_default();
            if cents(investor.reserved.as_ref())? == 0 || settle::is_past(deadline) {
                return Ok(investor);
            }
            settle::pause().await;
        }
    }

    /// The commands that were to be refused.
    fn refused(&self) -> Vec<Ending> {
        let steps = self.plan.lots.iter().flat_map(|lot| &lot.steps);
        let requests = steps.filter_map(|step| match step {
            Step::Overdraw(offer) => Some(offer.request),
            Step::ApproveAgain(request) | Step::ReverseAfterwards(request) => Some(*request),
            Step::Win(_)
            | Step::Lose(..)
            | Step::Race(_)
            | Step::Twice(_)
            | Step::Approve(_)
            | Step::Reverse(_) => None,
        });
        requests.map(|request| (command_id(request).to_string(), REFUSED)).collect()
    }
}

/// What the facts must have told of these bids.
fn endings(bids: &[Bid], invoices: &[Invoice]) -> Result<Vec<Ending>, ClientError> {
    let asked: BTreeMap<&str, &Invoice> =
        invoices.iter().map(|invoice| (invoice.id.as_str(), invoice)).collect();
    let mut endings = Vec::new();
    for bid in bids {
        endings.push((bid.id.clone(), SETTLED));
        let invoice = asked.get(bid.invoice_id.as_str()).filter(|_| bid.reason.is_empty());
        let Some(invoice) = invoice else { continue };
        if cents(bid.amount.as_ref())? > cents(invoice.asking_price.as_ref())? {
            endings.push((bid.id.clone(), EXCESS));
        }
    }
    Ok(endings)
}

fn expect_refused(what: &str, reason: Option<String>, expected: &str) -> Result<(), ClientError> {
    match reason {
        Some(reason) if reason == expected => Ok(()),
        Some(reason) => {
            failed(format!("{what}: it was to be refused with {expected}, and was with {reason}"))
        }
        None => failed(format!("{what}: it was to be refused with {expected}, and was not")),
    }
}

fn money(cents: i64) -> Result<crate::api::proto::financing::v1::Money, ClientError> {
    wire(cents).map_err(|error| ClientError::Failed(error.to_string()))
}
