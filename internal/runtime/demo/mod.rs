//! `financing demo`: a whole market on a running platform.
//!
//! The rule this module protects: it ends with a balance sheet that adds up to the cent, or with an error; and what it does is
//! decided by its seed, so that it can be done again, and then does nothing twice.
//!
//! # Layout
//!
//! - [`plan`]: what is done, out of a seed
//! - [`market`]: doing it
//! - [`story`]: telling what happens meanwhile
//! - [`sheet`]: adding it up

mod market;
mod plan;
mod sheet;
mod story;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use eventsourcing::environment::Environment as _;
use futures_util::future;
use tokio::sync::oneshot;

use crate::api::proto::financing::v1::{Bid, BidStatus, InvoiceStatus, WatchFactsRequest};
use crate::runtime::client::ClientError;
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::shell::{PlatformAddresses, json, say};
use crate::runtime::terminal::{Terminal, Tone};

use market::{Closing, Market};
use plan::Plan;
use sheet::{Check, Sheet};
use story::{Ending, Story};

/// What to play.
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "Drive a whole market on a running platform: sales, bids that win, that lose a race, that come too late or are \
                  too low, that an issuer places on an invoice of its own, that nobody has the money for, or that are on no invoice; \
                  approvals, reversals, and decisions that come too late. Its sagas are shown as they happen, and at the end a \
                  balance sheet that adds up to the cent: else it exits with 1.\n\nThe same seed with as many invoices repeats the \
                  same requests. On a platform that has played it already nothing happens twice, and the sheet is the same. Who \
                  wins a race is the platform's decision, and not the seed's.",
    after_help = "Examples:\n  financing demo\n  financing demo --seed spring --invoices 40\n  \
                  financing demo --json | jq .adds_up"
)]
pub struct DemoArguments {
    /// What everything is decided by: any word [default: a new one]
    #[arg(long)]
    seed: Option<String>,
    /// How many invoices are sold
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    invoices: u32,
    /// Print JSON: one object, at the end
    #[arg(long)]
    json: bool,
    /// Where the platform is
    #[command(flatten)]
    platform: PlatformAddresses,
}

/// Plays it.
///
/// # Errors
///
/// When the platform does not answer, when anything comes out differently than planned, or when it does not add up.
pub async fn run(arguments: DemoArguments) -> Result<String, ClientError> {
    play(arguments).await.map_err(unplanned)
}

/// A refusal that ends the demo is one that nobody has planned: a failure like any other.
fn unplanned(error: ClientError) -> ClientError {
    match error {
        ClientError::Refused { .. } => ClientError::Failed(error.to_string()),
        ClientError::Ended { .. } | ClientError::Failed(_) => error,
    }
}

async fn play(arguments: DemoArguments) -> Result<String, ClientError> {
    let DemoArguments { seed, invoices, json, platform } = arguments;
    let seed = seed.unwrap_or_else(|| format!("{:08x}", SystemEnvironment.random() >> 32));
    let plan = Plan::of(&seed, invoices);
    let (commands, mut queries) = (platform.commands().await?, platform.queries().await?);
    let request = WatchFactsRequest { from_end: true, ..WatchFactsRequest::default() };
    let facts = queries.watch_facts(request).await?.into_inner();

    let terminal = (!json).then(Terminal::standard_output);
    if let Some(terminal) = terminal {
        let (sellers, investors) = (plan.issuers.len(), plan.investors.len());
        let title = format!("A market of {invoices} invoices, {sellers} issuers and {investors} investors");
        let title = terminal.paint(Tone::Strong, &title);
        say(&format!("{title}\nagain: financing demo --seed {seed} --invoices {invoices}\n\n"))?;
    }
    let market = Market::new(&plan, commands, queries);
    let (ended, ending) = oneshot::channel::<BTreeSet<Ending>>();
    let played = async {
        let closing = market.run().await?;
        // Where nobody tells any more, the teller has said why.
        let _untold = ended.send(closing.endings.clone());
        Ok::<_, ClientError>(closing)
    };
    let telling = Story::of(&plan, facts, terminal).tell(&SystemEnvironment, ending);
    let (closing, told) = future::try_join(played, telling).await?;

    let sheet = Sheet::of(&closing.investors, &closing.invoices)?;
    let checks = sheet.checks();
    let adds_up = checks.iter().all(|check| check.holds);
    match terminal {
        Some(terminal) => say(&text(terminal, &closing, told, &sheet, &checks))?,
        None => say(&object(&seed, &closing, told, &sheet, &checks))?,
    }
    if adds_up { Ok(String::new()) } else { Err(ClientError::Failed("it does not add up".to_owned())) }
}

