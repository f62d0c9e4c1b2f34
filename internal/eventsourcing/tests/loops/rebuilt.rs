//! Read models that are built anew while accounts pay each other: nobody notices, and nothing is lost.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use eventsourcing::assignment::Assignment;
use eventsourcing::command::pack;
use eventsourcing::environment::Stop;
use eventsourcing::ports::{CommandQueue as _, PortError};
use eventsourcing::projector::Projector;
use eventsourcing::rebuild::{Phase, Rebuild, RebuildError, RebuildProgress};
use eventsourcing::testkit::memory::{Call, MemoryBus, MemoryReadModels, SavedReadModels};
use eventsourcing::testkit::world::Task;
use eventsourcing::turn::{Progress, Turn as _};
use eventsourcing::worker::WorkerLimits;
use uuid::Uuid;

use crate::ledger::{self, Balances, Command, Ledger};
use crate::stage::{Part, Stage};

const STEPS: u64 = 1_000_000;
const ACCOUNTS: usize = 6;

type Told = Arc<Mutex<Vec<RebuildProgress>>>;

/// A platform whose accounts pay each other.
struct Market {
    stage: Stage,
    accounts: Vec<Uuid>,
    parts: Vec<Part>,
}

impl Market {
    fn open(stage: Stage) -> Self {
        let accounts: Vec<Uuid> =
            (0..ACCOUNTS).map(|number| stage.id_in(u16::try_from(number % 3).unwrap())).collect();
        let parts = vec![
            stage.worker("worker", WorkerLimits::default()),
            stage.relayer("relayer"),
            stage.policies("policies"),
            stage.projector("projector"),
        ];
        let market = Self { stage, accounts, parts };
        let open = |account: &Uuid| Command::Open { account: *account, balance: 100 };
        market.queue(market.accounts.iter().map(open).collect());
        market.settle();
        market
    }

    fn queue(&self, commands: Vec<Command>) {
        for command in commands {
            let (Command::Open { account, .. }
            | Command::Send { account, .. }
            | Command::Receive { account, .. }
            | Command::Refund { account, .. }) = &command;
            let partition = self.stage.partitions.partition_of(*account);
            let envelope = self.stage.envelope(&command).encode().unwrap();
            let (bundles, queue) = (pack(partition, [envelope.as_slice()]), self.stage.queue.clone());
            let queued = self.stage.world.block_on(async move { queue.enqueue(bundles).await }, STEPS);
            assert!(queued.unwrap().iter().all(Result::is_ok));
        }
    }

    /// Everybody pays his neighbour.
    fn pay(&self, amount: i64) {
        let next = self.accounts.iter().cycle().skip(1);
        let send = |(account, to): (&Uuid, &Uuid)| Command::Send { account: *account, to: *to, amount };
        self.queue(self.accounts.iter().zip(next).map(send).collect());
    }

    fn settle(&self) {
        self.stage.world.run_until(|| self.stage.is_settled(), STEPS).unwrap();
    }

    fn rebuild_from(&self, bus: MemoryBus, told: &Told, stop: &Stop) -> Task<Result<(), RebuildError>> {
        let told = Arc::clone(told);
        let rebuild: Rebuild<Ledger, _, _, _, _> = Rebuild::new(
            Balances,
            bus,
            self.stage.models(),
            self.stage.world.environment(),
            self.stage.partitions,
        );
        let stop = stop.clone();
        self.stage.world.spawn("rebuild", async move {
            rebuild.run(|progress| told.lock().unwrap().push(progress), &stop).await
        })
    }

    fn rebuild(&self, told: &Told) -> Task<Result<(), RebuildError>> {
        self.rebuild_from(self.stage.bus(), told, &self.stage.stop)
    }

    fn ended(&self, task: &Task<Result<(), RebuildError>>) -> Result<(), RebuildError> {
        self.stage.world.run_until(|| task.is_finished(), STEPS).unwrap();
        task.take().unwrap()
    }

