//! What a client of the business does: sell, bid, approve, reverse.
//!
//! The rule this module protects: it answers when it is known what became of the command, or with the ids that tell it later;
//! and what it prints are assignments that the shell takes as they are.

use std::time::Duration;

use clap::Args;
use eventsourcing::environment::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::api::proto::financing::v1::{
    ApproveFinancingRequest, Bid, BidOnInvoiceRequest, CommandState, GetInvoiceRequest, Invoice,
    ReverseFinancingRequest, SellInvoiceRequest,
};
use crate::runtime::client::{amount, timed, timed_for};
use crate::runtime::terminal::Terminal;

use super::failure::{Failure, answered};
use super::{PlatformAddresses, json, settle, span, status};

/// An amount of money as a person types it.
#[derive(Debug, Clone, Args)]
pub struct MoneyArguments {
    /// How much, as in 49.95
    #[arg(allow_negative_numbers = true)]
    amount: String,
    /// The currency, an ISO 4217 code
    #[arg(long, default_value = "EUR")]
    currency: String,
}

/// How a command is sent.
#[derive(Debug, Clone, Args)]
pub struct SendArguments {
    /// How long to wait for the outcome, as in 500ms, 10s or 2m
    #[arg(long, default_value = "20s", value_parser = span::wait)]
    wait: Duration,
    /// Do not wait: print the ids at once
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// A UUID of your own: the same command sent again with it is the same command, and acts once
    #[arg(long)]
    request_id: Option<Uuid>,
    /// Print JSON: one object
    #[arg(long)]
    json: bool,
}

impl SendArguments {
    fn request_id(&self) -> String {
        self.request_id.map(|id| id.to_string()).unwrap_or_default()
    }

    fn wait(&self) -> Option<prost_types::Duration> {
        (!self.no_wait).then(|| span::wire(self.wait))
    }

    /// The call has a little longer than the wait that it asks for.
    fn timed<T>(&self, message: T) -> tonic::Request<T> {
        if self.no_wait { timed(message) } else { timed_for(message, self.wait) }
    }
}

/// What to sell.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    financing sell $ISSUER_1 50.00\n  \
    financing sell $ISSUER_1 8000 --currency JPY\n  \
    eval \"$(financing sell $ISSUER_1 50.00)\"               # $INVOICE is its id\n  \
    financing sell $ISSUER_1 50.00 --request-id $REQUEST  # however often: one invoice")]
pub struct SellArguments {
    /// The issuer who sells
    issuer: String,
    /// What the issuer wants for it
    #[command(flatten)]
    price: MoneyArguments,
    /// How it is sent
    #[command(flatten)]
    how: SendArguments,
    /// Where the platform is
    #[command(flatten)]
    platform: PlatformAddresses,
}

/// What to bid.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    financing bid $INVESTOR_1 $INVOICE 60.00\n  \
    eval \"$(financing bid $INVESTOR_1 $INVOICE 60.00)\"  # $BID is its id\n  \
    eval \"$(financing bid $INVESTOR_1 $INVOICE 60.00 --no-wait)\" && financing watch $BID")]
pub struct BidArguments {
    /// The investor who bids
    investor: String,
    /// The invoice
    invoice: String,
    /// What the investor offers
    #[command(flatten)]
    amount: MoneyArguments,
    /// How it is sent
    #[command(flatten)]
    how: SendArguments,
    /// Where the platform is
    #[command(flatten)]
    platform: PlatformAddresses,
}

/// Examples of `approve`.
pub const APPROVE_EXAMPLES: &str =
    "Examples:\n  financing approve $INVOICE\n  financing approve $INVOICE --json --wait 2m";

/// Examples of `reverse`.
pub const REVERSE_EXAMPLES: &str =
    "Examples:\n  financing reverse $INVOICE\n  financing reverse $INVOICE --json --wait 2m";

/// What to decide on.
#[derive(Debug, Clone, Args)]
pub struct DecideArguments {
    /// The invoice
    invoice: String,
    /// How it is sent
    #[command(flatten)]
    how: SendArguments,
    /// Where the platform is
    #[command(flatten)]
    platform: PlatformAddresses,
}

