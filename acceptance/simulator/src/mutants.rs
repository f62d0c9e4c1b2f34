//! Which planted bugs the simulator finds, by which check, and after how many seeds.
//!
//! The rule this module protects: a check that never fails is no check. Every bug that a platform like this can have in
//! its loops, its stores or its business is planted once, and found.

use std::fmt::Write as _;

use eventsourcing::mutants::{Mutant, plant, planted};

use crate::Breach;
use crate::campaign::campaign;

/// After how many seeds each bug was found when the table of `docs/mutants.md` was last written.
pub const FOUND_AFTER: &[(Mutant, u64)] = &[
    (Mutant::NoInbox, 1),
    (Mutant::RepeatsInOneBatch, 2),
    (Mutant::AnyContentIsARepeat, 3),
    (Mutant::RefusalNotRecorded, 1),
    (Mutant::SnapshotTooOld, 1),
    (Mutant::StaleCache, 5),
    (Mutant::PositionOutsideTheTransaction, 5),
    (Mutant::AnswerBeforeTheCommit, 1),
    (Mutant::TokenOfTheWrongPartition, 1),
    (Mutant::TokenOfTheRecordBefore, 1),
    (Mutant::EveryRecordIsTheLast, 1),
    (Mutant::WorkerSkipsAfterAnError, 5),
    (Mutant::PurgeSparesNothing, 1),
    (Mutant::QueueNotProven, 17),
    (Mutant::AnyIssuerExists, 3),
    (Mutant::NoEpoch, 2),
    (Mutant::MaxPlusOne, 2),
    (Mutant::RelayerSkipsAfterAnError, 1),
    (Mutant::NoExpectedSequence, 1),
    (Mutant::RelayerNeverLooksAgain, 1),
    (Mutant::RandomPolicyIds, 1),
    (Mutant::CheckpointFirst, 27),
    (Mutant::PolicySkipsAfterAnError, 9),
    (Mutant::CorrelationOfItsOwn, 1),
    (Mutant::CausedByTheCommand, 1),
    (Mutant::ImportPositionFirst, 1911),
    (Mutant::AdoptKeepsTheCheckpoints, 17),
    (Mutant::RetryIdNotDerived, 2),
    (Mutant::DiscardUnderAnotherId, 1),
    (Mutant::RetryOutOfOrder, 2),
    (Mutant::RetryBeforeItsCause, 117),
    (Mutant::AcceptedBeforeQueued, 2),
    (Mutant::UncertainIsAccepted, 2),
    (Mutant::ProjectionWithoutCompareAndSet, 3),
    (Mutant::RowsAfterTheCheckpoint, 1),
    (Mutant::ReadsDoNotWait, 1),
    (Mutant::ExcessNotShown, 1),
    (Mutant::ReleaseByTotal, 1),
    (Mutant::ExcessNotExact, 1),
    (Mutant::TwoWinners, 1),
    (Mutant::SelfFinancing, 2),
    (Mutant::CommitsTheBid, 1),
    (Mutant::ReturnsTheBid, 1),
    (Mutant::RefusedBidKeepsItsMoney, 2),
    (Mutant::ReversedCanBeApproved, 3),
    (Mutant::Overdraft, 1),
    (Mutant::ReleasedMoneyIsGone, 1),
];

/// Runs seeds from 0 with the bug planted, up to the first that fails. Answers with how many ran until then, and with what
/// failed. `None`: so many seeds do not find it.
#[must_use]
pub fn first_seed_that_kills(mutant: Mutant, max_seeds: u64) -> Option<(u64, Breach)> {
    let found = campaign(0, max_seeds, 1, || plant(Some(mutant)));
    found.failure.map(|(seed, breach)| (seed + 1, breach))
}

/// The table of `docs/mutants.md`: every bug, which check finds it, and after how many seeds.
#[must_use]
pub fn table(max_seeds: u64) -> String {
    let mut table = String::from("| bug | what is wrong | found by | after seeds |\n|---|---|---|---:|\n");
    for mutant in Mutant::ALL {
        let (by, after) = match first_seed_that_kills(*mutant, max_seeds) {
            Some((seeds, breach)) => (breach.check.name().to_owned(), seeds.to_string()),
            None => ("not found".to_owned(), format!("more than {max_seeds}")),
        };
        // Writing to a string cannot fail.
        let _written = writeln!(table, "| `{}` | {} | {by} | {after} |", mutant.name(), mutant.says());
    }
    table
}

/// A bug that is planted goes by chance, too: from here on it is the same chance in every run.
pub(crate) fn begin_again() {
    if let Some(mutant) = Mutant::ALL.iter().copied().find(|mutant| planted(*mutant)) {
        plant(Some(mutant));
    }
}