    /// What a projector that has never seen anything makes of the bus.
    fn folded(&self) -> SavedReadModels {
        let fresh = MemoryReadModels::new(ledger::TABLES);
        let mut projector: Projector<Ledger, _, _, _> = Projector::new(
            Balances,
            self.stage.bus.clone(),
            fresh.clone(),
            Assignment::of(self.stage.partitions.all()),
        );
        let all = async move { while projector.turn().await.unwrap() == Progress::Worked {} };
        self.stage.world.block_on(all, STEPS).unwrap();
        fresh.save()
    }
}

#[test]
fn what_is_rebuilt_while_payments_go_on_is_what_a_projector_makes_of_it() {
    for seed in 0..20 {
        // given
        let market = Market::open(Stage::new(seed));
        market.pay(1);
        market.settle();

        // when
        market.pay(2);
        let told = Told::default();
        let rebuild = market.rebuild(&told);
        market.pay(3);
        market.pay(4);
        assert_eq!(market.ended(&rebuild), Ok(()), "seed {seed}");
        market.pay(5);
        market.settle();

        // then
        assert_eq!(market.stage.models.save(), market.folded(), "seed {seed}");
        assert!(market.parts.iter().all(|part| part.assignment.take_lost().is_empty()), "nobody noticed");
        let told = told.lock().unwrap();
        assert!(told.is_sorted_by_key(|progress| (progress.phase, progress.done)), "{told:?}");
        let last = told.last().unwrap();
        assert_eq!((last.phase, last.done), (Phase::Swapped, last.all));
        assert!(last.done > 0);
    }
}

#[test]
fn whatever_is_wrong_with_the_old_ones_the_new_ones_are_right() {
    // given rows that somebody has spoiled
    let market = Market::open(Stage::new(1));
    market.pay(7);
    market.settle();
    let right = market.stage.models.save();
    market.stage.models.spoil();
    assert_ne!(market.stage.models.save(), right);
    // when
    let rebuild = market.rebuild(&Told::default());
    // then
    assert_eq!(market.ended(&rebuild), Ok(()));
    assert_eq!(market.stage.models.save(), right);
}

#[test]
fn whatever_fails_the_live_ones_are_as_they_were_and_the_next_one_succeeds() {
    let calls = [
        Call::ShadowBegin,
        Call::ShadowApply,
        Call::ShadowIndex,
        Call::ShadowHold,
        Call::ShadowSwap,
        Call::ModelsCheckpoints,
    ];
    for call in calls {
        let mut stage = Stage::new(3);
        let trap = stage.fail_once(call);
        let market = Market::open(stage);
        market.pay(1);
        market.settle();
        let before = market.stage.models.save();
        trap.store(true, Ordering::Relaxed);
        let failed = market.ended(&market.rebuild(&Told::default()));
        assert!(matches!(failed, Err(RebuildError::Port(PortError::Unavailable(_)))), "{call:?}: {failed:?}");
        assert_eq!(market.stage.models.save(), before, "{call:?}");
        market.pay(2);
        market.settle();
        assert_eq!(market.ended(&market.rebuild(&Told::default())), Ok(()), "{call:?}");
        assert_eq!(market.stage.models.save(), market.folded());
    }
}

#[test]
fn a_bus_that_does_not_answer_for_a_moment_is_asked_again() {
    let mut stage = Stage::new(4);
    let trap = stage.fail_once(Call::BusRead);
    let market = Market::open(stage);
    market.parts.iter().for_each(|part| part.task.pause());
    trap.store(true, Ordering::Relaxed);
    assert_eq!(market.ended(&market.rebuild(&Told::default())), Ok(()));
    assert!(!trap.load(Ordering::Relaxed), "it has failed");
}

#[test]
fn of_two_at_once_one_is_refused() {
    for seed in 0..10 {
        let market = Market::open(Stage::new(seed));
        let (one, other) = (market.rebuild(&Told::default()), market.rebuild(&Told::default()));
        let ends = [market.ended(&one), market.ended(&other)];
        // (Unless one has ended before the other began.)
        assert!(ends.contains(&Ok(())), "{ends:?}");
        assert!(ends.iter().all(|end| matches!(end, Ok(()) | Err(RebuildError::UnderWay))), "{ends:?}");
    }
}

