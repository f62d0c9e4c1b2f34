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
    /// It asked to wait for something.
    Long,
    /// It goes on for as long as the client likes, and holds what it has read for it.
    Stream,
    /// A live query: it goes on for as long as the client likes, with a task of its own.
    Watch,
}

/// How many calls are worked on at a time. No kind takes places from another. (But where the short ones have taken all of theirs, or
/// those that come in might, the [gate](super::gate) lets no command in, however it would wait.)
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    watches: Arc<Semaphore>,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// So many short ones, so many long ones, so many streams and so many live queries.
    pub(crate) fn new(short: usize, long: usize, streams: usize, watches: usize) -> Self {
        let semaphore = |places: usize| Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self {
            short: semaphore(short),
            long: semaphore(long),
            streams: semaphore(streams),
            watches: semaphore(watches),
        }
    }

    /// How many more short calls there may be.
    pub(crate) fn places(&self) -> usize {
        self.short.available_permits()
    }

    /// A place, where there is one.
    pub(crate) fn admit(&self, load: Load) -> Option<Place> {
        let semaphore = match load {
            Load::Short => &self.short,
            Load::Long => &self.long,
            Load::Stream => &self.streams,
            Load::Watch => &self.watches,
        };
        Arc::clone(semaphore).try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_call_has_ended() {
        let admission = Admission::new(1, 1, 1, 1);
        let place = admission.admit(Load::Short);
        assert!(place.is_some());
        assert_eq!(admission.places(), 0);
        assert!(admission.admit(Load::Short).is_none());
        assert!(admission.admit(Load::Long).is_some());
        assert!(admission.admit(Load::Stream).is_some());
        assert!(admission.admit(Load::Watch).is_some());
        drop(place);
        assert_eq!(admission.places(), 1);
        assert!(admission.admit(Load::Short).is_some());
    }
}
