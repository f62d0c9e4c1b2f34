//! What a worker remembers of a partition between turns.
//!
//! The rule this module protects: what is remembered is what the partition's row says, or it is forgotten. After any
//! answer that was lost or any part that was refused, the row is read again before anything else.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use crate::command::{Envelope, Slot, unpack};
use crate::letters::Discard;
use crate::model::Model;
use crate::mutants::{Mutant, planted};
use crate::partition::PartitionCount;
use crate::ports::{PartitionRow, QueuePosition, QueuedMessage};
use crate::record::DeathReason;

use super::WorkerLimits;
use super::cache::Cache;

/// A command that was read and has no outcome yet.
pub(super) struct Pending<M: Model> {
    pub(super) position: QueuePosition,
    pub(super) work: Work<M>,
}

/// What a place in the queue holds.
pub(super) enum Work<M: Model> {
    /// A command to decide.
    Command(Arc<Envelope>, M::Command),
    /// A dead letter to discard.
    Discard(Arc<Envelope>, Discard),
    /// One that can never succeed.
    Doomed(Doomed),
}

/// A command that can never succeed.
pub(super) struct Doomed {
    pub(super) command_id: Uuid,
    pub(super) envelope: Option<Arc<Envelope>>,
    pub(super) raw: Option<String>,
    pub(super) reason: DeathReason,
    pub(super) message: String,
}

impl<M: Model> Pending<M> {
    pub(super) fn command_id(&self) -> Uuid {
        match &self.work {
            Work::Command(envelope, _) | Work::Discard(envelope, _) => envelope.command_id,
            Work::Doomed(doomed) => doomed.command_id,
        }
    }

    /// The command's name, where it could be read.
    pub(super) fn method(&self) -> Option<&'static str> {
        match &self.work {
            Work::Command(_, command) => Some(M::method(command)),
            Work::Discard(..) => Some("DiscardDeadLetter"),
            Work::Doomed(_) => None,
        }
    }

    fn doom(&mut self, reason: DeathReason, message: &str) {
        let command_id = self.command_id();
        let envelope = match &self.work {
            Work::Command(envelope, _) | Work::Discard(envelope, _) => Some(Arc::clone(envelope)),
            Work::Doomed(doomed) => doomed.envelope.clone(),
        };
        self.work =
            Work::Doomed(Doomed { command_id, envelope, raw: None, reason, message: message.to_owned() });
    }
}

/// A partition that this worker took over.
pub(super) struct Owned<M: Model> {
    row: PartitionRow,
    partitions: PartitionCount,
    cache: Cache<M>,
    pending: VecDeque<Pending<M>>,
    read_up_to: u64,
    unsettled: bool,
    /// At most this many commands in the next batch: halved while a culprit is looked for.
    batch: usize,
    /// The store refused the content of a batch of this partition: it goes alone until the culprit is found.
    suspect: bool,
    /// The command that the store refused when it was alone.
    condemned: Option<(QueuePosition, String)>,
    unpurged: u64,
}

impl<M: Model> Owned<M> {
    pub(super) fn new(row: PartitionRow, partitions: PartitionCount, limits: &WorkerLimits) -> Self {
        Self {
            row,
            partitions,
            cache: Cache::new(limits.cached),
            pending: VecDeque::new(),
            read_up_to: 0,
            unsettled: true,
            batch: limits.batch,
            suspect: false,
            condemned: None,
            unpurged: 0,
        }
    }

    pub(super) const fn row(&self) -> &PartitionRow {
        &self.row
    }

    pub(super) const fn cache(&mut self) -> &mut Cache<M> {
        &mut self.cache
    }

