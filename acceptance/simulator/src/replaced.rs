//! When the queue, or the Registering context's stream, is not the one that its readers remember: what they do, and what
//! a person does.
//!
//! The rule this module protects: where a reader's place cannot be found again it halts and says what to do, every one
//! that comes after it halts as well, and nobody goes on before a person has adopted what is there.

use std::collections::{BTreeMap, BTreeSet};

use eventsourcing::command::unpack;
use eventsourcing::environment::Environment as _;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{PortResult, QueuePosition, Role};
use eventsourcing::queue::{Adopted, adopt};
use eventsourcing::testkit::world::Task;
use eventsourcing::turn::Halted;
use uuid::Uuid;

use crate::parts::{Kind, Part, Store};
use crate::plan::MishapKind;
use crate::run::Director;
use crate::stage::{IMPORTER, POLICIES};
use crate::tally::Counted;
use crate::{Breach, Check};

/// Within how many microseconds all readers have halted: a lease, several renewals and the longest backoff.
const BOUND: u64 = 30_000_000;

/// A replacement that is under way.
pub(crate) struct Replacement {
    /// Whose readers have to halt.
    readers: Role,
    since: u64,
    /// Where partitions stood whose place could not be found.
    astray: BTreeMap<Partition, QueuePosition>,
    /// Set while a person adopts.
    adopting: Option<Task<PortResult<Adopted>>>,
}

