//! The world outside, as the process sees it.
//!
//! The rule this module protects: this is the only place that reads the machine's clock and its randomness.

use std::time::{Duration, SystemTime};

use eventsourcing::environment::{Environment, Timestamp};
use uuid::Uuid;

/// The machine's clock, randomness and timers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where ids are made")]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn random(&self) -> u64 {
        // The lower half of a version 7 UUID is random but for its two uppermost bits.
        let (_, low) = self.uuid().as_u64_pair();
        low << 2
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}
