//! `relayerd`: carries the event log to the bus.
//!
//! The rule this module protects: the streams of the bus belong to the deployment of the log in front of it, and are made,
//! and made again where they were lost, by whoever has that log.

use eventsourcing::ports::Role;
use eventsourcing::relayer::Relayer;

use crate::api::server::Limits;
use crate::nats::{NatsBus, Streams, Wake};
use crate::runtime::observation::Telemetry;
use crate::runtime::observation::lookup::relay_lag;
use crate::runtime::settings::RelayerSettings;
use crate::runtime::signals::Signals;
use crate::runtime::supervise::Process;

use super::super::environment::SystemEnvironment;
use super::ownership::Ownership;
use super::readiness::{bind, serve};
use super::{RELAY_POLL, connect, text};

/// Runs the process until it is told to stop, or a part of it dies.
///
/// # Errors
///
/// When it cannot start, or a part has died.
pub async fn run(settings: RelayerSettings) -> Result<(), String> {
    const NAME: &str = "relayerd";
    let mut signals = Signals::listen().map_err(text)?;
    let common = &settings.common;
    let streams = connect::streams(&common.streams, common.partitions)?;
    let port = bind(settings.health.health_addr, "--health-addr").await?;
    let mut telemetry = Telemetry::start(&common.telemetry, NAME).await?;
    let database = connect::log_database(&settings.database, NAME)?;

    let started = connect::unless_stopped(&mut signals, async {
        let log = connect::log(&database, common.partitions).await?;
        let nats = connect::nats(&common.nats, NAME).await?;
        let streams = Streams { deployment: Some(log.deployment()), ..streams };
        connect::until_up("NATS", async || nats.ensure_events(&streams).await).await?;
        Ok((log, NatsBus::for_relayer(&nats, streams), nats))
    });
    let Some((log, bus, nats)) = started.await? else { return Ok(()) };

    let mut process = Process::default();
    let mut ownership = Ownership::new(log.clone(), nats.clone(), &telemetry);
    let committed = connect::wakes(&nats, &mut process, Wake::Committed).await?;
    let bell = committed.hang();
    let assignment = ownership.join(&mut process, Role::Relayer, common.partitions, &bell);
    telemetry.looks_up(relay_lag(log.clone(), NatsBus::for_watchers(&nats), common.partitions));
    let relayer =
        Relayer::new(log.clone(), bus, SystemEnvironment, assignment).observed_by(ownership.watch());
    let stop = process.loops_stop();
    process.loops.start_loop(relayer, bell, RELAY_POLL, stop);
    serve(&mut process, port, Limits { grace: common.grace_seconds, ..Limits::default() })?;
    telemetry.serve(&mut process)?;

    let ended = process.run(signals, std::future::pending()).await;
    ownership.leave().await;
    log.close().await;
    nats.flush().await;
    telemetry.finish().await;
    ended?;
    tracing::info!("stopped");
    Ok(())
}
