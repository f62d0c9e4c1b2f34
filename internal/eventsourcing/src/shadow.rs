//! The port that a rebuild writes to: read models in the shadow of those that are read.
//!
//! The rule this module protects: there is one shadow a store, nobody reads it, and it takes the place of the live read models
//! as a whole or not at all. Whatever becomes of its writer, the live ones are as they were.

use std::future::Future;

use crate::partition::Partition;
use crate::ports::{PortResult, Projected, ProjectionStep};

/// A store of read models that can hold a second set of the same tables.
pub trait Rebuildable: Send + Sync + 'static {
    /// The second set.
    type Shadow: Shadow;

    /// Makes an empty shadow, and drops what an earlier one has left behind. `None`: there is one already, of this process or
    /// another. It is free again when it was swapped, abandoned or dropped.
    fn begin_rebuild(&self) -> impl Future<Output = PortResult<Option<Self::Shadow>>> + Send;
}

/// Read models that nobody reads yet. After an error nothing can be done with them but to abandon them. Dropping a shadow lets go
/// of the live ones, but may leave its rows behind until the next one is made or the store is opened again.
pub trait Shadow: Send + 'static {
    /// Applies steps, which follow those before them, in one transaction: rows and checkpoints, as
    /// [`ReadModels::apply`](crate::ports::ReadModels::apply) does.
    fn apply(&mut self, steps: Vec<ProjectionStep>) -> impl Future<Output = PortResult<()>> + Send;

    /// Makes what lists are filtered by. Steps may be applied before and after, and are slower after. Whoever does not wait for
    /// the answer may only abandon the shadow, and that does not wait for all of the rest either.
    fn index(&mut self) -> impl Future<Output = PortResult<()>> + Send;

    /// Keeps the live ones where they are, until the swap or the shadow's end; answers with where that is. Whoever applies to
    /// them meanwhile waits, or is told that they are unavailable; whoever reads is not held up.
    fn hold(
        &mut self,
        partitions: &[Partition],
    ) -> impl Future<Output = PortResult<Vec<(Partition, Projected)>>> + Send;

    /// Puts the shadow in the place of the live ones, with its checkpoints, in one transaction; and lets go of them. `false`:
    /// somebody reads them in a long transaction. Then they are as they were, and are not held any more; and the shadow has all
    /// that was applied to it, also while they were held, so that it goes on from there.
    ///
    /// A [`PortError::Conflict`](crate::ports::PortError::Conflict) where it does not stand exactly where they do, or they
    /// are not held: then nothing happened.
    fn swap(&mut self) -> impl Future<Output = PortResult<bool>> + Send;

    /// Drops it all, and lets go of the live ones.
    fn abandon(self) -> impl Future<Output = PortResult<()>> + Send;
}
