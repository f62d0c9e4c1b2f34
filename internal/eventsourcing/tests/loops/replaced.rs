//! A queue, a bus or another context's stream that is replaced or restored, also while its readers run; and what a person
//! does about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use eventsourcing::command::pack;
use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::ports::{DeadLetter, Role};
use eventsourcing::queue::{Adopted, adopt};
use eventsourcing::record::COMMAND_DEAD;
use eventsourcing::testkit::memory::{Call, Fault};
use eventsourcing::worker::WorkerLimits;
use uuid::Uuid;

use crate::ledger::{self, Command};
use crate::stage::{IMPORTER, Member, POLICIES, Part, Stage};

const STEPS: u64 = 500_000;
const FIRST: Partition = Partition::from_index(0);

fn queue(stage: &Stage, command: &Command) {
    let envelope = stage.envelope(command);
    let partition = envelope.partition(stage.partitions);
    let payload = envelope.encode().unwrap();
    for bundle in pack(partition, [payload.as_slice()]) {
        stage.queue.push(partition, &bundle.payload);
    }
}

fn open(account: Uuid) -> Command {
    Command::Open { account, balance: 100 }
}

fn halted(stage: &Stage, part: &Part) -> String {
    stage.world.run_until(|| part.task.is_finished(), STEPS).unwrap();
    part.task.take().unwrap().unwrap_err().to_string()
}

/// Lets the next call that the trap is for fail, and waits until it has.
fn spring(stage: &Stage, trap: &AtomicBool) {
    trap.store(true, Ordering::Relaxed);
    stage.world.run_until(|| !trap.load(Ordering::Relaxed), STEPS).unwrap();
}

fn everybody(stage: &Stage) -> Vec<Member> {
    let roles = [Role::Worker, Role::Relayer, Role::Policies, Role::Projector, Role::Importer];
    roles.map(|role| stage.member(role, role.name(), WorkerLimits::default())).into()
}

fn adopted(stage: &Stage) -> Adopted {
    let (log, checkpoints, partitions) = (stage.log.clone(), stage.log.checkpoints(), stage.partitions);
    let adopt = async move { adopt(&log, &checkpoints, &checkpoints, partitions, POLICIES, IMPORTER).await };
    stage.world.block_on(adopt, STEPS).unwrap().unwrap()
}

#[test]
fn a_queue_that_was_replaced_halts_until_it_is_adopted_and_nothing_acts_twice() {
    for seed in 0..20 {
        // given a platform that has done some business, of which another context has opened an account
        let stage = Stage::new(seed);
        let (one, other, foreign) = (stage.id_in(0), stage.id_in(1), stage.id_in(2));
        stage.foreign.publish("other", format!("open {foreign} 100").as_bytes());
        stage.foreign.publish("other", b"nonsense");
        let business = [open(one), open(other), Command::Send { account: one, to: other, amount: 30 }];
        for command in &business {
            queue(&stage, command);
        }
        let members = everybody(&stage);
        stage.world.run_until(|| stage.is_settled() && stage.balances().len() == 3, STEPS).unwrap();
        members.iter().for_each(Member::kill);
        let (balances, records) = (stage.balances(), stage.log.all_records());

        // when queue and stream are other ones, and there is something to do in the queue
        stage.queue.recreate(2);
        stage.foreign.recreate(2);
        stage.foreign.publish("other", format!("open {foreign} 100").as_bytes());
        stage.foreign.publish("other", b"nonsense");
        let late = Command::Send { account: one, to: foreign, amount: 70 };
        queue(&stage, &late);

        // then their readers halt, and say what to do
        let worker = stage.worker("worker", WorkerLimits::default());
        let importer = stage.importer("importer");
        for reason in [halted(&stage, &worker), halted(&stage, &importer)] {
            assert!(reason.contains("created anew") && reason.contains("financing queue adopt"), "{reason}");
        }
        assert_eq!(stage.log.all_records(), records);

        // and when it is done, everybody goes on, and what was done stays done
        let forgot = adopted(&stage);
        assert_eq!(forgot.foreign.map(|position| position.message), Some(2));
        assert!(forgot.positions.iter().all(|(_, position)| position.is_some_and(|one| one.created_at == 1)));
        for (partition, sequence) in &forgot.checkpoints {
            assert_eq!(*sequence, stage.log.row(*partition).head);
        }
        let said = forgot.to_string();
        assert!(
            said.starts_with("partition 0: forgot message ") && said.ends_with("after 2 messages"),
            "{said}"
        );
        let _members = everybody(&stage);
        let late_done = || stage.is_settled() && stage.balances()[&foreign] == balances[&foreign] + 70;
        stage.world.run_until(late_done, STEPS).unwrap();
        assert_eq!(stage.balances()[&one], 0);
        assert_eq!(stage.balances()[&other], 130);
        assert_eq!(stage.log.all_records().len(), records.len() + 2, "the late payment, and nothing again");
        assert_eq!(
            stage.dead_letters.kept().len(),
            2,
            "the same nonsense in another stream is another message"
        );
        let again = adopted(&stage);
        assert!(again.positions.iter().all(|(_, position)| position.is_some_and(|one| one.created_at == 2)));
    }
}

