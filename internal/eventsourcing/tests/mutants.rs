//! Planting bugs.

#![cfg(feature = "mutants")]

use eventsourcing::mutants::{Mutant, plant, planted};

#[test]
fn one_is_planted_for_a_thread_and_taken_out_again() {
    plant(Some(Mutant::NoInbox));
    assert!(planted(Mutant::NoInbox) && !planted(Mutant::NoEpoch));
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(!planted(Mutant::NoInbox)));
    });
    plant(None);
    assert!(Mutant::ALL.iter().all(|mutant| !planted(*mutant)));
}
