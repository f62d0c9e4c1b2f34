//! Members of a role: who gets what, and when.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use eventsourcing::assignment::Assignment;
use eventsourcing::environment::Environment as _;
use eventsourcing::membership::{Membership, RENEWAL, TERM};
use eventsourcing::partition::Partition;
use eventsourcing::ports::Role;
use eventsourcing::testkit::memory::MemoryLeases;
use eventsourcing::turn::{Progress, Turn as _};
use eventsourcing::worker::WorkerLimits;
use uuid::Uuid;

use crate::ledger::Command;
use crate::stage::{Member, Stage};

const STEPS: u64 = 500_000;

fn worker(stage: &Stage, name: &str) -> Member {
    stage.member(Role::Worker, name, WorkerLimits::default())
}

fn owned(member: &Member) -> usize {
    member.part.assignment.current().len()
}

/// A membership that a test turns by hand, and its assignment.
fn by_hand(stage: &Stage) -> (Membership<MemoryLeases>, Assignment) {
    let assignment = Assignment::default();
    let id = stage.world.environment().uuid();
    let leases = stage.leases.clone();
    (Membership::new(leases, Role::Worker, id, stage.partitions, assignment.clone()), assignment)
}

#[test]
fn what_a_dead_member_held_is_worked_again_within_five_seconds() {
    for seed in 0..20 {
        // given two workers that share six partitions
        let stage = Stage::of(seed, 6);
        let (one, other) = (worker(&stage, "one"), worker(&stage, "other"));
        stage.world.run_until(|| owned(&one) == 3 && owned(&other) == 3, STEPS).unwrap();
        // when one of them dies
        let died_at = stage.world.environment().now().as_micros();
        one.kill();
        for partition in 0..6 {
            let command = Command::Open { account: stage.id_in(partition), balance: 1 };
            let payload =
                format!("[{}]", String::from_utf8(stage.envelope(&command).encode().unwrap()).unwrap());
            stage.queue.push(Partition::from_index(partition), payload.as_bytes());
        }
        // then everything is worked off by the other, before long
        stage.world.run_until(|| stage.log.all_records().len() == 6, STEPS).unwrap();
        let took = Duration::from_micros(stage.world.environment().now().as_micros() - died_at);
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(owned(&other), 6);
    }
}

#[test]
fn a_member_that_stops_is_not_waited_for() {
    let mut stage = Stage::of(1, 4);
    let one = worker(&stage, "one");
    stage.world.run_until(|| owned(&one) == 4, STEPS).unwrap();
    stage.stop();
    stage.world.run_until(|| one.is_left(), STEPS).unwrap();
    stage.start_again();
    let stopped_at = stage.world.environment().now().as_micros();
    let other = worker(&stage, "other");
    stage.world.run_until(|| owned(&other) == 4, STEPS).unwrap();
    let took = Duration::from_micros(stage.world.environment().now().as_micros() - stopped_at);
    assert!(took < RENEWAL, "{took:?}");
}

#[test]
fn a_member_that_slept_longer_than_its_term_gets_its_share_again() {
    for seed in 0..20 {
        let stage = Stage::of(seed, 4);
        let (one, other) = (worker(&stage, "one"), worker(&stage, "other"));
        let even = || owned(&one) == 2 && owned(&other) == 2;
        stage.world.run_until(even, STEPS).unwrap();
        one.pause();
        stage.world.run_until(|| owned(&other) == 4, STEPS).unwrap();
        assert_eq!(owned(&one), 2, "it does not know yet");
        one.resume();
        stage.world.run_until(even, STEPS).unwrap();
        assert!(!one.is_finished() && !other.is_finished());
    }
}

#[test]
fn a_join_moves_no_more_than_its_share() {
    let stage = Stage::of(1, 12);
    let mut members = Vec::new();
    for (joined, share) in (1..).zip([12, 6, 4, 3]) {
        let before = stage.leases.moves(Role::Worker);
        members.push(worker(&stage, &format!("worker {joined}")));
        let even = || members.iter().all(|member| owned(member) == share);
        stage.world.run_until(even, STEPS).unwrap();
        assert_eq!(stage.leases.moves(Role::Worker) - before, share);
    }
}