#[test]
fn adopting_where_nobody_has_begun_is_nothing() {
    let stage = Stage::new(1);
    let forgot = adopted(&stage);
    assert!(forgot.positions.iter().all(|(_, position)| position.is_none()) && forgot.foreign.is_none());
    assert!(forgot.checkpoints.iter().all(|(_, sequence)| *sequence == Sequence::ZERO));
    assert_eq!((forgot.positions.len(), forgot.checkpoints.len()), (3, 3));
    assert!(forgot.to_string().contains("partition 2: had no position"));
}

#[test]
fn a_repeat_under_the_number_of_a_message_that_was_lost_is_not_taken_for_it() {
    // given a queue that was worked off up to its third message, and is restored to when it had one
    let stage = Stage::of(3, 1);
    let accounts = [(); 3].map(|()| stage.id_in(0));
    let envelopes = accounts.map(|account| stage.envelope(&open(account)).encode().unwrap());
    let queue = |payload: &[u8]| {
        for bundle in pack(FIRST, [payload]) {
            stage.queue.push(FIRST, &bundle.payload);
        }
    };
    let worker = stage.worker("worker", WorkerLimits::default());
    queue(&envelopes[0]);
    let copy = stage.queue.save();
    queue(&envelopes[1]);
    queue(&envelopes[2]);
    stage.world.run_until(|| stage.log.all_records().len() == 3, STEPS).unwrap();
    worker.task.kill();
    stage.queue.restore(copy);

    // when somebody says something new, and the client of the third message sends it again
    let late = stage.id_in(0);
    queue(&stage.envelope(&open(late)).encode().unwrap());
    queue(&envelopes[2]);

    // then a worker does not go on behind it, or what is new would be skipped and purged
    let worker = stage.worker("worker", WorkerLimits { purge_every: 1, ..WorkerLimits::default() });
    let reason = halted(&stage, &worker);
    assert!(
        reason.contains("the message is another") && reason.contains("financing queue adopt"),
        "{reason}"
    );
    adopted(&stage);
    let _worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| stage.balances().contains_key(&late), STEPS).unwrap();
    assert_eq!(stage.log.all_records().len(), 4);
}

#[test]
fn a_worker_whose_read_fails_proves_its_queue_again() {
    // given a worker that has worked its queue off, and a queue that is replaced in front of its eyes
    let mut stage = Stage::new(2);
    let trap = stage.fail_once(Call::QueueRead);
    queue(&stage, &open(stage.id_in(0)));
    let worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| stage.log.all_records().len() == 1, STEPS).unwrap();
    stage.queue.recreate(2);
    for _ in 0..5 {
        queue(&stage, &open(stage.id_in(0)));
    }
    // when it hears that its connection was another one
    spring(&stage, &trap);
    // then it does not read the new one from the middle
    let reason = halted(&stage, &worker);
    assert!(reason.contains("created anew") && reason.contains("financing queue adopt"), "{reason}");
}

#[test]
fn a_purge_takes_nothing_from_a_queue_that_was_replaced() {
    // given a worker that has worked much off, and a queue that is replaced without its noticing
    let stage = Stage::of(4, 1);
    for _ in 0..20 {
        queue(&stage, &open(stage.id_in(0)));
    }
    let limits = WorkerLimits { purge_every: 1_000, ..WorkerLimits::default() };
    let worker = stage.worker("worker", limits);
    stage.world.run_until(|| stage.log.all_records().len() == 20, STEPS).unwrap();
    let position = stage.log.row(FIRST).position.unwrap().message;
    stage.queue.recreate(2);
    // when commands are accepted under numbers that the worker has passed, and it has time to purge
    for _ in 0..10 {
        queue(&stage, &open(stage.id_in(0)));
    }
    assert!(stage.queue.messages(FIRST).iter().all(|message| message.message < position));
    // then it halts, and they are all there
    let reason = halted(&stage, &worker);
    assert!(reason.contains("created anew"), "{reason}");
    assert_eq!(stage.queue.messages(FIRST).len(), 10);
}

