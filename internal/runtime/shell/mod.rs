//! A client for the shell.
//!
//! The rule this module protects: what it prints can be pasted into the next command, or read by a script with `--json`, and its
//! exit code tells a refusal by the business (2) from a failure (1).
//!
//! # Layout
//!
//! - [`acts`]: sell, bid, approve, reverse; `settle` waits for what follows
//! - [`lists`]: invoices, investors, issuers, bids; [`show`]: one of them; [`outcome`]: what became of a command
//! - [`watch`]: one invoice or bid until it settles, and where its changes come from
//! - [`completions`], [`help`]: what a shell and a person want to know of the commands
//! - `table`, `text`, `money`, `status`, `json`, `span`: how things are said, to people and to scripts

use std::io::Write as _;

use clap::{Args, Subcommand};

use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;
use tonic::transport::Channel;

use super::bench::{self, BenchArguments};
use super::client::{ClientError, Commands, Queries, connect};
use super::config::client_address;
use super::dead::{self, DeadCommand};
use super::demo::{self, DemoArguments};
use super::distributed::leaving::{self, BusCommand};
use super::distributed::operations::{self, MigrateArguments, QueueCommand};
use super::populate::{self, PopulateSettings};
use super::rebuild::{self, RebuildArguments};
use super::story::{self, StoryArguments, StuckArguments};
use super::transfer::export::{self, ExportArguments};
use super::transfer::import::{self, ImportArguments};
use super::verify::{self, VerifyArguments};

pub mod acts;
pub mod completions;
mod failure;
pub mod help;
pub(super) mod json;
pub mod lists;
pub(super) mod money;
pub mod outcome;
pub(super) mod settle;
pub mod show;
pub mod span;
pub mod status;
pub(super) mod table;
pub(super) mod text;
pub mod watch;

use acts::{BidArguments, DecideArguments, SellArguments};
use completions::CompletionsArguments;
use failure::Failure;
use lists::{BidsArguments, InvoicesArguments, PartiesArguments};
use outcome::CommandArguments;
use show::ShowCommand;
use watch::WatchArguments;

/// Where the platform is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The platform")]
pub struct PlatformAddresses {
    /// Where commands are taken: host:port, http:// or https:// before it is fine
    #[arg(long, env = "FINANCING_COMMAND_ADDR", default_value = "127.0.0.1:8080", value_parser = client_address)]
    pub command_addr: String,
    /// Where queries are answered: host:port, http:// or https:// before it is fine
    #[arg(long, env = "FINANCING_QUERY_ADDR", default_value = "127.0.0.1:8081", value_parser = client_address)]
    pub query_addr: String,
}

impl PlatformAddresses {
    /// A connection to the command side.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub(super) async fn commands(&self) -> Result<Commands, ClientError> {
        connect(&self.command_addr).await.map(Commands::new)
    }

    /// A connection to the query side.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub(super) async fn queries(&self) -> Result<QueryServiceClient<Channel>, ClientError> {
        connect(&self.query_addr).await.map(|channel| Queries::new(channel).client())
    }
}

