//! Steps of one partition that follow each other.
//!
//! The rule this module protects: steps that are handed over together are answered one by one, as if each had been applied
//! after the one before it, though a partition's checkpoint moves once.

use std::collections::BTreeMap;

use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::{ProjectionStep, RowChange};
use sqlx::types::Uuid;

/// A step, and its place among those that were handed over.
pub(super) type Placed<'a> = (usize, &'a ProjectionStep);

/// One step, and those of its partition that begin where the one before them ends.
pub(super) struct Chain<'a> {
    first: Placed<'a>,
    rest: Vec<Placed<'a>>,
}

impl<'a> Chain<'a> {
    /// One chain a partition: from its first step on. A step that does not follow is in none.
    pub(super) fn of(steps: &[Placed<'a>]) -> Vec<Self> {
        let mut chains: BTreeMap<Partition, Self> = BTreeMap::new();
        for step in steps {
            match chains.get_mut(&step.1.checkpoint.partition) {
                Some(chain) if chain.to() == step.1.checkpoint.from => chain.rest.push(*step),
                Some(_) => {}
                None => {
                    chains.insert(step.1.checkpoint.partition, Self { first: *step, rest: Vec::new() });
                }
            }
        }
        chains.into_values().collect()
    }

    pub(super) const fn partition(&self) -> Partition {
        self.first.1.checkpoint.partition
    }

    pub(super) const fn from(&self) -> Sequence {
        self.first.1.checkpoint.from
    }

    pub(super) fn to(&self) -> Sequence {
        self.last().checkpoint.to
    }

    /// The id of the record that it ends with.
    pub(super) fn record_id(&self) -> Uuid {
        self.last().record_id
    }

    pub(super) const fn first(&self) -> usize {
        self.first.0
    }

    fn last(&self) -> &'a ProjectionStep {
        self.rest.last().unwrap_or(&self.first).1
    }

    fn steps(&self) -> impl Iterator<Item = Placed<'a>> {
        std::iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// The places of its steps.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.steps().map(|(place, _)| place)
    }
}

/// What the chains' steps change, in the order in which the steps were handed over.
pub(super) fn changes<'a>(chains: &[Chain<'a>]) -> impl Iterator<Item = &'a RowChange> + use<'a> {
    let mut steps: Vec<Placed<'a>> = chains.iter().flat_map(Chain::steps).collect();
    steps.sort_unstable_by_key(|(place, _)| *place);
    steps.into_iter().flat_map(|(_, step)| &step.changes)
}
