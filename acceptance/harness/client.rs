//! What a client asks of the platform, in one line each.

use tonic::Status;
use tonic::transport::Channel;

use super::facts::Facts;
use super::platform::Platform;
use super::proto::command_service_client::CommandServiceClient;
use super::proto::query_service_client::QueryServiceClient;
use super::proto::{
    ApproveFinancingRequest, Bid, BidOnInvoiceRequest, Command, GetBidRequest, GetInvestorRequest,
    GetInvoiceRequest, Investor, Invoice, Money, ReverseFinancingRequest, SellInvoiceRequest,
    WaitCommandRequest,
};
use super::registering::integration_event::Event;
use super::registering::integration_service_client::IntegrationServiceClient;
use super::registering::{
    IntegrationEvent, InvestorRegistered, IssuerRegistered, PublishIntegrationEventsRequest,
};
use super::words::{uuid, wait};

/// A command that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// What it makes: the invoice or the bid; for any other command, what it is about.
    pub(crate) id: String,
    /// The command, and with it the saga.
    pub(crate) command_id: String,
    /// What to present to a query.
    pub(crate) token: String,
}

pub(crate) fn issuer_registered(issuer_id: &str, name: &str) -> Event {
    Event::IssuerRegistered(IssuerRegistered { issuer_id: issuer_id.to_owned(), name: name.to_owned() })
}

pub(crate) fn investor_registered(investor_id: &str, name: &str, balance: Option<Money>) -> Event {
    let (investor_id, name) = (investor_id.to_owned(), name.to_owned());
    Event::InvestorRegistered(InvestorRegistered { investor_id, name, balance })
}

impl Platform {
    pub(crate) fn commands(&self) -> CommandServiceClient<Channel> {
        CommandServiceClient::new(self.command_channel())
    }

    pub(crate) fn integration(&self) -> IntegrationServiceClient<Channel> {
        IntegrationServiceClient::new(self.command_channel())
    }

    pub(crate) fn queries(&self) -> QueryServiceClient<Channel> {
        QueryServiceClient::new(self.query_channel())
    }

    /// What happens from now on. (On a platform of the test's own, that is everything.)
    pub(crate) async fn facts(&self) -> Facts {
        let mut facts = self.all_facts().await;
        if self.ran_already() {
            let marker = self.issuer().await;
            facts.until("IssuerCreated", "issuer_id", &marker).await;
        }
        facts
    }

    /// Everything from the first fact on.
    pub(crate) async fn all_facts(&self) -> Facts {
        Facts::watch(self.queries()).await
    }

    /// Registers an issuer and waits until it is there.
    pub(crate) async fn issuer(&self) -> String {
        let issuer_id = uuid();
        self.register(issuer_registered(&issuer_id, "Acme")).await;
        issuer_id
    }

    /// Registers an investor and waits until it is there.
    pub(crate) async fn investor(&self, balance: Option<Money>) -> String {
        self.investors(1, balance).await.remove(0)
    }

    /// Registers investors and waits until they are there.
    pub(crate) async fn investors(&self, count: usize, balance: Option<Money>) -> Vec<String> {
        let ids: Vec<String> = (0..count).map(|_| uuid()).collect();
        let events = ids.iter().map(|id| investor_registered(id, "Lender", balance.clone())).collect();
        for command_id in self.publish(events).await {
            self.outcome(&command_id).await;
        }
        ids
    }

    /// Hands an integration event in and waits for its outcome.
    pub(crate) async fn register(&self, event: Event) -> Command {
        let command_ids = self.publish(vec![event]).await;
        self.outcome(&command_ids[0]).await
    }

    /// Hands integration events in; answers with the ids of the commands that follow.
    pub(crate) async fn publish(&self, events: Vec<Event>) -> Vec<String> {
        let events: Vec<IntegrationEvent> = events
            .into_iter()
            .map(|event| IntegrationEvent { event: Some(event), event_id: String::new() })
            .collect();
        let count = events.len();
        let request = PublishIntegrationEventsRequest { events };
        let answer = self.integration().publish_integration_events(request).await.unwrap().into_inner();
        assert_eq!(answer.command_ids.len(), count);
        answer.command_ids
    }

