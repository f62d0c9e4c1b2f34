//! Every bug that can be planted is found, and about as soon as the table says.

#![cfg(feature = "mutants")]

use eventsourcing::mutants::{Mutant, plant};
use simulator::mutants::{FOUND_AFTER, first_seed_that_kills};
use simulator::plan::Plan;
use simulator::run::run;
use simulator::shrink::shrink;

#[test]
fn every_planted_bug_is_in_the_table() {
    let known: Vec<Mutant> = FOUND_AFTER.iter().map(|(mutant, _)| *mutant).collect();
    assert_eq!(known, Mutant::ALL);
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for (mutant, seeds) in FOUND_AFTER {
        // A change of a loop shifts every run, so it may take longer; twenty times longer is another simulator.
        if first_seed_that_kills(*mutant, seeds * 20).is_none() {
            missed.push(mutant.name());
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn what_is_left_of_a_failing_plan_is_small_fails_alike_and_ends_in_the_breach() {
    let seeds = first_seed_that_kills(Mutant::TwoWinners, 100);
    let (seeds, _) = seeds.unwrap();
    plant(Some(Mutant::TwoWinners));
    let whole = Plan::draw(seeds - 1);
    let check = run(&whole, false).breach.unwrap().check;
    let (small, breach) = shrink(&whole).unwrap();
    assert_eq!(breach.check, check);
    // An issuer, two investors, a sale and two bids; nothing has to go wrong around it.
    assert!(small.acts.len() <= 8 && small.mishaps.is_empty(), "{} acts", small.acts.len());
    let told = run(&small, true);
    assert_eq!(told.breach, Some(breach));
    assert!(told.story.last().unwrap().starts_with("BREACH of I3"));
    assert!(told.story.iter().any(|line| line.contains("bids")), "{:#?}", told.story);
    plant(None);
}