/// What became of it, for scripts.
#[derive(Debug, Default, Serialize)]
struct Accepted {
    #[serde(skip_serializing_if = "Option::is_none")]
    invoice_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bid_id: Option<String>,
    command_id: String,
    state: &'static str,
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bid: Option<json::Bid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invoice: Option<json::Invoice>,
}

/// A refusal is an error of the call, so what is left is that there is no outcome yet.
fn decided(how: &SendArguments, state: CommandState, command_id: &str) -> Result<&'static str, Failure> {
    match state {
        CommandState::Applied | CommandState::Unchanged => Ok(status::of_command(state).name),
        CommandState::Pending | CommandState::Unspecified if how.no_wait => Ok("PENDING"),
        CommandState::Pending | CommandState::Unspecified | CommandState::Refused | CommandState::Dead => {
            let message =
                format!("the platform has accepted command {command_id}, but not decided it in time");
            Err(Failure::of_command(message, command_id))
        }
    }
}

/// Lines that a shell takes as they are.
fn assignments(how: &SendArguments, name: &str, id: &str, command_id: &str) -> String {
    if how.no_wait { format!("{name}={id}\nCOMMAND={command_id}\n") } else { format!("{name}={id}\n") }
}

/// Offers an invoice for sale.
pub(super) async fn sell(arguments: SellArguments) -> Result<String, Failure> {
    let SellArguments { issuer, price, how, platform } = arguments;
    let sold = async {
        let request = SellInvoiceRequest {
            issuer_id: issuer,
            asking_price: Some(amount(&price.amount, &price.currency)?),
            request_id: how.request_id(),
            wait: how.wait(),
        };
        let answer = platform.commands().await?.client().sell_invoice(how.timed(request)).await?.into_inner();
        let state = decided(&how, answer.state(), &answer.command_id)?;
        let (command_id, token, invoice_id) = (answer.command_id, answer.token, answer.invoice_id);
        let said = assignments(&how, "INVOICE", &invoice_id, &command_id);
        // Whoever asks for it next finds it. (Where nobody can be asked, it is sold all the same.)
        let invoice = if how.no_wait {
            None
        } else {
            let ids = [("invoice_id", invoice_id.as_str()), ("command_id", command_id.as_str())];
            shown(&platform, &invoice_id, &token).await.map_err(|failure| failure.after(&said, &ids))?
        };
        if !how.json {
            return Ok(said);
        }
        let (invoice_id, invoice) = (Some(invoice_id), invoice.map(json::Invoice::from));
        Ok(json::line(&Accepted { invoice_id, command_id, state, token, invoice, ..Accepted::default() }))
    };
    answered(how.json, sold.await)
}

/// The invoice, as soon as the query side knows of it what the token says.
async fn shown(
    platform: &PlatformAddresses,
    invoice_id: &str,
    token: &str,
) -> Result<Option<Invoice>, Failure> {
    let request = GetInvoiceRequest { invoice_id: invoice_id.to_owned(), token: token.to_owned() };
    Ok(platform.queries().await?.get_invoice(timed(request)).await?.into_inner().invoice)
}

/// Bids, and waits for what becomes of the bid: it stands, or its money is back.
pub(super) async fn bid(arguments: BidArguments) -> Result<String, Failure> {
    let BidArguments { investor, invoice, amount: offer, how, platform } = arguments;
    let bid = async {
        let deadline = settle::deadline(how.wait);
        let request = BidOnInvoiceRequest {
            investor_id: investor,
            invoice_id: invoice,
            amount: Some(amount(&offer.amount, &offer.currency)?),
            request_id: how.request_id(),
            wait: how.wait(),
        };
        let answer =
            platform.commands().await?.client().bid_on_invoice(how.timed(request)).await?.into_inner();
        let state = decided(&how, answer.state(), &answer.command_id)?;
        let said = assignments(&how, "BID", &answer.bid_id, &answer.command_id);
        let bid = if how.no_wait {
            None
        } else {
            let ids = [("bid_id", answer.bid_id.as_str()), ("command_id", answer.command_id.as_str())];
            let stands = stands(&platform, &answer.bid_id, &answer.token, deadline).await;
            Some(stands.map_err(|failure| failure.after(&said, &ids))?)
        };
        if !how.json {
            return Ok(match bid {
                None => said,
                Some(bid) => format!("BID={}  # {}\n", bid.id, status_of(&bid)),
            });
        }
        let (command_id, token) = (answer.command_id, answer.token);
        let (bid_id, bid) = (Some(answer.bid_id), bid.map(json::Bid::from));
        Ok(json::line(&Accepted { bid_id, command_id, state, token, bid, ..Accepted::default() }))
    };
    answered(how.json, bid.await)
}

