//! `financing watch`: an invoice or a bid until it settles.
//!
//! The rule this module protects: who watches sees where it stands, and then every change that the platform shows, in its order
//! and once, also over a platform that is started again; and it ends by itself where nothing can follow any more.

mod changes;
mod live;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use eventsourcing::environment::{Environment as _, Timestamp, within};
use serde::Serialize;

use crate::api::proto::financing::v1::{BidStatus, InvoiceStatus};
use crate::runtime::client::ClientError;
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::terminal::{Terminal, Tone};

use super::failure::{Failure, answered};
use super::status::{self, Status};
use super::{PlatformAddresses, json, money, say, settle, show, span, text};

use changes::{Change, Changes};

/// Until when to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Until {
    /// A bid has won (or settled); an invoice is financed
    #[value(alias = "financed")]
    Won,
    /// A bid's money is committed or back; an invoice is approved or reversed, and so is the money of the bid that won it
    Settled,
}

/// What to watch.
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "Watch an invoice or a bid until it settles: where it stands, and then a line for every change, with the time \
                  since the line before.\n\nWhere the platform goes away, it is waited for, and the watch goes on where it \
                  was. ctrl-c ends it. Exits with 1 when --timeout comes first.",
    after_help = "Examples:\n  \
    financing watch $INVOICE\n  \
    financing watch $BID --until won --timeout 10s\n  \
    financing watch $BID --json | jq -r .bid.status"
)]
pub struct WatchArguments {
    /// The id of an invoice or a bid
    id: String,
    /// Until when
    #[arg(long, value_enum, default_value = "settled")]
    until: Until,
    /// Give up after this time, as in 10s or 2m
    #[arg(long, value_parser = span::span)]
    timeout: Option<Duration>,
    /// Begin with what has seen this: the token of a command, or several, separated by commas
    #[arg(long, default_value = "", hide_default_value = true)]
    token: String,
    /// Print JSON: one object a line
    #[arg(long)]
    json: bool,
    /// Where the platform is
    #[command(flatten)]
    platform: PlatformAddresses,
}

/// A change, for scripts.
#[derive(Debug, Serialize)]
struct Line {
    /// Milliseconds since the line before.
    after_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    invoice: Option<json::Invoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bid: Option<json::Bid>,
}

/// What is known of what is watched.
#[derive(Debug, Default)]
struct Known {
    /// Where everything that was printed stands, by its id.
    standing: BTreeMap<String, (&'static str, String)>,
    /// The watched invoice, and the bid that won it.
    invoice: Option<(InvoiceStatus, Option<String>)>,
    /// Every bid that came by.
    bids: BTreeMap<String, BidStatus>,
}

impl Known {
    /// Whether the change says anything new.
    fn learn(&mut self, change: &Change) -> bool {
        let (id, standing) = match change {
            Change::Invoice(invoice) => {
                let winner = invoice.winning_bid.as_ref().map(|bid| bid.bid_id.clone());
                self.invoice = Some((invoice.status(), winner));
                (invoice.id.clone(), (status::of_invoice(invoice).name, String::new()))
            }
            Change::Bid(bid) => {
                self.bids.insert(bid.id.clone(), bid.status());
                (bid.id.clone(), (status::of_bid(bid).name, bid.reason.clone()))
            }
        };
        self.standing.insert(id, standing.clone()) != Some(standing)
    }

