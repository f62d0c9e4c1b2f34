//! A short run of the simulator, and what makes its runs worth something: the same seed is the same run, and everything
//! that can happen does.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::thread;

use simulator::campaign::{Campaign, campaign};
use simulator::plan::{MishapKind, Plan};
use simulator::run::run;
use simulator::tally::Counted;

/// Enough to meet everything, and few enough to be waited for.
const SEEDS: u64 = 2_000;

/// Run once, and looked at by more than one test.
static CAMPAIGN: LazyLock<Campaign> = LazyLock::new(|| campaign(0, SEEDS, 2, || {}));

#[test]
fn no_seed_breaks_an_invariant() {
    let found = &CAMPAIGN;
    assert_eq!(found.failure, None, "`simulate --seed N --story` tells what happened");
    assert_eq!(found.runs, SEEDS);
}

#[test]
fn the_same_seed_is_the_same_run_on_any_thread() {
    let seeds = || (7_000..7_050).map(|seed| run(&Plan::draw(seed), false));
    let traces = move || seeds().map(|run| (run.trace, run.steps, run.tally)).collect::<Vec<_>>();
    let (one, other) = (thread::spawn(traces), thread::spawn(traces));
    let here = traces();
    assert_eq!(one.join().unwrap(), here);
    assert_eq!(other.join().unwrap(), here);
    let different: BTreeSet<u64> = here.iter().map(|(trace, ..)| *trace).collect();
    assert_eq!(different.len(), here.len(), "another seed is another run");
}

#[test]
fn telling_a_story_changes_nothing() {
    for seed in 0..20 {
        let plan = Plan::draw(seed);
        let (silent, told) = (run(&plan, false), run(&plan, true));
        assert_eq!((silent.trace, silent.steps), (told.trace, told.steps), "seed {seed}");
        assert!(silent.story.is_empty());
        assert!(told.story.len() > 100, "seed {seed}: {} lines", told.story.len());
        assert_eq!(told.story, run(&plan, true).story);
    }
}

#[test]
fn a_campaign_comes_to_the_same_on_one_thread_and_on_three() {
    let (one, three) = (campaign(500, 60, 1, || {}), campaign(500, 60, 3, || {}));
    assert_eq!((one.trace, one.steps, &one.tally), (three.trace, three.steps, &three.tally));
    assert_ne!(one.trace, campaign(501, 60, 1, || {}).trace);
}

#[test]
fn every_plan_has_forty_commands_and_five_mishaps() {
    for seed in 0..2_000 {
        let plan = Plan::draw(seed);
        assert!(plan.acts.len() >= 40, "seed {seed}: {} acts", plan.acts.len());
        assert!(plan.mishaps.len() >= 5, "seed {seed}: {} mishaps", plan.mishaps.len());
        assert!((1..=4).contains(&plan.partitions));
        assert!((2..=4).contains(&plan.cast.issuers.len()) && (2..=5).contains(&plan.cast.investors.len()));
        let replaced =
            |kind: &MishapKind| matches!(kind, MishapKind::QueueRestored { .. } | MishapKind::QueueLost);
        assert!(plan.mishaps.iter().filter(|mishap| replaced(&mishap.kind)).count() <= 1);
    }
}

#[test]
fn everything_that_is_counted_happens() {
    let found = &CAMPAIGN;
    let never: Vec<&str> =
        Counted::ALL.iter().filter(|what| found.tally.of(**what) == 0).map(|what| what.name()).collect();
    assert!(never.is_empty(), "never: {never:?}");
    assert!(found.tally.faults() > 5 * SEEDS, "{} faults", found.tally.faults());
    let at_least = [
        (Counted::Accepted, 40 * SEEDS),
        (Counted::Records, 60 * SEEDS),
        (Counted::Fenced, 100),
        (Counted::PublicationRefused, 100),
        (Counted::Refilled, 100),
        (Counted::PolicyRepeats, 100),
        (Counted::Repeats, 1_000),
        (Counted::Halted, 20),
        (Counted::Adopted, 20),
        (Counted::ReadOwnWrites, 5_000),
        (Counted::Answered, 5_000),
    ];
    for (what, least) in at_least {
        assert!(found.tally.of(what) >= least, "{}: {}", what.name(), found.tally.of(what));
    }
}
