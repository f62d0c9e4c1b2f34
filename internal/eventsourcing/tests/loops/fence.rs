//! Two owners of one partition: the one that lost it, whatever it remembers, neither writes nor skips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eventsourcing::command::pack;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{CommandQueue as _, QueuePosition};
use eventsourcing::record::COMMAND_REFUSED;
use eventsourcing::testkit::memory::{Call, Fault};
use eventsourcing::worker::WorkerLimits;
use uuid::Uuid;

use crate::ledger::Command;
use crate::stage::{Part, Stage};

const STEPS: u64 = 100_000;
const PARTITION: Partition = Partition::from_index(1);

struct Fence {
    stage: Stage,
    account: Uuid,
}

impl Fence {
    fn new(seed: u64) -> Self {
        let stage = Stage::new(seed);
        let account = stage.id_in(1);
        Self { stage, account }
    }

    /// Queues commands as a listener would.
    fn queue(&self, commands: &[Command]) {
        let envelopes: Vec<Vec<u8>> =
            commands.iter().map(|command| self.stage.envelope(command).encode().unwrap()).collect();
        let bundles = pack(PARTITION, envelopes.iter().map(Vec::as_slice));
        let queue = self.stage.queue.clone();
        let answers = self.stage.world.block_on(async move { queue.enqueue(bundles).await }, STEPS).unwrap();
        assert!(answers.iter().all(Result::is_ok));
    }

    fn send(&self, amount: i64) -> Command {
        Command::Send { account: self.account, to: self.account, amount }
    }

    fn records(&self) -> Vec<String> {
        self.stage.log.records(PARTITION).iter().map(|record| record.event_type.to_string()).collect()
    }

    fn run_until(&self, condition: impl FnMut() -> bool) {
        self.stage.world.run_until(condition, STEPS).unwrap();
    }

    fn position(&self) -> Option<QueuePosition> {
        self.stage.log.row(PARTITION).position
    }

    /// A worker that is paused after it has loaded what its next batch needs, and before it commits.
    fn paused_before_its_commit(&mut self, limits: WorkerLimits) -> (Part, Arc<AtomicBool>) {
        self.paused_at(Call::LogLoad, limits)
    }

    /// A worker that is paused after this has happened, and before it hears of it.
    fn paused_at(&mut self, at: Call, limits: WorkerLimits) -> (Part, Arc<AtomicBool>) {
        let happened = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&happened);
        self.stage.interfere(Arc::new(move |call: Call| {
            if call == at {
                seen.store(true, Ordering::Relaxed);
            }
            Fault::None
        }));
        (self.stage.worker("first", limits), happened)
    }
}

fn lost(part: &Part) -> bool {
    part.assignment.take_lost().contains(&PARTITION)
}

#[test]
fn a_zombie_with_a_stale_cache_is_refused() {
    for seed in 0..20 {
        // given a worker that has the account in its cache with a balance of 10, and sleeps
        let fence = Fence::new(seed);
        let first = fence.stage.worker("first", WorkerLimits::default());
        fence.queue(&[Command::Open { account: fence.account, balance: 10 }]);
        fence.run_until(|| fence.records() == ["Opened"]);
        first.task.pause();
        // and a successor that has let the account pay all of it
        let second = fence.stage.worker("second", WorkerLimits::default());
        fence.queue(&[fence.send(10)]);
        fence.run_until(|| fence.records() == ["Opened", "Sent"]);
        second.task.pause();
        // when the first wakes, and there is a payment that its cache would allow
        fence.queue(&[fence.send(10)]);
        first.task.resume();
        fence.run_until(|| lost(&first));
        // then it has written nothing and skipped nothing, and the successor refuses the payment
        assert_eq!(fence.records(), ["Opened", "Sent"]);
        second.task.resume();
        fence.run_until(|| fence.records().len() == 3);
        assert_eq!(fence.records(), ["Opened", "Sent", COMMAND_REFUSED]);
    }
}

