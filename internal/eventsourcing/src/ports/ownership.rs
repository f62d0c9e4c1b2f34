//! Who owns what.
//!
//! The rule this module protects: a role in a partition has one owner at a time, as far as anybody can know; the log decides in the end.

use std::future::Future;
use std::time::Duration;

use uuid::Uuid;

use super::PortResult;
use crate::partition::{Partition, PartitionCount};

/// What a partition has one owner of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Turns commands into facts.
    Worker,
    /// Carries the log to the bus.
    Relayer,
    /// Reacts to facts with commands.
    Policies,
    /// Folds facts into read models.
    Projector,
    /// Turns another context's events into commands. It knows no partitions: there is one to own, the first.
    Importer,
}

impl Role {
    /// Its name in stores, logs and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Relayer => "relayer",
            Self::Policies => "policies",
            Self::Projector => "projector",
            Self::Importer => "importer",
        }
    }
}

/// Who tries which partition. A lease is no right to write: that is what epochs and compare-and-set are for. It only
/// keeps two owners from getting in each other's way, by the store's clock and nobody else's.
pub trait Leases: Send + Sync + 'static {
    /// Says that the member lives, for `term` from now, whatever it said before; forgets members whose term is over; evens out with
    /// [`spread`](crate::membership::spread) and answers with what the member holds now, in order.
    fn renew(
        &self,
        role: Role,
        member: Uuid,
        partitions: PartitionCount,
        term: Duration,
    ) -> impl Future<Output = PortResult<Vec<Partition>>> + Send;

    /// Gives everything up at once, so that nobody has to wait for the term's end.
    fn leave(&self, role: Role, member: Uuid) -> impl Future<Output = PortResult<()>> + Send;
}
