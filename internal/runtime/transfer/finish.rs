//! Works off what an embedded platform has accepted, with no server in front of it.
//!
//! The rule this module protects: nothing new comes in, and it is over when nothing is left to do: the queue is empty, and the
//! policies have seen every record.

use std::path::Path;
use std::time::Duration;

use domain::financing::Financing;
use domain::saga::Saga;
use eventsourcing::environment::{Environment as _, Stop};
use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::{Checkpoints, EventLog as _, PortResult, ReadModelSchema};
use eventsourcing::queue::Waiting as _;
use readmodel::{FinancingProjection, tables};

use crate::runtime::environment::SystemEnvironment;
use crate::runtime::stores::{POLICIES, Stores};
use crate::runtime::supervise::Parts;
use crate::sqlite::{DirectoryLock, PlatformStore, SqliteExport};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs every loop on the files of a directory until nothing is left to do.
///
/// # Errors
///
/// When the directory is in use or cannot be opened, or a loop dies.
pub(super) async fn finish(directory: &Path) -> Result<(), String> {
    let text = |error: crate::sqlite::OpenError| error.to_string();
    let partitions = SqliteExport::partitions(directory).await.map_err(text)?;
    let lock = DirectoryLock::acquire(directory).map_err(text)?;
    let schema = ReadModelSchema { version: tables::SCHEMA_VERSION, tables: tables::TABLES };
    let stores = Stores::open(directory, lock, partitions, schema).await?;
    let (mut loops, (stopper, stop)) = (Parts::default(), Stop::new());
    // Nobody is given the intake: no command begins here.
    let _intake = stores.start_loops::<Financing>(Saga, FinancingProjection, &mut loops, &stop);
    let all: Vec<Partition> = partitions.all().collect();
    let settled = tokio::select! {
        biased;
        reason = loops.death() => Err(reason),
        reason = stores.death() => Err(reason),
        settled = settled(stores.platform(), &all) => settled.map_err(|error| error.to_string()),
    };
    stopper.stop();
    let ended = loops.ended().await;
    stores.close().await;
    settled.and(ended)
}

async fn settled(platform: &PlatformStore, all: &[Partition]) -> PortResult<()> {
    let (log, queue) = (platform.log(), platform.queue());
    loop {
        // The policies first: what follows from what they have seen is queued, and then it is in the log or counted as waiting.
        let reacted: Vec<(Partition, Sequence)> = Checkpoints::load(&log, POLICIES, all).await?;
        let rows = log.rows(all).await?;
        let behind: Vec<_> = rows.iter().map(|(partition, row)| (*partition, row.position)).collect();
        let waiting = queue.depth(&behind).await?.messages;
        let heads: Vec<_> =
            log.rows(all).await?.into_iter().map(|(partition, row)| (partition, row.head)).collect();
        if waiting == 0 && reacted == heads {
            return Ok(());
        }
        SystemEnvironment.sleep(PAUSE).await;
    }
}
