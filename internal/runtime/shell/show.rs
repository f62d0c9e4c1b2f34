//! One of a kind, with all that is known of it.
//!
//! The rule this module protects: nothing is left out, and ids are whole.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use clap::{Args, Subcommand};

use crate::api::proto::financing::v1::{
    Bid, GetBidRequest, GetInvestorRequest, GetInvoiceRequest, GetIssuerRequest, Investor, Invoice, Issuer,
};
use crate::runtime::client::timed;
use crate::runtime::terminal::{Terminal, Tone};

use super::failure::{Failure, answered};
use super::{PlatformAddresses, json, money, status, text};

/// What can be shown.
#[derive(Debug, Clone, Subcommand)]
pub enum ShowCommand {
    /// An issuer
    Issuer(ShowArguments),
    /// An invoice and the bid that won it
    Invoice(ShowArguments),
    /// An investor's balances
    Investor(ShowArguments),
    /// A bid and what became of it
    Bid(ShowArguments),
}

/// Which one.
#[derive(Debug, Clone, Args)]
pub struct ShowArguments {
    /// Its id
    id: String,
    /// Only show what has seen this: the token of a command, or several, separated by commas
    #[arg(long, default_value = "", hide_default_value = true)]
    token: String,
    /// Print JSON: one object
    #[arg(long)]
    json: bool,
    /// Where the platform is
    #[command(flatten)]
    platform: PlatformAddresses,
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// An issuer.
    Issuer,
    /// An investor.
    Investor,
    /// An invoice.
    Invoice,
    /// A bid.
    Bid,
}

/// Shows it.
pub(super) async fn run(command: ShowCommand) -> Result<String, Failure> {
    let (what, arguments) = match command {
        ShowCommand::Issuer(arguments) => (What::Issuer, arguments),
        ShowCommand::Investor(arguments) => (What::Investor, arguments),
        ShowCommand::Invoice(arguments) => (What::Invoice, arguments),
        ShowCommand::Bid(arguments) => (What::Bid, arguments),
    };
    let ShowArguments { id, token, json, platform } = arguments;
    one(what, &platform, id, token, json).await
}

/// One of a kind.
pub(super) async fn one(
    what: What,
    platform: &PlatformAddresses,
    id: String,
    token: String,
    json: bool,
) -> Result<String, Failure> {
    let shown = async {
        let mut queries = platform.queries().await?;
        Ok(match what {
            What::Issuer => {
                let request = GetIssuerRequest { issuer_id: id, token };
                let one = queries.get_issuer(timed(request)).await?.into_inner().issuer.unwrap_or_default();
                if json { json::line(&json::Issuer::from(one)) } else { issuer(&one) }
            }
            What::Investor => {
                let request = GetInvestorRequest { investor_id: id, token };
                let one =
                    queries.get_investor(timed(request)).await?.into_inner().investor.unwrap_or_default();
                if json { json::line(&json::Investor::from(one)) } else { investor(&one) }
            }
            What::Invoice => {
                let request = GetInvoiceRequest { invoice_id: id, token };
                let one = queries.get_invoice(timed(request)).await?.into_inner().invoice.unwrap_or_default();
                if json { json::line(&json::Invoice::from(one)) } else { invoice(&one) }
            }
            What::Bid => {
                let request = GetBidRequest { bid_id: id, token };
                let one = queries.get_bid(timed(request)).await?.into_inner().bid.unwrap_or_default();
                if json { json::line(&json::Bid::from(one)) } else { bid(&one) }
            }
        })
    };
    answered(json, shown.await)
}

/// Where tables are printed. What goes to a file or to another program has all the columns that it wants, unless `COLUMNS`
/// says how many there are.
pub(super) fn terminal() -> Terminal {
    let told = std::env::var_os("COLUMNS").is_some_and(|columns| !columns.is_empty());
    if told || std::io::stdout().is_terminal() {
        Terminal::standard_output()
    } else {
        Terminal::new(usize::MAX, false)
    }
}

/// Names and what they stand for, a line each. What is empty is left out.
pub(super) fn details(lines: &[(&str, String, Option<Tone>)]) -> String {
    let terminal = Terminal::standard_output();
    let widest = lines.iter().map(|(name, ..)| text::width(name)).max().unwrap_or(0);
    let painted = |said: &str, tone: Option<Tone>| {
        tone.map_or_else(|| said.to_owned(), |tone| terminal.paint(tone, said))
    };
    let mut text = String::new();
    for (name, said, tone) in lines.iter().filter(|(_, said, _)| !said.is_empty()) {
        // Writing to a string does not fail.
        let _written = writeln!(text, "{}  {}", text::left(name, widest), painted(said, *tone));
    }
    text
}

fn issuer(issuer: &Issuer) -> String {
    details(&[("issuer", issuer.id.clone(), None), ("name", issuer.name.clone(), None)])
}

fn investor(investor: &Investor) -> String {
    details(&[
        ("investor", investor.id.clone(), None),
        ("name", investor.name.clone(), None),
        ("available", money::optional(investor.available.as_ref()), None),
        ("reserved", money::optional(investor.reserved.as_ref()), None),
        ("committed", money::optional(investor.committed.as_ref()), None),
    ])
}

fn invoice(invoice: &Invoice) -> String {
    let status = status::of_invoice(invoice);
    let mut lines = vec![
        ("invoice", invoice.id.clone(), None),
        ("issuer", invoice.issuer_id.clone(), None),
        ("asking price", money::optional(invoice.asking_price.as_ref()), None),
        ("status", status.name.to_owned(), Some(status.tone)),
    ];
    if let Some(winner) = &invoice.winning_bid {
        lines.extend([
            ("winning bid", winner.bid_id.clone(), None),
            ("investor", winner.investor_id.clone(), None),
            ("amount", money::optional(winner.amount.as_ref()), None),
        ]);
    }
    details(&lines)
}

fn bid(bid: &Bid) -> String {
    let status = status::of_bid(bid);
    details(&[
        ("bid", bid.id.clone(), None),
        ("investor", bid.investor_id.clone(), None),
        ("invoice", bid.invoice_id.clone(), None),
        ("amount", money::optional(bid.amount.as_ref()), None),
        ("status", status.name.to_owned(), Some(status.tone)),
        ("reason", bid.reason.clone(), None),
    ])
}
