//! Which partitions a loop owns.
//!
//! The rule this module protects: ownership is only a matter of who tries. Who may write is decided by the store, and
//! a loop that is refused gives its partition up here.

use std::sync::{Arc, Mutex, PoisonError};

use crate::environment::Doorbells;
use crate::partition::Partition;

/// Which partitions a loop owns. Shared with whoever hands them out.
#[derive(Debug, Clone, Default)]
pub struct Assignment(Arc<AssignmentState>);

#[derive(Debug, Default)]
struct AssignmentState {
    partitions: Mutex<Vec<Partition>>,
    lost: Mutex<Vec<Partition>>,
    bells: Doorbells,
}

impl Assignment {
    /// These partitions, to begin with.
    #[must_use]
    pub fn of(partitions: impl IntoIterator<Item = Partition>) -> Self {
        let assignment = Self::default();
        assignment.assign(partitions);
        assignment
    }

    /// Hands out these partitions, and no others.
    pub fn assign(&self, partitions: impl IntoIterator<Item = Partition>) {
        let mut assigned: Vec<Partition> = partitions.into_iter().collect();
        assigned.sort_unstable();
        assigned.dedup();
        *self.0.partitions.lock().unwrap_or_else(PoisonError::into_inner) = assigned;
        self.0.bells.ring();
    }

    /// The partitions that are handed out, in order.
    #[must_use]
    pub fn current(&self) -> Vec<Partition> {
        self.0.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The loop found out that somebody else owns the partition.
    pub fn lose(&self, partition: Partition) {
        self.0.partitions.lock().unwrap_or_else(PoisonError::into_inner).retain(|owned| *owned != partition);
        self.0.lost.lock().unwrap_or_else(PoisonError::into_inner).push(partition);
        self.0.bells.ring();
    }

    /// The partitions that were lost since this was last asked.
    #[must_use]
    pub fn take_lost(&self) -> Vec<Partition> {
        std::mem::take(&mut *self.0.lost.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Rung when partitions are handed out or lost.
    #[must_use]
    pub fn bells(&self) -> &Doorbells {
        &self.0.bells
    }
}
