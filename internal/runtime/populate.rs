//! Registers issuers and investors, as the Registering context would.
//!
//! The rule this module protects: when it prints an id, the issuer or investor is there: a command with it is
//! not refused, a query for it finds it.

use std::fmt::Write as _;

use clap::Parser;
use eventsourcing::environment::Environment as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use crate::api::proto::financing::v1::{CommandState, Money, WaitCommandRequest};
use crate::api::proto::registering::v1::{
    IntegrationEvent, InvestorRegistered, IssuerRegistered, PublishIntegrationEventsRequest,
    integration_event::Event,
};

use super::client::{ClientError, Commands, Queries, amount, connect, timed};
use super::config::{FileSettings, client_address};
use super::environment::SystemEnvironment;

/// Events in one call: with names of this size far below the limit of a request.
const CHUNK: usize = 200;

/// How many outcomes are waited for at once.
const WAITING: usize = 64;

/// The settings of `populate`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "populate",
    version,
    about = "Registers issuers and investors on a running platform, waits until they are there, and prints their ids"
)]
pub struct PopulateSettings {
    /// Where commands are taken: host:port, http:// or https:// before it is fine
    #[arg(long, env = "FINANCING_COMMAND_ADDR", default_value = "127.0.0.1:8080", value_parser = client_address)]
    pub command_addr: String,
    /// Where queries are answered: host:port, http:// or https:// before it is fine
    #[arg(long, env = "FINANCING_QUERY_ADDR", default_value = "127.0.0.1:8081", value_parser = client_address)]
    pub query_addr: String,
    /// How many issuers to register
    #[arg(long, default_value_t = 5, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub issuers: u32,
    /// How many investors to register
    #[arg(long, default_value_t = 5, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub investors: u32,
    /// Every investor's opening balance
    #[arg(long, default_value = "100.00", allow_negative_numbers = true)]
    pub balance: String,
    /// The balances' currency, an ISO 4217 code
    #[arg(long, default_value = "EUR")]
    pub currency: String,
    /// Makes the ids repeatable: the same word gives the same ids, and registers them once
    #[arg(long)]
    pub seed: Option<String>,
    /// Where else settings come from
    #[command(flatten)]
    pub file: FileSettings,
}

/// One who is registered.
struct Registration {
    id: Uuid,
    name: String,
    event: IntegrationEvent,
}

/// Registers, waits, and answers with what to print.
///
/// # Errors
///
/// When the platform cannot be reached, or refuses.
pub async fn populate(settings: PopulateSettings) -> Result<String, ClientError> {
    let balance = amount(&settings.balance, &settings.currency)?;
    let commands = Commands::new(connect(&settings.command_addr).await?);
    let queries = Queries::new(connect(&settings.query_addr).await?);

    let seed = settings.seed.as_deref();
    let issuers: Vec<Registration> = (1..=settings.issuers).map(|number| issuer(seed, number)).collect();
    let investors: Vec<Registration> =
        (1..=settings.investors).map(|number| investor(seed, number, &balance)).collect();

    let events: Vec<IntegrationEvent> =
        issuers.iter().chain(&investors).map(|registration| registration.event.clone()).collect();
    let mut command_ids = Vec::with_capacity(events.len());
    for chunk in events.chunks(CHUNK) {
        let request = PublishIntegrationEventsRequest { events: chunk.to_vec() };
        let answer = commands.integration().publish_integration_events(timed(request)).await?;
        command_ids.extend(answer.into_inner().command_ids);
    }
    stream::iter(command_ids)
        .map(|command_id| {
            let queries = &queries;
            async move { settled(queries, command_id).await }
        })
        .buffer_unordered(WAITING)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(report(&settings, &issuers, &investors))
}

async fn settled(queries: &Queries, command_id: String) -> Result<(), ClientError> {
    let request = WaitCommandRequest { command_id: command_id.clone(), wait: None };
    let answer = queries.client().wait_command(timed(request)).await?.into_inner();
    let command = answer.command.unwrap_or_default();
    match command.state() {
        CommandState::Applied | CommandState::Unchanged => Ok(()),
        CommandState::Refused | CommandState::Dead => {
            Err(ClientError::Refused { reason: command.reason, message: command.message })
        }
        CommandState::Pending | CommandState::Unspecified => Err(ClientError::Failed(format!(
            "the platform has accepted command {command_id}, but not decided it in time"
        ))),
    }
}

/// Repeatable under a seed, else new.
fn id(seed: Option<&str>, kind: &str, number: u32) -> Uuid {
    seed.map_or_else(
        || SystemEnvironment.uuid(),
        |seed| Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("populate/{seed}/{kind}/{number}").as_bytes()),
    )
}

fn issuer(seed: Option<&str>, number: u32) -> Registration {
    let (id, name) = (id(seed, "issuer", number), format!("Issuer {number}"));
    let event = Event::IssuerRegistered(IssuerRegistered { issuer_id: id.to_string(), name: name.clone() });
    Registration { id, name, event: registered(event) }
}

fn investor(seed: Option<&str>, number: u32, balance: &Money) -> Registration {
    let (id, name) = (id(seed, "investor", number), format!("Investor {number}"));
    let event = Event::InvestorRegistered(InvestorRegistered {
        investor_id: id.to_string(),
        name: name.clone(),
        balance: Some(balance.clone()),
    });
    Registration { id, name, event: registered(event) }
}

/// Every run tells of it anew: who is registered already with the same content stays as it is, and with another is refused.
fn registered(event: Event) -> IntegrationEvent {
    IntegrationEvent { event: Some(event), event_id: String::new() }
}

/// Shell assignments: each line can be pasted as it is, and what follows can use the names.
fn report(settings: &PopulateSettings, issuers: &[Registration], investors: &[Registration]) -> String {
    let mut text = String::new();
    for (number, one) in (1..).zip(issuers) {
        // Writing to a string does not fail.
        let _written = writeln!(text, "ISSUER_{number}={}    # {}", one.id, one.name);
    }
    for (number, one) in (1..).zip(investors) {
        let _written = writeln!(
            text,
            "INVESTOR_{number}={}  # {}, {} {}",
            one.id, one.name, settings.balance, settings.currency
        );
    }
    text
}
