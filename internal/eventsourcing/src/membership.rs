//! Who owns which partition, where several processes share the work.
//!
//! The rule this module protects: members take what nobody holds, and from whoever has more than its share; nobody gives
//! anything up before another has taken it. So a partition changes hands without a moment in which nobody works it, and
//! that two may try it for a moment does no harm: the store and the bus let one of them write.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::partition::{Partition, PartitionCount};

/// What a member takes now, beside what it holds: first what nobody of the living holds, then one at a time from whoever
/// holds most, until no other has two more than it.
#[must_use]
pub fn spread(
    living: &BTreeSet<Uuid>,
    held: &BTreeMap<Partition, Uuid>,
    member: Uuid,
    partitions: PartitionCount,
) -> Vec<Partition> {
    let mut shares: BTreeMap<Uuid, Vec<Partition>> =
        living.iter().chain([&member]).map(|one| (*one, Vec::new())).collect();
    let mut free = Vec::new();
    for partition in partitions.all() {
        match held.get(&partition).and_then(|owner| shares.get_mut(owner)) {
            Some(share) => share.push(partition),
            None => free.push(partition),
        }
    }
    let members = shares.len();
    let fair = usize::from(partitions.get()).div_ceil(members);
    let mut mine = shares.remove(&member).map_or(0, |share| share.len());
    let mut taken = Vec::new();
    for partition in free {
        if mine < fair {
            mine += 1;
            taken.push(partition);
        }
    }
    while let Some(most) = shares.values_mut().max_by_key(|share| share.len()) {
        if most.len() < mine + 2 {
            break;
        }
        mine += 1;
        taken.extend(most.pop());
    }
    taken.sort_unstable();
    taken
}