#[test]
fn who_cancels_leaves_the_live_ones_as_they_were() {
    let market = Market::open(Stage::new(5));
    let before = market.stage.models.save();
    let (cancel, cancelled) = Stop::new();
    let told = Told::default();
    let rebuild = market.rebuild_from(market.stage.bus(), &told, &cancelled);
    market.stage.world.run_until(|| !told.lock().unwrap().is_empty(), STEPS).unwrap();
    drop(cancel);
    assert_eq!(market.ended(&rebuild), Err(RebuildError::Cancelled));
    assert_eq!(market.stage.models.save(), before);
    assert_eq!(market.ended(&market.rebuild(&Told::default())), Ok(()));
}

#[test]
fn who_cancels_late_leaves_them_as_they_were_too() {
    for phase in [Phase::Indexing, Phase::CatchingUp] {
        // given rows that differ from those that would be swapped in
        let market = Market::open(Stage::new(8));
        market.stage.models.spoil();
        let spoiled = market.stage.models.save();
        let (cancel, cancelled) = Stop::new();
        let models = market.stage.models();
        let rebuild: Rebuild<Ledger, _, _, _, _> = Rebuild::new(
            Balances,
            market.stage.bus(),
            models,
            market.stage.world.environment(),
            market.stage.partitions,
        );
        // when
        let rebuild = market.stage.world.spawn("rebuild", async move {
            let tell = |progress: RebuildProgress| {
                if progress.phase == phase {
                    cancel.stop();
                }
            };
            rebuild.run(tell, &cancelled).await
        });
        // then
        assert_eq!(market.ended(&rebuild), Err(RebuildError::Cancelled), "{phase:?}");
        assert_eq!(market.stage.models.save(), spoiled, "{phase:?}");
    }
}

#[test]
fn who_reads_for_long_is_waited_for() {
    for seed in 0..5 {
        // given
        let market = Market::open(Stage::new(seed));
        market.pay(1);
        market.settle();
        market.stage.models.spoil();
        let reading = market.stage.models.read_for_long();
        let told = Told::default();
        // when
        let rebuild = market.rebuild(&told);
        let rounds = || told.lock().unwrap().iter().filter(|told| told.phase == Phase::CatchingUp).count();
        market.stage.world.run_until(|| rounds() > 2, STEPS).unwrap();
        market.pay(2);
        market.settle();
        assert!(!rebuild.is_finished());
        let before = rounds();
        market.stage.world.run_until(|| rounds() > before + 2, STEPS).unwrap();
        drop(reading);
        // then
        assert_eq!(market.ended(&rebuild), Ok(()), "seed {seed}");
        assert_eq!(market.stage.models.save(), market.folded(), "seed {seed}");
    }
}

#[test]
fn the_log_of_somebody_else_is_not_folded_into_these_read_models() {
    let (market, other) = (Market::open(Stage::new(6)), Market::open(Stage::new(7)));
    let before = market.stage.models.save();
    assert_ne!(before, other.stage.models.save());
    let rebuild = market.rebuild_from(other.stage.bus.clone(), &Told::default(), &market.stage.stop);
    let refused = market.ended(&rebuild);
    assert!(matches!(refused, Err(RebuildError::Astray(_))), "{refused:?}");
    assert_eq!(market.stage.models.save(), before);
    // And a bus that has lost its tail is waited for, but not for ever.
    let rebuild = market.rebuild_from(MemoryBus::default(), &Told::default(), &market.stage.stop);
    let refused = market.ended(&rebuild);
    assert!(matches!(refused, Err(RebuildError::Port(PortError::Unavailable(_)))), "{refused:?}");
    assert_eq!(market.stage.models.save(), before);
}

#[test]
fn rate_and_time_left_are_of_the_whole_way() {
    let begun = RebuildProgress::begin(Stage::new(1).partitions);
    assert_eq!((begun.rate(), begun.time_left()), (0, None));
    let elapsed = std::time::Duration::from_secs(4);
    let half = RebuildProgress { done: 200, all: 400, elapsed, ..begun };
    assert_eq!((half.rate(), half.time_left()), (50, Some(elapsed)));
}
