//! What each step does.
//!
//! The rule this module protects: a step is what happens between two points at which a process can be stopped, and nothing that
//! the real platform does in two transactions is one step here.

use arrayvec::ArrayVec;
use stateright::{Model, Property};

use crate::saga::{Books, react};
use crate::{
    Answer, BATCH, Bug, Kind, Memory, Message, Partition, Protocol, Record, Said, State, Step, Worker,
    derived, length, properties,
};

impl Protocol {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn books(&self, records: &[Record]) -> Books {
        let mut books = Books::new(&self.scenario);
        for record in records {
            books.evolve(&self.scenario, record.said);
        }
        books
    }

    /// What a policy runner has in front of it.
    pub(crate) fn readable<'a>(&self, partition: &'a Partition) -> impl Iterator<Item = Record> + use<'a> {
        let from_log = self.has(Bug::PoliciesReadLog).then(|| partition.log.iter().copied());
        let from_bus = partition.bus.iter().map(|place| partition.log[usize::from(*place)]);
        from_log.into_iter().flatten().chain(from_bus)
    }

    /// Queues what follows from a record; the same twice, if it is done twice, with an id that says so.
    fn follow(&self, state: &mut State, partition: usize, record: Record) {
        let Some(command) = react(&self.scenario, record.said) else { return };
        let queue = &mut state.partitions[self.scenario.partition(command)].queue;
        let id = if self.has(Bug::RandomIds) { 100 + length(queue) } else { derived(partition, record) };
        queue.push(Message { id, command });
    }

    fn react(&self, state: &mut State, at: usize, from: u8) -> Option<()> {
        let partition = &mut state.partitions[at];
        let owed = self.has(Bug::CheckpointFirst);
        let from = if owed { partition.checkpoint.checked_sub(1)? } else { from };
        (!owed || partition.queued).then_some(())?;
        let record = self.readable(partition).nth(from.into())?;
        react(&self.scenario, record.said)?;
        partition.queued = !owed && (partition.queued || from == partition.checkpoint);
        self.follow(state, at, record);
        Some(())
    }

    /// By compare-and-set; so whoever stands elsewhere moves nothing, and is not looked at.
    fn advance(&self, partition: &mut Partition) -> Option<()> {
        let record = self.readable(partition).nth(partition.checkpoint.into())?;
        let follows = react(&self.scenario, record.said).is_some();
        let owed = self.has(Bug::CheckpointFirst);
        (!follows || partition.queued != owed).then_some(())?;
        partition.checkpoint += 1;
        partition.queued = owed && follows;
        Some(())
    }

    fn decide(&self, partition: &mut Partition, worker: usize) -> Option<()> {
        let Worker::Settled(memory) = &mut partition.workers[worker] else { return None };
        let unread = length(&partition.queue).saturating_sub(memory.position).min(BATCH);
        if memory.batch > 0 || unread == 0 {
            return None;
        }
        memory.batch = unread;
        if self.has(Bug::PositionFirst) && memory.epoch == partition.epoch {
            partition.position = memory.position + unread;
        }
        if self.has(Bug::PurgeDecided) {
            partition.purged = partition.purged.max(memory.position + unread);
        }
        Some(())
    }

    /// One transaction: where the row is not what the worker remembers, nothing happens.
    fn commit(&self, state: &mut State, at: usize, worker: usize, answer: Answer) -> Option<()> {
        let partition = &mut state.partitions[at];
        let Worker::Settled(memory) = partition.workers[worker] else { return None };
        if memory.batch == 0 {
            return None;
        }
        let next = Memory { position: memory.position + memory.batch, batch: 0, ..memory };
        let position = if self.has(Bug::PositionFirst) { next.position } else { memory.position };
        let same_epoch = memory.epoch == partition.epoch || self.has(Bug::NoEpoch);
        let same = same_epoch && memory.head == length(&partition.log) && position == partition.position;
        let fenced = !same && !self.has(Bug::NoCompareAndSet);
        if !fenced && answer != Answer::Failed {
            state.trespassed |= memory.epoch != partition.epoch;
            self.append(partition, memory);
            partition.position = next.position;
        }
        partition.workers[worker] = match answer {
            Answer::Heard if fenced => Worker::Idle,
            Answer::Heard => Worker::Settled(Memory { head: length(&partition.log), ..next }),
            Answer::Lost | Answer::Failed => Worker::Unsettled(memory.epoch),
        };
        Some(())
    }

    /// What a batch writes: every command that is not known one record, decided on what the worker remembers.
    fn append(&self, partition: &mut Partition, memory: Memory) {
        let known = &partition.log[..usize::from(memory.head)];
        let mut batch: ArrayVec<Record, 20> = known.iter().copied().collect();
        let mut books = self.books(known);
        for index in memory.position..memory.position + memory.batch {
            let Message { id, command } = partition.queue[usize::from(index)];
            if batch.iter().any(|record| record.id == id) && !self.has(Bug::NoInbox) {
                continue;
            }
            let said = books.decide(&self.scenario, command, self.bug);
            let version = match self.aggregate(said) {
                None => 0,
                aggregate => {
                    let before = batch.iter().filter(|record| self.aggregate(record.said) == aggregate);
                    1 + before.fold(0, |count: u8, _| count + 1)
                }
            };
            books.evolve(&self.scenario, said);
            let record = Record { sequence: length(&batch) + 1, version, id, said };
            batch.push(record);
            partition.log.push(record);
        }
    }

    /// Whose fact it is: an investor's, or an invoice's.
    pub(crate) fn aggregate(&self, said: Said) -> Option<(bool, usize)> {
        match said {
            Said::Placed(bid) | Said::Moved(bid, ..) => Some((true, self.scenario.bid(bid).0)),
            Said::Financed(bid) | Said::Rejected(bid) | Said::Approved(bid) | Said::Reversed(bid) => {
                Some((false, self.scenario.bid(bid).1))
            }
            Said::Refused(_) | Said::Unchanged(_) => None,
        }
    }

    fn project(&self, partition: &mut Partition, from: u8) -> Option<()> {
        let record = partition.log[usize::from(*partition.bus.get(usize::from(from))?)];
        let fits = partition.projected == from || self.has(Bug::BlindProjector);
        if !fits || !self.scenario.projects {
            return None;
        }
        partition.projected = from + 1;
        partition.shown += self.available(record.said);
        Some(())
    }

    /// What a fact adds to what is available.
    pub(crate) fn available(&self, said: Said) -> i16 {
        match said {
            Said::Placed(bid) => -i16::from(self.scenario.bid(bid).2),
            Said::Moved(_, Kind::Release | Kind::Excess | Kind::Return, amount) => amount.into(),
            Said::Moved(_, Kind::Commit, _)
            | Said::Financed(_)
            | Said::Rejected(_)
            | Said::Approved(_)
            | Said::Reversed(_)
            | Said::Refused(_)
            | Said::Unchanged(_) => 0,
        }
    }
}