    /// Waits for a command's outcome.
    pub(crate) async fn outcome(&self, command_id: &str) -> Command {
        let request = WaitCommandRequest { command_id: command_id.to_owned(), wait: wait() };
        self.queries().wait_command(request).await.unwrap().into_inner().command.unwrap()
    }

    /// Sells an invoice and waits until it is on sale.
    pub(crate) async fn sell(&self, issuer_id: &str, asking_price: Option<Money>) -> Accepted {
        let request = SellInvoiceRequest {
            issuer_id: issuer_id.to_owned(),
            asking_price,
            wait: wait(),
            ..SellInvoiceRequest::default()
        };
        let answer = self.commands().sell_invoice(request).await.unwrap().into_inner();
        Accepted { id: answer.invoice_id, command_id: answer.command_id, token: answer.token }
    }

    /// Sells an invoice and waits until whoever asks without a token sees it, too. Its id.
    pub(crate) async fn on_sale(&self, issuer_id: &str, asking_price: Option<Money>) -> String {
        let sold = self.sell(issuer_id, asking_price).await;
        self.invoice_at(&sold.id, &sold.token).await.id
    }

    /// Bids on an invoice and waits until the bid is placed.
    pub(crate) async fn bid(
        &self,
        investor_id: &str,
        invoice_id: &str,
        amount: Option<Money>,
    ) -> Result<Accepted, Status> {
        let request = BidOnInvoiceRequest {
            investor_id: investor_id.to_owned(),
            invoice_id: invoice_id.to_owned(),
            amount,
            wait: wait(),
            ..BidOnInvoiceRequest::default()
        };
        let answer = self.commands().bid_on_invoice(request).await?.into_inner();
        Ok(Accepted { id: answer.bid_id, command_id: answer.command_id, token: answer.token })
    }

    /// Approves a financing and waits for the outcome.
    pub(crate) async fn approve(&self, invoice_id: &str) -> Result<Accepted, Status> {
        let id = invoice_id.to_owned();
        let request =
            ApproveFinancingRequest { invoice_id: id.clone(), wait: wait(), request_id: String::new() };
        let answer = self.commands().approve_financing(request).await?.into_inner();
        Ok(Accepted { id, command_id: answer.command_id, token: answer.token })
    }

    /// Reverses a financing and waits for the outcome.
    pub(crate) async fn reverse(&self, invoice_id: &str) -> Result<Accepted, Status> {
        let id = invoice_id.to_owned();
        let request =
            ReverseFinancingRequest { invoice_id: id.clone(), wait: wait(), request_id: String::new() };
        let answer = self.commands().reverse_financing(request).await?.into_inner();
        Ok(Accepted { id, command_id: answer.command_id, token: answer.token })
    }

    /// The investor, as soon as the read model has seen the token.
    pub(crate) async fn investor_at(&self, investor_id: &str, token: &str) -> Investor {
        let request = GetInvestorRequest { investor_id: investor_id.to_owned(), token: token.to_owned() };
        self.queries().get_investor(request).await.unwrap().into_inner().investor.unwrap()
    }

    /// What an investor has available, reserved and committed, as soon as the read model has seen the token.
    pub(crate) async fn balances(&self, investor_id: &str, token: &str) -> [Option<Money>; 3] {
        let investor = self.investor_at(investor_id, token).await;
        [investor.available, investor.reserved, investor.committed]
    }

    /// The invoice, as soon as the read model has seen the token.
    pub(crate) async fn invoice_at(&self, invoice_id: &str, token: &str) -> Invoice {
        let request = GetInvoiceRequest { invoice_id: invoice_id.to_owned(), token: token.to_owned() };
        self.queries().get_invoice(request).await.unwrap().into_inner().invoice.unwrap()
    }

    /// The bid, as soon as the read model has seen the token.
    pub(crate) async fn bid_at(&self, bid_id: &str, token: &str) -> Bid {
        let request = GetBidRequest { bid_id: bid_id.to_owned(), token: token.to_owned() };
        self.queries().get_bid(request).await.unwrap().into_inner().bid.unwrap()
    }
}
