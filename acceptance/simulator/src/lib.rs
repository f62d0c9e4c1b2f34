//! The whole platform on one thread, under one seed, with everything failing that can fail.
//!
//! The rule this crate protects: a run is a function of its plan, and a plan of its seed. What is found once is found
//! again by whoever has the number.
//!
//! # Layout
//!
//! - [`plan`]: what will happen, as data; `draw` and `misfortune` draw it from a seed
//! - [`parts`]: who takes part
//! - `stage`: the stores and the processes; `wire`: what stands between them
//! - `client`: those who use the platform, and believe what they are told
//! - [`run`]: one run; `trouble`: what a mishap does; `replaced`: when the queue is another one
//! - `operator`: those who look after the dead letters
//! - `audit`: what has to be true afterwards
//! - [`story`]: a run, for people; [`shrink`]: as little of a plan as fails
//! - [`campaign`]: many runs; [`tally`]: what happened in them
#![cfg_attr(
    feature = "mutants",
    doc = "- [`mutants`]: which planted bugs are found, and after how many seeds"
)]

mod audit;
pub mod campaign;
mod client;
mod draw;
mod misfortune;
#[cfg(feature = "mutants")]
pub mod mutants;
mod operator;
pub mod parts;
pub mod plan;
mod replaced;
pub mod run;
pub mod shrink;
mod stage;
pub mod story;
pub mod tally;
mod trouble;
mod wire;

use std::fmt;

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// Money.
    I1,
    /// Every accepted command has one outcome.
    I2,
    /// Bids and reservations.
    I3,
    /// Versions and sequences.
    I4,
    /// The bus is a prefix of the log.
    I5,
    /// The read models are a fold of the log.
    I6,
    /// An effect names its cause.
    Causality,
    /// What is stored can be read.
    Form,
    /// Who presents a token reads its own writes.
    I7,
    /// What clients were told is what the inbox says.
    Answers,
    /// Everything comes to its end, once nothing goes wrong any more.
    Liveness,
    /// Readers halt where they must, and nowhere else.
    Halts,
    /// What nobody could do anything with is kept, once.
    DeadLetters,
    /// No loop panics.
    Panics,
}

impl Check {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::I5 => "I5",
            Self::I6 => "I6",
            Self::Causality => "causality",
            Self::Form => "form",
            Self::I7 => "I7",
            Self::Answers => "answers",
            Self::Liveness => "liveness",
            Self::Halts => "halts",
            Self::DeadLetters => "dead letters",
            Self::Panics => "panics",
        }
    }
}

/// Something is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// What was checked.
    pub check: Check,
    /// What is wrong, in one sentence.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check.name(), self.what)
    }
}