/// Whatever goes wrong is paid for: so no run goes on for ever, and the checker comes to an end.
fn is_trouble(state: &State, step: Step) -> bool {
    match step {
        Step::Repeat(_)
        | Step::TakeOver(..)
        | Step::Forget(_)
        | Step::Commit(_, _, Answer::Lost | Answer::Failed) => true,
        // A runner that was replaced, or one that begins again after a crash.
        Step::React(at, from) => from != state.partitions[at].checkpoint || state.partitions[at].queued,
        Step::Send(_)
        | Step::Settle(..)
        | Step::Decide(..)
        | Step::Commit(_, _, Answer::Heard)
        | Step::Purge(..)
        | Step::Relay(..)
        | Step::Advance(_)
        | Step::Project(..) => false,
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let owner = Worker::Settled(Memory { epoch: 1, head: 0, position: 0, batch: 0 });
        let partition = |investor: usize| Partition {
            epoch: 1,
            position: 0,
            log: ArrayVec::new(),
            queue: ArrayVec::new(),
            purged: 0,
            bus: ArrayVec::new(),
            checkpoint: 0,
            queued: false,
            projected: 0,
            shown: self.scenario.funds[investor].into(),
            workers: [owner, Worker::Idle],
        };
        let partitions = [partition(0), partition(1)];
        vec![State { partitions, sent: 0, trouble: self.scenario.trouble, trespassed: false }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let clients = 0..length(self.scenario.clients);
        steps.extend(clients.flat_map(|one| [Step::Send(one), Step::Repeat(one)]));
        for (at, partition) in state.partitions.iter().enumerate() {
            for (worker, memory) in partition.workers.iter().enumerate() {
                steps.push(Step::TakeOver(at, worker));
                match memory {
                    Worker::Idle => {}
                    Worker::Unsettled(_) => steps.push(Step::Settle(at, worker)),
                    Worker::Settled(Memory { batch: 0, .. }) => {
                        steps.extend([Step::Decide(at, worker), Step::Purge(at, worker)]);
                    }
                    Worker::Settled(_) => {
                        let answers = [Answer::Heard, Answer::Lost, Answer::Failed];
                        steps.extend(answers.map(|answer| Step::Commit(at, worker, answer)));
                    }
                }
            }
            // Whoever relays or projects has no right to; so it may be anybody, with anything that was ever true.
            steps.extend(
                (0..=length(&partition.bus))
                    .flat_map(|from| [Step::Relay(at, from), Step::Project(at, from)]),
            );
            // A runner reads many records at once and queues what follows from all of them: some of it may be on disk, and not
            // what is before it, when it crashes. So it may stand anywhere.
            let readable = length(&partition.bus).max(partition.checkpoint);
            steps.extend((0..=readable).map(|from| Step::React(at, from)));
            steps.extend([Step::Advance(at), Step::Forget(at)]);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let price = u8::from(is_trouble(last, step));
        let mut state = State { trouble: last.trouble.checked_sub(price)?, ..last.clone() };
        match step {
            Step::Send(one) | Step::Repeat(one) => {
                let (command, bit) = (self.scenario.clients[usize::from(one)], 1 << one);
                let is_repeat = matches!(step, Step::Repeat(_));
                (is_repeat == (state.sent & bit != 0)).then_some(())?;
                state.sent |= bit;
                let queue = &mut state.partitions[self.scenario.partition(command)].queue;
                queue.push(Message { id: one, command });
            }
            Step::TakeOver(at, worker) => {
                let partition = &mut state.partitions[at];
                partition.epoch += 1;
                partition.workers[worker] = Worker::Unsettled(partition.epoch);
            }
            Step::Settle(at, worker) => {
                let partition = &mut state.partitions[at];
                let Worker::Unsettled(epoch) = partition.workers[worker] else { return None };
                let (head, position) = (length(&partition.log), partition.position);
                // The message at the position proves that the queue is the one that the row remembers.
                (position == 0 || partition.purged < position).then_some(())?;
                let memory = Memory { epoch, head, position, batch: 0 };
                let is_owner = epoch == partition.epoch;
                partition.workers[worker] = if is_owner { Worker::Settled(memory) } else { Worker::Idle };
            }
            Step::Decide(at, worker) => self.decide(&mut state.partitions[at], worker)?,
            Step::Commit(at, worker, answer) => self.commit(&mut state, at, worker, answer)?,
            Step::Purge(at, worker) => {
                let partition = &mut state.partitions[at];
                let Worker::Settled(memory) = partition.workers[worker] else { return None };
                // It spares the message at the position, which is the last that was worked off.
                let spared = u8::from(!self.has(Bug::PurgeSparesNothing));
                let purged = memory.position.saturating_sub(spared);
                (self.scenario.purges && purged > partition.purged).then_some(())?;
                partition.purged = purged;
            }
            Step::Relay(at, from) => {
                let partition = &mut state.partitions[at];
                let fits = length(&partition.bus) == from || self.has(Bug::NoExpectedSequence);
                (fits && from < length(&partition.log)).then(|| partition.bus.push(from))?;
            }
            Step::React(at, from) => self.react(&mut state, at, from)?,
            Step::Advance(at) => self.advance(&mut state.partitions[at])?,
            Step::Forget(at) => {
                std::mem::take(&mut state.partitions[at].queued).then_some(())?;
            }
            Step::Project(at, from) => self.project(&mut state.partitions[at], from)?,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
