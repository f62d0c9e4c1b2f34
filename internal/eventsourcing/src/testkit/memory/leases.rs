//! Leases in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use super::{Call, Interference, Way, lock};
use crate::environment::{Environment as _, Timestamp};
use crate::membership::spread;
use crate::partition::{Partition, PartitionCount};
use crate::ports::{Leases, PortResult, Role};
use crate::testkit::world::WorldEnvironment;

/// [`Leases`] in memory, by the clock of a world.
#[derive(Clone)]
pub struct MemoryLeases {
    clock: WorldEnvironment,
    state: Arc<Mutex<BTreeMap<Role, Held>>>,
    way: Way,
}

/// What is known of a role.
#[derive(Default)]
struct Held {
    /// The members, and when their terms are over.
    members: BTreeMap<Uuid, Timestamp>,
    holders: BTreeMap<Partition, Uuid>,
    moves: usize,
}

impl Held {
    fn forget(&mut self, gone: impl Fn(&Uuid, &Timestamp) -> bool) {
        self.members.retain(|member, until| !gone(member, until));
        let members = &self.members;
        self.holders.retain(|_, holder| members.contains_key(holder));
    }

    fn of(&self, member: Uuid) -> Vec<Partition> {
        self.holders
            .iter()
            .filter(|(_, holder)| **holder == member)
            .map(|(partition, _)| *partition)
            .collect()
    }
}

impl MemoryLeases {
    /// Nobody holds anything, by this clock.
    #[must_use]
    pub fn new(clock: WorldEnvironment) -> Self {
        Self { clock, state: Arc::default(), way: Way::default() }
    }

    /// Another handle on the same leases, on whose way somebody stands.
    #[must_use]
    pub fn interfered(&self, interference: Arc<dyn Interference>) -> Self {
        Self { way: Way(Some(interference)), ..self.clone() }
    }

    /// Who holds what in a role, whether or not they live.
    #[must_use]
    pub fn holders(&self, role: Role) -> BTreeMap<Partition, Uuid> {
        lock(&self.state).get(&role).map(|held| held.holders.clone()).unwrap_or_default()
    }

    /// How often a partition got a holder, over all time.
    #[must_use]
    pub fn moves(&self, role: Role) -> usize {
        lock(&self.state).get(&role).map_or(0, |held| held.moves)
    }
}

impl Leases for MemoryLeases {
    async fn renew(
        &self,
        role: Role,
        member: Uuid,
        partitions: PartitionCount,
        term: Duration,
    ) -> PortResult<Vec<Partition>> {
        let renew = || {
            let now = self.clock.now();
            let mut state = lock(&self.state);
            let held = state.entry(role).or_default();
            let term = u64::try_from(term.as_micros()).unwrap_or(u64::MAX);
            held.members.insert(member, Timestamp::from_micros(now.as_micros().saturating_add(term)));
            held.forget(|one, until| *one != member && *until <= now);
            let living: BTreeSet<Uuid> = held.members.keys().copied().collect();
            for partition in spread(&living, &held.holders, member, partitions) {
                held.holders.insert(partition, member);
                held.moves += 1;
            }
            Ok(held.of(member))
        };
        self.way.call(Call::LeasesRenew, renew).await
    }

    async fn leave(&self, role: Role, member: Uuid) -> PortResult<()> {
        let leave = || {
            lock(&self.state).entry(role).or_default().forget(|one, _| *one == member);
            Ok(())
        };
        self.way.call(Call::LeasesLeave, leave).await
    }
}
