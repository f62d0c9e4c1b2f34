//! `queryprojectord`: folds the bus into the read models.
//!
//! The rule this module protects: read models are those of one deployment, and the bus says of which; the query side needs
//! nothing of the command side's database to know.

use domain::financing::Financing;
use eventsourcing::ports::Role;
use eventsourcing::projector::Projector;

use crate::api::admin::AdminServices;
use crate::api::server::Limits;
use crate::nats::NatsBus;
use crate::runtime::door;
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::observation::Telemetry;
use crate::runtime::observation::lookup::{projection_age, projection_lag, unsettled};
use crate::runtime::rebuild::ReadModelRebuilds;
use crate::runtime::settings::ProjectorSettings;
use crate::runtime::signals::Signals;
use crate::runtime::supervise::Process;
use readmodel::FinancingProjection;

use super::announcing::Announcing;
use super::ownership::Ownership;
use super::readiness::{bind, serve};
use super::{POLL, connect, text};

/// Runs the process until it is told to stop, or a part of it dies.
///
/// # Errors
///
/// When it cannot start, or a part has died.
pub async fn run(settings: ProjectorSettings) -> Result<(), String> {
    const NAME: &str = "queryprojectord";
    let mut signals = Signals::listen().map_err(text)?;
    let common = &settings.common;
    let streams = connect::streams(&common.streams, common.partitions)?;
    let port = bind(settings.health.health_addr, "--health-addr").await?;
    let admin = bind(settings.admin_address.admin_addr, "--admin-addr").await?;
    let mut telemetry = Telemetry::start(&common.telemetry, NAME).await?;
    let database = connect::models_database(&settings.database, NAME)?;

    let started = connect::unless_stopped(&mut signals, async {
        let nats = connect::nats(&common.nats, NAME).await?;
        let deployment = connect::deployment(&nats, &streams).await?;
        let models = connect::models(&database, &deployment).await?;
        Ok((nats, models))
    });
    let Some((nats, models)) = started.await? else { return Ok(()) };

    let mut process = Process::default();
    let mut ownership = Ownership::new(models.clone(), nats.clone(), &telemetry);
    let bus = NatsBus::for_loops(&nats);
    let bell = bus.bells().hang();
    let assignment = ownership.join(&mut process, Role::Projector, common.partitions, &bell);
    let watched = NatsBus::for_watchers(&nats);
    telemetry.looks_up(projection_lag(watched.clone(), models.clone(), common.partitions));
    telemetry.looks_up(projection_age(watched, models.clone(), common.partitions));
    telemetry.looks_up(unsettled(models.clone()));
    let announcing = Announcing::new(models.clone(), nats.clone());
    let projector: Projector<Financing, _, _, _> =
        Projector::new(FinancingProjection, bus, announcing, assignment);
    let projector = projector.observed_by(ownership.watch());
    let stop = process.loops_stop();
    process.loops.start_loop(projector, bell, POLL, stop);
    let limits = Limits { grace: common.grace_seconds, ..Limits::default() };
    serve(&mut process, port, limits)?;
    let rebuilds = ReadModelRebuilds::new(NatsBus::for_loops(&nats), models.clone(), common.partitions);
    let services =
        AdminServices::new(SystemEnvironment, process.intake_stop()).with_rebuilds(rebuilds.clone());
    door::open(&mut process, admin, services, limits)?;
    telemetry.serve(&mut process)?;

    let ended = process.run(signals, std::future::pending()).await;
    rebuilds.ended().await;
    ownership.leave().await;
    models.close().await;
    nats.flush().await;
    telemetry.finish().await;
    ended?;
    tracing::info!("stopped");
    Ok(())
}
