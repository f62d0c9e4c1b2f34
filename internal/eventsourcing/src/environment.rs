//! Clock, randomness, wake-ups and stop signals: what a loop may not reach for by itself.
//!
//! The rule this module protects: a run is a function of its inputs. Under an [`Environment`] with a seed, the
//! same loops take the same steps.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// Microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// This many microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The moment so much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long it is from this until then; nothing where a clock was set back in between.
    #[must_use]
    pub const fn until(self, then: Self) -> Duration {
        Duration::from_micros(then.0.saturating_sub(self.0))
    }
}

/// The world outside: one of the process, and one a test under its seed.
pub trait Environment: Clone + Send + Sync + 'static {
    /// The wall clock. It may jump; nothing may depend on its order.
    fn now(&self) -> Timestamp;

    /// A new unique id.
    fn uuid(&self) -> Uuid;

    /// Uniformly distributed bits, for jitter.
    fn random(&self) -> u64;

    /// Completes after the duration, which runs from this call, and not from when it is waited for.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// Waits for the future, for at most the duration. `None`: the time was up first.
pub async fn within<E: Environment, F: Future>(
    environment: &E,
    duration: Duration,
    future: F,
) -> Option<F::Output> {
    let (future, sleep) = (pin!(future), pin!(environment.sleep(duration)));
    match select(future, sleep).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}

/// One loop's wake-up. Rings that nobody has heard yet are remembered as one.
#[derive(Debug, Clone, Default)]
pub struct Doorbell(Arc<Notify>);

impl Doorbell {
    /// Wakes whoever waits, or the next one who does.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Completes when the bell is rung.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}

/// The wake-ups of everybody who wants to know of something: one bell each, rung together.
#[derive(Debug, Clone, Default)]
pub struct Doorbells(Arc<Mutex<Vec<std::sync::Weak<Notify>>>>);

impl Doorbells {
    /// A new bell among these, for as long as the caller keeps it.
    #[must_use]
    pub fn hang(&self) -> Doorbell {
        let bell = Doorbell::default();
        self.add(&bell);
        bell
    }

    /// Adds a bell that exists already, for a loop that has more than one reason to wake.
    pub fn add(&self, bell: &Doorbell) {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(&bell.0));
    }

    /// Rings them all.
    pub fn ring(&self) {
        for bell in
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(std::sync::Weak::upgrade)
        {
            bell.notify_one();
        }
    }
}

/// Says that it is time to stop: finish the turn, commit, and come to an end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// The other end of a [`Stop`]. Dropping it stops as well.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stop {
    /// A signal and the lever that gives it.
    #[must_use]
    pub fn new() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Self(receiver))
    }

    /// Whether the signal was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Completes when the signal is given.
    pub async fn given(&self) {
        let mut receiver = self.0.clone();
        // An error means that the sender is gone, which is the signal too.
        let _closed = receiver.wait_for(|given| *given).await;
    }
}

impl Stopper {
    /// Gives the signal; it is never taken back.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
