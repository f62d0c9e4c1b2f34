//! Who owns which partition, where several processes share the work.
//!
//! The rule this module protects: members take what nobody holds, and from whoever has more than its share; nobody gives
//! anything up before another has taken it. So a partition changes hands without a moment in which nobody works it, and
//! that two may try it for a moment does no harm: the store and the bus let one of them write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use crate::assignment::Assignment;
use crate::partition::{Partition, PartitionCount};
use crate::ports::{Leases, PortError, PortResult, Role};
use crate::turn::{Progress, Trouble, Turn};

/// How often a member says that it lives: the poll that [`Membership`] is driven with.
pub const RENEWAL: Duration = Duration::from_millis(500);

/// How long a member is believed to live without saying so. Six renewals may be late or lost before anybody takes its
/// place; and with the others' next renewal, and their loops' next turn, what a dead member held is worked on again
/// within five seconds.
pub const TERM: Duration = Duration::from_secs(3);

/// The loop that takes part in a role, and hands out what this member gets of it.
pub struct Membership<L> {
    leases: L,
    role: Role,
    member: Uuid,
    partitions: PartitionCount,
    assignment: Assignment,
    fit: Option<Fit>,
    /// Renewals in a row at which the loop could not have worked.
    unfit: u32,
}

/// Whether the role's loop can do its work, as far as that is known without trying.
type Fit = Box<dyn Fn() -> bool + Send + Sync>;

/// After so many renewals without being fit, a member leaves: a term, as long as others wait for one that is dead.
const UNFIT: u32 = 6;

impl<L: Leases> Membership<L> {
    /// A member of a role. `member` is an id of this process alone; the assignment is that of the role's loop.
    pub fn new(
        leases: L,
        role: Role,
        member: Uuid,
        partitions: PartitionCount,
        assignment: Assignment,
    ) -> Self {
        Self { leases, role, member, partitions, assignment, fit: None, unfit: 0 }
    }

    /// Takes part only while this holds, or did a term ago: a process that reaches the store of the leases, and nothing of
    /// what its loop works with, must not keep partitions from those who could work them.
    #[must_use]
    pub fn while_fit(mut self, fit: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.fit = Some(Box::new(fit));
        self
    }

    /// Gives everything back at once, so that nobody waits for the term's end: after the stop, when the role's loop has
    /// come to its end, too.
    ///
    /// # Errors
    ///
    /// When the store does not answer. Then the leases run out by themselves.
    pub async fn leave(&self) -> PortResult<()> {
        self.leases.leave(self.role, self.member).await
    }

    fn hand_out(&self, held: Vec<Partition>) {
        let before = self.assignment.current();
        // Whoever is woken looks around for nothing where nothing has changed.
        if held == before {
            return;
        }
        tracing::info!(
            role = self.role.name(),
            gained = ?missing(&held, &before),
            gone = ?missing(&before, &held),
            held = held.len(),
            "partitions change hands"
        );
        self.assignment.assign(held);
    }
}

/// Those of the first that the second does not have.
fn missing(of: &[Partition], from: &[Partition]) -> Vec<u16> {
    of.iter().filter(|one| !from.contains(one)).map(|one| one.index()).collect()
}

impl<L: Leases> Turn for Membership<L> {
    const PART: &'static str = "membership";

    /// Renews. Where the store does not answer, the loop goes on with what it has: a lease is no right to write, and
    /// whoever has taken a partition over in the meantime fences it.
    async fn turn(&mut self) -> Result<Progress, Trouble> {
        for partition in self.assignment.take_lost() {
            // Where the lease is still this member's, the renewal hands it out again, and the loop takes it over anew.
            tracing::info!(role = self.role.name(), %partition, "somebody else has worked the partition");
        }
        let fit = self.fit.as_ref().is_none_or(|fit| fit());
        self.unfit = if fit { 0 } else { self.unfit.saturating_add(1) };
        if self.unfit >= UNFIT {
            if self.unfit == UNFIT {
                tracing::warn!(role = self.role.name(), "cannot work: leaves its partitions to others");
            }
            self.leave().await.map_err(PortError::trouble)?;
            self.hand_out(Vec::new());
            return Ok(Progress::Idle);
        }
        let renewal = self.leases.renew(self.role, self.member, self.partitions, TERM);
        self.hand_out(renewal.await.map_err(PortError::trouble)?);
        Ok(Progress::Idle)
    }
}

/// What a member takes now, beside what it holds: first what nobody of the living holds, up to its share, then one at a
/// time from whoever holds most, until no other has two more than it.
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
    let (count, members) = (usize::from(partitions.get()), shares.len());
    let mut mine = shares.remove(&member).map_or(0, |share| share.len());
    // Where the shares cannot all be the same, only so many are one larger: who takes what is free beyond that has it
    // taken away again by the last who comes.
    let (smaller, larger) = (count / members, count % members);
    let taken_up = shares.values().filter(|share| share.len() > smaller).count();
    let fair = if taken_up < larger { smaller + 1 } else { smaller };
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
