//! What follows from what a reader has read: commands to queue, and dead letters to keep.
//!
//! The rule this module protects: all of it is durable before the reader's position moves. What is refused is tried again,
//! and only that, in its order: a bundle never passes one of its partition that is not stored.

use std::collections::BTreeMap;

use crate::command::{Bundle, Envelope, pack};
use crate::partition::{Partition, PartitionCount};
use crate::ports::{CommandQueue, DeadLetter, DeadLetters, PortError};
use crate::turn::Trouble;

/// Gathers what follows, in the order in which it follows.
#[derive(Default)]
pub(crate) struct Gathering {
    targets: BTreeMap<Partition, Vec<Vec<u8>>>,
    letters: Vec<DeadLetter>,
}

impl Gathering {
    /// A command follows.
    pub(crate) fn command(&mut self, envelope: &Envelope, partitions: PartitionCount) -> Result<(), Trouble> {
        let bytes = envelope.encode().map_err(|error| Trouble::Halt(error.to_string()))?;
        self.targets.entry(envelope.partition(partitions)).or_default().push(bytes);
        Ok(())
    }

    /// Nobody can do anything with it.
    pub(crate) fn letter(&mut self, letter: DeadLetter) {
        self.letters.push(letter);
    }

    /// How many commands and how many dead letters there are so far.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.targets.values().map(Vec::len).sum(), self.letters.len())
    }

    /// That was all.
    pub(crate) fn finish(self) -> Consequences {
        let bundles = self
            .targets
            .iter()
            .flat_map(|(partition, envelopes)| pack(*partition, envelopes.iter().map(Vec::as_slice)))
            .collect();
        Consequences { bundles, letters: self.letters }
    }
}

/// What is not durable yet.
pub(crate) struct Consequences {
    bundles: Vec<Bundle>,
    letters: Vec<DeadLetter>,
}

impl Consequences {
    /// Comes back with `Ok` when all of it is durable. After an error it is called again: what was stored is not stored
    /// again, and of what is uncertain the inbox knows whether it was.
    pub(crate) async fn settle<Q: CommandQueue, D: DeadLetters>(
        &mut self,
        queue: &Q,
        dead_letters: &D,
    ) -> Result<(), Trouble> {
        if !self.letters.is_empty() {
            dead_letters.keep(self.letters.clone()).await.map_err(PortError::trouble)?;
            self.letters.clear();
        }
        if self.bundles.is_empty() {
            return Ok(());
        }
        let mut answers = queue.enqueue(self.bundles.clone()).await.into_iter();
        let mut trouble = Ok(());
        // Where one fails, those of its partition behind it fail too, so what is left is still in order.
        self.bundles.retain(|_| {
            let answer =
                answers.next().unwrap_or_else(|| Err(PortError::Unavailable("no answer".to_owned())));
            let Err(error) = answer else { return false };
            let graver = error.trouble();
            if !matches!(trouble, Err(Trouble::Halt(_))) {
                trouble = Err(graver);
            }
            true
        });
        trouble
    }
}