#[test]
fn a_zombie_whose_whole_batch_is_refusals_is_refused() {
    for seed in 0..20 {
        // given a worker that is about to commit a batch of nothing but refusals: there is no such account yet
        let mut fence = Fence::new(seed);
        fence.queue(&[fence.send(1), fence.send(2)]);
        let (first, loaded) = fence.paused_before_its_commit(WorkerLimits::default());
        fence.run_until(|| loaded.load(Ordering::Relaxed));
        first.task.pause();
        assert!(fence.records().is_empty());
        // when a successor has refused the same commands
        let second = fence.stage.worker("second", WorkerLimits::default());
        fence.run_until(|| fence.records().len() == 2);
        second.task.pause();
        let position = fence.position();
        first.task.resume();
        fence.run_until(|| lost(&first));
        // then the first has not refused them a second time
        assert_eq!(fence.records(), [COMMAND_REFUSED, COMMAND_REFUSED]);
        assert_eq!(fence.stage.log.inbox().len(), 2);
        assert_eq!(fence.position(), position);
    }
}

#[test]
fn a_zombie_whose_whole_batch_is_repeats_does_not_move_the_position() {
    for seed in 0..20 {
        // given a command that was decided, delivered again, and a worker that is about to skip the repeat
        let mut fence = Fence::new(seed);
        let command = fence.stage.envelope(&Command::Open { account: fence.account, balance: 1 });
        let payload = format!("[{}]", String::from_utf8(command.encode().unwrap()).unwrap());
        fence.stage.queue.push(PARTITION, payload.as_bytes());
        let before = fence.stage.worker("before", WorkerLimits::default());
        fence.run_until(|| fence.records() == ["Opened"]);
        before.task.kill();
        let position = fence.position();
        fence.stage.queue.push(PARTITION, payload.as_bytes());
        let (first, loaded) = fence.paused_before_its_commit(WorkerLimits::default());
        fence.run_until(|| loaded.load(Ordering::Relaxed));
        first.task.pause();
        // when a successor has taken the partition over, and has not come to the repeat
        let second = fence.stage.worker("second", WorkerLimits::default());
        let epoch = fence.stage.log.row(PARTITION).epoch;
        fence.run_until(|| fence.stage.log.row(PARTITION).epoch > epoch);
        second.task.pause();
        first.task.resume();
        fence.run_until(|| lost(&first));
        // then the position has not moved
        assert_eq!(fence.position(), position);
        assert_eq!(fence.records(), ["Opened"]);
    }
}

#[test]
fn a_zombie_that_wakes_before_its_successor_writes_is_refused() {
    for seed in 0..20 {
        // given a worker that is about to commit a fact
        let mut fence = Fence::new(seed);
        fence.queue(&[Command::Open { account: fence.account, balance: 10 }]);
        let (first, loaded) = fence.paused_before_its_commit(WorkerLimits::default());
        fence.run_until(|| loaded.load(Ordering::Relaxed));
        first.task.pause();
        // when a successor has only just taken the partition over
        let epoch = fence.stage.log.row(PARTITION).epoch;
        let second = fence.stage.worker("second", WorkerLimits::default());
        fence.run_until(|| fence.stage.log.row(PARTITION).epoch > epoch);
        second.task.pause();
        first.task.resume();
        fence.run_until(|| lost(&first));
        // then nothing is written until the successor writes it, once
        assert!(fence.records().is_empty());
        assert_eq!(fence.position(), None);
        second.task.resume();
        fence.run_until(|| fence.position().is_some());
        assert_eq!(fence.records(), ["Opened"]);
    }
}

#[test]
fn a_zombie_whose_message_was_purged_by_its_successor_does_not_take_the_queue_for_another() {
    for seed in 0..20 {
        // given a worker that has read how far the queue is worked off, and sleeps before it looks for that message
        let mut fence = Fence::new(seed);
        fence.queue(&[Command::Open { account: fence.account, balance: 10 }]);
        let before = fence.stage.worker("before", WorkerLimits::default());
        fence.run_until(|| fence.records() == ["Opened"]);
        before.task.kill();
        let (first, read) = fence.paused_at(Call::LogRows, WorkerLimits::default());
        fence.run_until(|| read.load(Ordering::Relaxed));
        first.task.pause();
        // and a successor that has worked on, and let the queue forget it
        let message = fence.position().expect("one is worked off").message;
        let limits = WorkerLimits { purge_every: 1, ..WorkerLimits::default() };
        let _second = fence.stage.worker("second", limits);
        fence.queue(&[fence.send(1)]);
        let left = |fence: &Fence| fence.stage.queue.messages(PARTITION);
        fence.run_until(|| left(&fence).first().is_some_and(|first| first.message > message));
        // when the first wakes
        first.task.resume();
        fence.run_until(|| lost(&first));
        // then it has only lost the partition
        assert!(!first.task.is_finished());
    }
}
