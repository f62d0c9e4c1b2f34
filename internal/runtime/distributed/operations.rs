//! What an operator does.
//!
//! The rule this module protects: what only a person may decide, a person says by name; and what was done is printed.

use std::time::Duration;

use clap::{Args, Subcommand};
use eventsourcing::partition::{Deployment, PartitionCount};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::postgres::{migrate_log, migrate_read_models};
use crate::runtime::client::{ClientError, connect as connect_to};
use crate::runtime::config::{client_address, partitions};
use crate::runtime::settings::{CommandDatabase, NatsSettings, QueryDatabase, StreamSettings};

use super::{adoption, connect};

/// What servers show of an operator's process.
const NAME: &str = "financing";

/// How long a server has to say that it is well.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which databases to prepare.
#[derive(Debug, Clone, Args)]
pub struct MigrateArguments {
    /// The event log's, where it is named
    #[command(flatten)]
    command: CommandDatabase,
    /// The read models', where it is named
    #[command(flatten)]
    query: QueryDatabase,
    /// The number of partitions; fixed when the deployment is created
    #[arg(long, env = "FINANCING_PARTITIONS", default_value = "16", value_parser = partitions)]
    partitions: PartitionCount,
}

/// What can be done about the command queue.
#[derive(Debug, Clone, Subcommand)]
pub enum QueueCommand {
    /// Go on with the command queue that is there, after it was lost or restored to an earlier state
    #[command(
        long_about = "Go on with the command queue that is there, after it was lost or restored to an earlier state.\n\n\
                            Workers and policies that find another queue than they remember halt, because accepted commands \
                            may be missing from it. This makes them start at its beginning, and the policies at the beginning \
                            of the bus: whatever has an outcome already keeps it, and what follows from the facts is queued \
                            again. Commands that only the lost queue had are lost: their senders have to send them again.\n\n\
                            With --discard the queue that is there is thrown away first. After the event log was restored to an \
                            earlier state that has to be: the queue has commands of sagas that this log has never begun."
    )]
    Adopt {
        /// Ask the process with this admin address to do it: host:port. Without it, it is done from here
        #[arg(long, value_parser = client_address, conflicts_with = "discard")]
        admin_addr: Option<String>,
        /// Throw the queue away that is there, with the commands in it, and begin an empty one
        #[arg(long)]
        discard: bool,
        /// Where the event log is
        #[command(flatten)]
        database: CommandDatabase,
        /// How to reach NATS
        #[command(flatten)]
        nats: Box<NatsSettings>,
        /// How the streams are to be, where they have to be made
        #[command(flatten)]
        streams: StreamSettings,
        /// The number of partitions of the deployment
        #[arg(long, env = "FINANCING_PARTITIONS", default_value = "16", value_parser = partitions)]
        partitions: PartitionCount,
    },
}

fn failed(reason: impl std::fmt::Display) -> ClientError {
    ClientError::Failed(reason.to_string())
}

/// Brings the databases to the schema of this release, as their owner.
///
/// # Errors
///
/// When one cannot be reached or changed.
pub async fn migrate(arguments: MigrateArguments) -> Result<String, ClientError> {
    let MigrateArguments { command, query, partitions } = arguments;
    let mut done = Vec::new();
    if command.command_database_url.is_some() {
        let database = connect::log_database(&command, NAME).map_err(failed)?;
        let new = connect::new_deployment(partitions);
        let deployment = migrate_log(&database, &new).await.map_err(failed)?;
        let Deployment { id, partitions, .. } = deployment;
        done.push(format!("the event log is ready: deployment {id}, {partitions} partitions\n"));
    }
    if query.query_database_url.is_some() {
        let database = connect::models_database(&query, NAME).map_err(failed)?;
        migrate_read_models(&database, connect::MODELS).await.map_err(failed)?;
        done.push("the read models are ready\n".to_owned());
    }
    if done.is_empty() {
        return Err(failed("name a database: --command-database-url, --query-database-url, or both"));
    }
    Ok(done.concat())
}

/// Does what there is to do about the queue.
///
/// # Errors
///
/// When NATS or the event log cannot be reached.
pub async fn queue(command: QueueCommand) -> Result<String, ClientError> {
    let QueueCommand::Adopt { admin_addr, discard, database, nats, streams, partitions } = command;
    if let Some(address) = admin_addr {
        return adoption::ask(&address).await;
    }
    let database = connect::log_database(&database, NAME).map_err(failed)?;
    let streams = connect::streams(&streams, partitions).map_err(failed)?;
    let nats = connect::nats(&nats, NAME).await.map_err(failed)?;
    let log = connect::log(&database, partitions).await.map_err(failed)?;
    let mut said = String::new();
    if discard {
        let messages = nats.discard_queue().await.map_err(failed)?;
        said = format!("{messages} messages of commands are gone with the old queue\n");
    }
    let adopted = adoption::adopt_queue(&log, &nats, &streams, partitions).await.map_err(failed)?;
    log.close().await;
    Ok(format!("{said}{adopted}\n"))
}

/// Asks a server whether it is well.
///
/// # Errors
///
/// When it is not, or does not answer in time.
pub async fn health(address: &str) -> Result<String, ClientError> {
    let address = client_address(address).map_err(failed)?;
    let ask = async {
        let channel = connect_to(&address).await?;
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
        Ok::<_, ClientError>(answer.into_inner().status())
    };
    let status = tokio::time::timeout(PATIENCE, ask).await.map_err(|_| failed("no answer in time"))??;
    if status == ServingStatus::Serving {
        return Ok("SERVING\n".to_owned());
    }
    Err(failed(status.as_str_name()))
}
