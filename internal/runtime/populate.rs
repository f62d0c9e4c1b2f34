//! Registers issuers and investors, as the Registering context would.
//!
//! The rule this module protects: when it prints an id, the issuer or investor is there: a command with it is
//! not refused, a query for it finds it.

use std::fmt::Write as _;

use clap::Parser;
use domain::integration::{INVESTOR_REGISTERED, ISSUER_REGISTERED, Registering};
use eventsourcing::environment::Environment as _;
use eventsourcing::importer::{Translate as _, Translated};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use crate::api::proto::financing::v1::{CommandState, Money, WaitCommandRequest};
use crate::api::proto::registering::v1::{
    IntegrationEvent, InvestorRegistered, IssuerRegistered, PublishIntegrationEventsRequest,
    integration_event::Event,
};

use super::client::{ClientError, Commands, Queries, amount, connect, timed};
use super::config::{FileSettings, client_address};
use super::distributed::once;
use super::environment::SystemEnvironment;
use super::settings::NatsSettings;

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
    /// Publish to NATS, as a context that has access to the bus does, and not over gRPC
    #[arg(long)]
    pub nats: bool,
    /// How to reach NATS
    #[command(flatten)]
    pub connection: NatsSettings,
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
    let queries = Queries::new(connect(&settings.query_addr).await?);

    let seed = settings.seed.as_deref();
    let issuers: Vec<Registration> = (1..=settings.issuers).map(|number| issuer(seed, number)).collect();
    let investors: Vec<Registration> =
        (1..=settings.investors).map(|number| investor(seed, number, &balance)).collect();

    let events: Vec<IntegrationEvent> =
        issuers.iter().chain(&investors).map(|registration| registration.event.clone()).collect();
    let command_ids = if settings.nats {
        over_nats(&settings, &events).await?
    } else {
        over_grpc(&settings, &events).await?
    };
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

async fn over_grpc(
    settings: &PopulateSettings,
    events: &[IntegrationEvent],
) -> Result<Vec<String>, ClientError> {
    let commands = Commands::new(connect(&settings.command_addr).await?);
    let mut command_ids = Vec::with_capacity(events.len());
    for chunk in events.chunks(CHUNK) {
        let request = PublishIntegrationEventsRequest { events: chunk.to_vec() };
        let answer = commands.integration().publish_integration_events(timed(request)).await?;
        command_ids.extend(answer.into_inner().command_ids);
    }
    Ok(command_ids)
}

/// Says the same on the bus; answers with the ids of the commands that will follow, which derive from what is said.
async fn over_nats(
    settings: &PopulateSettings,
    events: &[IntegrationEvent],
) -> Result<Vec<String>, ClientError> {
    let mut command_ids = Vec::with_capacity(events.len());
    let mut messages = Vec::with_capacity(events.len());
    for event in events {
        let message = cloud_event(event)?;
        match Registering.translate(&message.0, &message.1) {
            Translated::Command { id, .. } => command_ids.push(id.to_string()),
            Translated::Malformed(reason) => return Err(ClientError::Failed(reason)),
            Translated::Ignored => return Err(ClientError::Failed("the platform ignores this".to_owned())),
        }
        messages.push(message);
    }
    let nats = once(&settings.connection, "populate").await.map_err(ClientError::Failed)?;
    let published = nats.publish_registered(messages).await;
    published.map_err(|error| ClientError::Failed(error.to_string()))?;
    Ok(command_ids)
}

/// The event as a CloudEvent on the bus, and its subject: its data has the fields that the message has.
fn cloud_event(event: &IntegrationEvent) -> Result<(String, Vec<u8>), ClientError> {
    let (kind, event_type, party, data) = match &event.event {
        Some(Event::IssuerRegistered(event)) => {
            let data = serde_json::json!({ "issuer_id": event.issuer_id, "name": event.name });
            ("issuer", ISSUER_REGISTERED, &event.issuer_id, data)
        }
        Some(Event::InvestorRegistered(event)) => {
            let balance = event.balance.clone().unwrap_or_default();
            let balance = serde_json::json!({
                "currency_code": balance.currency_code, "units": balance.units, "nanos": balance.nanos
            });
            let data = serde_json::json!({ "investor_id": event.investor_id, "name": event.name, "balance": balance });
            ("investor", INVESTOR_REGISTERED, &event.investor_id, data)
        }
        None => return Err(ClientError::Failed("an event without content".to_owned())),
    };
    let name = event_type.rsplit('.').next().unwrap_or(event_type);
    let event = serde_json::json!({
        "specversion": "1.0",
        "id": SystemEnvironment.uuid(),
        "source": "/registering",
        "type": event_type,
        "subject": format!("{kind}/{party}"),
        "datacontenttype": "application/json",
        "data": data,
    });
    Ok((format!("registering.events.{kind}.{name}"), event.to_string().into_bytes()))
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