    pub(super) const fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) const fn read_up_to(&self) -> u64 {
        self.read_up_to
    }

    /// Forgets everything but the epoch.
    pub(super) fn unsettle(&mut self) {
        self.unsettled = true;
        self.forget_aggregates();
        self.pending.clear();
    }

    fn forget_aggregates(&mut self) {
        if !planted(Mutant::StaleCache) {
            self.cache.clear();
        }
    }

    /// Starts from the row. The message at the position was proven to be the one that the row remembers; what
    /// stands in it behind the position is still to be done.
    pub(super) fn settle(&mut self, row: PartitionRow, proof: Option<&QueuedMessage>, limits: &WorkerLimits) {
        self.row = row;
        self.forget_aggregates();
        self.pending.clear();
        self.read_up_to = row.position.map_or(0, |position| position.message);
        self.unsettled = false;
        // Whoever was here before may have left without purging.
        self.unpurged = self.unpurged.max(u64::from(row.position.is_some()));
        self.batch = self.batch.clamp(1, limits.batch);
        if let (Some(proof), Some(position)) = (proof, row.position) {
            self.unpack(position.created_at, proof);
            self.pending.retain(|pending| pending.position.index > position.index);
        }
        self.condemn();
    }

    /// Takes a message in that was read after everything that is pending.
    pub(super) fn take_in(&mut self, created_at: u64, message: &QueuedMessage) {
        if message.message > self.read_up_to {
            self.unpack(created_at, message);
            self.condemn();
        }
    }

    fn unpack(&mut self, created_at: u64, message: &QueuedMessage) {
        let slots = unpack(message.partition, message.message, &message.payload);
        let Some(mark) = slots.first().map(|first| message.mark(first.command_id())) else { return };
        for (index, slot) in (0u32..).zip(slots) {
            let position = QueuePosition { created_at, message: message.message, mark, index };
            self.pending.push_back(Pending { position, work: interpret(slot, self.partitions, message) });
        }
        self.read_up_to = message.message;
    }

    /// Takes the next batch: as many as are allowed, up to the first that must wait. Whoever does not commit it
    /// unsettles the partition, which reads it again.
    pub(super) fn cut(&mut self, mut admit: impl FnMut(Uuid) -> bool) -> Vec<Pending<M>> {
        let waits = |pending: &Pending<M>| !admit(pending.command_id());
        let count = self.pending.iter().take(self.batch).position(waits);
        let count = count.unwrap_or_else(|| self.batch.min(self.pending.len()));
        self.pending.drain(..count).collect()
    }

    /// The batch is on disk.
    pub(super) fn committed(&mut self, row: PartitionRow, limits: &WorkerLimits) {
        let last_message = self.row.position.map_or(0, |position| position.message);
        if row.position.is_some_and(|position| position.message != last_message) {
            self.unpurged = self.unpurged.saturating_add(1);
        }
        self.row = row;
        self.cache.age();
        self.batch = self.batch.saturating_mul(2).min(limits.batch);
        self.suspect = self.suspect && self.batch < limits.batch;
        self.condemned = None;
    }

    /// The store refused what the batch would write, or even what it asks for. Halves the batch until the culprit is alone; then it is the
    /// command that dies.
    ///
    /// # Errors
    ///
    /// When even the record of the command's death is refused.
    pub(super) fn blame(
        &mut self,
        alone: bool,
        commands: usize,
        first: QueuePosition,
        reason: &str,
    ) -> Result<(), String> {
        self.suspect = true;
        if !alone {
            return Ok(());
        }
        if commands > 1 {
            self.batch = (commands / 2).max(1);
            return Ok(());
        }
        // (One that was condemned before may be on disk as dead by now, and the answer lost.)
        if let Some((position, before)) = &self.condemned
            && *position == first
        {
            return Err(format!(
                "the store refuses even the record that a command is dead, at {position}: {reason}; before: {before}"
            ));
        }
        self.batch = 1;
        self.condemned = Some((first, reason.to_owned()));
        Ok(())
    }

    fn condemn(&mut self) {
        let Some((position, reason)) = &self.condemned else { return };
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.position == *position) {
            pending.doom(DeathReason::Unstorable, reason);
        }
    }

    /// The position before which the queue may forget, when it is time.
    pub(super) fn purge_due(&self, every: u64) -> Option<QueuePosition> {
        self.row.position.filter(|_| self.unpurged >= every)
    }

    pub(super) const fn purged(&mut self) {
        self.unpurged = 0;
    }
}

fn interpret<M: Model>(slot: Slot, partitions: PartitionCount, message: &QueuedMessage) -> Work<M> {
    match slot {
        Slot::Unreadable { command_id, envelope, reason, raw } => Work::Doomed(Doomed {
            command_id,
            // What can be sent again is kept as that, and else what came.
            raw: envelope.is_none().then_some(raw),
            envelope: envelope.map(|envelope| Arc::new(*envelope)),
            reason: DeathReason::Undecodable,
            message: reason,
        }),
        Slot::Envelope(envelope) => {
            let envelope = Arc::new(*envelope);
            let doomed = |reason, message| {
                Work::Doomed(Doomed {
                    command_id: envelope.command_id,
                    envelope: Some(Arc::clone(&envelope)),
                    raw: None,
                    reason,
                    message,
                })
            };
            if let Some(discard) = &envelope.discards {
                if discard.partition != message.partition {
                    let reason =
                        format!("what it discards does not belong to partition {}", message.partition);
                    return doomed(DeathReason::WrongPartition, reason);
                }
                return Work::Discard(Arc::clone(&envelope), discard.clone());
            }
            let command: M::Command = match serde_json::from_str(envelope.command.get()) {
                Ok(command) => command,
                Err(error) => return doomed(DeathReason::Undecodable, error.to_string()),
            };
            let target = M::target(&command);
            if partitions.partition_of(target.id) != message.partition {
                let reason = format!("{target} does not belong to partition {}", message.partition);
                return doomed(DeathReason::WrongPartition, reason);
            }
            Work::Command(envelope, command)
        }
    }
}
