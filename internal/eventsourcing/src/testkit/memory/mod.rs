//! Every port in memory, for tests of the loops.
//!
//! The rule this module protects: a port in memory promises what the contract says and not more, is the same in every
//! run, and breaks only where a test breaks it. A clone is another handle on the same store, so that two owners
//! can share one, and what "durable" means here is that the store outlives whoever held a handle.
//!
//! # Layout
//!
//! - `mod.rs`: [`Interference`]: where a simulator stands between a loop and its ports
//! - `queue`: [`MemoryQueue`], `replies`: [`MemoryReplies`]
//! - `log`: [`MemoryLog`], `commit`: what a commit checks; [`MemoryCheckpoints`], and foreign positions with them
//! - `bus`: [`MemoryBus`]
//! - `read_models`: [`MemoryReadModels`]
//! - `leases`: [`MemoryLeases`], by the clock of a world
//! - `foreign`: [`MemoryForeignEvents`], and [`MemoryDeadLetters`]

mod bus;
mod commit;
mod foreign;
mod leases;
mod log;
mod queue;
mod read_models;
mod replies;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crate::ports::{PortError, PortResult};

pub use bus::{MemoryBus, SavedBus};
pub use foreign::{MemoryDeadLetters, MemoryForeignEvents, SavedForeignEvents};
pub use leases::MemoryLeases;
pub use log::{MemoryCheckpoints, MemoryLog, SavedLog};
pub use queue::{MemoryQueue, SavedQueue};
pub use read_models::{LongRead, MemoryReadModels, MemoryShadow, SavedReadModels};
pub use replies::MemoryReplies;

/// A port's method that is about to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each names a port and its method")]
pub enum Call {
    QueueCreatedAt,
    QueueEnqueue,
    QueueMessage,
    QueueRead,
    QueuePurge,
    LogTakeOver,
    LogRows,
    LogLoad,
    LogCommit,
    LogRead,
    LogForgetQueue,
    LogDead,
    CheckpointsLoad,
    CheckpointsAdvance,
    BusTails,
    BusPublish,
    BusRead,
    BusRecords,
    ModelsCheckpoints,
    ModelsApply,
    ModelsRow,
    ModelsRows,
    RepliesSend,
    LeasesRenew,
    LeasesLeave,
    ForeignCreatedAt,
    ForeignMessage,
    ForeignRead,
    ForeignPosition,
    ForeignAdvance,
    DeadLettersKeep,
    ShadowBegin,
    ShadowApply,
    ShadowIndex,
    ShadowHold,
    ShadowSwap,
    ShadowAbandon,
    ForeignLettersRead,
}

impl Call {
    /// Whether it changes what is stored, so that a lost answer is not the same as a failure.
    #[must_use]
    pub const fn writes(self) -> bool {
        match self {
            Self::QueueEnqueue
            | Self::QueuePurge
            | Self::LogTakeOver
            | Self::LogCommit
            | Self::LogForgetQueue
            | Self::CheckpointsAdvance
            | Self::BusPublish
            | Self::ModelsApply
            | Self::RepliesSend
            | Self::LeasesRenew
            | Self::LeasesLeave
            | Self::ForeignAdvance
            | Self::DeadLettersKeep
            | Self::ShadowBegin
            | Self::ShadowApply
            | Self::ShadowIndex
            | Self::ShadowHold
            | Self::ShadowSwap
            | Self::ShadowAbandon => true,
            Self::QueueCreatedAt
            | Self::QueueMessage
            | Self::QueueRead
            | Self::LogRows
            | Self::LogLoad
            | Self::LogRead
            | Self::LogDead
            | Self::CheckpointsLoad
            | Self::BusTails
            | Self::BusRead
            | Self::BusRecords
            | Self::ModelsCheckpoints
            | Self::ModelsRow
            | Self::ModelsRows
            | Self::ForeignCreatedAt
            | Self::ForeignMessage
            | Self::ForeignRead
            | Self::ForeignPosition
            | Self::ForeignLettersRead => false,
        }
    }
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It does not happen, and the caller is told that the port is unavailable.
    Fail,
    /// It happens, and the caller is told that the port is unavailable.
    LoseAnswer,
    /// The first half of what it is about happens, and of the rest the caller is told that the port is unavailable: what a
    /// connection that breaks does to messages that are on their way one after the other. A call that is one transaction fails.
    Half,
}

/// Decides what goes wrong. Asked once a call, when the call is about to happen.
pub trait Interference: Send + Sync {
    /// What goes wrong with this call.
    fn before(&self, call: Call) -> Fault;
}

impl<F: Fn(Call) -> Fault + Send + Sync> Interference for F {
    fn before(&self, call: Call) -> Fault {
        self(call)
    }
}

/// One handle's way to its store: a place to let others run, and whoever interferes.
#[derive(Clone, Default)]
struct Way(Option<Arc<dyn Interference>>);

impl Way {
    /// Walks to the store and back. Others may run before it happens, and again before the caller hears of it: so a
    /// caller can be stopped, paused or overtaken on either side.
    async fn call<T>(&self, call: Call, happen: impl FnOnce() -> PortResult<T>) -> PortResult<T> {
        let_others_run().await;
        let fault = self.0.as_ref().map_or(Fault::None, |interference| interference.before(call));
        let answer = match fault {
            Fault::None => happen(),
            Fault::Fail | Fault::Half => Err(PortError::Unavailable(format!("{call:?} failed"))),
            Fault::LoseAnswer => {
                let _lost = happen();
                Err(PortError::Unavailable(format!("the answer to {call:?} was lost")))
            }
        };
        let_others_run().await;
        answer
    }

    /// As [`Way::call`], for calls whose items are on their way one after the other and have an answer each. What happens
    /// is told whether it is to break off in the middle.
    async fn call_each<T>(
        &self,
        call: Call,
        items: usize,
        happen: impl FnOnce(bool) -> Vec<PortResult<T>>,
    ) -> Vec<PortResult<T>> {
        let_others_run().await;
        let fault = self.0.as_ref().map_or(Fault::None, |interference| interference.before(call));
        let unavailable = |what: &str| {
            (0..items).map(|_| Err(PortError::Unavailable(format!("{call:?}: {what}")))).collect()
        };
        let answers = match fault {
            Fault::None => happen(false),
            Fault::Half => happen(true),
            Fault::Fail => unavailable("failed"),
            Fault::LoseAnswer => {
                let _lost = happen(false);
                unavailable("the answer was lost")
            }
        };
        let_others_run().await;
        answers
    }
}

/// Gives way once: whoever else can run may run first.
pub async fn let_others_run() {
    struct Once(bool);
    impl Future for Once {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if self.0 {
                return Poll::Ready(());
            }
            self.0 = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }
    Once(false).await;
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // A failed assertion while holding the lock ends the test anyway.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
