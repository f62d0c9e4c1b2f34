//! What the platform tells of itself.
//!
//! The rule this module protects: who measures a platform, or asks for help with it, learns from the platform what it is, and
//! writes down nothing by heart.

use eventsourcing::partition::PartitionCount;

use super::proto::financing::v1;

/// How a platform runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One process, on files in one directory.
    Embedded,
    /// A process per component, on PostgreSQL and NATS.
    Distributed,
}

/// What only the composition knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// How it runs.
    pub topology: Topology,
    /// How durable a command is when it is answered, in plain words.
    pub durability: String,
}

/// How this program was built.
pub const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

impl Description {
    /// With what every process knows of itself.
    pub(crate) fn of(&self, partitions: PartitionCount) -> v1::Platform {
        let topology = match self.topology {
            Topology::Embedded => v1::Topology::Embedded,
            Topology::Distributed => v1::Topology::Distributed,
        };
        v1::Platform {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: BUILD.to_owned(),
            topology: topology.into(),
            partitions: partitions.get().into(),
            durability: self.durability.clone(),
        }
    }
}
