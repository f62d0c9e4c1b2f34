//! Looking after dead letters: `financing dead`.
//!
//! The rule this module protects: whoever retries many learns of each what became of it, and its exit code tells a refusal by the
//! business (2) from a failure (1).

mod show;
mod turns;

use std::io::Write as _;

use clap::{Args, Subcommand, ValueEnum};
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::api::proto::financing::v1::dead_letter_service_client::DeadLetterServiceClient;
use crate::api::proto::financing::v1::{
    DeadLetter, DeadLetterState, DiscardDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest,
    RetryDeadLetterRequest,
};

use super::client::{ClientError, connect, timed};
use super::config::client_address;
use super::terminal::Terminal;
use turns::Turns;

/// How long the client waits for an outcome.
const WAIT: prost_types::Duration = prost_types::Duration { seconds: 20, nanos: 0 };

/// Letters that are asked for at once.
const PAGE: i32 = 200;

/// The most letters of one chain of retries that are looked at.
const LONGEST_CHAIN: usize = 50;

/// Where the platform is looked after.
#[derive(Debug, Clone, Args)]
pub struct AdminPlatform {
    /// Where the platform is looked after: host:port, http:// or https:// before it is fine
    #[arg(long, env = "FINANCING_ADMIN_ADDR", default_value = "127.0.0.1:8082", value_parser = client_address)]
    admin_addr: String,
}

/// Which letters are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Nothing was done about them
    Open,
    /// They were tried again
    Retried,
    /// Somebody has discarded them
    Discarded,
    /// All of them
    All,
}

impl Which {
    const fn state(self) -> DeadLetterState {
        match self {
            Self::Open => DeadLetterState::Open,
            Self::Retried => DeadLetterState::Retried,
            Self::Discarded => DeadLetterState::Discarded,
            Self::All => DeadLetterState::Unspecified,
        }
    }
}

/// What can be done about dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadCommand {
    /// List dead letters: the open ones, unless others are asked for
    List {
        /// Which of them
        #[arg(long, value_enum, default_value = "open")]
        state: Which,
        /// Only commands for this aggregate, as in investor/0190163d-8694-739b-aea5-966c26f8ad90
        #[arg(long)]
        target: Option<String>,
        /// Where the platform is looked after
        #[command(flatten)]
        platform: AdminPlatform,
    },
    /// Show a dead letter: why it died, what it says, and what was done about it
    Show {
        /// The dead letter
        id: String,
        /// Print the payload alone, as it was kept
        #[arg(long)]
        payload: bool,
        /// Where the platform is looked after
        #[command(flatten)]
        platform: AdminPlatform,
    },
    /// Try a dead letter again
    #[command(
        long_about = "Try a dead letter again, or with --all every open one, in order, each after the one before has its outcome. \
                      A command is not retried while an earlier one for the same aggregate is open: retry or discard that one \
                      first. One that fails holds up no other.\n\nExits with 2 when the business refuses a command or one has to \
                      wait for an earlier one, and with 1 when one fails or dies again."
    )]
    Retry {
        /// The dead letter
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All that are open
        #[arg(long)]
        all: bool,
        /// With --all: only commands for this aggregate
        #[arg(long, requires = "all")]
        target: Option<String>,
        /// Where the platform is looked after
        #[command(flatten)]
        platform: AdminPlatform,
    },
    /// Record that nothing is to be done about a dead letter. For good
    Discard {
        /// The dead letter
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All that are open
        #[arg(long)]
        all: bool,
        /// With --all: only commands for this aggregate
        #[arg(long, requires = "all")]
        target: Option<String>,
        /// Why: whoever looks later wants to know
        #[arg(long)]
        reason: String,
        /// Who says so
        #[arg(long, env = "USER", hide_env = true, default_value = "operator")]
        actor: String,
        /// Where the platform is looked after
        #[command(flatten)]
        platform: AdminPlatform,
    },
}

