//! The one loop shape: a turn does what there is to do, and `drive` repeats it.
//!
//! The rule this module protects: an error of the infrastructure is retried in place, with a jittered backoff, so
//! that nothing overtakes what failed; what no retry can cure ends the process with a message.

use std::future::{Future, ready};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::select;

use crate::environment::{Doorbell, Environment, Stop, within};
use crate::observer::Observer;

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There was something to do; there may be more.
    Worked,
    /// There was something to do, and it was all that there was: wait for a wake-up. One that came meanwhile is remembered, so nothing
    /// is waited for that is there already.
    Finished,
    /// There was nothing to do: wait for a wake-up.
    Idle,
}

/// Why a turn did not come to an end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The infrastructure failed, or an answer was lost. Whatever the loop remembered of it is forgotten; try again.
    #[error("{0}")]
    Retry(String),
    /// No retry can cure this: a person has to look.
    #[error("{0}")]
    Halt(String),
}

/// A loop came to a stop that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part} halted: {reason}")]
pub struct Halted {
    /// Which loop.
    pub part: &'static str,
    /// What to do about it.
    pub reason: String,
}

/// A loop's body.
pub trait Turn {
    /// The loop's name in logs.
    const PART: &'static str;

    /// Does what there is to do now.
    fn turn(&mut self) -> impl Future<Output = Result<Progress, Trouble>> + Send;

    /// Writes down, before the loop ends, what would else cost whoever comes next a repeat.
    fn write_down(&mut self) -> impl Future<Output = Result<(), Trouble>> + Send {
        ready(Ok(()))
    }

    /// Who looks on.
    fn observer(&self) -> Option<&dyn Observer> {
        None
    }

    /// Whether a stop waits until nothing is left to do. Only the listener needs this: whatever else is left
    /// undone is durable.
    fn drains(&self) -> bool {
        false
    }
}

/// The first and the longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// Turns until it is told to stop: again at once after work, at a wake-up or after `poll` when idle, and after a
/// jittered, doubling pause when something failed.
///
/// # Errors
///
/// When a turn halts.
pub async fn drive<T: Turn + Send, E: Environment>(
    body: &mut T,
    environment: &E,
    bell: &Doorbell,
    poll: Duration,
    stop: &Stop,
) -> Result<(), Halted> {
    until_stopped(body, environment, bell, poll, stop).await?;
    if let Err(trouble) = body.write_down().await {
        tracing::warn!(part = T::PART, %trouble, "not written down, and will be repeated");
    }
    Ok(())
}

async fn until_stopped<T: Turn + Send, E: Environment>(
    body: &mut T,
    environment: &E,
    bell: &Doorbell,
    poll: Duration,
    stop: &Stop,
) -> Result<(), Halted> {
    let mut backoff = BACKOFF.0;
    loop {
        let stopping = stop.is_given();
        if stopping && !body.drains() {
            return Ok(());
        }
        let turned = body.turn().await;
        if let (Err(trouble), Some(observer)) = (&turned, body.observer()) {
            observer.failed(T::PART, trouble);
        }
        let pause = match turned {
            Ok(Progress::Worked) => {
                backoff = BACKOFF.0;
                continue;
            }
            Ok(progress @ (Progress::Idle | Progress::Finished)) => {
                backoff = BACKOFF.0;
                if stopping && progress == Progress::Finished {
                    continue;
                }
                if stopping {
                    return Ok(());
                }
                until_rung(environment, bell, poll, stop).await;
                continue;
            }
            Err(Trouble::Retry(reason)) => {
                let pause = jittered(backoff, environment.random());
                tracing::warn!(part = T::PART, %reason, retry_in = ?pause, "retrying");
                backoff = backoff.saturating_mul(2).min(BACKOFF.1);
                pause
            }
            Err(Trouble::Halt(reason)) => {
                tracing::error!(part = T::PART, %reason, "halted");
                return Err(Halted { part: T::PART, reason });
            }
        };
        if stopping {
            return Ok(());
        }
        within(environment, pause, stop.given()).await;
    }
}

async fn until_rung<E: Environment>(environment: &E, bell: &Doorbell, poll: Duration, stop: &Stop) {
    let (rung, given) = (pin!(bell.rung()), pin!(stop.given()));
    within(environment, poll, select(rung, given)).await;
}

/// Between half of the duration and all of it.
fn jittered(duration: Duration, random: u64) -> Duration {
    let half = duration / 2;
    let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_micros(random % micros)
}
