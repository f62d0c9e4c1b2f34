//! A market of accounts that pay each other; in every role members that come, sleep and die; and everything that can fail
//! failing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventsourcing::environment::{Environment as _, Timestamp};
use eventsourcing::membership::TERM;
use eventsourcing::observer::{Decided, Decision, Interval, Observer, Queued, Reacted, Watch};
use eventsourcing::outcome::{Outcome, Reply};
use eventsourcing::partition::{LogPosition, Partition, Sequence, Version};
use eventsourcing::ports::{DeadLetter, Role, Value};
use eventsourcing::record::{COMMAND_DEAD, Record};
use eventsourcing::testkit::memory::{Call, Fault};
use eventsourcing::testkit::world::Dice;
use eventsourcing::turn::Trouble;
use eventsourcing::worker::WorkerLimits;
use uuid::Uuid;

use crate::ledger::Command;
use crate::stage::{Member, Stage};

const ACCOUNTS: usize = 6;
/// Accounts that another context opens.
const FOREIGN: usize = 4;
const PAYMENTS: usize = 40;
const PARTITIONS: u16 = 5;
const STEPS: u64 = 2_000_000;

const ROLES: [Role; 5] = [Role::Worker, Role::Relayer, Role::Policies, Role::Projector, Role::Importer];

/// Small batches and frequent snapshots and purges, so that a short run meets all of them.
const LIMITS: WorkerLimits =
    WorkerLimits { batch: 5, messages: 4, cached: 4, known: 2, snapshot_every: 3, purge_every: 2 };

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    trace: u64,
    balances: BTreeMap<Uuid, i64>,
    faults: u64,
    /// How often a worker took a partition over.
    takeovers: u64,
}

/// Every call may fail, and an answer may be lost, until it is said that this is over. Also answers how often it happened.
fn faults(stage: &mut Stage, seed: u64) -> (Arc<AtomicBool>, Arc<Mutex<(Dice, u64)>>) {
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
    (faults_end, faults)
}

/// Whoever takes part, by role.
struct Crew<'a> {
    stage: &'a Stage,
    members: Vec<(Role, Vec<Member>)>,
    joined: usize,
}

impl<'a> Crew<'a> {
    fn of_two_each(stage: &'a Stage) -> Self {
        let mut crew = Self { stage, members: ROLES.map(|role| (role, Vec::new())).into(), joined: 0 };
        for role in 0..ROLES.len() {
            crew.join(role);
            crew.join(role);
        }
        crew
    }

    fn join(&mut self, role: usize) {
        self.joined += 1;
        let (role, members) = &mut self.members[role];
        let name = format!("{} {}", role.name(), self.joined);
        members.push(self.stage.member(*role, &name, LIMITS));
    }

    /// In every role somebody joins, dies, or sleeps: for a moment, or for longer than its term.
    fn disturb(&mut self, dice: &mut Dice) {
        for role in 0..ROLES.len() {
            self.disturb_in(role, dice);
        }
    }

    fn disturb_in(&mut self, role: usize, dice: &mut Dice) {
        let count = self.members[role].1.len();
        match dice.below(4) {
            0 if count < 4 => self.join(role),
            1 if count > 1 => self.members[role].1.remove(dice.below(count)).kill(),
            kind => {
                let sleeper = dice.below(count);
                self.members[role].1[sleeper].pause();
                let longest = if kind == 2 { TERM * 2 } else { Duration::from_millis(300) };
                self.pass(longest * u32::try_from(dice.below(4)).unwrap() / 3);
                // The sleeper wakes and still believes that it owns what it owned.
                self.members[role].1[sleeper].resume();
            }
        }
        self.pass(Duration::from_millis(u64::try_from(dice.below(300)).unwrap()));
    }

    fn pass(&self, duration: Duration) {
        let environment = self.stage.world.environment();
        let until = environment.now().as_micros() + u64::try_from(duration.as_micros()).unwrap();
        self.stage.world.run_until(|| environment.now().as_micros() >= until, STEPS).unwrap();
    }

    /// Everything is owned by one member of its role each, who knows it, in shares that differ by one at most.
    fn shares_are_even(&self) -> bool {
        self.members.iter().all(|(role, members)| {
            let holders = self.stage.leases.holders(*role);
            let owned: Vec<Vec<Partition>> =
                members.iter().map(|member| member.part.assignment.current()).collect();
            let agree = members.iter().zip(&owned).all(|(member, owned)| {
                owned.iter().all(|partition| holders.get(partition) == Some(&member.id))
            });
            let count = if *role == Role::Importer { 1 } else { usize::from(PARTITIONS) };
            let (least, most) = (owned.iter().map(Vec::len).min(), owned.iter().map(Vec::len).max());
            agree
                && owned.iter().map(Vec::len).sum::<usize>() == count
                && most <= least.map(|least| least + 1)
        })
    }
}

/// What another context says: who has an account, twice; what is not for us; and nonsense.
fn publish(stage: &Stage, accounts: &[Uuid]) {
    for account in accounts {
        let open = format!("open {account} 100");
        stage.foreign.publish("other", open.as_bytes());
        stage.foreign.publish("other", b"hello");
        stage.foreign.publish("other", open.as_bytes());
        stage.foreign.publish("other", b"\xff\xfe");
    }
}