/// Does what was asked for, and answers with what to print.
///
/// # Errors
///
/// When the platform cannot be reached, or refuses.
pub async fn run(command: DeadCommand) -> Result<String, ClientError> {
    let terminal = Terminal::standard_output();
    match command {
        DeadCommand::List { state, target, platform } => {
            let mut client = client(&platform).await?;
            let letters = list(&mut client, state.state(), target).await?;
            Ok(show::list(terminal, &letters, state == Which::All))
        }
        DeadCommand::Show { id, payload, platform } => {
            let mut client = client(&platform).await?;
            let request = GetDeadLetterRequest { dead_letter_id: id };
            let found = client.get_dead_letter(timed(request)).await?.into_inner();
            if payload {
                let mut out = std::io::stdout();
                let written = out.write_all(&found.payload).and_then(|()| out.flush());
                written.map_err(|error| ClientError::Failed(format!("standard output: {error}")))?;
                return Ok(String::new());
            }
            let letter = found.dead_letter.unwrap_or_default();
            let history = history(&mut client, &letter).await?;
            Ok(show::letter(terminal, &letter, &history, &found.payload, found.whole))
        }
        DeadCommand::Retry { id, all: _, target, platform } => {
            let mut client = client(&platform).await?;
            let ids = chosen(&mut client, id, target).await?;
            retry(&mut client, terminal, ids).await
        }
        DeadCommand::Discard { id, all: _, target, reason, actor, platform } => {
            let mut client = client(&platform).await?;
            let ids = chosen(&mut client, id, target).await?;
            discard(&mut client, terminal, ids, &reason, &actor).await
        }
    }
}

type Client = DeadLetterServiceClient<Channel>;

async fn client(platform: &AdminPlatform) -> Result<Client, ClientError> {
    connect(&platform.admin_addr).await.map(DeadLetterServiceClient::new)
}

/// All pages of a list.
async fn list(
    client: &mut Client,
    state: DeadLetterState,
    target: Option<String>,
) -> Result<Vec<DeadLetter>, ClientError> {
    let (mut letters, mut page_token) = (Vec::new(), String::new());
    let target = target.unwrap_or_default();
    loop {
        let request = ListDeadLettersRequest {
            page_size: PAGE,
            page_token,
            state: state.into(),
            target: target.clone(),
        };
        let page = client.list_dead_letters(timed(request)).await?.into_inner();
        letters.extend(page.dead_letters);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(letters);
        }
    }
}

/// The one that is named, or all that are open.
async fn chosen(
    client: &mut Client,
    id: Option<String>,
    target: Option<String>,
) -> Result<Vec<String>, ClientError> {
    if let Some(id) = id {
        return Ok(vec![id]);
    }
    let open = list(client, DeadLetterState::Open, target).await?;
    Ok(open.into_iter().map(|letter| letter.id).collect())
}

/// The letters of which this one is a retry, and those that its own retries have become, in order.
async fn history(client: &mut Client, letter: &DeadLetter) -> Result<Vec<DeadLetter>, ClientError> {
    let get = async |client: &mut Client, id: String| {
        let request = GetDeadLetterRequest { dead_letter_id: id };
        let found = client.get_dead_letter(timed(request)).await?.into_inner();
        Ok::<_, ClientError>(found.dead_letter.unwrap_or_default())
    };
    let mut chain = std::collections::VecDeque::from([letter.clone()]);
    while let Some(before) = chain.front().map(|first| first.retry_of.clone()).filter(|id| !id.is_empty())
        && chain.len() < LONGEST_CHAIN
    {
        chain.push_front(get(client, before).await?);
    }
    let next =
        |last: &DeadLetter| last.resolution.as_ref().map(|resolution| resolution.dead_letter_id.clone());
    while let Some(behind) = chain.back().and_then(next).filter(|id| !id.is_empty())
        && chain.len() < LONGEST_CHAIN
    {
        chain.push_back(get(client, behind).await?);
    }
    Ok(chain.into())
}

async fn retry(client: &mut Client, terminal: Terminal, ids: Vec<String>) -> Result<String, ClientError> {
    let resolve = async |id: String| {
        let request = RetryDeadLetterRequest { dead_letter_id: id, wait: Some(WAIT) };
        let answer = client.retry_dead_letter(timed(request)).await?;
        Ok(answer.into_inner().resolution.unwrap_or_default())
    };
    Turns { terminal, what: "retried", say }.take(ids, resolve).await
}

async fn discard(
    client: &mut Client,
    terminal: Terminal,
    ids: Vec<String>,
    reason: &str,
    actor: &str,
) -> Result<String, ClientError> {
    let actor = MetadataValue::try_from(actor)
        .map_err(|_| ClientError::Failed("--actor: must be printable ASCII characters".to_owned()))?;
    let resolve = async |id: String| {
        let reason = reason.to_owned();
        let message = DiscardDeadLetterRequest { dead_letter_id: id, reason, wait: Some(WAIT) };
        let mut request: Request<_> = timed(message);
        request.metadata_mut().insert("actor", actor.clone());
        let answer = client.discard_dead_letter(request).await?;
        Ok(answer.into_inner().resolution.unwrap_or_default())
    };
    Turns { terminal, what: "discarded", say }.take(ids, resolve).await
}

/// Prints a line at once: whoever retries many wants to see how far it has come.
fn say(line: &str) -> Result<(), ClientError> {
    let mut out = std::io::stdout();
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| ClientError::Failed(format!("standard output: {error}")))
}