    /// Whether it has come to where the watch ends.
    fn is_over(&self, until: Until) -> bool {
        let is_over = |status: BidStatus| match until {
            Until::Won => settle::stands(status),
            Until::Settled => settle::is_settled(status),
        };
        let Some((status, winner)) = &self.invoice else { return self.bids.values().copied().any(is_over) };
        match (until, status) {
            (_, InvoiceStatus::Unspecified | InvoiceStatus::Available)
            | (Until::Settled, InvoiceStatus::Financed) => false,
            // What it says of the bid comes from elsewhere, a moment before or after.
            (Until::Won, InvoiceStatus::Financed)
            | (Until::Won | Until::Settled, InvoiceStatus::Approved | InvoiceStatus::Reversed) => {
                winner.as_ref().and_then(|winner| self.bids.get(winner)).copied().is_some_and(is_over)
            }
        }
    }
}

/// Watches, and prints as it goes.
pub(super) async fn run(arguments: WatchArguments) -> Result<String, Failure> {
    let json = arguments.json;
    let watched = async {
        let timeout = arguments.timeout;
        let watched = watch(arguments);
        match timeout {
            None => watched.await,
            Some(timeout) => within(&SystemEnvironment, timeout, watched).await.unwrap_or_else(|| {
                Err(ClientError::Failed(format!("it has not come so far within {timeout:?}")).into())
            }),
        }
    };
    answered(json, watched.await)
}

async fn watch(arguments: WatchArguments) -> Result<String, Failure> {
    let WatchArguments { id, until, token, json, platform, .. } = arguments;
    let mut changes = Changes::of(platform, id, &token).await?;
    let mut known = Known::default();
    let mut last: Option<Timestamp> = None;
    loop {
        let change = changes.next().await?;
        if known.learn(&change) {
            let now = SystemEnvironment.now();
            let since = last.map(|last| now.as_micros().saturating_sub(last.as_micros()));
            last = Some(now);
            say(&if json { line(change, since) } else { shown(&change, since, show::terminal()) })?;
        }
        if known.is_over(until) && !changes.has_more() {
            return Ok(String::new());
        }
    }
}

fn line(change: Change, since: Option<u64>) -> String {
    let (invoice, bid) = match change {
        Change::Invoice(invoice) => (Some(invoice.into()), None),
        Change::Bid(bid) => (None, Some(bid.into())),
    };
    json::line(&Line { after_ms: since.unwrap_or(0) / 1000, invoice, bid })
}

/// A span of time, in seconds with three digits behind the point.
pub(in crate::runtime) fn seconds(micros: u64) -> String {
    let millis = micros / 1000;
    format!("{}.{:03}s", millis / 1000, millis % 1000)
}

/// The narrowest terminal for whole ids, in columns.
const WHOLE: usize = 105;

fn shown(change: &Change, since: Option<u64>, terminal: Terminal) -> String {
    let since = since.map(|since| format!("+{}", seconds(since))).unwrap_or_default();
    let (what, id, Status { name, tone, .. }, amount, reason) = match change {
        Change::Invoice(invoice) => {
            ("invoice", &invoice.id, status::of_invoice(invoice), invoice.asking_price.as_ref(), "")
        }
        Change::Bid(bid) => ("bid", &bid.id, status::of_bid(bid), bid.amount.as_ref(), bid.reason.as_str()),
    };
    let id = if terminal.width() < WHOLE { text::shortened(id, 8) } else { id.clone() };
    let line = format!(
        "{}  {}  {}  {}{}  {}  {reason}",
        terminal.paint(Tone::Quiet, &text::right(&since, 8)),
        text::left(what, 7),
        id,
        terminal.paint(tone, name),
        " ".repeat(9_usize.saturating_sub(name.len())),
        money::optional(amount)
    );
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use crate::api::proto::financing::v1::{Bid, Invoice, WinningBid};

    use super::*;

    fn invoice(status: InvoiceStatus, winner: Option<&str>) -> Change {
        let winning_bid =
            winner.map(|winner| WinningBid { bid_id: winner.to_owned(), ..WinningBid::default() });
        let id = "01a1fda0-7b2c-7000-8000-000000000001".to_owned();
        Change::Invoice(Invoice { id, status: status.into(), winning_bid, ..Invoice::default() })
    }

    fn bid(id: &str, status: BidStatus) -> Change {
        Change::Bid(Bid { id: id.to_owned(), status: status.into(), ..Bid::default() })
    }

    #[test]
    fn an_invoice_settles_with_the_money_of_the_bid_that_won() {
        let mut known = Known::default();
        assert!(known.learn(&invoice(InvoiceStatus::Available, None)));
        assert!(!known.learn(&invoice(InvoiceStatus::Available, None)), "nothing new");
        known.learn(&bid("other", BidStatus::Released));
        assert!(!known.is_over(Until::Won));
        known.learn(&invoice(InvoiceStatus::Financed, Some("winner")));
        assert!(!known.is_over(Until::Won), "the bid's line is still to come");
        known.learn(&bid("winner", BidStatus::Won));
        assert!(known.is_over(Until::Won) && !known.is_over(Until::Settled));
        known.learn(&invoice(InvoiceStatus::Approved, Some("winner")));
        assert!(known.is_over(Until::Won) && !known.is_over(Until::Settled));
        known.learn(&bid("winner", BidStatus::Committed));
        assert!(known.is_over(Until::Settled));
    }

    #[test]
    fn a_bid_settles_when_its_money_does() {
        let mut known = Known::default();
        known.learn(&bid("b", BidStatus::Placed));
        assert!(!known.is_over(Until::Won));
        known.learn(&bid("b", BidStatus::Won));
        assert!(known.is_over(Until::Won) && !known.is_over(Until::Settled));
        known.learn(&bid("b", BidStatus::Released));
        assert!(known.is_over(Until::Settled));
    }

    #[test]
    fn a_change_is_a_line_that_fits() {
        let change = invoice(InvoiceStatus::Financed, None);
        assert_eq!(
            shown(&change, Some(1_204_900), Terminal::new(80, false)),
            " +1.204s  invoice  01a1…00000001  FINANCED   -\n"
        );
        assert_eq!(
            shown(&change, None, Terminal::new(160, false)),
            "          invoice  01a1fda0-7b2c-7000-8000-000000000001  FINANCED   -\n"
        );
    }
}
