//! Which partitions a process works.
//!
//! The rule this module protects: a process works what the store leased to it, and gives it back when it ends, so that
//! nobody has to wait until its term is over.

use eventsourcing::assignment::Assignment;
use eventsourcing::environment::{Doorbell, Environment as _};
use eventsourcing::membership::{Membership, RENEWAL};
use eventsourcing::observer::Watch;
use eventsourcing::partition::PartitionCount;
use eventsourcing::ports::{Leases, Role};
use uuid::Uuid;

use crate::nats::Nats;
use crate::runtime::environment::SystemEnvironment;
use crate::runtime::observation::{Owned, Telemetry};
use crate::runtime::supervise::Process;

/// A process as a member of those who share the partitions, in one or more roles.
pub(super) struct Ownership<L> {
    leases: L,
    /// What every role works with, beside the store of the leases.
    nats: Nats,
    member: Uuid,
    roles: Vec<Role>,
    /// Who looks on at the roles' loops, and what is told of the partitions.
    watch: Watch,
    owned: Owned,
}

impl<L: Leases + Clone> Ownership<L> {
    /// A new member.
    pub(super) fn new(leases: L, nats: Nats, telemetry: &Telemetry) -> Self {
        let (watch, owned) = (telemetry.watch(), telemetry.owned());
        Self { leases, nats, member: SystemEnvironment.uuid(), roles: Vec::new(), watch, owned }
    }

    /// Who looks on at the loops of the roles.
    pub(super) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Takes part in a role; answers with the partitions that it gets, which come and go. The bell rings when they do.
    pub(super) fn join(
        &mut self,
        process: &mut Process,
        role: Role,
        partitions: PartitionCount,
        bell: &Doorbell,
    ) -> Assignment {
        let assignment = Assignment::default();
        assignment.bells().add(bell);
        let membership =
            Membership::new(self.leases.clone(), role, self.member, partitions, assignment.clone());
        let nats = self.nats.clone();
        let membership = membership.while_fit(move || nats.is_connected());
        // So that whoever looks at the leases knows whose they are.
        tracing::info!(role = role.name(), member = %self.member, "takes part");
        let stop = process.loops_stop();
        process.loops.start_loop(membership, Doorbell::default(), RENEWAL, stop);
        self.roles.push(role);
        self.owned.add(role, &assignment);
        assignment
    }

    /// Gives everything back. Where that fails the leases end by themselves, a little later.
    pub(super) async fn leave(&self) {
        for role in &self.roles {
            if let Err(error) = self.leases.leave(*role, self.member).await {
                tracing::warn!(role = role.name(), %error, "could not give the leases back: they run out");
            }
        }
    }
}