/// The bid, as soon as nothing more happens to it by itself.
async fn stands(
    platform: &PlatformAddresses,
    bid_id: &str,
    token: &str,
    deadline: Timestamp,
) -> Result<Bid, Failure> {
    let mut queries = platform.queries().await?;
    Ok(settle::until(&mut queries, bid_id, token, deadline, settle::stands).await?)
}

/// Where a bid stands, and why.
fn status_of(bid: &Bid) -> String {
    let status = status::of_bid(bid);
    let name = Terminal::standard_output().paint(status.tone, status.name);
    if bid.reason.is_empty() { name } else { format!("{name}: {}", bid.reason) }
}

/// Approves the financing, and waits until the money is where it belongs.
pub(super) async fn approve(arguments: DecideArguments) -> Result<String, Failure> {
    let DecideArguments { invoice: invoice_id, how, platform } = arguments;
    let approved = async {
        let request = ApproveFinancingRequest {
            invoice_id: invoice_id.clone(),
            request_id: how.request_id(),
            wait: how.wait(),
        };
        let mut client = platform.commands().await?.client();
        let answer = client.approve_financing(how.timed(request)).await?.into_inner();
        let state = decided(&how, answer.state(), &answer.command_id)?;
        finish(&how, &platform, "approved", invoice_id, (answer.command_id, state, answer.token)).await
    };
    answered(how.json, approved.await)
}

/// Reverses the financing, and waits until the money is where it belongs.
pub(super) async fn reverse(arguments: DecideArguments) -> Result<String, Failure> {
    let DecideArguments { invoice: invoice_id, how, platform } = arguments;
    let reversed = async {
        let request = ReverseFinancingRequest {
            invoice_id: invoice_id.clone(),
            request_id: how.request_id(),
            wait: how.wait(),
        };
        let mut client = platform.commands().await?.client();
        let answer = client.reverse_financing(how.timed(request)).await?.into_inner();
        let state = decided(&how, answer.state(), &answer.command_id)?;
        finish(&how, &platform, "reversed", invoice_id, (answer.command_id, state, answer.token)).await
    };
    answered(how.json, reversed.await)
}

/// What is said of a decision on an invoice.
async fn finish(
    how: &SendArguments,
    platform: &PlatformAddresses,
    done: &str,
    invoice_id: String,
    (command_id, state, token): (String, &'static str, String),
) -> Result<String, Failure> {
    let settled = if how.no_wait { None } else { settled(how, platform, invoice_id, &token).await? };
    if !how.json {
        return Ok(if how.no_wait { format!("COMMAND={command_id}\n") } else { format!("{done}\n") });
    }
    let (invoice, bid) =
        settled.map_or((None, None), |(invoice, bid)| (Some(invoice.into()), bid.map(Into::into)));
    Ok(json::line(&Accepted { command_id, state, token, bid, invoice, ..Accepted::default() }))
}

/// The invoice that was decided on and the bid that won it, as soon as the bid's money is where it belongs.
async fn settled(
    how: &SendArguments,
    platform: &PlatformAddresses,
    invoice_id: String,
    token: &str,
) -> Result<Option<(Invoice, Option<Bid>)>, Failure> {
    let deadline = settle::deadline(how.wait);
    let mut queries = platform.queries().await?;
    let request = GetInvoiceRequest { invoice_id, token: token.to_owned() };
    let answer = queries.get_invoice(timed(request)).await?.into_inner();
    let Some(invoice) = answer.invoice else { return Ok(None) };
    let Some(winner) = &invoice.winning_bid else { return Ok(Some((invoice, None))) };
    let bid = settle::until(&mut queries, &winner.bid_id, "", deadline, settle::is_settled).await?;
    Ok(Some((invoice, Some(bid))))
}