#[test]
fn a_new_owner_purges_what_the_one_before_has_worked_off() {
    // given a worker that has worked its queue off, and died before it purged
    let stage = Stage::of(5, 1);
    for _ in 0..20 {
        queue(&stage, &open(stage.id_in(0)));
    }
    let limits = WorkerLimits { purge_every: 1_000, ..WorkerLimits::default() };
    let before = stage.worker("before", limits);
    stage.world.run_until(|| stage.log.all_records().len() == 20, STEPS).unwrap();
    before.task.kill();
    assert_eq!(stage.queue.messages(FIRST).len(), 20);
    // when another takes over, and nothing new comes
    let _successor = stage.worker("successor", limits);
    // then the queue has room again
    stage.world.run_until(|| stage.queue.messages(FIRST).len() == 1, STEPS).unwrap();
}

#[test]
fn a_position_is_one_in_the_queue_that_was_read() {
    // given a worker that has read nothing yet, and a queue that is replaced
    let mut stage = Stage::of(3, 1);
    let trap = stage.fail_once(Call::QueueRead);
    let _worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| stage.log.row(FIRST).epoch.get() == 1, STEPS).unwrap();
    spring(&stage, &trap);
    stage.queue.recreate(2);
    spring(&stage, &trap);
    // when there is something to do
    queue(&stage, &open(stage.id_in(0)));
    stage.world.run_until(|| stage.log.all_records().len() == 1, STEPS).unwrap();
    // then it stands in the new one
    assert_eq!(stage.log.row(FIRST).position.unwrap().created_at, 2);
}

#[test]
fn a_projector_whose_read_fails_compares_with_the_bus_again() {
    // given read models of a log
    let mut stage = Stage::new(4);
    let trap = stage.fail_once(Call::BusRead);
    let empty = (stage.log.save(), stage.bus.save());
    queue(&stage, &open(stage.id_in(0)));
    let worker = stage.worker("worker", WorkerLimits::default());
    let relayer = stage.relayer("relayer");
    let projector = stage.projector("projector");
    stage.world.run_until(|| stage.is_projected(), STEPS).unwrap();
    // when log and bus go another way while the projector looks elsewhere
    projector.task.pause();
    worker.task.kill();
    relayer.task.kill();
    stage.log.restore(empty.0);
    stage.bus.restore(empty.1);
    stage.queue.recreate(2);
    (0..3).for_each(|_| queue(&stage, &open(stage.id_in(0))));
    let _parts = (stage.worker("worker", WorkerLimits::default()), stage.relayer("relayer"));
    stage.world.run_until(|| stage.bus.stream(FIRST).len() == 3, STEPS).unwrap();
    let before = stage.models.save();
    trap.store(true, Ordering::Relaxed);
    projector.task.resume();
    // then it does not go on in the middle of the other way
    let reason = halted(&stage, &projector);
    assert!(reason.contains("built anew"), "{reason}");
    assert!(stage.models.save() == before, "nothing was projected");
}

#[test]
fn a_policy_runner_whose_read_fails_stands_where_its_checkpoint_is() {
    // given policies that have seen everything, and a person that sets them back
    let mut stage = Stage::of(5, 1);
    let trap = stage.fail_once(Call::BusRead);
    let account = stage.id_in(0);
    queue(&stage, &open(account));
    queue(&stage, &Command::Send { account, to: account, amount: 10 });
    let _parts = (stage.worker("worker", WorkerLimits::default()), stage.relayer("relayer"));
    let policies = stage.policies("policies");
    let at = || stage.log.checkpoints().at(POLICIES, FIRST).get();
    let worked_off = || stage.log.row(FIRST).position.unwrap().message;
    stage.world.run_until(|| at() == 3 && worked_off() == 3, STEPS).unwrap();
    stage.log.checkpoints().put(POLICIES, FIRST, Sequence::ZERO);
    // when a read fails
    spring(&stage, &trap);
    // then they do what follows once more, and it changes nothing
    stage.world.run_until(|| at() == 3 && worked_off() == 4, STEPS).unwrap();
    assert!(policies.assignment.take_lost().is_empty());
    assert_eq!(stage.log.all_records().len(), 3);
}

