//! A client for the shell: the four commands, and a look at what became of them.
//!
//! The rule this module protects: what it prints can be pasted into the next command, and its exit code tells a refusal
//! by the business (2) from a failure (1).

use std::time::Duration;

use clap::{Args, Subcommand};
use eventsourcing::environment::Environment as _;

use crate::api::proto::financing::v1::{
    ApproveFinancingRequest, Bid, BidOnInvoiceRequest, BidStatus, CommandState, GetBidRequest,
    GetInvestorRequest, GetInvoiceRequest, GetIssuerRequest, Invoice, Money, ReverseFinancingRequest,
    SellInvoiceRequest,
};

use super::client::{ClientError, Commands, Queries, amount, connect, timed};
use super::config::client_address;
use super::distributed::operations::{self, MigrateArguments, QueueCommand};
use super::environment::SystemEnvironment;
use super::story::{self, StoryArguments, StuckArguments};
use super::verify::{self, VerifyArguments};

/// Where the platform is.
#[derive(Debug, Clone, Args)]
pub struct PlatformAddresses {
    /// Where commands are taken: host:port, http:// or https:// before it is fine
    #[arg(long, env = "FINANCING_COMMAND_ADDR", default_value = "127.0.0.1:8080", value_parser = client_address)]
    pub command_addr: String,
    /// Where queries are answered: host:port, http:// or https:// before it is fine
    #[arg(long, env = "FINANCING_QUERY_ADDR", default_value = "127.0.0.1:8081", value_parser = client_address)]
    pub query_addr: String,
}

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

/// What the shell client can be asked for.
#[derive(Debug, Clone, Subcommand)]
pub enum ShellCommand {
    /// Offer an invoice for sale: prints its id
    Sell {
        /// The issuer who sells
        issuer: String,
        /// What the issuer wants for it
        #[command(flatten)]
        price: MoneyArguments,
        /// Where the platform is
        #[command(flatten)]
        platform: PlatformAddresses,
    },
    /// Bid on an invoice: prints the bid's id
    Bid {
        /// The investor who bids
        investor: String,
        /// The invoice
        invoice: String,
        /// What the investor offers
        #[command(flatten)]
        amount: MoneyArguments,
        /// Where the platform is
        #[command(flatten)]
        platform: PlatformAddresses,
    },
    /// Approve the financing of an invoice: the asking price is committed
    Approve {
        /// The invoice
        invoice: String,
        /// Where the platform is
        #[command(flatten)]
        platform: PlatformAddresses,
    },
    /// Reverse the financing of an invoice: the asking price goes back to the investor
    Reverse {
        /// The invoice
        invoice: String,
        /// Where the platform is
        #[command(flatten)]
        platform: PlatformAddresses,
    },
    /// Show an issuer, an investor, an invoice, or a bid
    #[command(subcommand)]
    Show(ShowCommand),
    /// Tell the story of one invoice: who caused what, when, and what comes next
    Story(StoryArguments),
    /// List the steps of sagas that should have been taken and were not: exits with 3 when there are some
    Stuck(StuckArguments),
    /// Ask a process whether it is well: exits with 0 when it serves
    Health {
        /// Where it answers: host:port
        address: String,
    },
    /// Bring the databases of the distributed platform to the schema of this release, as their owner
    Migrate(MigrateArguments),
    /// Look after the distributed platform's command queue
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Check all that a platform has stored
    Verify(VerifyArguments),
}

/// What can be shown.
#[derive(Debug, Clone, Subcommand)]
pub enum ShowCommand {
    /// An issuer
    Issuer {
        /// The issuer
        id: String,
        /// Where the platform is
        #[command(flatten)]
        platform: PlatformAddresses,
    },
    /// An invoice and the bid that won it
    Invoice {
        /// The invoice
        id: String,
        /// Where the platform is
        #[command(flatten)]
        platform: PlatformAddresses,
    },
    /// An investor's balances
    Investor {
        /// The investor
        id: String,
        /// Where the platform is
        #[command(flatten)]
        platform: PlatformAddresses,
    },
    /// A bid and what became of it
    Bid {
        /// The bid
        id: String,
        /// Where the platform is
        #[command(flatten)]
        platform: PlatformAddresses,
    },
}

/// How often the client looks where a bid stands, and how long it waits in between: ten seconds in all.
const LOOKS: u32 = 400;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// How long the client waits for an outcome.
const WAIT: prost_types::Duration = prost_types::Duration { seconds: 20, nanos: 0 };