/// What is counted.
struct Counts {
    approved: usize,
    reversed: usize,
    unsold: usize,
    bids: usize,
    committed: usize,
    lost: usize,
    refused: usize,
}

impl Counts {
    fn of(closing: &Closing) -> Self {
        let invoices = |status| closing.invoices.iter().filter(|invoice| invoice.status() == status).count();
        let bids = |is_so: fn(&Bid) -> bool| closing.bids.iter().filter(|bid| is_so(bid)).count();
        Self {
            approved: invoices(InvoiceStatus::Approved),
            reversed: invoices(InvoiceStatus::Reversed),
            unsold: invoices(InvoiceStatus::Available),
            bids: closing.bids.len(),
            committed: bids(|bid| bid.status() == BidStatus::Committed),
            lost: bids(|bid| !bid.reason.is_empty()),
            refused: closing.refused,
        }
    }
}

fn text(terminal: Terminal, closing: &Closing, told: usize, sheet: &Sheet, checks: &[Check]) -> String {
    let Counts { approved, reversed, unsold, bids, committed, lost, refused } = Counts::of(closing);
    let happened = if told == 0 {
        "nothing: this seed was played here before, and nothing happens twice".to_owned()
    } else {
        format!("{told} facts and refusals")
    };
    let adds_up = checks.iter().all(|check| check.holds);
    let mut said = String::new();
    for Check { says, holds } in checks {
        let (tone, word) = if *holds { (Tone::Good, "holds") } else { (Tone::Bad, "FAILS") };
        // Writing to a string does not fail.
        let _written = writeln!(said, "{}  {says}", terminal.paint(tone, word));
    }
    let verdict = if adds_up {
        terminal.paint(Tone::Good, "It adds up to the cent.")
    } else {
        terminal.paint(Tone::Bad, "It does not add up.")
    };
    format!(
        "\nhappened   {happened}\ninvoices   {approved} approved, {reversed} reversed, {unsold} unsold\n\
         bids       {bids} placed: {committed} committed, {lost} lost, {} called off; all have settled\n\
         refused    {refused} commands\n\n{}\n{said}\n{verdict}\n",
        bids - committed - lost,
        sheet.render(terminal)
    )
}

fn object(seed: &str, closing: &Closing, told: usize, sheet: &Sheet, checks: &[Check]) -> String {
    let Counts { approved, reversed, unsold, bids, committed, lost, refused } = Counts::of(closing);
    json::line(&serde_json::json!({
        "seed": seed,
        "facts_told": told,
        "invoices": { "approved": approved, "reversed": reversed, "unsold": unsold },
        "bids": { "placed": bids, "committed": committed, "lost": lost, "called_off": bids - committed - lost },
        "commands_refused": refused,
        "balance_sheet": sheet.json(),
        "checks": checks,
        "adds_up": checks.iter().all(|check| check.holds),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_nobody_has_planned_is_a_failure() {
        let (reason, message) = ("SELF_FINANCING".to_owned(), "not your own".to_owned());
        let error = unplanned(ClientError::Refused { reason, message });
        assert_eq!(
            (error.exit_code(), error.to_string().as_str()),
            (1, "refused: not your own (SELF_FINANCING)")
        );
    }
}