#[test]
fn policies_that_are_stopped_leave_no_step_to_repeat() {
    // given policies from which a command has followed, and that had no time to rest
    let stage = Stage::of(5, 1);
    let account = stage.id_in(0);
    queue(&stage, &open(account));
    queue(&stage, &Command::Send { account, to: account, amount: 10 });
    let _parts = (stage.worker("worker", WorkerLimits::default()), stage.relayer("relayer"));
    let policies = stage.policies("policies");
    let worked_off = || stage.log.row(FIRST).position.map_or(0, |position| position.message);
    stage.world.run_until(|| worked_off() == 3, STEPS).unwrap();
    let at = || stage.log.checkpoints().at(POLICIES, FIRST).get();
    assert_eq!(at(), 0, "it is not written down yet");
    // when
    stage.stop();
    stage.world.run_until(|| policies.task.is_finished(), STEPS).unwrap();
    // then
    assert!(at() >= 2, "the command followed from the second record");
}

#[test]
fn policies_over_a_bus_that_fails_at_every_second_read_do_everything_once() {
    // given facts from which something follows, and a bus that answers half of the time, as one does of which a stream is away
    let mut stage = Stage::of(9, 1);
    let reads = AtomicU64::new(0);
    stage.interfere(Arc::new(move |made: Call| {
        let fails = made == Call::BusRead && reads.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        if fails { Fault::Fail } else { Fault::None }
    }));
    let account = stage.id_in(0);
    queue(&stage, &open(account));
    queue(&stage, &Command::Send { account, to: account, amount: 10 });
    let _parts = (stage.worker("worker", WorkerLimits::default()), stage.relayer("relayer"));
    stage.world.run_until(|| stage.bus.stream(FIRST).len() == 2, STEPS).unwrap();
    let queued = stage.queue.commands(FIRST).len();
    // when
    let _policies = stage.policies("policies");
    stage.world.run_until(|| stage.log.checkpoints().at(POLICIES, FIRST).get() == 3, STEPS).unwrap();
    // then
    assert_eq!(stage.queue.commands(FIRST).len(), queued + 1);
}

#[test]
fn an_importer_whose_read_fails_proves_its_stream_again() {
    for (seed, what) in [(6, "created anew"), (7, "missing"), (8, "another")] {
        // given an importer that has seen everything
        let mut stage = Stage::new(seed);
        let trap = stage.fail_once(Call::ForeignRead);
        let account = stage.id_in(0);
        let empty = stage.foreign.save();
        stage.foreign.publish("other", format!("open {account} 1").as_bytes());
        let importer = stage.importer("importer");
        stage.world.run_until(|| stage.imported() == 1, STEPS).unwrap();
        // when its stream is another one
        match what {
            "created anew" => {
                stage.foreign.recreate(2);
                stage.foreign.publish("other", format!("open {account} 1").as_bytes());
            }
            "missing" => stage.foreign.restore(empty),
            _ => {
                stage.foreign.restore(empty);
                stage.foreign.publish("other", b"something else");
            }
        }
        spring(&stage, &trap);
        // then it halts
        let reason = halted(&stage, &importer);
        assert!(reason.contains(what) && reason.contains("financing queue adopt"), "{reason}");
    }
}