fn run(seed: u64) -> Run {
    watched(seed, Watch::default()).0
}

/// The same, with somebody who looks on. Answers with all outcomes and all records, too.
fn watched(seed: u64, watch: Watch) -> (Run, Vec<Outcome>, Vec<Arc<Record>>) {
    let mut stage = Stage::of(seed, PARTITIONS);
    stage.watch = watch;
    let (faults_end, faults) = faults(&mut stage, seed);
    let (intake, _listener) = stage.listener("listener");
    let (other_intake, _other) = stage.listener("other listener");
    let mut crew = Crew::of_two_each(&stage);

    let mut dice = Dice::new(seed);
    let mut accounts: Vec<Uuid> = (0..ACCOUNTS + FOREIGN).map(|_| stage.world.environment().uuid()).collect();
    let replies = Rc::new(RefCell::new(Vec::new()));
    for account in &accounts[..ACCOUNTS] {
        let command = Command::Open { account: *account, balance: 100 };
        stage.client(&intake, stage.envelope(&command), &replies);
    }
    publish(&stage, &accounts[ACCOUNTS..]);
    let open = || replies.borrow().len() == ACCOUNTS && stage.balances().len() == ACCOUNTS + FOREIGN;
    stage.world.run_until(open, STEPS).unwrap();
    let mut sent = BTreeSet::new();
    for number in 0..PAYMENTS {
        let account = accounts[dice.below(accounts.len())];
        // One in eight goes to an account that does not exist, and has to come back.
        let to = if dice.percent(12) {
            stage.world.environment().uuid()
        } else {
            accounts[dice.below(accounts.len())]
        };
        let amount = i64::try_from(dice.below(60)).unwrap() + 1;
        let envelope = stage.envelope(&Command::Send { account, to, amount });
        sent.insert(envelope.command_id);
        // Some clients are impatient and send twice, through two listeners.
        if dice.percent(20) {
            stage.client(&other_intake, envelope.clone(), &Rc::default());
        }
        stage.client(&intake, envelope, &replies);
        if number % 4 == 0 {
            crew.disturb(&mut dice);
        }
        if number % 10 == 0 {
            let nobody = stage.world.environment().uuid();
            stage.queue.push(stage.partitions.partition_of(nobody), nobody.as_bytes());
            accounts.push(nobody);
            publish(&stage, &accounts[accounts.len() - 1..]);
        }
    }
    stage.world.run_until(|| replies.borrow().len() == ACCOUNTS + PAYMENTS, STEPS).unwrap();

    faults_end.store(true, Ordering::Relaxed);
    stage.world.run_until(|| stage.is_settled() && crew.shares_are_even(), STEPS).unwrap();

    for (_, members) in &crew.members {
        assert!(members.iter().all(|member| !member.is_finished()));
    }
    check(&stage, &sent, &replies.borrow(), accounts.len());
    let faults = faults.lock().unwrap().1;
    let takeovers = stage.partitions.all().map(|partition| stage.log.row(partition).epoch.get()).sum();
    let outcomes = stage.log.inbox().into_iter().map(|entry| entry.outcome).collect();
    let run = Run { trace: stage.world.trace(), balances: stage.balances(), faults, takeovers };
    (run, outcomes, stage.log.all_records())
}

fn check(stage: &Stage, sent: &BTreeSet<Uuid>, replies: &[Reply], accounts: usize) {
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

    // What follows from a record is of its saga, and has an id that anybody derives.
    let records = stage.log.all_records();
    let causes: BTreeMap<Uuid, _> = records.iter().map(|record| (record.record_id, record)).collect();
    let mut effects = 0;
    for effect in &records {
        let Some(policy) = effect.actor.strip_prefix("policy:") else { continue };
        let cause = causes[&effect.causation_id];
        assert_eq!(effect.correlation_id, cause.correlation_id);
        assert_eq!(effect.traceparent, cause.traceparent);
        assert_eq!(effect.command_id, Uuid::new_v5(&cause.record_id, policy.as_bytes()));
        effects += 1;
    }
    assert!(effects > 0, "nothing followed from anything");

    // No money was made or lost, and the read model says so too.
    let balances = stage.balances();
    assert_eq!(balances.values().sum::<i64>(), 100 * i64::try_from(accounts).unwrap());
    assert!(balances.values().all(|balance| *balance >= 0));
    let shown: BTreeMap<Uuid, i64> = stage
        .models
        .table("accounts")
        .into_iter()
        .map(|row| (row.key, row.values[0].as_ref().and_then(Value::integer).unwrap()))
        .collect();
    assert_eq!(shown, balances);

    // Whatever nobody could do anything with is kept, once.
    let mut dead: Vec<LogPosition> = Vec::new();
    let mut malformed = BTreeSet::new();
    for letter in stage.dead_letters.kept() {
        match letter {
            DeadLetter::Command(record) => dead.push(record.position()),
            DeadLetter::Foreign { message, .. } => assert!(malformed.insert(message.message)),
        }
    }
    dead.sort_unstable();
    let died = stage.log.all_records();
    let died = died.iter().filter(|record| record.event_type == COMMAND_DEAD);
    let died: Vec<LogPosition> = died.map(|record| record.position()).collect();
    assert_eq!(dead, died);
    assert_eq!((dead.len(), malformed.len()), (PAYMENTS / 10, accounts - ACCOUNTS));
}