impl Director<'_> {
    pub(crate) fn begin_replacement(&mut self, place: usize, kind: MishapKind) {
        let now = self.stage.world.environment().now().as_micros();
        let readers = match kind {
            MishapKind::QueueRestored { .. } => {
                let saved = self.backups.iter().find(|(of, _)| *of == place).map(|(_, saved)| saved.clone());
                let Some(saved) = saved else { return };
                self.tally.count(Counted::QueueRestored);
                self.teller.tell(|| "the command queue is restored from that copy".to_owned());
                self.replace_queue(|queue| queue.restore(saved));
                Role::Worker
            }
            MishapKind::QueueLost => {
                self.tally.count(Counted::QueueLost);
                self.teller.tell(|| "the command queue is lost; an empty one takes its place".to_owned());
                self.replace_queue(|queue| queue.recreate(now + 1));
                Role::Worker
            }
            MishapKind::StreamLost => {
                self.tally.count(Counted::StreamLost);
                self.teller
                    .tell(|| "the Registering context publishes all it ever said on a new stream".to_owned());
                self.stage.foreign.recreate(now + 1);
                for payload in &self.streamed {
                    self.stage.foreign.publish("registering", payload);
                }
                Role::Importer
            }
            MishapKind::Crash { .. }
            | MishapKind::Deploy { .. }
            | MishapKind::Pause { .. }
            | MishapKind::Call { .. }
            | MishapKind::Cut { .. }
            | MishapKind::BusLosesTail { .. }
            | MishapKind::QueueFull { .. }
            | MishapKind::StoreRefuses { .. }
            | MishapKind::ClockJumps { .. } => return,
        };
        let store = if readers == Role::Worker { Store::Queue } else { Store::Foreign };
        for wire in &self.stage.wires {
            wire.sever(store);
        }
        // A person who replaces a queue sees to it that everybody who reads it is there.
        for part in Self::readers(readers) {
            if let Some(wire) = self.stage.wire(part) {
                wire.heal();
            }
            self.start(part);
            if let Some(process) = self.process(part) {
                process.paused_until = 0;
                process.resume();
            }
        }
        let since = self.stage.now();
        self.replacement = Some(Replacement { readers, since, astray: BTreeMap::new(), adopting: None });
        self.look_for_places();
    }

    fn readers(role: Role) -> impl Iterator<Item = Part> {
        Part::loops().filter(move |part| part.role() == Some(role))
    }

    /// Who may not run while a person adopts.
    fn stopped() -> impl Iterator<Item = Part> {
        let roles = [Some(Role::Worker), Some(Role::Policies), Some(Role::Importer)];
        Part::loops().filter(move |part| roles.contains(&part.role()))
    }

    fn queued(&self) -> BTreeSet<Uuid> {
        let partitions = self.stage.partitions.all();
        partitions
            .flat_map(|partition| self.stage.queue.commands(partition))
            .map(|slot| slot.command_id())
            .collect()
    }

    /// What waits in the queue and is not in the next one is lost, where nobody knows it but a client.
    fn replace_queue(&mut self, replace: impl FnOnce(&eventsourcing::testkit::memory::MemoryQueue)) {
        let before = self.queued();
        replace(&self.stage.queue);
        let after = self.queued();
        let log = &self.stage.log;
        self.lost.extend(before.into_iter().filter(|id| !after.contains(id) && !log.has_outcome(*id)));
    }

    /// What was lost and is sent again is in the queue that is there: from then on it has to have an outcome like any other,
    /// whether or not its sender is told that it was accepted.
    pub(crate) fn look_for_the_lost(&mut self) {
        let stored = self.stage.queue.stored();
        if self.lost.is_empty() || self.searched == stored {
            return;
        }
        self.searched = stored;
        let queued = self.queued();
        self.lost.retain(|id| !queued.contains(id));
    }

    /// Whether a partition's place cannot be found in the queue that is there.
    fn is_another(&self, partition: Partition) -> bool {
        let Some(position) = self.stage.log.row(partition).position else { return false };
        let messages = self.stage.queue.messages(partition);
        let message = messages.iter().find(|message| message.message == position.message);
        let mark = message.and_then(|message| {
            let slots = unpack(partition, message.message, &message.payload);
            slots.first().map(|first| message.mark(first.command_id()))
        });
        self.stage.queue.born() != position.created_at || mark != Some(position.mark)
    }

    /// Remembers whose place cannot be found: from then on, only a person can let it move.
    pub(crate) fn look_for_places(&mut self) {
        if self.replacement.as_ref().is_none_or(|replacement| replacement.readers != Role::Worker) {
            return;
        }
        let all = self.stage.partitions.all().filter(|partition| self.is_another(*partition));
        let astray: Vec<(Partition, QueuePosition)> =
            all.filter_map(|partition| Some((partition, self.stage.log.row(partition).position?))).collect();
        if let Some(replacement) = &mut self.replacement {
            replacement.astray.extend(astray);
        }
    }

    /// Whether the readers have to halt.
    fn have_to_halt(&self, replacement: &Replacement) -> bool {
        if replacement.readers == Role::Importer {
            return self.stage.log.checkpoints().imported(IMPORTER).is_some();
        }
        let moved = |(partition, position): (&Partition, &QueuePosition)| {
            self.is_another(*partition) || self.stage.log.row(*partition).position != Some(*position)
        };
        replacement.astray.iter().any(moved)
    }

    /// Whether this is a halt that has to be.
    pub(crate) fn must_halt(&self, part: Part, halted: &Halted) -> bool {
        let Some(replacement) = &self.replacement else { return false };
        replacement.adopting.is_none()
            && part.kind() == Kind::Member(replacement.readers)
            && halted.reason.contains("`financing queue adopt`")
            && self.have_to_halt(replacement)
    }

    /// Goes on with a replacement: waits until the readers have halted, adopts, and starts everybody.
    pub(crate) fn replace(&mut self) -> Result<(), Breach> {
        let Some(replacement) = &self.replacement else { return Ok(()) };
        let (readers, since) = (replacement.readers, replacement.since);
        if let Some(task) = &replacement.adopting {
            if !task.is_finished() {
                return Ok(());
            }
            let adopted = task.take();
            return self.adopted(adopted);
        }
        let halted =
            Self::readers(readers).all(|part| self.processes.get(part.index()).is_some_and(Option::is_none));
        if !halted && self.have_to_halt(replacement) {
            let now = self.stage.now();
            if now.saturating_sub(since) > BOUND {
                let what =
                    format!("a {} goes on with a queue that is not the one it remembers", readers.name());
                return Err(Breach { check: Check::Halts, what });
            }
            return Ok(());
        }
        for part in Self::stopped() {
            if let Some(process) = self.processes.get_mut(part.index()).and_then(Option::take) {
                process.kill();
            }
        }
        self.teller
            .tell(|| "workers, policy runners and importers are stopped, and a person adopts".to_owned());
        let (log, partitions) = (self.stage.log.clone(), self.stage.partitions);
        let task = self.stage.world.spawn("a person", async move {
            let checkpoints = log.checkpoints();
            adopt(&log, &checkpoints, &checkpoints, partitions, POLICIES, IMPORTER).await
        });
        if let Some(replacement) = &mut self.replacement {
            replacement.adopting = Some(task);
        }
        Ok(())
    }

    fn adopted(&mut self, adopted: Option<PortResult<Adopted>>) -> Result<(), Breach> {
        if let Some(Err(error)) = adopted {
            return Err(Breach { check: Check::Halts, what: format!("nothing is adopted: {error}") });
        }
        self.tally.count(Counted::Adopted);
        self.replacement = None;
        for part in Self::stopped() {
            self.start(part);
        }
        Ok(())
    }
}
