//! `commandsd`: the listener, a worker, the policies, or any of them.
//!
//! The rule this module protects: a listener needs no database, and takes commands whether or not anybody works them off;
//! and what answers to a client is ready before the first client can ask.

use domain::financing::Financing;
use domain::integration::Registering;
use domain::saga::Saga;
use eventsourcing::desk::Desk;
use eventsourcing::environment::{Doorbell, Environment as _};
use eventsourcing::importer::Importer;
use eventsourcing::letters::Letters;
use eventsourcing::listener::{Intake, Listener, ListenerLimits};
use eventsourcing::partition::PartitionCount;
use eventsourcing::policy::PolicyRunner;
use eventsourcing::ports::Role;
use eventsourcing::worker::{Worker, WorkerLimits};
use futures_util::FutureExt as _;
use tokio::net::TcpListener;

use crate::api::admin::AdminServices;
use crate::api::dead_letters::dead_letter_service;
use crate::api::server::{Limits, serve_commands};
use crate::nats::{
    Nats, NatsBus, NatsDeadLetters, NatsDepth, NatsForeignEvents, NatsQueue, NatsReplies, reply_address,
};
use crate::postgres::PostgresLog;
use crate::runtime::door;
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::observation::Telemetry;
use crate::runtime::observation::lookup::queue_depth;
use crate::runtime::settings::CommandsSettings;
use crate::runtime::signals::Signals;
use crate::runtime::supervise::Process;

use super::adoption::QueueDoor;
use super::announcing::Announcing;
use super::ownership::Ownership;
use super::readiness::{announce, bind, serve};
use super::{IMPORTER, POLICIES, POLL, connect, text};

/// Runs the process until it is told to stop, or a part of it dies.
///
/// # Errors
///
/// When it cannot start, or a part has died.
pub async fn run(settings: CommandsSettings) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(text)?;
    let parts = settings.parts();
    let common = &settings.common;
    let partitions = common.partitions;
    let streams = connect::streams(&common.streams, partitions)?;
    let port = if parts.listener {
        bind(settings.command_addr, "--command-addr").await?
    } else {
        bind(settings.health.health_addr, "--health-addr").await?
    };
    let name = name(&settings);
    let has_log = parts.worker || parts.policies || settings.admin;
    let admin =
        if has_log { Some(bind(settings.admin_address.admin_addr, "--admin-addr").await?) } else { None };
    let database = has_log.then(|| connect::log_database(&settings.database, &name)).transpose()?;
    let mut telemetry = Telemetry::start(&common.telemetry, "commandsd").await?;

    let started = connect::unless_stopped(&mut signals, async {
        let nats = connect::nats(&common.nats, &name).await?;
        connect::until_up("NATS", async || nats.ensure_queues(&streams).await).await?;
        let log = match &database {
            Some(database) => Some(connect::log(database, partitions).await?),
            None => None,
        };
        Ok((nats, log))
    });
    let Some((nats, log)) = started.await? else { return Ok(()) };

    let mut process = Process::default();
    let limits = Limits { grace: common.grace_seconds, ..Limits::default() };
    let mut ownership = log.clone().map(|log| Ownership::new(log, nats.clone(), &telemetry));
    if let (Some(log), Some(ownership)) = (&log, &mut ownership) {
        if parts.worker {
            telemetry.looks_up(queue_depth(log.clone(), NatsDepth::new(&nats), partitions));
            start_worker(&mut process, &nats, log, ownership, partitions);
        }
        if parts.policies {
            start_policies(&mut process, &nats, log, ownership, partitions);
            start_importer(&mut process, &nats, log, ownership, partitions);
        }
    }
    let intake = if parts.listener || admin.is_some() {
        Some(start_listener(&mut process, &nats, partitions, &telemetry).await?)
    } else {
        None
    };
    match &intake {
        Some(intake) if parts.listener => {
            serve_intake(&mut process, port, intake.clone(), limits, &telemetry)?;
        }
        _ => serve(&mut process, port, limits)?,
    }
    if let (Some(log), Some(admin), Some(intake)) = (&log, admin, intake) {
        let stop = process.intake_stop();
        let (foreign, bus) = (NatsDeadLetters::new(&nats), NatsBus::for_watchers(&nats));
        let letters = Letters::new(Registering, log.clone(), foreign, bus, partitions);
        let letters =
            dead_letter_service(letters, intake, &SystemEnvironment, limits, &stop, telemetry.calls());
        let (log, nats) = (log.clone(), nats.clone());
        let queue = QueueDoor { log, nats, streams, partitions, policies_run: parts.policies };
        let services = AdminServices::new(SystemEnvironment, stop).with_queue(queue).with(letters);
        door::open(&mut process, admin, services, limits)?;
    }
    telemetry.serve(&mut process)?;

    let ended = process.run(signals, std::future::pending()).await;
    if let Some(ownership) = ownership {
        ownership.leave().await;
    }
    if let Some(log) = log {
        log.close().await;
    }
    nats.flush().await;
    telemetry.finish().await;
    ended?;
    tracing::info!("stopped");
    Ok(())
}

