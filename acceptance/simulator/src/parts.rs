//! Who takes part: every process of the simulated platform.
//!
//! The rule this module protects: two owners in every role, so that whatever one of them does wrong the other can show.

use std::fmt;

use eventsourcing::ports::Role;
use eventsourcing::testkit::memory::Call;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Takes commands in.
    Listener,
    /// A member of a role, with leases.
    Member(Role),
    /// Answers clients out of the read models.
    Queries,
    /// Lets people look after the dead letters.
    Door,
}

/// A process: it dies and comes back under the same name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part(u8);

const KINDS: [(Kind, &str); 14] = [
    (Kind::Listener, "listener 1"),
    (Kind::Listener, "listener 2"),
    (Kind::Member(Role::Worker), "worker 1"),
    (Kind::Member(Role::Worker), "worker 2"),
    (Kind::Member(Role::Relayer), "relayer 1"),
    (Kind::Member(Role::Relayer), "relayer 2"),
    (Kind::Member(Role::Policies), "policy runner 1"),
    (Kind::Member(Role::Policies), "policy runner 2"),
    (Kind::Member(Role::Projector), "projector 1"),
    (Kind::Member(Role::Projector), "projector 2"),
    (Kind::Member(Role::Importer), "importer 1"),
    (Kind::Member(Role::Importer), "importer 2"),
    (Kind::Queries, "the query service"),
    (Kind::Door, "the admin door"),
];

impl Part {
    /// How many there are.
    pub const COUNT: usize = KINDS.len();
    /// The one that answers queries. It has no loop, so it is never killed, only cut off.
    pub const QUERIES: Self = Self(12);
    /// The one that dead letters are looked after through. It has no loop either.
    pub const DOOR: Self = Self(13);

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..14).map(Self)
    }

    /// Those that have a loop.
    pub fn loops() -> impl Iterator<Item = Self> {
        (0..12).map(Self)
    }

    /// One of the two listeners.
    #[must_use]
    pub const fn listener(second: bool) -> Self {
        Self(if second { 1 } else { 0 })
    }

    /// Its place among all.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The one with this place; the last one where there is none.
    #[must_use]
    pub fn at(index: usize) -> Self {
        Self(u8::try_from(index.min(Self::COUNT - 1)).unwrap_or(0))
    }

    /// What it does.
    #[must_use]
    pub fn kind(self) -> Kind {
        KINDS.get(self.index()).map_or(Kind::Queries, |(kind, _)| *kind)
    }

    /// Its role, where it is a member of one.
    #[must_use]
    pub fn role(self) -> Option<Role> {
        match self.kind() {
            Kind::Member(role) => Some(role),
            Kind::Listener | Kind::Queries | Kind::Door => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        KINDS.get(self.index()).map_or("nobody", |(_, name)| name)
    }

    /// The calls that it makes to its ports; those that matter most, more than once.
    #[must_use]
    pub fn calls(self) -> &'static [Call] {
        match self.kind() {
            Kind::Listener => &[Call::QueueEnqueue],
            Kind::Queries => &[Call::ModelsCheckpoints, Call::ModelsRow, Call::ModelsRows],
            Kind::Door => &[Call::LogDead, Call::LogLoad, Call::ForeignLettersRead, Call::BusTails],
            Kind::Member(Role::Worker) => &[
                Call::LogCommit,
                Call::LogCommit,
                Call::LogCommit,
                Call::LogCommit,
                Call::QueueRead,
                Call::QueueRead,
                Call::LogLoad,
                Call::LogRows,
                Call::LogTakeOver,
                Call::QueueCreatedAt,
                Call::QueueMessage,
                Call::QueuePurge,
                Call::RepliesSend,
                Call::LeasesRenew,
            ],
            Kind::Member(Role::Relayer) => &[
                Call::BusPublish,
                Call::BusPublish,
                Call::BusPublish,
                Call::LogRows,
                Call::LogRead,
                Call::BusTails,
                Call::LeasesRenew,
            ],
            Kind::Member(Role::Policies) => &[
                Call::QueueEnqueue,
                Call::QueueEnqueue,
                Call::QueueEnqueue,
                Call::CheckpointsAdvance,
                Call::CheckpointsAdvance,
                Call::CheckpointsLoad,
                Call::BusRead,
                Call::DeadLettersKeep,
                Call::LeasesRenew,
            ],
            Kind::Member(Role::Projector) => &[
                Call::ModelsApply,
                Call::ModelsApply,
                Call::ModelsApply,
                Call::ModelsCheckpoints,
                Call::BusRead,
                Call::LeasesRenew,
            ],
            Kind::Member(Role::Importer) => &[
                Call::QueueEnqueue,
                Call::QueueEnqueue,
                Call::ForeignAdvance,
                Call::ForeignAdvance,
                Call::ForeignPosition,
                Call::ForeignRead,
                Call::ForeignCreatedAt,
                Call::ForeignMessage,
                Call::DeadLettersKeep,
                Call::LeasesRenew,
            ],
        }
    }

    /// The stores that it talks to.
    #[must_use]
    pub fn stores(self) -> &'static [Store] {
        match self.kind() {
            Kind::Listener => &[Store::Queue],
            Kind::Queries => &[Store::Models],
            Kind::Door => &[Store::Log, Store::Bus, Store::Other],
            Kind::Member(Role::Worker) => &[Store::Queue, Store::Log, Store::Leases, Store::Other],
            Kind::Member(Role::Relayer) => &[Store::Log, Store::Bus, Store::Leases],
            Kind::Member(Role::Policies) => {
                &[Store::Bus, Store::Queue, Store::Log, Store::Leases, Store::Other]
            }
            Kind::Member(Role::Projector) => &[Store::Bus, Store::Models, Store::Leases],
            Kind::Member(Role::Importer) => {
                &[Store::Foreign, Store::Queue, Store::Log, Store::Leases, Store::Other]
            }
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a process can be cut off from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The command queue.
    Queue,
    /// The event log with the inbox and everybody's checkpoints.
    Log,
    /// The leases.
    Leases,
    /// The event bus.
    Bus,
    /// The read models.
    Models,
    /// The Registering context's stream.
    Foreign,
    /// The place for dead letters, and the way replies take.
    Other,
}

