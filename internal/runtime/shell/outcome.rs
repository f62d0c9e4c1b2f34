//! What became of a command.
//!
//! The rule this module protects: the exit code is that of whoever sent the command and waited.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;

use crate::api::proto::financing::v1::{Command, CommandState, GetCommandRequest, WaitCommandRequest};
use crate::runtime::client::{ClientError, timed, timed_for};

use super::failure::{Failure, answered};
use super::show::details;
use super::{PlatformAddresses, json, span, status};

/// Which command.
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "Show what became of a command.\n\nExits with 2 when it was refused; with 1 when it can never succeed, or \
                  when it was waited for and there is no outcome yet.",
    after_help = "Examples:\n  \
    eval \"$(financing approve $INVOICE --no-wait)\" && financing command $COMMAND --wait 10s\n  \
    financing command $COMMAND --json | jq -r .state"
)]
pub struct CommandArguments {
    /// Its id
    id: String,
    /// Wait this long for the outcome, as in 500ms, 10s or 2m
    #[arg(long, value_parser = span::wait)]
    wait: Option<Duration>,
    /// Only answer with what has seen this: a token, or several, separated by commas
    #[arg(long, default_value = "", hide_default_value = true, conflicts_with = "wait")]
    token: String,
    /// Print JSON: one object
    #[arg(long)]
    json: bool,
    /// Where the platform is
    #[command(flatten)]
    platform: PlatformAddresses,
}

/// Shows it.
pub(super) async fn run(arguments: CommandArguments) -> Result<String, Failure> {
    let CommandArguments { id, wait, token, json, platform } = arguments;
    let asked = async {
        let mut queries = platform.queries().await?;
        let command = if let Some(wait) = wait {
            let request = WaitCommandRequest { command_id: id, wait: Some(span::wire(wait)) };
            queries.wait_command(timed_for(request, wait)).await?.into_inner().command
        } else {
            let request = GetCommandRequest { command_id: id, token };
            queries.get_command(timed(request)).await?.into_inner().command
        };
        Ok(command.unwrap_or_default())
    };
    let command = match asked.await {
        Ok(command) => command,
        Err(failure) => return answered(json, Err(failure)),
    };
    let error = unhappy(&command, wait.is_some());
    if error.is_none() && command.state() == CommandState::Pending && !json {
        let note = "no outcome is known: it waits for one, or nobody has ever sent it (--wait 10s waits)\n";
        // What is said here changes nothing of the answer.
        let _told = std::io::stderr().write_all(note.as_bytes());
    }
    let said = said(command, json);
    match error {
        None => Ok(said),
        Some(error) => Err(Failure::saying(said, error)),
    }
}

/// Why it did not do what it was sent for.
fn unhappy(command: &Command, waited: bool) -> Option<ClientError> {
    match command.state() {
        CommandState::Applied | CommandState::Unchanged => None,
        CommandState::Refused => {
            Some(ClientError::Refused { reason: command.reason.clone(), message: command.message.clone() })
        }
        CommandState::Dead => Some(ClientError::Failed("the command can never succeed".to_owned())),
        CommandState::Pending | CommandState::Unspecified => {
            waited.then(|| ClientError::Failed("there is no outcome yet".to_owned()))
        }
    }
}

fn said(command: Command, json: bool) -> String {
    if json {
        return json::line(&json::Command::from(command));
    }
    let status = status::of_command(command.state());
    details(&[
        ("command", command.id, None),
        ("state", status.name.to_owned(), Some(status.tone)),
        ("reason", command.reason, None),
        ("message", command.message, None),
        ("token", command.token, None),
    ])
}
