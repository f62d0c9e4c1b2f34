//! `financing verify`: checks all that a platform has stored.
//!
//! The rule this module protects: whoever asks whether something is wrong gets one of three answers, each with an exit code of
//! its own: no, yes and what, or that it could not be looked at.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use ::verify::stores::{self, Distributed};
use ::verify::{Expect, LetterState, Report};
use clap::Args;

use super::client::ClientError;
use super::distributed::once;
use super::settings::{CommandDatabase, NatsSettings, QueryDatabase};

/// What servers show of this process.
const NAME: &str = "financing verify";

/// The exit code where something breaches an invariant.
const BREACHED: u8 = 1;
/// The exit code of a program that was called wrongly: `EX_USAGE`.
const USAGE: u8 = 64;
/// The exit code where something could not be looked at, or what was found not be said: `EX_IOERR`.
const UNREADABLE: u8 = 74;

/// The embedded platform's directory, where nothing is named.
const DATA_DIR: &str = "./data";

/// What to check, and how to say what was found.
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "Check all that a platform has stored, while it runs, stopped, or a copy of it: money, outcomes, sagas, \
                  sequences, the bus, the read models. Nothing is changed.\n\nWithout a database it is the embedded platform \
                  in --data-dir; with both databases it is the distributed one, with its streams on NATS.\n\nExits with 0 when \
                  nothing is wrong; with 1 when something is, and names the first record; with 64 when it was called wrongly; \
                  with 74 when something cannot be opened or read, or the report cannot be printed."
)]
pub struct VerifyArguments {
    /// The directory of the embedded platform [default: ./data]
    #[arg(long, env = "FINANCING_DATA_DIR", conflicts_with_all = ["command_database_url", "query_database_url"])]
    data_dir: Option<PathBuf>,
    /// Where the event log is
    #[command(flatten)]
    command: CommandDatabase,
    /// Where the read models are
    #[command(flatten)]
    query: QueryDatabase,
    /// How to reach NATS
    #[command(flatten)]
    nats: Box<NatsSettings>,
    /// The platform has nothing left to do: a saga that is open is wrong, unless one of its commands is dead
    #[arg(long)]
    settled: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn ended(code: u8) -> impl Fn(String) -> ClientError {
    move |message| ClientError::Ended { message, code }
}

/// Checks, prints what was counted and found, and fails with the first breach.
///
/// # Errors
///
/// When something is wrong, or could not be looked at.
pub async fn run(arguments: VerifyArguments) -> Result<String, ClientError> {
    let VerifyArguments { data_dir, command, query, nats, settled, json } = arguments;
    let databases = (command.command_database_url.as_ref(), query.query_database_url.as_ref());
    let unreadable = |error: stores::StoreError| ended(UNREADABLE)(error.to_string());
    let mut audit = match databases {
        (None, None) => {
            let directory = data_dir.unwrap_or_else(|| PathBuf::from(DATA_DIR));
            stores::embedded(&directory).await.map_err(unreadable)?
        }
        (Some(log), Some(models)) => {
            let nats = once(&nats, NAME).await.map_err(ended(UNREADABLE))?;
            let (log, models) = (log.reveal(), models.reveal());
            let platform = Distributed { log, models, nats: nats.client().clone() };
            stores::distributed(platform).await.map_err(unreadable)?
        }
        (Some(_), None) => return Err(ended(USAGE)("--query-database-url is missing".to_owned())),
        (None, Some(_)) => return Err(ended(USAGE)("--command-database-url is missing".to_owned())),
    };
    let report = audit.finish(&Expect { settled, accepted: &[] });
    let text = if json {
        let json =
            serde_json::to_string_pretty(&report).map_err(|error| ended(UNREADABLE)(error.to_string()))?;
        format!("{json}\n")
    } else {
        text(&report)
    };
    let mut output = std::io::stdout();
    let printed = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    let unprinted = printed.err().map(|error| format!("standard output: {error}"));
    match (report.breaches.first(), unprinted) {
        (None, None) => Ok(String::new()),
        (None, Some(unprinted)) => Err(ended(UNREADABLE)(format!("nothing is wrong, but {unprinted}"))),
        // Whatever becomes of the report: that something is wrong must not be lost.
        (Some(first), unprinted) => {
            let unprinted = unprinted.map(|unprinted| format!("; {unprinted}")).unwrap_or_default();
            Err(ended(BREACHED)(format!("{} breaches; the first is {first}{unprinted}", report.breached)))
        }
    }
}

/// The report for people.
fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let mut line = |name: &str, what: String| {
        let _written = writeln!(text, "{name:<14}{what}");
    };
    let counts = &report.counts;
    let outcomes = counts.outcomes;
    line("records", format!("{} ({} facts)", counts.records, counts.facts));
    line(
        "commands",
        format!("{} ({} in the inbox; the queue keeps {})", counts.commands, counts.inbox, counts.queued),
    );
    line(
        "outcomes",
        format!(
            "{} applied, {} unchanged, {} refused, {} dead",
            outcomes.applied, outcomes.unchanged, outcomes.refused, outcomes.dead
        ),
    );
    line("issuers", counts.issuers.to_string());
    line("investors", counts.investors.to_string());
    let invoices = counts.invoices;
    line(
        "invoices",
        format!(
            "{} available, {} financed, {} approved, {} reversed",
            invoices.available, invoices.financed, invoices.approved, invoices.reversed
        ),
    );
    let bids = counts.bids;
    line(
        "bids",
        format!(
            "{} placed, {} won, {} rejected, {} committed, {} released",
            bids.placed, bids.won, bids.rejected, bids.committed, bids.released
        ),
    );
    for (currency, totals) in &counts.money {
        let [available, reserved, committed, added] =
            [totals.available, totals.reserved, totals.committed, totals.added]
                .map(|minor| currency.show(minor));
        line(
            "money",
            format!("{available} available + {reserved} reserved + {committed} committed = {added} added"),
        );
    }
    line("bus", format!("{} messages", counts.messages));
    for note in &report.notes {
        line("", note.clone());
    }
    line("read models", format!("{} rows", counts.rows));
    line("snapshots", counts.snapshots.to_string());
    line("open sagas", report.open_sagas.to_string());
    for saga in &report.open {
        line("", format!("after {}: {}", saga.position, saga.what));
    }
    line(
        "dead letters",
        format!("{} open or discarded, {} retried", report.dead_letters, report.retried_letters),
    );
    for letter in &report.dead {
        let discarded = if letter.state == LetterState::Discarded { " (discarded)" } else { "" };
        line("", format!("{}{discarded}: {}", letter.position, letter.what));
    }
    line("breaches", report.breached.to_string());
    for breach in &report.breaches {
        line("", breach.to_string());
    }
    text
}