/// Does what was asked for, and answers with what to print.
///
/// # Errors
///
/// When the platform cannot be reached, refuses, or has no outcome in time.
pub async fn run(command: ShellCommand) -> Result<String, ClientError> {
    match command {
        ShellCommand::Sell { issuer, price, platform } => {
            let asking_price = Some(amount(&price.amount, &price.currency)?);
            let request = SellInvoiceRequest {
                issuer_id: issuer,
                asking_price,
                request_id: String::new(),
                wait: Some(WAIT),
            };
            let answer = commands(&platform).await?.client().sell_invoice(timed(request)).await?.into_inner();
            decided(answer.state(), &answer.command_id)?;
            Ok(format!("INVOICE={}\n", answer.invoice_id))
        }
        ShellCommand::Bid { investor, invoice, amount: bid, platform } => {
            let request = BidOnInvoiceRequest {
                investor_id: investor,
                invoice_id: invoice,
                amount: Some(amount(&bid.amount, &bid.currency)?),
                request_id: String::new(),
                wait: Some(WAIT),
            };
            let answer =
                commands(&platform).await?.client().bid_on_invoice(timed(request)).await?.into_inner();
            decided(answer.state(), &answer.command_id)?;
            let bid = answered(&platform, answer.bid_id, answer.token).await?;
            let status = bid_status(&bid);
            let reason = if bid.reason.is_empty() { String::new() } else { format!(": {}", bid.reason) };
            Ok(format!("BID={}  # {status}{reason}\n", bid.id))
        }
        ShellCommand::Approve { invoice, platform } => {
            let request = ApproveFinancingRequest {
                invoice_id: invoice.clone(),
                request_id: String::new(),
                wait: Some(WAIT),
            };
            let answer =
                commands(&platform).await?.client().approve_financing(timed(request)).await?.into_inner();
            decided(answer.state(), &answer.command_id)?;
            settled(&platform, invoice, answer.token).await?;
            Ok("approved\n".to_owned())
        }
        ShellCommand::Reverse { invoice, platform } => {
            let request = ReverseFinancingRequest {
                invoice_id: invoice.clone(),
                request_id: String::new(),
                wait: Some(WAIT),
            };
            let answer =
                commands(&platform).await?.client().reverse_financing(timed(request)).await?.into_inner();
            decided(answer.state(), &answer.command_id)?;
            settled(&platform, invoice, answer.token).await?;
            Ok("reversed\n".to_owned())
        }
        ShellCommand::Show(show) => run_show(show).await,
        ShellCommand::Story(arguments) => story::story(arguments).await,
        ShellCommand::Stuck(arguments) => story::stuck(arguments).await,
        ShellCommand::Health { address } => operations::health(&address).await,
        ShellCommand::Migrate(arguments) => operations::migrate(arguments).await,
        ShellCommand::Queue(command) => operations::queue(command).await,
        ShellCommand::Verify(arguments) => verify::run(arguments).await,
    }
}

async fn run_show(command: ShowCommand) -> Result<String, ClientError> {
    let token = String::new();
    match command {
        ShowCommand::Issuer { id, platform } => {
            let request = GetIssuerRequest { issuer_id: id, token };
            let answer = queries(&platform).await?.client().get_issuer(timed(request)).await?.into_inner();
            let issuer = answer.issuer.unwrap_or_default();
            Ok(format!("issuer  {}\nname    {}\n", issuer.id, issuer.name))
        }
        ShowCommand::Invoice { id, platform } => {
            let request = GetInvoiceRequest { invoice_id: id, token };
            let answer = queries(&platform).await?.client().get_invoice(timed(request)).await?.into_inner();
            Ok(invoice(&answer.invoice.unwrap_or_default()))
        }
        ShowCommand::Investor { id, platform } => {
            let request = GetInvestorRequest { investor_id: id, token };
            let answer = queries(&platform).await?.client().get_investor(timed(request)).await?.into_inner();
            let investor = answer.investor.unwrap_or_default();
            Ok(format!(
                "investor   {}\nname       {}\navailable  {}\nreserved   {}\ncommitted  {}\n",
                investor.id,
                investor.name,
                money(investor.available.as_ref()),
                money(investor.reserved.as_ref()),
                money(investor.committed.as_ref())
            ))
        }
        ShowCommand::Bid { id, platform } => {
            let request = GetBidRequest { bid_id: id, token };
            let answer = queries(&platform).await?.client().get_bid(timed(request)).await?.into_inner();
            Ok(bid(&answer.bid.unwrap_or_default()))
        }
    }
}