#[test]
fn an_importer_that_was_overtaken_loses_its_place() {
    for seed in 0..20 {
        // given an importer that sleeps before it moves its position
        let mut stage = Stage::new(seed);
        let queued = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&queued);
        stage.interfere(Arc::new(move |call: Call| {
            seen.fetch_or(call == Call::QueueEnqueue, Ordering::Relaxed);
            Fault::None
        }));
        stage.foreign.publish("other", format!("open {} 1", stage.id_in(0)).as_bytes());
        let first = stage.importer("first");
        stage.world.run_until(|| queued.load(Ordering::Relaxed), STEPS).unwrap();
        first.task.pause();
        // and a successor that has imported the same, and more
        let second = stage.importer("second");
        stage.foreign.publish("other", format!("open {} 1", stage.id_in(0)).as_bytes());
        stage.world.run_until(|| stage.imported() == 2, STEPS).unwrap();
        // when the first goes on
        first.task.resume();
        let lost = || first.assignment.current().is_empty();
        stage.world.run_until(lost, STEPS).unwrap();
        // then it gives up, the position stays, and every account is opened once
        assert_eq!(first.assignment.take_lost(), [FIRST]);
        assert_eq!(stage.imported(), 2);
        assert!(second.assignment.take_lost().is_empty());
        let _worker = stage.worker("worker", WorkerLimits::default());
        let last = stage.queue.messages(FIRST).last().map(|message| message.message);
        let worked_off = || stage.log.row(FIRST).position.map(|position| position.message) == last;
        stage.world.run_until(worked_off, STEPS).unwrap();
        assert_eq!(stage.log.all_records().len(), 2);
    }
}

#[test]
fn what_the_store_cannot_even_look_for_dies_alone() {
    let stage = Stage::new(9);
    let (culprit, good) = (stage.id_in(0), stage.id_in(0));
    stage.log.refuse_to_load(Some(ledger::account(culprit)));
    for number in 0..20 {
        queue(&stage, &open(if number == 7 { culprit } else { good }));
    }
    queue(&stage, &open(stage.id_in(1)));
    let worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| stage.log.all_records().len() == 21, STEPS).unwrap();
    let records = stage.log.records(FIRST);
    let dead: Vec<u64> = records
        .iter()
        .filter(|record| record.event_type == COMMAND_DEAD)
        .map(|record| record.sequence.get())
        .collect();
    assert_eq!(dead, [8], "in its place, and nobody else");
    assert_eq!(records[7].aggregate, ledger::account(culprit));
    assert!(!worker.task.is_finished());
}

#[test]
fn a_dead_command_is_kept_before_it_is_passed() {
    // given a place for dead letters that does not answer
    let mut stage = Stage::of(10, 1);
    let trap = stage.fail_once(Call::DeadLettersKeep);
    stage.queue.push(FIRST, b"garbage");
    let _parts = (stage.worker("worker", WorkerLimits::default()), stage.relayer("relayer"));
    trap.store(true, Ordering::Relaxed);
    let _policies = stage.policies("policies");
    stage.world.run_until(|| !trap.load(Ordering::Relaxed), STEPS).unwrap();
    assert_eq!(stage.log.checkpoints().at(POLICIES, FIRST), Sequence::ZERO, "it is not passed");
    stage.world.run_until(|| stage.log.checkpoints().at(POLICIES, FIRST).get() == 1, STEPS).unwrap();
    assert_eq!(stage.dead_letters.kept(), [DeadLetter::Command(stage.log.records(FIRST)[0].clone())]);
}

#[test]
fn what_was_queued_is_not_queued_again_when_another_bundle_is_refused() {
    // given payments whose consequences go to two partitions, one of which has no room
    let stage = Stage::new(11);
    let (one, two, three) = (stage.id_in(0), stage.id_in(1), stage.id_in(2));
    queue(&stage, &open(one));
    for to in [two, three, two, three] {
        queue(&stage, &Command::Send { account: one, to, amount: 1 });
    }
    let worker = stage.worker("worker", WorkerLimits::default());
    let _relayer = stage.relayer("relayer");
    stage.world.run_until(|| stage.bus.stream(FIRST).len() == 5, STEPS).unwrap();
    worker.task.pause();
    let refused = Partition::from_index(2);
    stage.queue.refuse(Some(refused));
    let _policies = stage.policies("policies");
    let queued = |partition: u16| stage.queue.commands(Partition::from_index(partition)).len();
    stage.world.run_until(|| queued(1) > 0, STEPS).unwrap();
    let until = stage.now() + 5_000_000;
    stage.world.run_until(|| stage.now() > until, STEPS).unwrap();
    assert_eq!((queued(1), queued(2)), (2, 0));
    assert_eq!(stage.log.checkpoints().at(POLICIES, FIRST), Sequence::ZERO, "nothing is passed");
    // when there is room again
    stage.queue.refuse(None);
    stage.world.run_until(|| stage.log.checkpoints().at(POLICIES, FIRST).get() == 5, STEPS).unwrap();
    // then what was refused is there, and what was queued is there once
    assert_eq!((queued(1), queued(2)), (2, 2));
}