/// What servers show of this process.
fn name(settings: &CommandsSettings) -> String {
    let parts = settings.parts();
    let named = [(parts.listener, "listener"), (parts.worker, "worker"), (parts.policies, "policies")];
    let named: Vec<&str> = named.into_iter().filter_map(|(runs, name)| runs.then_some(name)).collect();
    format!("commandsd {}", named.join(" "))
}

fn serve_intake(
    process: &mut Process,
    port: TcpListener,
    intake: Intake<SystemEnvironment>,
    limits: Limits,
    telemetry: &Telemetry,
) -> Result<(), String> {
    announce("commands", &port)?;
    let (stop, watch) = (process.intake_stop(), telemetry.calls());
    process.servers.start("command server", async move {
        serve_commands(port, intake, SystemEnvironment, limits, stop, watch).await.map_err(text)
    });
    Ok(())
}

/// Starts the loop behind the intake. When it comes back, replies arrive.
async fn start_listener(
    process: &mut Process,
    nats: &Nats,
    partitions: PartitionCount,
    telemetry: &Telemetry,
) -> Result<Intake<SystemEnvironment>, String> {
    // Of this process alone: addresses are stored with the commands, and outlive it.
    let desk = Desk::new(&reply_address(SystemEnvironment.uuid()));
    let replies = nats.receive(desk.clone(), process.loops_stop()).await.map_err(text)?;
    process.loops.start("replies", replies.map(Ok));
    let bell = Doorbell::default();
    let (listener, intake) = Listener::new(
        NatsQueue::new(nats),
        partitions,
        ListenerLimits::default(),
        desk,
        bell.clone(),
        SystemEnvironment,
    );
    let stop = process.loops_stop();
    let listener = listener.observed_by(telemetry.watch());
    process.loops.start_loop(listener, bell, POLL, stop);
    Ok(intake)
}

fn start_worker(
    process: &mut Process,
    nats: &Nats,
    log: &PostgresLog,
    ownership: &mut Ownership<PostgresLog>,
    partitions: PartitionCount,
) {
    let queue = NatsQueue::new(nats);
    let bell = queue.bells().hang();
    let assignment = ownership.join(process, Role::Worker, partitions, &bell);
    let worker: Worker<Financing, _, _, _, _> = Worker::new(
        Announcing::new(log.clone(), nats.clone()),
        queue,
        NatsReplies::new(nats),
        SystemEnvironment,
        partitions,
        assignment,
        WorkerLimits::default(),
    );
    let stop = process.loops_stop();
    let worker = worker.observed_by(ownership.watch());
    process.loops.start_loop(worker, bell, POLL, stop);
}

fn start_policies(
    process: &mut Process,
    nats: &Nats,
    log: &PostgresLog,
    ownership: &mut Ownership<PostgresLog>,
    partitions: PartitionCount,
) {
    let bus = NatsBus::for_loops(nats);
    let bell = bus.bells().hang();
    let assignment = ownership.join(process, Role::Policies, partitions, &bell);
    let policies: PolicyRunner<Financing, _, _, _, _, _> = PolicyRunner::new(
        Saga,
        POLICIES,
        bus,
        NatsQueue::new(nats),
        log.clone(),
        NatsDeadLetters::new(nats),
        partitions,
        assignment,
    );
    let stop = process.loops_stop();
    let policies = policies.observed_by(ownership.watch());
    process.loops.start_loop(policies, bell, POLL, stop);
}

fn start_importer(
    process: &mut Process,
    nats: &Nats,
    log: &PostgresLog,
    ownership: &mut Ownership<PostgresLog>,
    partitions: PartitionCount,
) {
    let events = NatsForeignEvents::new(nats);
    let bell = events.bells().hang();
    let assignment = ownership.join(process, Role::Importer, PartitionCount::ONE, &bell);
    let importer: Importer<Financing, _, _, _, _, _, _> = Importer::new(
        Registering,
        IMPORTER,
        events,
        NatsQueue::new(nats),
        log.clone(),
        log.clone(),
        NatsDeadLetters::new(nats),
        partitions,
        assignment,
    );
    let stop = process.loops_stop();
    let importer = importer.observed_by(ownership.watch());
    process.loops.start_loop(importer, bell, POLL, stop);
}