#[test]
fn a_market_under_faults_settles_to_the_last_unit() {
    let (mut faults, mut takeovers) = (0, 0);
    for seed in 0..60 {
        let run = run(seed);
        faults += run.faults;
        takeovers += run.takeovers;
    }
    assert!(faults > 5000, "the faults did not happen: {faults}");
    // Five for the beginning of each.
    assert!(takeovers > 60 * 10, "nothing changed hands: {takeovers}");
}

/// Remembers what it is told.
#[derive(Default)]
struct Onlooker {
    decided: Mutex<Vec<Decision>>,
    relayed: Mutex<BTreeSet<LogPosition>>,
    projected: Mutex<BTreeSet<LogPosition>>,
    reactions: Mutex<BTreeMap<Uuid, Uuid>>,
    /// Commands queued, dead letters kept, partitions fenced, and turns that failed.
    counts: Mutex<[usize; 4]>,
}

fn positions(records: &[Arc<Record>]) -> impl Iterator<Item = LogPosition> {
    records.iter().map(|record| record.position())
}

impl Observer for Onlooker {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1)
    }

    fn queued(&self, batch: &Queued) {
        self.counts.lock().unwrap()[0] += batch.commands;
    }

    fn decided(&self, batch: &Decided) {
        assert!(batch.commands >= batch.decisions.len());
        self.decided.lock().unwrap().extend(batch.decisions.clone());
    }

    fn relayed(&self, records: &[Arc<Record>], _: Interval) {
        self.relayed.lock().unwrap().extend(positions(records));
    }

    fn reacted(&self, step: &Reacted) {
        self.counts.lock().unwrap()[1] += step.dead_letters;
        let reactions =
            step.reactions.iter().map(|reaction| (reaction.command_id, reaction.record.record_id));
        self.reactions.lock().unwrap().extend(reactions);
    }

    fn projected(&self, records: &[Arc<Record>], _: Interval) {
        self.projected.lock().unwrap().extend(positions(records));
    }

    fn fenced(&self, _: &'static str, _: Partition) {
        self.counts.lock().unwrap()[2] += 1;
    }

    fn failed(&self, _: &'static str, trouble: &Trouble) {
        assert!(matches!(trouble, Trouble::Retry(_)), "{trouble}");
        self.counts.lock().unwrap()[3] += 1;
    }
}

#[test]
fn who_looks_on_changes_nothing_and_is_told_only_what_is_so() {
    for seed in 0..12 {
        // given and when
        let onlooker = Arc::new(Onlooker::default());
        let (run_of_it, outcomes, records) =
            watched(seed, Watch::by(Arc::clone(&onlooker) as Arc<dyn Observer>));

        // then it is the same run
        assert_eq!(run_of_it, run(seed));

        // and a command is told once, and as it is; unless the answer was lost, or the worker died: then it is not told
        let outcomes: BTreeMap<Uuid, Outcome> =
            outcomes.into_iter().map(|outcome| (outcome.command_id, outcome)).collect();
        let decided = onlooker.decided.lock().unwrap();
        let mut told = BTreeSet::new();
        for decision in decided.iter() {
            let outcome = &outcomes[&decision.command_id];
            assert!(told.insert(decision.command_id), "told twice: {decision:?}");
            assert_eq!((decision.position, decision.state), (outcome.position, outcome.verdict.state()));
            assert_eq!(decision.reason.as_deref(), outcome.verdict.reason());
            let of_it = || records.iter().filter(|record| record.command_id == decision.command_id);
            assert_eq!(of_it().count(), decision.records);
            assert!(of_it().all(|record| record.causation_id == decision.causation_id));
            assert!(of_it().all(|record| record.correlation_id == decision.correlation_id));
        }
        assert!(told.len() * 10 > outcomes.len() * 7, "{} of {}", told.len(), outcomes.len());

        // and so it is with what follows
        let all: BTreeSet<LogPosition> = positions(&records).collect();
        for told in [&onlooker.relayed, &onlooker.projected] {
            let told = told.lock().unwrap();
            assert!(
                told.is_subset(&all) && told.len() * 10 > all.len() * 7,
                "{} of {}",
                told.len(),
                all.len()
            );
        }
        for (command, record) in onlooker.reactions.lock().unwrap().iter() {
            let effect = records.iter().find(|effect| effect.command_id == *command);
            assert_eq!(effect.expect("it was queued, and decided").causation_id, *record);
        }
        assert!(onlooker.counts.lock().unwrap().iter().all(|count| *count > 0), "{:?}", onlooker.counts);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(4711), run(4711));
    assert_ne!(run(4711).trace, run(4712).trace);
}
