//! Load shedding.
//!
//! The rule this module protects: what the server works on at a time is bounded, and what comes beyond that is told so
//! at once instead of waiting until nobody wants the answer any more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// It is answered as soon as it can be.
    Short,
    /// It waits for something: a stream, or a call that asked to wait.
    Long,
}

/// How many calls are worked on at a time. Long ones do not take places from short ones.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// So many short ones and so many long ones.
    pub(crate) fn new(short: usize, long: usize) -> Self {
        let semaphore = |places: usize| Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { short: semaphore(short), long: semaphore(long) }
    }

    /// A place, where there is one.
    pub(crate) fn admit(&self, load: Load) -> Option<Place> {
        let semaphore = match load {
            Load::Short => &self.short,
            Load::Long => &self.long,
        };
        Arc::clone(semaphore).try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_call_has_ended() {
        let admission = Admission::new(1, 1);
        let place = admission.admit(Load::Short);
        assert!(place.is_some());
        assert!(admission.admit(Load::Short).is_none());
        assert!(admission.admit(Load::Long).is_some());
        drop(place);
        assert!(admission.admit(Load::Short).is_some());
    }
}
