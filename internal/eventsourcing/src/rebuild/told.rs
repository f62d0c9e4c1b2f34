//! What whoever asks for a rebuild is told of it.
//!
//! The rule this module protects: whoever asked hears how it ended, also where it did not come to its end; and whoever stops
//! listening has cancelled it.

use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::environment::Stopper;
use crate::partition::PartitionCount;
use crate::ports::PortError;

/// What a rebuild is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It folds the bus into new tables.
    Building,
    /// It makes the indexes of the new tables.
    Indexing,
    /// It folds what was projected meanwhile.
    CatchingUp,
    /// The new tables are those that are read.
    Swapped,
}

/// How far a rebuild has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildProgress {
    /// What it is doing.
    pub phase: Phase,
    /// The partitions of the deployment.
    pub partitions: PartitionCount,
    /// Records that are folded.
    pub done: u64,
    /// Records that the live read models have folded, which is what there is to do.
    pub all: u64,
    /// How long it has taken so far, by the wall clock.
    pub elapsed: Duration,
}

impl RebuildProgress {
    /// Before anything is done.
    #[must_use]
    pub const fn begin(partitions: PartitionCount) -> Self {
        Self { phase: Phase::Building, partitions, done: 0, all: 0, elapsed: Duration::ZERO }
    }

    /// Records a second, on the whole way.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let rate = u128::from(self.done) * 1_000_000 / self.elapsed.as_micros().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// How long folding the rest will take, if it goes on like this; `None` where nothing can be said yet.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.all.saturating_sub(self.done);
        let micros = self.elapsed.as_micros().checked_mul(u128::from(left))?.checked_div(self.done.into())?;
        u64::try_from(micros).ok().map(Duration::from_micros)
    }
}

/// Why read models were not built anew. Those that are read stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// One is under way already, perhaps in another process.
    #[error("the read models are being rebuilt already")]
    UnderWay,
    /// Whoever asked for it does not want it any more.
    #[error("the rebuild was cancelled")]
    Cancelled,
    /// The bus is not the one that the live read models are built from.
    #[error("the bus is not the one that the read models were built from: {0}")]
    Astray(String),
    /// A store or the bus failed.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// A rebuild that somebody else runs. Dropping it cancels.
#[derive(Debug)]
pub struct RunningRebuild {
    /// How far it has come. Closed when it has ended.
    pub progress: watch::Receiver<RebuildProgress>,
    /// How it ended.
    pub outcome: oneshot::Receiver<Result<(), RebuildError>>,
    /// Cancels it, unless the swap has begun.
    pub cancel: Stopper,
}

impl RunningRebuild {
    /// Waits until there is something new to tell, and answers with the latest of it; `None` when it has come to its end.
    /// Not to be asked again after that, or after an error.
    ///
    /// # Errors
    ///
    /// Why it did not come to its end.
    pub async fn next(&mut self) -> Result<Option<RebuildProgress>, RebuildError> {
        if self.progress.changed().await.is_ok() {
            return Ok(Some(*self.progress.borrow_and_update()));
        }
        let died = |_| Err(PortError::Unavailable("the rebuild died".to_owned()).into());
        (&mut self.outcome).await.unwrap_or_else(died).map(|()| None)
    }
}

/// Where rebuilds are asked for.
pub trait Rebuilds: Send + Sync + 'static {
    /// Starts one, unless one is under way.
    ///
    /// # Errors
    ///
    /// [`RebuildError::UnderWay`], where that is known here. That another process has one under way may be the outcome.
    fn start(&self) -> Result<RunningRebuild, RebuildError>;
}