#[test]
fn a_partition_that_was_lost_and_is_leased_is_handed_out_again() {
    let stage = Stage::of(1, 4);
    let (mut membership, assignment) = by_hand(&stage);
    stage
        .world
        .block_on(
            async move {
                assert_eq!(membership.turn().await, Ok(Progress::Idle));
                assert_eq!(assignment.current().len(), 4);
                assignment.lose(Partition::from_index(2));
                assert_eq!(assignment.current().len(), 3);
                assert_eq!(membership.turn().await, Ok(Progress::Idle));
                assert_eq!(assignment.current().len(), 4);
                assert!(assignment.take_lost().is_empty(), "it was heard of");
            },
            STEPS,
        )
        .unwrap();
}

#[test]
fn a_renewal_that_changes_nothing_wakes_nobody() {
    let stage = Stage::of(1, 4);
    let (mut membership, assignment) = by_hand(&stage);
    let leases = stage.leases.clone();
    let partitions = stage.partitions;
    stage
        .world
        .block_on(
            async move {
                let bell = assignment.bells().hang();
                let rung = || pin!(bell.rung()).poll(&mut Context::from_waker(Waker::noop()));
                membership.turn().await.unwrap();
                assert_eq!(rung(), Poll::Ready(()));
                membership.turn().await.unwrap();
                assert_eq!(rung(), Poll::Pending);
                let other = Uuid::from_u128(1);
                eventsourcing::ports::Leases::renew(&leases, Role::Worker, other, partitions, TERM)
                    .await
                    .unwrap();
                membership.turn().await.unwrap();
                assert_eq!(rung(), Poll::Ready(()));
                assert_eq!(assignment.current().len(), 2);
            },
            STEPS,
        )
        .unwrap();
}

#[test]
fn a_fenced_worker_takes_over_anew_what_is_still_leased_to_it() {
    for seed in 0..20 {
        // given a worker whose partition somebody takes over who has no lease: a person, or a process that slept
        let stage = Stage::of(seed, 1);
        let one = worker(&stage, "one");
        stage.world.run_until(|| stage.log.row(Partition::from_index(0)).epoch.get() == 1, STEPS).unwrap();
        let log = stage.log.clone();
        let taken = async move {
            eventsourcing::ports::EventLog::take_over(&log, &[Partition::from_index(0)]).await.unwrap();
        };
        stage.world.block_on(taken, STEPS).unwrap();
        // when there is something to do
        let command = Command::Open { account: stage.id_in(0), balance: 1 };
        let payload = format!("[{}]", String::from_utf8(stage.envelope(&command).encode().unwrap()).unwrap());
        stage.queue.push(Partition::from_index(0), payload.as_bytes());
        // then it is fenced, gets the partition again with its next renewal, and does it
        stage.world.run_until(|| stage.log.all_records().len() == 1, STEPS).unwrap();
        assert_eq!(stage.log.row(Partition::from_index(0)).epoch.get(), 3);
        assert!(!one.is_finished());
    }
}

/// Turns it once, outside of the world.
fn turn_once(stage: &Stage, mut membership: Membership<MemoryLeases>) -> Membership<MemoryLeases> {
    let turned = async move {
        membership.turn().await.unwrap();
        membership
    };
    stage.world.block_on(turned, STEPS).unwrap()
}

#[test]
fn who_cannot_work_leaves_its_partitions_to_others_and_comes_back_when_it_can() {
    // given two members, of whom one will lose what it works with, and not the store of the leases
    let stage = Stage::of(1, 6);
    let fit = Arc::new(AtomicBool::new(true));
    let (one, its) = by_hand(&stage);
    let can_work = Arc::clone(&fit);
    let mut one = one.while_fit(move || can_work.load(Ordering::Relaxed));
    let (mut other, others) = by_hand(&stage);
    one = turn_once(&stage, one);
    other = turn_once(&stage, other);
    one = turn_once(&stage, one);
    assert_eq!((its.current().len(), others.current().len()), (3, 3));
    // when that lasts for less than a term
    fit.store(false, Ordering::Relaxed);
    for _ in 0..5 {
        one = turn_once(&stage, one);
        other = turn_once(&stage, other);
    }
    // then it keeps what it has
    assert_eq!((its.current().len(), others.current().len()), (3, 3));
    // and when it lasts
    one = turn_once(&stage, one);
    other = turn_once(&stage, other);
    assert_eq!((its.current().len(), others.current().len()), (0, 6));
    // and when it is over
    fit.store(true, Ordering::Relaxed);
    turn_once(&stage, one);
    turn_once(&stage, other);
    assert_eq!((its.current().len(), others.current().len()), (3, 3));
}