impl Store {
    /// The store behind a call.
    #[must_use]
    pub const fn of(call: Call) -> Self {
        match call {
            Call::QueueCreatedAt
            | Call::QueueEnqueue
            | Call::QueueMessage
            | Call::QueueRead
            | Call::QueuePurge => Self::Queue,
            Call::LogTakeOver
            | Call::LogRows
            | Call::LogLoad
            | Call::LogCommit
            | Call::LogRead
            | Call::LogDead
            | Call::LogForgetQueue
            | Call::CheckpointsLoad
            | Call::CheckpointsAdvance
            | Call::ForeignPosition
            | Call::ForeignAdvance => Self::Log,
            Call::BusTails | Call::BusPublish | Call::BusRead | Call::BusRecords => Self::Bus,
            Call::ModelsCheckpoints | Call::ModelsApply | Call::ModelsRow | Call::ModelsRows => Self::Models,
            Call::LeasesRenew | Call::LeasesLeave => Self::Leases,
            Call::ForeignCreatedAt | Call::ForeignMessage | Call::ForeignRead => Self::Foreign,
            // (It rebuilds nothing.)
            Call::RepliesSend
            | Call::DeadLettersKeep
            | Call::ForeignLettersRead
            | Call::ShadowBegin
            | Call::ShadowApply
            | Call::ShadowIndex
            | Call::ShadowHold
            | Call::ShadowSwap
            | Call::ShadowAbandon => Self::Other,
        }
    }

    /// Its bit in a set of stores.
    #[must_use]
    pub const fn bit(self) -> u8 {
        match self {
            Self::Queue => 1,
            Self::Log => 2,
            Self::Leases => 4,
            Self::Bus => 8,
            Self::Models => 16,
            Self::Foreign => 32,
            Self::Other => 64,
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "the command queue",
            Self::Log => "the event log",
            Self::Leases => "the leases",
            Self::Bus => "the event bus",
            Self::Models => "the read models",
            Self::Foreign => "the Registering context's stream",
            Self::Other => "the dead letters and replies",
        })
    }
}
