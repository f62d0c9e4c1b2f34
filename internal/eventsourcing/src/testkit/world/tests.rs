use std::sync::Arc;

use super::*;
use crate::environment::{Doorbell, within};
use crate::ports::{EventLog, PortError};
use crate::testkit::contract::sample::{Owner, aggregate, partition};
use crate::testkit::memory::{Call, Fault, MemoryLog, let_others_run};

/// Three tasks that draw, sleep and wake each other; what each of them saw, and the trace.
fn life(seed: u64) -> (Vec<(u64, Uuid)>, u64) {
    let world = World::new(seed);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let bell = Doorbell::default();
    let tasks: Vec<_> = (0..3)
        .map(|number| {
            let (environment, seen, bell) = (world.environment(), Rc::clone(&seen), bell.clone());
            world.spawn(&format!("task {number}"), async move {
                for _ in 0..20 {
                    let pause = Duration::from_micros(environment.random() % 1000);
                    within(&environment, pause, bell.rung()).await;
                    seen.borrow_mut().push((number, environment.uuid()));
                    bell.ring();
                    let_others_run().await;
                }
            })
        })
        .collect();
    world.run_until(|| tasks.iter().all(Task::is_finished), 10_000).unwrap();
    (seen.take(), world.trace())
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    assert_eq!(life(7), life(7));
    assert_ne!(life(7).0, life(8).0);
    assert_ne!(life(7).1, life(8).1);
}

#[test]
fn in_which_order_somebody_wakes_those_who_wait_together_is_not_the_runs() {
    let woken = |order: [usize; 4]| {
        let world = World::new(3);
        let bells: Vec<Doorbell> = (0..4).map(|_| Doorbell::default()).collect();
        let waiting: Vec<_> = bells
            .iter()
            .map(|bell| {
                let bell = bell.clone();
                world.spawn("waits", async move { bell.rung().await })
            })
            .collect();
        world.run_until(|| !world.can_run(), 100).unwrap();
        for number in order {
            bells[number].ring();
        }
        world.run_until(|| waiting.iter().all(Task::is_finished), 100).unwrap();
        world.trace()
    };
    assert_eq!(woken([0, 1, 2, 3]), woken([2, 0, 3, 1]));
}

#[test]
fn time_passes_only_while_nothing_can_run() {
    let world = World::new(1);
    let environment = world.environment();
    let busy = world.spawn("busy", {
        let environment = environment.clone();
        async move {
            for _ in 0..100 {
                let_others_run().await;
            }
            environment.now()
        }
    });
    let sleeper = world.spawn("sleeper", async move {
        environment.sleep(Duration::from_hours(1)).await;
        environment.now()
    });
    world.run_until(|| sleeper.is_finished(), 1000).unwrap();
    assert_eq!(busy.take(), Some(BEGINNING));
    assert_eq!(sleeper.take(), Some(Timestamp::from_micros(BEGINNING.as_micros() + 3_600_000_000)));
}

#[test]
fn a_paused_task_is_not_polled_and_goes_on_where_it_was() {
    let world = World::new(1);
    let count = Rc::new(Cell::new(0));
    let task = world.spawn("counter", {
        let count = Rc::clone(&count);
        async move {
            loop {
                count.set(count.get() + 1);
                let_others_run().await;
            }
        }
    });
    world.run_until(|| count.get() == 5, 100).unwrap();
    task.pause();
    let stuck = world.run_until(|| count.get() == 6, 100).unwrap_err();
    assert_eq!(stuck, Stuck::Asleep { steps: 0, left: vec!["counter".to_owned()] });
    task.resume();
    world.run_until(|| count.get() == 6, 100).unwrap();
    assert_eq!(world.run_until(|| false, 10), Err(Stuck::TooLong(10)));
}

#[test]
fn a_killed_task_is_dropped_where_it_stands() {
    let world = World::new(1);
    let held = Arc::new(());
    let (inside, environment) = (Arc::clone(&held), world.environment());
    let task = world.spawn("sleeper", async move {
        environment.sleep(Duration::from_secs(1)).await;
        drop(inside);
    });
    let environment = world.environment();
    world.block_on(async move { environment.sleep(Duration::from_millis(1)).await }, 10).unwrap();
    task.kill();
    assert!(task.is_finished() && task.take().is_none());
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(world.run_until(|| false, 10), Err(Stuck::Asleep { steps: 0, left: Vec::new() }));
}

#[test]
fn ids_are_of_version_7_and_each_is_another() {
    let environment = World::new(1).environment();
    let ids: std::collections::BTreeSet<Uuid> = (0..1000).map(|_| environment.uuid()).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| id.get_version_num() == 7));
}

#[test]
fn a_lost_answer_happened_and_a_failure_did_not() {
    let world = World::new(1);
    for (fault, records) in [(Fault::Fail, 0), (Fault::LoseAnswer, 1)] {
        let log = MemoryLog::default();
        let faulty =
            log.interfered(Arc::new(move |call| if call == Call::LogCommit { fault } else { Fault::None }));
        let answer = world.block_on(
            async move {
                let owner = Owner::take_over(&faulty, partition(1)).await;
                let facts = owner.facts(&aggregate(partition(1), 0), 1, 1);
                faulty.commit(vec![owner.part(facts)]).await
            },
            100,
        );
        assert!(matches!(answer.unwrap(), Err(PortError::Unavailable(_))));
        assert_eq!(log.records(partition(1)).len(), records);
    }
}

#[test]
fn calls_to_one_store_interleave() {
    let orders: std::collections::BTreeSet<Vec<u64>> = (0..50)
        .map(|seed| {
            let world = World::new(seed);
            let log = MemoryLog::default();
            let takers: Vec<_> = (0..3)
                .map(|number| {
                    let log = log.clone();
                    world.spawn(&format!("owner {number}"), async move {
                        Owner::take_over(&log, partition(1)).await.row.epoch.get()
                    })
                })
                .collect();
            world.run_until(|| takers.iter().all(Task::is_finished), 100).unwrap();
            takers.iter().filter_map(Task::take).collect()
        })
        .collect();
    assert_eq!(orders.len(), 6, "every order of three takeovers is seen");
}
