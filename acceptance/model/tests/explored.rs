//! The protocol holds in every order of everything that can happen, and each planted defect is found.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;

use model::{
    Answer, Bug, SMALL, Scenario, Step, WON, WON_AND_LOST, counterexample, explore, laws, witnesses,
};

#[test]
fn every_property_holds_in_every_state() {
    let mut witnessed = BTreeSet::new();
    let mut most = 0;
    for (name, scenario, unique) in SMALL {
        let seen = explore(*scenario);
        println!("{name}: {seen}");
        assert_eq!(seen.breaches, Vec::<&str>::new(), "{name}");
        assert_eq!(
            seen.unique, *unique,
            "{name}: the protocol has another number of states; docs/model.md says it, too"
        );
        witnessed.extend(seen.witnessed);
        most = most.max(seen.unique);
    }
    // That nothing bad happens says something only where everything else does.
    assert_eq!(witnessed, witnesses().into_iter().collect());
    assert!(most >= 2_000_000, "{most}");
}

/// The run in which the property does not hold.
fn found(scenario: Scenario, bug: Bug, property: &'static str) -> Vec<Step> {
    counterexample(scenario, bug, property).unwrap()
}

fn takes_over(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::TakeOver(..)))
}

#[test]
fn without_the_epoch_a_zombie_writes_and_does_no_other_harm() {
    let property = "whoever was replaced writes nothing";
    assert!(takes_over(&found(WON, Bug::NoEpoch, property)));
    for other in laws().into_iter().filter(|law| *law != property) {
        assert_eq!(counterexample(WON, Bug::NoEpoch, other), None, "{other}");
    }
}

#[test]
fn without_compare_and_set_two_owners_write_the_same_version_and_answer_twice() {
    for property in ["I2 no command has two outcomes", "I4 sequences and versions have no gap"] {
        assert!(takes_over(&found(WON, Bug::NoCompareAndSet, property)));
    }
}

#[test]
fn without_the_inbox_a_repeat_acts_twice() {
    let steps = found(WON, Bug::NoInbox, "I2 no command has two outcomes");
    assert!(steps.iter().any(|step| matches!(step, Step::Repeat(_) | Step::React(..))));
}

#[test]
fn with_its_own_transaction_for_the_position_a_crash_skips_commands() {
    let steps = found(WON, Bug::PositionFirst, "I2, I3 what is at rest is settled");
    assert!(
        takes_over(&steps) || steps.iter().any(|step| matches!(step, Step::Commit(_, _, Answer::Failed)))
    );
}

#[test]
fn purging_what_is_not_committed_loses_it() {
    let property = "what is not done, and what proves the queue, is not purged";
    found(Scenario { purges: true, ..WON }, Bug::PurgeDecided, property);
}

#[test]
fn purging_what_proves_the_queue_stops_whoever_comes_next() {
    found(Scenario { purges: true, ..WON }, Bug::PurgeSparesNothing, "nothing stops before it is at rest");
}

#[test]
fn a_checkpoint_that_moves_first_loses_what_follows_at_a_crash() {
    let steps = found(WON, Bug::CheckpointFirst, "I2, I3 what is at rest is settled");
    assert!(steps.iter().any(|step| matches!(step, Step::Forget(_))));
}

#[test]
fn with_random_ids_what_follows_is_done_twice() {
    found(WON_AND_LOST, Bug::RandomIds, "I3 a bid ends once, and each of its moves is exact");
}

#[test]
fn policies_that_read_the_log_put_effects_before_causes() {
    found(WON, Bug::PoliciesReadLog, "I5 cause before effect");
}

#[test]
fn without_an_expected_sequence_the_bus_has_a_record_twice() {
    found(WON, Bug::NoExpectedSequence, "I5 the bus is a prefix of the log");
}

#[test]
fn without_a_checkpoint_compared_a_fact_is_folded_twice() {
    found(Scenario { projects: true, ..WON }, Bug::BlindProjector, "I6 a read model is the fold of a prefix");
}

#[test]
fn releasing_by_the_total_takes_another_bids_money() {
    found(WON_AND_LOST, Bug::ReleaseByTotal, "I1 no money is lost or made");
    found(WON_AND_LOST, Bug::ReleaseByTotal, "I3 a bid ends once, and each of its moves is exact");
}
