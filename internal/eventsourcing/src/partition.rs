//! A partition is the unit of order, parallelism, ownership and failover.
//!
//! The rule this module protects: where an aggregate lives is a pure function of its id and of the number of
//! partitions, which never changes during the life of a deployment.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many partitions a deployment has; fixed when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionCount(NonZeroU16);

impl PartitionCount {
    /// Sixteen: enough for sixteen machines, few enough that one process owns them all without noticing.
    pub const DEFAULT: Self = match NonZeroU16::new(16) {
        Some(count) => Self(count),
        None => Self(NonZeroU16::MIN),
    };

    /// One: of what cannot be shared.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// The most a deployment may have. Every partition costs a row, a stream and a cursor in every reader.
    pub const MAX: u16 = 1024;

    /// `None` for zero and for more than [`Self::MAX`].
    #[must_use]
    pub fn new(count: u16) -> Option<Self> {
        NonZeroU16::new(count).filter(|count| count.get() <= Self::MAX).map(Self)
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// Every partition, in order.
    pub fn all(self) -> impl Iterator<Item = Partition> {
        (0..self.get()).map(Partition)
    }

    /// The partition that an aggregate lives in: its id as a 128-bit number, modulo the number of partitions.
    #[must_use]
    pub fn partition_of(self, aggregate_id: Uuid) -> Partition {
        let index = aggregate_id.as_u128() % u128::from(self.get());
        // The remainder of a division by a u16 is a u16.
        Partition(u16::try_from(index).unwrap_or(0))
    }

    /// The partition with this index, where there is one.
    #[must_use]
    pub fn partition(self, index: u16) -> Option<Partition> {
        (index < self.get()).then_some(Partition(index))
    }
}

/// What is fixed when a deployment is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// Its id.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: PartitionCount,
    /// When it was created, in microseconds since the Unix epoch.
    pub created_at: u64,
}

impl fmt::Display for PartitionCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of the deployment's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(u16);

impl Partition {
    /// For adapters that read an index back from their store; it came from a [`PartitionCount`] before.
    #[must_use]
    pub const fn from_index(index: u16) -> Self {
        Self(index)
    }

    /// The index, from 0.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Before the first.
            pub const ZERO: Self = Self(0);

            /// The counter with this value.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The value.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The one before this; of the first, itself.
            #[must_use]
            pub const fn before(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// The place of a record in its partition: 1, 2, 3, without gaps. Zero stands before the first.
    Sequence
}
counter! {
    /// The place of a fact in its aggregate's history: 1, 2, 3, without gaps. Zero: there is no such aggregate.
    Version
}
counter! {
    /// How often a partition has been taken over. A writer with an older epoch is refused.
    Epoch
}

/// A record's place in the whole log, written `<partition>-<sequence>`: a record's id on the bus, and the
/// token that a client presents to read its own writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The partition.
    pub partition: Partition,
    /// The sequence in it.
    pub sequence: Sequence,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.sequence)
    }
}

impl std::str::FromStr for LogPosition {
    type Err = MalformedLogPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (partition, sequence) = text.split_once('-').ok_or(MalformedLogPosition)?;
        if !digits(partition) || !digits(sequence) {
            return Err(MalformedLogPosition);
        }
        Ok(Self {
            partition: Partition(partition.parse().map_err(|_| MalformedLogPosition)?),
            sequence: Sequence(sequence.parse().map_err(|_| MalformedLogPosition)?),
        })
    }
}

/// The text is not `<partition>-<sequence>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position of the form <partition>-<sequence>")]
pub struct MalformedLogPosition;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aggregate_lives_in_the_partition_of_its_id_modulo_the_count() {
        let count = PartitionCount::DEFAULT;
        assert_eq!(count.partition_of(Uuid::from_u128(35)).index(), 3);
        assert_eq!(count.partition_of(Uuid::from_u128(u128::MAX)).index(), 15);
    }

    #[test]
    fn a_position_reads_back_what_it_wrote_and_nothing_else() {
        let position = LogPosition { partition: Partition(3), sequence: Sequence(118) };
        assert_eq!("3-118".parse(), Ok(position));
        assert_eq!(position.to_string(), "3-118");
        for wrong in ["", "3", "3-", "-3", "a-1", "3-+1", "70000-1", "3-1-1", " 3-1"] {
            assert_eq!(wrong.parse::<LogPosition>(), Err(MalformedLogPosition), "{wrong:?}");
        }
    }
}
