//! What the queue may forget, and the proof that it is the queue that it was.
//!
//! The rule this module protects: nothing is purged that another worker, or nobody, has worked off. A purge goes by numbers, and
//! numbers are only worth something in the queue in which they were given.

use futures_util::future::join_all;

use crate::environment::Environment;
use crate::model::Model;
use crate::mutants::{Mutant, planted};
use crate::partition::{Epoch, Partition};
use crate::ports::{CommandQueue, EventLog, PartitionRow, PortError, QueuedMessage, Replies};
use crate::queue::prove;
use crate::turn::Trouble;

use super::Worker;

/// After so many turns without work, the queue forgets all that is worked off, however little it is: a queue that is full of few
/// large messages takes no more, and would never come to the number after which it is purged. (Between the first of them and the
/// last the loop has waited for a wake-up or a poll, so this is not the pause between two commands.)
const IDLE_TURNS: u32 = 3;

impl<M: Model, L: EventLog, Q: CommandQueue, R: Replies, E: Environment> Worker<M, L, Q, R, E> {
    /// Proves the queue in front of a partition, where it is still this worker's and has a position. Of a message that somebody else
    /// has let the queue forget it takes long to say that it is not there; so all are asked for at the same time, and first it is looked
    /// whose they are.
    pub(super) async fn proof(
        &self,
        partition: Partition,
        row: &PartitionRow,
    ) -> Result<Option<QueuedMessage>, Trouble> {
        let own = self.owned.get(&partition).is_some_and(|owned| owned.row().epoch == row.epoch);
        match row.position.filter(|_| own) {
            Some(position) => prove(&self.queue, partition, position).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether somebody has taken the partition over since this epoch.
    pub(super) async fn is_taken_over(&self, partition: Partition, epoch: Epoch) -> Result<bool, Trouble> {
        let rows = self.log.rows(&[partition]).await.map_err(PortError::trouble)?;
        Ok(rows.iter().any(|(_, row)| row.epoch != epoch))
    }

    /// Nothing was to be done.
    pub(super) async fn rest(&mut self) -> Result<(), Trouble> {
        self.idle = self.idle.saturating_add(1);
        // Again and again: what could not be purged once may fill the queue, and then nothing new comes to remind of it.
        if self.idle.is_multiple_of(IDLE_TURNS) { self.purge(1).await } else { Ok(()) }
    }

    /// Lets the queue forget what is worked off, of the partitions where it is so many messages. A purge goes by a message's
    /// number: in a queue that was replaced meanwhile, that number would take what nobody has read. So the queue is proven
    /// immediately before.
    pub(super) async fn purge(&mut self, every: u64) -> Result<(), Trouble> {
        let due: Vec<Partition> = self
            .owned
            .iter()
            .filter(|(_, owned)| owned.purge_due(every).is_some())
            .map(|(partition, _)| *partition)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let rows = match self.log.rows(&due).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "the command queue is not purged now");
                return Ok(());
            }
        };
        let proofs = join_all(rows.iter().map(|(partition, row)| self.proof(*partition, row))).await;
        let mut proven = Vec::with_capacity(due.len());
        for ((partition, row), proof) in rows.into_iter().zip(proofs) {
            let Some(owned) = self.owned.get(&partition) else { continue };
            if row.epoch != owned.row().epoch {
                self.lose(partition);
                continue;
            }
            let Some(position) = row.position else { continue };
            let epoch = row.epoch;
            match proof {
                Ok(_) if planted(Mutant::PurgeSparesNothing) => {
                    proven.push((partition, position.message.saturating_add(1)));
                }
                Ok(_) => proven.push((partition, position.message)),
                Err(Trouble::Retry(reason)) => {
                    tracing::warn!(%partition, %reason, "the command queue is not purged now");
                }
                Err(Trouble::Halt(_)) if self.is_taken_over(partition, epoch).await? => self.lose(partition),
                Err(halt @ Trouble::Halt(_)) => return Err(halt),
            }
        }
        if proven.is_empty() {
            return Ok(());
        }
        match self.queue.purge(&proven).await {
            Ok(()) => {
                for (partition, _) in &proven {
                    if let Some(owned) = self.owned.get_mut(partition) {
                        owned.purged();
                    }
                }
            }
            // What is not purged now is purged with the next batch: it only takes room until then.
            Err(error) => tracing::warn!(%error, "the command queue could not be purged"),
        }
        Ok(())
    }
}