/// What the shell client can be asked for.
#[derive(Debug, Clone, Subcommand)]
pub enum ShellCommand {
    /// Offer an invoice for sale: prints its id
    Sell(SellArguments),
    /// Bid on an invoice: prints the bid's id, and what became of it
    Bid(BidArguments),
    /// Approve the financing of an invoice: the asking price is committed
    #[command(after_help = acts::APPROVE_EXAMPLES)]
    Approve(DecideArguments),
    /// Reverse the financing of an invoice: the asking price goes back to the investor
    #[command(after_help = acts::REVERSE_EXAMPLES)]
    Reverse(DecideArguments),
    /// List invoices, or show one
    Invoices(InvoicesArguments),
    /// List investors and what they have, or show one
    #[command(after_help = lists::INVESTORS_EXAMPLES)]
    Investors(PartiesArguments),
    /// List issuers, or show one
    #[command(after_help = lists::ISSUERS_EXAMPLES)]
    Issuers(PartiesArguments),
    /// List bids and what became of them, or show one
    Bids(BidsArguments),
    /// Show an issuer, an investor, an invoice, or a bid
    #[command(subcommand)]
    Show(ShowCommand),
    /// Tell the story of one invoice: who caused what, when, and what comes next
    Story(StoryArguments),
    /// List the steps of sagas that should have been taken and were not: exits with 3 when there are some
    Stuck(StuckArguments),
    /// Show what became of a command
    Command(CommandArguments),
    /// Watch an invoice or a bid until it settles
    Watch(WatchArguments),
    /// Drive a whole market, and show its sagas as they happen
    Demo(DemoArguments),
    /// Register issuers and investors, as another context would, and print their ids
    Populate(Box<PopulateSettings>),
    /// Print what a shell needs to complete commands and flags
    Completions(CompletionsArguments),
    /// Ask a process whether it is well: exits with 0 when it serves
    #[command(after_help = help::HEALTH_EXAMPLES)]
    Health {
        /// Where it answers: host:port
        address: String,
    },
    /// Bring the databases of the distributed platform to the schema of this release, as their owner
    Migrate(MigrateArguments),
    /// Look after the distributed platform's command queue
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Look after the distributed platform's event bus
    #[command(subcommand)]
    Bus(BusCommand),
    /// Look after dead letters: what could not be done
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Build the read models anew from the event log, while the platform goes on
    Rebuild(RebuildArguments),
    /// Check all that a platform has stored
    Verify(VerifyArguments),
    /// Write the whole event log of a platform that has stopped, to make a platform of it elsewhere
    Export(ExportArguments),
    /// Make a platform's event log from what was exported, in either topology
    Import(ImportArguments),
    /// Measure a running platform
    Bench(BenchArguments),
}

/// Does what was asked for, and answers with what is left to print.
///
/// # Errors
///
/// When the platform cannot be reached, refuses, or has no outcome in time. What a script is to read of it is printed.
pub async fn run(command: ShellCommand) -> Result<String, ClientError> {
    let asked = match command {
        ShellCommand::Sell(arguments) => acts::sell(arguments).await,
        ShellCommand::Bid(arguments) => acts::bid(arguments).await,
        ShellCommand::Approve(arguments) => acts::approve(arguments).await,
        ShellCommand::Reverse(arguments) => acts::reverse(arguments).await,
        ShellCommand::Invoices(arguments) => lists::invoices(arguments).await,
        ShellCommand::Investors(arguments) => lists::investors(arguments).await,
        ShellCommand::Issuers(arguments) => lists::issuers(arguments).await,
        ShellCommand::Bids(arguments) => lists::bids(arguments).await,
        ShellCommand::Show(show) => show::run(show).await,
        ShellCommand::Command(arguments) => outcome::run(arguments).await,
        ShellCommand::Watch(arguments) => watch::run(arguments).await,
        ShellCommand::Story(arguments) => return story::story(arguments).await,
        ShellCommand::Stuck(arguments) => return story::stuck(arguments).await,
        ShellCommand::Demo(arguments) => return demo::run(arguments).await,
        ShellCommand::Populate(arguments) => return populate::populate(*arguments).await,
        ShellCommand::Completions(arguments) => return Ok(completions::run(&arguments)),
        ShellCommand::Health { address } => return operations::health(&address).await,
        ShellCommand::Migrate(arguments) => return operations::migrate(arguments).await,
        ShellCommand::Queue(command) => return operations::queue(command).await,
        ShellCommand::Bus(command) => return leaving::bus(command).await,
        ShellCommand::Dead(command) => return dead::run(command).await,
        ShellCommand::Rebuild(arguments) => return rebuild::run(arguments).await,
        ShellCommand::Verify(arguments) => return verify::run(arguments).await,
        ShellCommand::Export(arguments) => return export::run(arguments).await,
        ShellCommand::Import(arguments) => return import::run(arguments).await,
        ShellCommand::Bench(arguments) => return bench::run(arguments).await,
    };
    match asked {
        Ok(text) => Ok(text),
        Err(Failure { said, error, .. }) => {
            say(&said)?;
            Err(error)
        }
    }
}

/// Prints at once.
///
/// # Errors
///
/// When standard output cannot be written to.
pub(super) fn say(text: &str) -> Result<(), ClientError> {
    let mut output = std::io::stdout();
    let printed = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    printed.map_err(|error| ClientError::Failed(format!("standard output: {error}")))
}
