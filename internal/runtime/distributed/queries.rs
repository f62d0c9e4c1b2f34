//! `queriesd`: answers queries.
//!
//! The rule this module protects: it reads only; whoever runs many of them behind one address gets the same answers from
//! each, because a client's token says how far a read must see.

use std::fmt::Display;

use crate::api::platform::{Description, Topology};
use crate::api::server::{Limits, Sources, serve_queries};
use crate::nats::{NatsBus, Wake};
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::observation::Telemetry;
use crate::runtime::settings::QueriesSettings;
use crate::runtime::signals::Signals;
use crate::runtime::supervise::Process;
use readmodel::{LiveReadModels, ReadModelQueries};

use super::readiness::{announce, bind};
use super::{connect, text};

/// Runs the process until it is told to stop, or a part of it dies.
///
/// # Errors
///
/// When it cannot start, or a part has died.
pub async fn run(settings: QueriesSettings) -> Result<(), String> {
    const NAME: &str = "queriesd";
    let mut signals = Signals::listen().map_err(text)?;
    let common = &settings.common;
    let streams = connect::streams(&common.streams, common.partitions)?;
    let port = bind(settings.query_addr, "--query-addr").await?;
    let mut telemetry = Telemetry::start(&common.telemetry, NAME).await?;
    let database = connect::models_database(&settings.database, NAME)?;

    let started = connect::unless_stopped(&mut signals, async {
        let nats = connect::nats(&common.nats, NAME).await?;
        let deployment = connect::deployment(&nats, &streams).await?;
        let models = connect::models_to_read(&database, &deployment).await?;
        Ok((nats, models))
    });
    let Some((nats, models)) = started.await? else { return Ok(()) };

    let mut process = Process::default();
    let projected = connect::wakes(&nats, &mut process, Wake::Projected).await?;
    let bus = NatsBus::for_watchers(&nats);
    let sources = Sources {
        queries: ReadModelQueries::new(models.clone()),
        live: LiveReadModels::new(
            models.clone(),
            bus.clone(),
            common.partitions,
            reads_of_watches(&settings),
        ),
        relayed: bus.bells().clone(),
        bus,
        partitions: common.partitions,
        projected,
        description: Description {
            topology: Topology::Distributed,
            durability: durability(common.streams.nats_replicas),
        },
    };
    announce("queries", &port)?;
    telemetry.serve(&mut process)?;
    let limits = Limits { grace: common.grace_seconds, ..Limits::default() };
    let (stop, watch) = (process.intake_stop(), telemetry.calls());
    process.servers.start("query server", async move {
        serve_queries(port, sources, SystemEnvironment, limits, stop, watch).await.map_err(text)
    });

    let ended = process.run(signals, std::future::pending()).await;
    models.close().await;
    nats.flush().await;
    telemetry.finish().await;
    ended?;
    tracing::info!("stopped");
    Ok(())
}

/// How many pages of rows watches may read at a time: a quarter of the connections, so that most are left to those who ask once.
fn reads_of_watches(settings: &QueriesSettings) -> usize {
    usize::try_from(settings.database.query_database_connections / 4).unwrap_or(usize::MAX)
}

/// How durable a command is when it is answered, as far as a client of NATS can know.
fn durability(replicas: impl Display) -> String {
    format!(
        "stored by JetStream in a file (replicas: {replicas}) before it is answered; when a server flushes it to disk is its \
         sync_interval, which its clients cannot read"
    )
}
