//! Many runs.
//!
//! The rule this module protects: what a campaign comes to does not depend on how many threads ran it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Breach;
use crate::plan::Plan;
use crate::run::run;
use crate::tally::Tally;

/// What many runs came to.
#[derive(Debug, Clone, Default)]
pub struct Campaign {
    /// How many ran.
    pub runs: u64,
    /// Their steps.
    pub steps: u64,
    /// What happened in them.
    pub tally: Tally,
    /// All their traces as one number, in whatever order they ran.
    pub trace: u64,
    /// The first seed that failed, and how.
    pub failure: Option<(u64, Breach)>,
}

impl Campaign {
    fn add(&mut self, seed: u64) {
        let run = run(&Plan::draw(seed), false);
        self.runs += 1;
        self.steps += run.steps;
        self.tally.merge(&run.tally);
        let mut mixed = (run.trace ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 32;
        self.trace = self.trace.wrapping_add(mixed);
        if let Some(breach) = run.breach {
            self.failure = Some((seed, breach));
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.tally.merge(&other.tally);
        self.trace = self.trace.wrapping_add(other.trace);
        let first = |failure: &Option<(u64, Breach)>| failure.as_ref().map_or(u64::MAX, |(seed, _)| *seed);
        if first(&other.failure) < first(&self.failure) {
            self.failure = other.failure;
        }
    }
}

/// Runs seeds, on so many threads, up to the first that fails. `prepare` is called on each thread before it begins.
#[must_use]
pub fn campaign(from: u64, seeds: u64, threads: usize, prepare: impl Fn() + Sync) -> Campaign {
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(u64::MAX));
    let end = from.saturating_add(seeds);
    let all = Mutex::new(Campaign::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                prepare();
                let mut mine = Campaign::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || seed > failed.load(Ordering::Relaxed) {
                        break;
                    }
                    mine.add(seed);
                    if mine.failure.is_some() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        break;
                    }
                }
                all.lock().unwrap_or_else(PoisonError::into_inner).merge(mine);
            });
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}
