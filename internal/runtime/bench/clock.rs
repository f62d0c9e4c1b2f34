//! The clock of a measurement.
//!
//! The rule this module protects: what is measured is a difference, and comes from a clock that only goes forward. Nothing that is
//! stored ever does.

use std::time::{Duration, Instant};

/// A clock that was 0 when it was started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    /// It is 0 now.
    #[expect(clippy::disallowed_methods, reason = "the wall clock may be set while something is measured")]
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// How long ago that was, in microseconds.
    pub(super) fn micros(self) -> u64 {
        micros(self.0.elapsed())
    }
}

/// In microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
