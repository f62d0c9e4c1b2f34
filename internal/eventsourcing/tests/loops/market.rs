//! A market of accounts that pay each other, two owners in every role, and everything that can fail failing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventsourcing::environment::Environment as _;
use eventsourcing::outcome::Reply;
use eventsourcing::partition::{Sequence, Version};
use eventsourcing::ports::Value;
use eventsourcing::testkit::memory::{Call, Fault};
use eventsourcing::testkit::world::Dice;
use eventsourcing::worker::WorkerLimits;
use uuid::Uuid;

use crate::ledger::Command;
use crate::stage::{Part, Stage};

const ACCOUNTS: usize = 6;
const PAYMENTS: usize = 40;
const STEPS: u64 = 2_000_000;

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    trace: u64,
    balances: BTreeMap<Uuid, i64>,
    faults: u64,
}

fn run(seed: u64) -> Run {
    let mut stage = Stage::new(seed);
    let faults_end = Arc::new(AtomicBool::new(false));
    let faults = Arc::new(Mutex::new((Dice::new(seed ^ 0xfa17), 0)));
    let (over, count) = (Arc::clone(&faults_end), Arc::clone(&faults));
    stage.interfere(Arc::new(move |call: Call| {
        let (dice, count) = &mut *count.lock().unwrap();
        if over.load(Ordering::Relaxed) || !dice.percent(8) {
            return Fault::None;
        }
        *count += 1;
        if call.writes() && dice.percent(50) { Fault::LoseAnswer } else { Fault::Fail }
    }));

    // Small batches and frequent snapshots and purges, so that a short run meets all of them.
    let limits = WorkerLimits { batch: 5, messages: 4, cached: 4, snapshot_every: 3, purge_every: 2 };
    let (intake, _listener) = stage.listener("listener");
    let (other_intake, _other) = stage.listener("other listener");
    let roles: Vec<Vec<Part>> = vec![
        vec![stage.worker("worker 1", limits), stage.worker("worker 2", limits)],
        vec![stage.relayer("relayer 1"), stage.relayer("relayer 2")],
        vec![stage.policies("policies 1"), stage.policies("policies 2")],
        vec![stage.projector("projector 1"), stage.projector("projector 2")],
    ];

    let mut dice = Dice::new(seed);
    let accounts: Vec<Uuid> = (0..ACCOUNTS).map(|_| stage.world.environment().uuid()).collect();
    let replies = Rc::new(RefCell::new(Vec::new()));
    for account in &accounts {
        let command = Command::Open { account: *account, balance: 100 };
        stage.client(&intake, stage.envelope(&command), &replies);
    }
    stage.world.run_until(|| replies.borrow().len() == ACCOUNTS, STEPS).unwrap();
    let mut sent = BTreeSet::new();
    for number in 0..PAYMENTS {
        let account = accounts[dice.below(ACCOUNTS)];
        // One in eight goes to an account that does not exist, and has to come back.
        let to =
            if dice.percent(12) { stage.world.environment().uuid() } else { accounts[dice.below(ACCOUNTS)] };
        let amount = i64::try_from(dice.below(60)).unwrap() + 1;
        let envelope = stage.envelope(&Command::Send { account, to, amount });
        sent.insert(envelope.command_id);
        // Some clients are impatient and send twice, through two listeners.
        if dice.percent(20) {
            stage.client(&other_intake, envelope.clone(), &Rc::default());
        }
        stage.client(&intake, envelope, &replies);
        if number % 7 == 0 {
            disturb(&stage, &roles, &mut dice);
        }
    }
    stage.world.run_until(|| replies.borrow().len() == ACCOUNTS + PAYMENTS, STEPS).unwrap();

    faults_end.store(true, Ordering::Relaxed);
    for part in roles.iter().flatten() {
        part.task.resume();
    }
    for role in &roles {
        role[0].assignment.assign(stage.partitions.all());
    }
    stage.world.run_until(|| stage.is_settled(), STEPS).unwrap();

    check(&stage, &sent, &replies.borrow());
    let faults = faults.lock().unwrap().1;
    Run { trace: stage.world.trace(), balances: stage.balances(), faults }
}

/// Pauses and resumes parts, and hands partitions to the one or the other, for a while.
fn disturb(stage: &Stage, roles: &[Vec<Part>], dice: &mut Dice) {
    for role in roles {
        let (one, other) = if dice.percent(50) { (&role[0], &role[1]) } else { (&role[1], &role[0]) };
        one.task.pause();
        other.task.resume();
        other.assignment.assign(stage.partitions.all());
        let until = stage.world.environment().now().as_micros()
            + u64::try_from(Duration::from_millis(dice.roll() % 300).as_micros()).unwrap();
        stage.world.run_until(|| stage.world.environment().now().as_micros() >= until, STEPS).unwrap();
        // The sleeper wakes and still believes that it owns what it owned.
        one.task.resume();
    }
}

fn check(stage: &Stage, sent: &BTreeSet<Uuid>, replies: &[Reply]) {
    // Every command has exactly one outcome, and every client was told that one.
    let inbox: BTreeMap<Uuid, _> =
        stage.log.inbox().into_iter().map(|entry| (entry.outcome.command_id, entry.outcome)).collect();
    assert!(sent.iter().all(|command| inbox.contains_key(command)));
    for reply in replies {
        assert_eq!(*reply, Reply::Outcome(inbox[&reply.command_id()].clone()));
    }
    let mut last_records: BTreeMap<Uuid, usize> = BTreeMap::new();
    for record in stage.log.all_records().iter().filter(|record| record.last_of_command) {
        *last_records.entry(record.command_id).or_default() += 1;
    }
    assert!(last_records.values().all(|count| *count == 1), "a command was decided twice");
    assert_eq!(last_records.len(), inbox.len());

    // Sequences and versions have no gaps, and the bus is the log.
    let mut versions: BTreeMap<Uuid, Version> = BTreeMap::new();
    for partition in stage.partitions.all() {
        let records = stage.log.records(partition);
        for (sequence, record) in (1..).zip(&records) {
            assert_eq!(record.sequence, Sequence::new(sequence));
            if let Some(version) = record.version {
                let before = versions.insert(record.aggregate.id, version).unwrap_or_default();
                assert_eq!(version, before.next());
            }
        }
        assert_eq!(stage.bus.stream(partition), records);
    }

    // No money was made or lost, and the read model says so too.
    let balances = stage.balances();
    assert_eq!(balances.values().sum::<i64>(), 100 * i64::try_from(ACCOUNTS).unwrap());
    assert!(balances.values().all(|balance| *balance >= 0));
    let shown: BTreeMap<Uuid, i64> = stage
        .models
        .table("accounts")
        .into_iter()
        .map(|row| (row.key, row.values[0].as_ref().and_then(Value::integer).unwrap()))
        .collect();
    assert_eq!(shown, balances);
}

#[test]
fn a_market_under_faults_settles_to_the_last_unit() {
    let mut faults = 0;
    for seed in 0..60 {
        faults += run(seed).faults;
    }
    assert!(faults > 1000, "the faults did not happen: {faults}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(4711), run(4711));
    assert_ne!(run(4711).trace, run(4712).trace);
}
