//! Given / when / then for one aggregate.
//!
//! The rule this module protects: a specification speaks of facts, commands and answers, never of the state in between.
//! What is decided is evolved as well, so that no fact can be decided that its own aggregate chokes on.

use std::fmt::Debug;

use crate::model::{Aggregate, AggregateRef, Known};

/// What has happened so far, and what is known of others.
#[derive(Debug)]
#[must_use]
pub struct Scenario<A: Aggregate> {
    state: A,
    known: Known,
}

impl<A: Aggregate> Scenario<A> {
    /// These facts have happened, in this order.
    pub fn given(events: impl IntoIterator<Item = A::Event>) -> Self {
        let state = events.into_iter().fold(A::default(), |state, event| state.evolve(&event));
        Self { state, known: Known::default() }
    }

    /// These other aggregates exist.
    pub fn knowing(self, existing: impl IntoIterator<Item = AggregateRef>) -> Self {
        Self { known: Known::new(existing), ..self }
    }

    /// The command comes in.
    pub fn when(self, command: impl Into<A::Command>) -> Decision<A> {
        let answer = self.state.decide(&command.into(), &self.known);
        Decision { state: self.state, answer }
    }
}

/// What the aggregate answered; to be asserted.
#[derive(Debug)]
#[must_use]
pub struct Decision<A: Aggregate> {
    state: A,
    answer: Result<Vec<A::Event>, A::Refusal>,
}

impl<A> Decision<A>
where
    A: Aggregate<Event: Debug + PartialEq, Refusal: Debug + PartialEq>,
{
    /// Exactly these facts follow. Answers with the state after them.
    ///
    /// # Panics
    ///
    /// When the answer is another.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) -> A {
        let expected: Vec<_> = expected.into_iter().collect();
        assert!(!expected.is_empty(), "no facts at all is `then_unchanged`");
        let expected = Ok(expected);
        assert_eq!(self.answer, expected, "the facts that follow");
        expected.iter().flatten().fold(self.state, A::evolve)
    }

    /// The command is accepted and changes nothing.
    ///
    /// # Panics
    ///
    /// When the answer is another.
    #[track_caller]
    pub fn then_unchanged(self) {
        assert_eq!(self.answer, Ok(Vec::new()), "the command should have changed nothing");
    }

    /// The command is refused, for exactly this reason.
    ///
    /// # Panics
    ///
    /// When the answer is another.
    #[track_caller]
    pub fn then_refused(self, refusal: A::Refusal) {
        assert_eq!(self.answer, Err(refusal), "the command should have been refused");
    }
}
