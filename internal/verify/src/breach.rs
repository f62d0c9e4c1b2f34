//! What is wrong, and where.
//!
//! The rule this module protects: the first breach that is reported is the earliest cause that is known. A log that has a
//! hole makes sagas end in nothing and read models differ; the hole is what a person has to look at.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use crate::record::{Kind, Place, Position};

/// The invariant that does not hold. I1 to I6 are those of the platform's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Invariant {
    /// Money adds up: available + reserved + committed is what was ever added, and none is negative.
    I1,
    /// Every accepted command has exactly one outcome.
    I2,
    /// The saga: who wins, what moves, and that every bid ends, once.
    I3,
    /// Versions and sequences are gap-free and append-only.
    I4,
    /// The bus holds a prefix of the log.
    I5,
    /// A read model is the fold of a prefix of each partition.
    I6,
    /// An effect names its cause, and there is that cause.
    Causality,
    /// What is stored can be read.
    Form,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::I5 => "I5",
            Self::I6 => "I6",
            Self::Causality => "causality",
            Self::Form => "form",
        })
    }
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// Which invariant does not hold.
    pub invariant: Invariant,
    /// The first record at which that shows, where there is one.
    pub position: Option<Position>,
    /// That record's id.
    pub record_id: Option<Uuid>,
    /// The aggregate's type and id.
    pub aggregate: Option<(Kind, Uuid)>,
    /// What is wrong, in one sentence.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.invariant)?;
        if let Some(position) = self.position {
            write!(f, ": record {position}")?;
        }
        if let Some(record_id) = self.record_id {
            write!(f, " ({record_id})")?;
        }
        if let Some((kind, id)) = self.aggregate {
            write!(f, " of {} {id}", kind.name())?;
        }
        write!(f, ": {}", self.what)
    }
}

/// How near to the cause a breach is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// The log itself has a hole, or cannot be read.
    Log,
    /// A record that must not follow those before it.
    Rule,
    /// The queue is not the one that was worked off.
    Queue,
    /// Something is missing at the end.
    End,
    /// What is derived from the log differs from it.
    Derived,
}

const TIERS: [Tier; 5] = [Tier::Log, Tier::Rule, Tier::Queue, Tier::End, Tier::Derived];

/// As many are kept of each tier: the earliest.
const KEPT: usize = 100;

#[derive(Debug, Default)]
pub(crate) struct Breaches {
    kept: [Vec<(u64, Breach)>; TIERS.len()],
    pub(crate) count: u64,
}

/// What a breach is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum About {
    Record(Place),
    /// A place of which nothing more is known.
    Position(Position, Kind, Uuid),
    Aggregate(Kind, Uuid),
    Nothing,
}

impl From<Place> for About {
    fn from(place: Place) -> Self {
        Self::Record(place)
    }
}

impl Breaches {
    pub(crate) fn clear(&mut self) {
        self.kept.iter_mut().for_each(Vec::clear);
        self.count = 0;
    }

    #[cold]
    pub(crate) fn add(&mut self, tier: Tier, invariant: Invariant, about: impl Into<About>, what: String) {
        self.count = self.count.saturating_add(1);
        let breach = Breach { invariant, position: None, record_id: None, aggregate: None, what };
        let found = match about.into() {
            About::Record(place) => (
                place.recorded_at,
                Breach {
                    position: Some(place.position),
                    record_id: Some(place.record_id),
                    aggregate: Some((place.kind, place.aggregate)),
                    ..breach
                },
            ),
            About::Position(position, kind, id) => {
                (u64::MAX, Breach { position: Some(position), aggregate: Some((kind, id)), ..breach })
            }
            About::Aggregate(kind, id) => (u64::MAX, Breach { aggregate: Some((kind, id)), ..breach }),
            About::Nothing => (u64::MAX, breach),
        };
        let kept = &mut self.kept[tier as usize];
        if kept.len() >= KEPT {
            // The latest makes room, and of one moment the one that was found last.
            let latest = kept.iter().enumerate().max_by_key(|(_, kept)| order(kept)).map(|(index, _)| index);
            match latest.filter(|index| order(&found) < order(&kept[*index])) {
                Some(index) => kept.remove(index),
                None => return,
            };
        }
        kept.push(found);
    }

    /// A rule that this record breaks.
    #[cold]
    pub(crate) fn rule(&mut self, invariant: Invariant, place: Place, what: String) {
        self.add(Tier::Rule, invariant, place, what);
    }

    /// The earliest cause first; of one moment, in the order in which they were found.
    pub(crate) fn take(&mut self) -> Vec<Breach> {
        let mut all = Vec::new();
        for tier in TIERS {
            let mut kept = std::mem::take(&mut self.kept[tier as usize]);
            kept.sort_by_key(order);
            all.extend(kept.into_iter().map(|(_, breach)| breach));
        }
        all.truncate(KEPT);
        all
    }
}

/// When it showed, and where.
const fn order((at, breach): &(u64, Breach)) -> (u64, Option<Position>) {
    (*at, breach.position)
}