fn invoice(invoice: &Invoice) -> String {
    let text = format!(
        "invoice       {}\nissuer        {}\nasking price  {}\nstatus        {}\n",
        invoice.id,
        invoice.issuer_id,
        money(invoice.asking_price.as_ref()),
        invoice.status().as_str_name().trim_start_matches("INVOICE_STATUS_")
    );
    let winner = invoice.winning_bid.as_ref().map(|winner| {
        let amount = money(winner.amount.as_ref());
        format!(
            "winning bid   {}\ninvestor      {}\namount        {amount}\n",
            winner.bid_id, winner.investor_id
        )
    });
    text + &winner.unwrap_or_default()
}

fn bid(bid: &Bid) -> String {
    let text = format!(
        "bid       {}\ninvestor  {}\ninvoice   {}\namount    {}\nstatus    {}\n",
        bid.id,
        bid.investor_id,
        bid.invoice_id,
        money(bid.amount.as_ref()),
        bid_status(bid)
    );
    if bid.reason.is_empty() { text } else { format!("{text}reason    {}\n", bid.reason) }
}

fn bid_status(bid: &Bid) -> &'static str {
    bid.status().as_str_name().trim_start_matches("BID_STATUS_")
}

/// The bid as soon as the saga has come to where nothing more happens to it by itself: it stands, or its money is back.
/// That is a moment after it was placed; where it takes too long, the bid as it is.
async fn answered(platform: &PlatformAddresses, bid_id: String, token: String) -> Result<Bid, ClientError> {
    until(platform, bid_id, token, |status| match status {
        BidStatus::Won | BidStatus::Committed | BidStatus::Released => true,
        BidStatus::Placed | BidStatus::Rejected | BidStatus::Unspecified => false,
    })
    .await
}

/// Waits until the money of an invoice that was decided on is where it belongs.
async fn settled(platform: &PlatformAddresses, invoice_id: String, token: String) -> Result<(), ClientError> {
    let request = GetInvoiceRequest { invoice_id, token };
    let answer = queries(platform).await?.client().get_invoice(timed(request)).await?.into_inner();
    let Some(winner) = answer.invoice.and_then(|invoice| invoice.winning_bid) else { return Ok(()) };
    until(platform, winner.bid_id, String::new(), |status| match status {
        BidStatus::Committed | BidStatus::Released => true,
        BidStatus::Placed | BidStatus::Rejected | BidStatus::Won | BidStatus::Unspecified => false,
    })
    .await
    .map(|_bid| ())
}

async fn until(
    platform: &PlatformAddresses,
    bid_id: String,
    token: String,
    done: impl Fn(BidStatus) -> bool,
) -> Result<Bid, ClientError> {
    let mut queries = queries(platform).await?.client();
    let mut looks = 0;
    loop {
        let request = GetBidRequest { bid_id: bid_id.clone(), token: token.clone() };
        let bid = queries.get_bid(timed(request)).await?.into_inner().bid.unwrap_or_default();
        if done(bid.status()) || looks == LOOKS {
            return Ok(bid);
        }
        looks += 1;
        SystemEnvironment.sleep(BETWEEN_LOOKS).await;
    }
}

/// At least two digits behind the point, as many as it takes.
fn money(money: Option<&Money>) -> String {
    let Some(money) = money else { return "-".to_owned() };
    let nanos = format!("{:09}", money.nanos);
    let fraction = nanos.trim_end_matches('0');
    format!("{}.{fraction:0<2} {}", money.units, money.currency_code)
}

async fn commands(platform: &PlatformAddresses) -> Result<Commands, ClientError> {
    connect(&platform.command_addr).await.map(Commands::new)
}

async fn queries(platform: &PlatformAddresses) -> Result<Queries, ClientError> {
    connect(&platform.query_addr).await.map(Queries::new)
}

/// A refusal is an error of the call, so what is left is that there is no outcome yet.
fn decided(state: CommandState, command_id: &str) -> Result<(), ClientError> {
    match state {
        CommandState::Applied | CommandState::Unchanged => Ok(()),
        CommandState::Pending | CommandState::Unspecified | CommandState::Refused | CommandState::Dead => {
            Err(ClientError::Failed(format!(
                "the platform has accepted command {command_id}, but not decided it in time"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_as_people_write_it() {
        let shown = |units, nanos| money(Some(&Money { currency_code: "EUR".to_owned(), units, nanos }));
        assert_eq!(shown(50, 0), "50.00 EUR");
        assert_eq!(shown(0, 80_000_000), "0.08 EUR");
        assert_eq!(shown(1, 500_000_000), "1.50 EUR");
        assert_eq!(shown(1, 5_000_000), "1.005 EUR");
    }
}
