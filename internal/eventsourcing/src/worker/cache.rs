//! The aggregates that were loaded before.
//!
//! The rule this module protects: a cached state is exactly what a replay of the committed log would give. A gap
//! in the versions is an error, never a guess.

use std::collections::HashMap;

use crate::model::{AggregateRef, DecodeError, Model};
use crate::partition::Version;
use crate::ports::History;

/// An aggregate's state and version.
pub(super) struct Cached<M: Model> {
    pub(super) state: M::State,
    pub(super) version: Version,
}

impl<M: Model> Cached<M> {
    /// Replays a history. `None`: its snapshot has a schema that is not known here.
    pub(super) fn replay(aggregate: &AggregateRef, history: History) -> Result<Option<Self>, DecodeError> {
        let (mut state, mut version) = if let Some(snapshot) = history.snapshot {
            let Some(state) = M::decode_snapshot(aggregate, &snapshot.state) else { return Ok(None) };
            (state, snapshot.version)
        } else {
            let initial = M::initial(aggregate).ok_or_else(|| {
                DecodeError::malformed(aggregate.to_string(), "no aggregate of this type is known")
            })?;
            (initial, Version::ZERO)
        };
        for event in history.events {
            if event.version != version.next() {
                return Err(DecodeError::malformed(
                    aggregate.to_string(),
                    format!("version {} follows version {version}", event.version),
                ));
            }
            state = M::evolve(state, &M::decode_event(&event.event_type, event.schema, &event.data)?);
            version = event.version;
        }
        Ok(Some(Self { state, version }))
    }
}

/// Two generations of aggregates: what is used stays, what is not is forgotten when its generation is.
pub(super) struct Cache<M: Model> {
    young: HashMap<AggregateRef, Cached<M>>,
    old: HashMap<AggregateRef, Cached<M>>,
    generation: usize,
}

impl<M: Model> Cache<M> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation: (capacity / 2).max(1) }
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Whether the aggregate is here; if so, it is young again.
    pub(super) fn touch(&mut self, aggregate: &AggregateRef) -> bool {
        if self.young.contains_key(aggregate) {
            return true;
        }
        self.old.remove(aggregate).is_some_and(|cached| {
            self.young.insert(aggregate.clone(), cached);
            true
        })
    }

    pub(super) fn insert(&mut self, aggregate: AggregateRef, cached: Cached<M>) {
        self.young.insert(aggregate, cached);
    }

    /// Takes an aggregate out, to evolve it and put it back. What was touched or inserted since the last
    /// [`Self::age`] is here.
    pub(super) fn take(&mut self, aggregate: &AggregateRef) -> Option<Cached<M>> {
        self.young.remove(aggregate)
    }

    /// Between batches: never takes away what the batch at hand has touched.
    pub(super) fn age(&mut self) {
        if self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
        }
    }
}
