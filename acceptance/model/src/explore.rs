//! The scenarios, and what exploring one comes to.
//!
//! The rule this module protects: an exploration is complete, or it found what it looked for. It never stops because it took too
//! long.

use std::collections::BTreeSet;
use std::fmt;
use std::thread::available_parallelism;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::{Bug, Command, Protocol, Scenario, Step};

/// A bid that wins and is approved.
pub const WON: Scenario = Scenario {
    funds: [9, 4],
    asking: [3, 2],
    bids: &[(0, 0, 5)],
    clients: &[Command::Bid(0), Command::Approve(0)],
    trouble: 1,
    purges: false,
    projects: false,
};

/// Two bids of one investor: one that may win and be approved, and one on an invoice that is nowhere.
pub const WON_AND_LOST: Scenario = Scenario {
    bids: &[(0, 0, 5), (0, 2, 4)],
    clients: &[Command::Bid(0), Command::Bid(1), Command::Approve(0)],
    ..WON
};

/// Three bids of two investors: two on one invoice, one on an invoice that is nowhere.
pub const RACE: Scenario = Scenario {
    bids: &[(0, 0, 5), (1, 0, 3), (0, 2, 4)],
    clients: &[Command::Bid(0), Command::Bid(1), Command::Bid(2)],
    ..WON
};

/// Two bids of one investor on two invoices, for which there is not money enough; one of them may be approved and reversed.
pub const ENDINGS: Scenario = Scenario {
    funds: [6, 0],
    bids: &[(0, 0, 5), (0, 1, 4)],
    clients: &[Command::Bid(0), Command::Bid(1), Command::Approve(0), Command::Reverse(0)],
    trouble: 0,
    ..WON
};

/// The scenarios that every run of the tests explores, and how many unique states each of them has.
pub const SMALL: &[(&str, Scenario, usize)] = &[
    ("endings", ENDINGS, 18_293),
    ("race", RACE, 932_462),
    ("queue that forgets", Scenario { purges: true, projects: true, ..WON }, 161_041),
    ("trouble upon trouble", Scenario { trouble: 2, ..WON }, 150_925),
    ("read models", Scenario { projects: true, ..WON_AND_LOST }, 2_912_938),
];

/// Those that take minutes: for whoever changes the protocol.
pub const LARGE: &[(&str, Scenario, usize)] = &[
    (
        "race and approval",
        Scenario {
            clients: &[Command::Bid(0), Command::Bid(1), Command::Bid(2), Command::Approve(0)],
            ..RACE
        },
        14_292_568,
    ),
    ("more trouble upon trouble", Scenario { trouble: 2, ..WON_AND_LOST }, 7_963_803),
    ("longer queue that forgets", Scenario { purges: true, ..WON_AND_LOST }, 1_924_975),
];

/// What an exploration came to.
#[derive(Debug)]
pub struct Seen {
    /// States that differ.
    pub unique: usize,
    /// States, as often as they were reached.
    pub reached: usize,
    /// The most steps that a run has.
    pub depth: usize,
    /// What must always hold, and does not.
    pub breaches: Vec<&'static str>,
    /// What can be seen to happen, and was.
    pub witnessed: Vec<&'static str>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unique, reached, depth, breaches, witnessed: _ } = self;
        write!(
            f,
            "{unique} unique states, reached {reached} times in at most {depth} steps; breaches: {breaches:?}"
        )
    }
}

/// Explores everything that can happen when nothing is wrong with the protocol.
#[must_use]
pub fn explore(scenario: Scenario) -> Seen {
    let threads = available_parallelism().map_or(1, usize::from);
    let protocol = Protocol { scenario, bug: None };
    let checker =
        protocol.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let found = checker.discoveries();
    let of = |names: Vec<&'static str>| names.into_iter().filter(|name| found.contains_key(name)).collect();
    Seen {
        unique: checker.unique_state_count(),
        reached: checker.state_count(),
        depth: checker.max_depth(),
        breaches: of(laws()),
        witnessed: of(witnesses()),
    }
}

fn names(expectation: &Expectation) -> Vec<&'static str> {
    let properties = Protocol { scenario: WON, bug: None }.properties();
    properties.into_iter().filter(|one| one.expectation == *expectation).map(|one| one.name).collect()
}

/// The names of what can be seen to happen.
#[must_use]
pub fn witnesses() -> Vec<&'static str> {
    names(&Expectation::Sometimes)
}

/// The names of what must always hold.
#[must_use]
pub fn laws() -> Vec<&'static str> {
    names(&Expectation::Always)
}

/// A shortest run in which the property does not hold because of the defect, if there is any.
#[must_use]
pub fn counterexample(scenario: Scenario, bug: Bug, property: &'static str) -> Option<Vec<Step>> {
    let wanted = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let protocol = Protocol { scenario, bug: Some(bug) };
    let checker = protocol.checker().finish_when(wanted).spawn_bfs().join();
    checker.discovery(property).map(stateright::Path::into_actions)
}
