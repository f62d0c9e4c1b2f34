//! As little of a plan as fails.
//!
//! The rule this module protects: what is taken away is taken away for good only if what is left breaks the same rule. Taking
//! anything away shifts everything behind it, so what is left is given a few schedules to fail under.

use eventsourcing::testkit::world::Dice;

use crate::plan::Plan;
use crate::run::run;
use crate::{Breach, Check};

/// How many schedules a smaller plan gets.
const SCHEDULES: u64 = 16;

/// Takes mishaps and acts away, one after the other, until none can be spared. `None`: the plan does not fail.
#[must_use]
pub fn shrink(plan: &Plan) -> Option<(Plan, Breach)> {
    let breach = run(plan, false).breach?;
    let check = breach.check;
    let mut best = (plan.clone(), breach);
    loop {
        let before = (best.0.mishaps.len(), best.0.acts.len());
        spare(&mut best, check, |plan| &mut plan.mishaps);
        spare(&mut best, check, |plan| &mut plan.acts);
        if (best.0.mishaps.len(), best.0.acts.len()) == before {
            return Some(best);
        }
    }
}

/// Takes as many items of one kind away as can be: first many at once, then one at a time.
fn spare<T>(best: &mut (Plan, Breach), check: Check, items: fn(&mut Plan) -> &mut Vec<T>) {
    let mut chunk = items(&mut best.0).len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        while from < items(&mut best.0).len() {
            let mut smaller = best.0.clone();
            let all = items(&mut smaller);
            let end = (from + chunk).min(all.len());
            all.drain(from..end);
            match fails(&smaller, check) {
                Some(failing) => *best = failing,
                None => from = end,
            }
        }
        if chunk == 1 {
            return;
        }
        chunk = chunk.div_ceil(2);
    }
}

/// The plan as it is, or under another schedule, with its mishaps at other steps: whichever fails first.
fn fails(plan: &Plan, check: Check) -> Option<(Plan, Breach)> {
    for schedule in 0..SCHEDULES {
        let mut other = plan.clone();
        if schedule > 0 {
            let mut dice = Dice::new(plan.seed.wrapping_add(schedule));
            other.seed = dice.roll();
            for mishap in &mut other.mishaps {
                mishap.steps = u32::try_from(dice.below(40)).unwrap_or(0);
            }
        }
        if let Some(breach) = run(&other, false).breach.filter(|breach| breach.check == check) {
            return Some((other, breach));
        }
    }
    None
}
