//! What no retry cures, and what a retry does.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use eventsourcing::command::{Slot, pack};
use eventsourcing::environment::Environment as _;
use eventsourcing::outcome::{Reply, Verdict};
use eventsourcing::partition::{Partition, Sequence};
use eventsourcing::record::COMMAND_DEAD;
use eventsourcing::testkit::memory::{Call, Fault};
use eventsourcing::worker::WorkerLimits;

use crate::ledger::{self, Command};
use crate::stage::Stage;

const STEPS: u64 = 500_000;

fn queue_in(stage: &Stage, partition: u16, payloads: &[Vec<u8>]) {
    let bundles = pack(Partition::from_index(partition), payloads.iter().map(Vec::as_slice));
    for bundle in bundles {
        stage.queue.push(bundle.partition, &bundle.payload);
    }
}

fn outcomes(stage: &Stage, partition: u16) -> Vec<String> {
    let records = stage.log.records(Partition::from_index(partition));
    records.iter().map(|record| record.event_type.to_string()).collect()
}

#[test]
fn an_undecodable_command_dies_alone() {
    let stage = Stage::new(1);
    let (one, other) = (stage.id_in(0), stage.id_in(0));
    let good = stage.envelope(&Command::Open { account: one, balance: 1 });
    let mut unknown = stage.envelope(&Command::Open { account: other, balance: 1 });
    unknown.command = serde_json::value::to_raw_value("a command of the next release").unwrap();
    let payloads =
        vec![good.encode().unwrap(), b"{\"not\":\"an envelope\"}".to_vec(), unknown.encode().unwrap()];
    queue_in(&stage, 0, &payloads);
    stage.queue.push(Partition::from_index(0), b"\xff\xfe not even json");
    let last = stage.envelope(&Command::Open { account: other, balance: 2 });
    queue_in(&stage, 0, &[last.encode().unwrap()]);
    let _worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| outcomes(&stage, 0).len() == 5, STEPS).unwrap();
    assert_eq!(outcomes(&stage, 0), ["Opened", COMMAND_DEAD, COMMAND_DEAD, COMMAND_DEAD, "Opened"]);
    // The whole command is in the record, for people to look at.
    let records = stage.log.records(Partition::from_index(0));
    let dead = records[2].dead_letter().unwrap().unwrap();
    assert_eq!(dead.command.unwrap().get(), "\"a command of the next release\"");
    assert_eq!(records[2].command_id, unknown.command_id);
    assert!(records[3].dead_letter().unwrap().unwrap().raw.unwrap().contains("not even json"));
}

#[test]
fn a_command_of_another_partition_is_dead() {
    let stage = Stage::new(2);
    let command = Command::Open { account: stage.id_in(2), balance: 1 };
    queue_in(&stage, 1, &[stage.envelope(&command).encode().unwrap()]);
    let _worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| outcomes(&stage, 1).len() == 1, STEPS).unwrap();
    assert_eq!(outcomes(&stage, 1), [COMMAND_DEAD]);
    assert_eq!(
        stage.log.inbox()[0].outcome.verdict,
        Verdict::Dead {
            reason: "WRONG_PARTITION".to_owned(),
            message: format!("{} does not belong to partition 1", stage.log.all_records()[0].aggregate),
        }
    );
}

#[test]
fn a_death_whose_answer_was_lost_condemns_no_other() {
    let mut stage = Stage::new(5);
    // The first commit is refused; the second says that its command is dead.
    let commits = AtomicU32::new(0);
    let second = move |call| {
        let is_second = call == Call::LogCommit && commits.fetch_add(1, Ordering::Relaxed) == 1;
        if is_second { Fault::LoseAnswer } else { Fault::None }
    };
    stage.interfere(Arc::new(second));
    stage.log.refuse_content(Some("\"balance\":"));
    for balance in [1, 2] {
        let open = stage.envelope(&Command::Open { account: stage.id_in(0), balance });
        queue_in(&stage, 0, &[open.encode().unwrap()]);
    }
    let _worker = stage.worker("worker", WorkerLimits { batch: 1, ..WorkerLimits::default() });
    stage.world.run_until(|| outcomes(&stage, 0).len() == 2, STEPS).unwrap();
    assert_eq!(outcomes(&stage, 0), [COMMAND_DEAD, COMMAND_DEAD], "and the worker goes on");
}

#[test]
fn what_the_store_refuses_dies_alone_and_its_batch_goes_on() {
    for culprits in [1, 3] {
        let stage = Stage::new(3);
        let commands: Vec<Command> =
            (0..20).map(|balance| Command::Open { account: stage.id_in(0), balance }).collect();
        let other = Command::Open { account: stage.id_in(1), balance: 777 };
        let envelopes: Vec<Vec<u8>> =
            commands.iter().map(|command| stage.envelope(command).encode().unwrap()).collect();
        queue_in(&stage, 0, &envelopes);
        queue_in(&stage, 1, &[stage.envelope(&other).encode().unwrap()]);
        // An opening with this balance cannot be stored.
        let poison = if culprits == 1 { "{\"balance\":7}" } else { "{\"balance\":1" };
        stage.log.refuse_content(Some(poison));
        let worker = stage.worker("worker", WorkerLimits::default());
        let done = || outcomes(&stage, 0).len() == 20 && outcomes(&stage, 1).len() == 1;
        stage.world.run_until(done, STEPS).unwrap();
        let dead = outcomes(&stage, 0).iter().filter(|name| *name == COMMAND_DEAD).count();
        assert_eq!(dead, if culprits == 1 { 1 } else { 11 });
        assert_eq!(outcomes(&stage, 1), ["Opened"]);
        assert!(!worker.task.is_finished());
    }
}

#[test]
fn the_same_id_with_another_command_is_told_so_and_does_nothing() {
    let stage = Stage::new(4);
    let (intake, _listener) = stage.listener("listener");
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(0);
    let first = stage.envelope(&Command::Open { account, balance: 1 });
    let mut second = stage.envelope(&Command::Open { account: stage.id_in(1), balance: 2 });
    second.command_id = first.command_id;
    let replies = Rc::new(RefCell::new(Vec::new()));
    stage.client(&intake, first.clone(), &replies);
    stage.world.run_until(|| replies.borrow().len() == 1, STEPS).unwrap();
    stage.client(&intake, second, &replies);
    stage.client(&intake, first.clone(), &replies);
    stage.world.run_until(|| replies.borrow().len() == 3, STEPS).unwrap();
    let replies = replies.borrow();
    assert!(replies.contains(&Reply::Reused { command_id: first.command_id }));
    let same = replies.iter().filter(|reply| **reply == replies[0]).count();
    assert_eq!(same, 2, "a repeat gets the stored outcome again: {replies:?}");
    assert_eq!(stage.log.all_records().len(), 1);
}

#[test]
fn an_outcome_that_an_earlier_process_was_asked_for_goes_to_nobody() {
    // given a command that is queued and undecided when the process that took it in ends
    let stage = Stage::new(12);
    let (intake, listener) = stage.listener("listener");
    let replies = Rc::new(RefCell::new(Vec::new()));
    let abandoned = stage.envelope(&Command::Open { account: stage.id_in(0), balance: 1 });
    let (old, envelope) = (intake, abandoned.clone());
    let waiting = stage
        .world
        .spawn("client", async move { old.submit_and_wait(envelope, Duration::from_mins(1)).await });
    let queued = || !stage.queue.commands(Partition::from_index(0)).is_empty();
    stage.world.run_until(queued, STEPS).unwrap();
    waiting.kill();
    listener.task.kill();
    // when another process takes its place and its address, and somebody sits in the same seat
    let (intake, _listener) = stage.listener("listener");
    let command = stage.envelope(&Command::Send { account: stage.id_in(0), to: stage.id_in(0), amount: 1 });
    stage.client(&intake, command.clone(), &replies);
    let both = || stage.queue.commands(Partition::from_index(0)).len() == 2;
    stage.world.run_until(both, STEPS).unwrap();
    let _worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| !replies.borrow().is_empty(), STEPS).unwrap();
    // then it is told what became of its own command
    let sent = stage.replies.sent();
    assert_eq!(sent[0].0, sent[1].0, "both were addressed to the same seat");
    assert_eq!(replies.borrow()[0].command_id(), command.command_id);
    assert!(matches!(
        &replies.borrow()[0],
        Reply::Outcome(outcome) if matches!(outcome.verdict, Verdict::Refused { .. })
    ));
}

#[test]
fn read_models_of_another_past_are_not_continued() {
    let stage = Stage::new(13);
    let open = |balance| Command::Open { account: stage.id_in(0), balance };
    let empty = (stage.log.save(), stage.bus.save());
    queue_in(&stage, 0, &[stage.envelope(&open(1)).encode().unwrap()]);
    let (worker, relayer) = (stage.worker("worker", WorkerLimits::default()), stage.relayer("relayer"));
    let projector = stage.projector("projector");
    stage.world.run_until(|| stage.is_projected(), STEPS).unwrap();
    for part in [&worker, &relayer, &projector] {
        part.task.kill();
    }
    // Log and bus are restored to before, and go on to the same place.
    stage.log.restore(empty.0);
    stage.bus.restore(empty.1);
    stage.queue.recreate(1);
    queue_in(&stage, 0, &[stage.envelope(&open(2)).encode().unwrap()]);
    let before = stage.models.save();
    let (_worker, _relayer) = (stage.worker("worker", WorkerLimits::default()), stage.relayer("relayer"));
    let projector = stage.projector("projector");
    stage.world.run_until(|| projector.task.is_finished(), STEPS).unwrap();
    let halted = projector.task.take().unwrap().unwrap_err();
    assert!(halted.reason.contains("built anew"), "{halted}");
    assert!(stage.models.save() == before, "nothing was projected");
}

#[test]
fn a_queue_that_was_restored_halts_its_reader() {
    let stage = Stage::new(5);
    let open = |balance| Command::Open { account: stage.id_in(0), balance };
    queue_in(&stage, 0, &[stage.envelope(&open(1)).encode().unwrap()]);
    let before = stage.queue.save();
    queue_in(&stage, 0, &[stage.envelope(&open(2)).encode().unwrap()]);
    let worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| outcomes(&stage, 0).len() == 2, STEPS).unwrap();
    worker.task.kill();

    // Restored to a state before the position: the message is missing, or, later, another one.
    stage.queue.restore(before);
    let worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| worker.task.is_finished(), STEPS).unwrap();
    let halted = worker.task.take().unwrap().unwrap_err();
    assert!(halted.reason.contains("the message is missing"), "{halted}");

    queue_in(&stage, 0, &[stage.envelope(&open(3)).encode().unwrap()]);
    let worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| worker.task.is_finished(), STEPS).unwrap();
    let halted = worker.task.take().unwrap().unwrap_err();
    assert!(halted.reason.contains("the message is another"), "{halted}");

    stage.queue.recreate(2);
    let worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| worker.task.is_finished(), STEPS).unwrap();
    let halted = worker.task.take().unwrap().unwrap_err();
    assert!(halted.reason.contains("created anew"), "{halted}");
    assert_eq!(outcomes(&stage, 0).len(), 2);
}

#[test]
fn the_purge_spares_the_message_at_the_position() {
    let stage = Stage::new(6);
    for balance in 0..30 {
        let command = Command::Open { account: stage.id_in(0), balance };
        queue_in(&stage, 0, &[stage.envelope(&command).encode().unwrap()]);
    }
    let limits = WorkerLimits { purge_every: 4, messages: 3, ..WorkerLimits::default() };
    let worker = stage.worker("worker", limits);
    stage.world.run_until(|| outcomes(&stage, 0).len() == 30, STEPS).unwrap();
    let partition = Partition::from_index(0);
    let left = stage.queue.messages(partition);
    assert!(left.len() < 30, "nothing was purged");
    let position = stage.log.row(partition).position.unwrap();
    assert!(left.iter().any(|message| message.message == position.message));
    // A worker that starts now finds its place.
    worker.task.kill();
    let _worker = stage.worker("worker", limits);
    let command = Command::Open { account: stage.id_in(0), balance: 99 };
    queue_in(&stage, 0, &[stage.envelope(&command).encode().unwrap()]);
    stage.world.run_until(|| outcomes(&stage, 0).len() == 31, STEPS).unwrap();
}

#[test]
fn a_worker_without_work_lets_the_queue_forget_what_it_has_done() {
    let stage = Stage::new(6);
    for balance in 0..3 {
        let command = Command::Open { account: stage.id_in(0), balance };
        queue_in(&stage, 0, &[stage.envelope(&command).encode().unwrap()]);
    }
    let limits = WorkerLimits { purge_every: 1_000, ..WorkerLimits::default() };
    let _worker = stage.worker("worker", limits);
    let partition = Partition::from_index(0);
    stage.world.run_until(|| stage.queue.messages(partition).len() == 1, STEPS).unwrap();
    let position = stage.log.row(partition).position.unwrap();
    assert_eq!(stage.queue.messages(partition)[0].message, position.message);
}

#[test]
fn a_relayer_fills_a_stream_that_lost_its_tail() {
    let stage = Stage::new(7);
    let partition = Partition::from_index(0);
    for balance in 0..5 {
        let command = Command::Open { account: stage.id_in(0), balance };
        queue_in(&stage, 0, &[stage.envelope(&command).encode().unwrap()]);
    }
    let _worker = stage.worker("worker", WorkerLimits::default());
    let relayer = stage.relayer("relayer");
    stage.world.run_until(|| stage.bus.stream(partition).len() == 5, STEPS).unwrap();
    relayer.task.kill();
    stage.bus.truncate(partition, Sequence::new(2));
    let _relayer = stage.relayer("relayer");
    stage.world.run_until(|| stage.bus.stream(partition) == stage.log.records(partition), STEPS).unwrap();
}

#[test]
fn a_relayer_that_has_nothing_to_do_fills_a_stream_that_lost_its_tail_all_the_same() {
    let stage = Stage::new(7);
    let partition = Partition::from_index(0);
    for balance in 0..5 {
        let command = Command::Open { account: stage.id_in(0), balance };
        queue_in(&stage, 0, &[stage.envelope(&command).encode().unwrap()]);
    }
    let _worker = stage.worker("worker", WorkerLimits::default());
    let _relayer = stage.relayer("relayer");
    stage.world.run_until(|| stage.bus.stream(partition).len() == 5, STEPS).unwrap();
    stage.bus.truncate(partition, Sequence::new(2));
    stage.world.run_until(|| stage.bus.stream(partition) == stage.log.records(partition), STEPS).unwrap();
}

#[test]
fn a_quiet_stream_that_lost_its_tail_is_filled_while_others_are_busy() {
    let stage = Stage::new(7);
    let (quiet, busy) = (Partition::from_index(0), Partition::from_index(1));
    let open = |partition: u16, balance| {
        let command = Command::Open { account: stage.id_in(partition), balance };
        queue_in(&stage, partition, &[stage.envelope(&command).encode().unwrap()]);
    };
    open(0, 1);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let _relayer = stage.relayer("relayer");
    stage.world.run_until(|| stage.bus.stream(quiet).len() == 1, STEPS).unwrap();
    stage.bus.truncate(quiet, Sequence::ZERO);
    let mut opened = 0;
    while stage.bus.stream(quiet).is_empty() {
        opened += 1;
        assert!(opened < 500, "the quiet stream is looked at");
        // A command every 10 ms: sooner than an idle relayer looks by itself.
        let environment = stage.world.environment();
        open(1, opened);
        let relayed = || i64::try_from(stage.bus.stream(busy).len()) == Ok(opened);
        stage.world.run_until(relayed, STEPS).unwrap();
        stage
            .world
            .block_on(async move { environment.sleep(Duration::from_millis(10)).await }, STEPS)
            .unwrap();
    }
    assert!(opened > 1, "the relayer was busy");
    assert_eq!(stage.bus.stream(quiet), stage.log.records(quiet));
}

#[test]
fn a_log_that_is_restored_while_the_relayer_runs_halts_it() {
    let mut stage = Stage::new(9);
    let failing = stage.fail_once(Call::LogRows);
    let open = |stage: &Stage, balance| {
        let command = Command::Open { account: stage.id_in(0), balance };
        queue_in(stage, 0, &[stage.envelope(&command).encode().unwrap()]);
    };
    let partition = Partition::from_index(0);
    let empty = stage.log.save();
    open(&stage, 1);
    let worker = stage.worker("worker", WorkerLimits::default());
    let relayer = stage.relayer("relayer");
    stage.world.run_until(|| stage.bus.stream(partition).len() == 1, STEPS).unwrap();
    worker.task.kill();

    // A store that is restored does not answer meanwhile.
    stage.log.restore(empty);
    failing.store(true, Ordering::Relaxed);
    stage.world.run_until(|| relayer.task.is_finished(), STEPS).unwrap();
    let halted = relayer.task.take().unwrap().unwrap_err();
    assert!(halted.reason.contains("behind the bus"), "{halted}");
    assert!(!failing.load(Ordering::Relaxed), "it has tried before");
}

#[test]
fn a_log_that_was_replaced_in_silence_and_is_ahead_of_the_bus_is_not_published() {
    let stage = Stage::new(10);
    let partition = Partition::from_index(0);
    let empty = stage.log.save();
    for balance in 1..=2 {
        let command = Command::Open { account: stage.id_in(0), balance };
        queue_in(&stage, 0, &[stage.envelope(&command).encode().unwrap()]);
    }
    // What becomes of the same commands elsewhere.
    let worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| stage.log.records(partition).len() == 2, STEPS).unwrap();
    worker.task.kill();
    let other = stage.log.save();
    stage.log.restore(empty);
    let one_at_a_time = WorkerLimits { batch: 1, ..WorkerLimits::default() };
    let worker = stage.worker("worker", one_at_a_time);
    stage.world.run_until(|| stage.log.records(partition).len() == 1, STEPS).unwrap();
    worker.task.kill();
    let relayer = stage.relayer("relayer");
    stage.world.run_until(|| stage.bus.stream(partition).len() == 1, STEPS).unwrap();

    // A standby answers in the log's place, and no call fails that would say so.
    stage.log.restore(other);
    stage.world.run_until(|| relayer.task.is_finished(), STEPS).unwrap();
    let halted = relayer.task.take().unwrap().unwrap_err();
    assert!(halted.reason.contains("different ways"), "{halted}");
    assert_eq!(stage.bus.stream(partition).len(), 1, "nothing was published onto the other's end");
}

#[test]
fn a_log_that_is_behind_the_bus_or_went_another_way_halts_the_relayer() {
    let stage = Stage::new(8);
    let partition = Partition::from_index(0);
    let open = |balance| Command::Open { account: stage.id_in(0), balance };
    let empty = stage.log.save();
    queue_in(&stage, 0, &[stage.envelope(&open(1)).encode().unwrap()]);
    let worker = stage.worker("worker", WorkerLimits::default());
    let relayer = stage.relayer("relayer");
    stage.world.run_until(|| stage.bus.stream(partition).len() == 1, STEPS).unwrap();
    worker.task.kill();
    relayer.task.kill();

    stage.log.restore(empty);
    let relayer = stage.relayer("relayer");
    stage.world.run_until(|| relayer.task.is_finished(), STEPS).unwrap();
    let halted = relayer.task.take().unwrap().unwrap_err();
    assert!(halted.reason.contains("behind the bus"), "{halted}");

    // The log goes on, and writes another record in the same place.
    let _worker = stage.worker("worker", WorkerLimits::default());
    stage.world.run_until(|| outcomes(&stage, 0).len() == 1, STEPS).unwrap();
    let relayer = stage.relayer("relayer");
    stage.world.run_until(|| relayer.task.is_finished(), STEPS).unwrap();
    let halted = relayer.task.take().unwrap().unwrap_err();
    assert!(halted.reason.contains("different ways"), "{halted}");
}

#[test]
fn a_stop_finishes_what_was_accepted() {
    let stage = Stage::new(9);
    let (intake, listener) = stage.listener("listener");
    let worker = stage.worker("worker", WorkerLimits::default());
    let replies = Rc::new(RefCell::new(Vec::new()));
    for balance in 0..10 {
        let command = Command::Open { account: stage.id_in(0), balance };
        stage.client(&intake, stage.envelope(&command), &replies);
    }
    // Everybody has handed in, nothing is queued yet.
    stage.world.run_until(|| !stage.queue.commands(Partition::from_index(0)).is_empty(), STEPS).unwrap();
    stage.stop();
    let ended = || listener.task.is_finished() && worker.task.is_finished();
    stage.world.run_until(ended, STEPS).unwrap();
    assert_eq!(listener.task.take(), Some(Ok(())));
    assert_eq!(worker.task.take(), Some(Ok(())));
    let queued = stage.queue.commands(Partition::from_index(0));
    assert_eq!(queued.iter().filter(|slot| matches!(slot, Slot::Envelope(_))).count(), 10);
}

#[test]
fn a_snapshot_of_an_unknown_schema_is_ignored() {
    let stage = Stage::new(10);
    let account = stage.id_in(0);
    let limits = WorkerLimits { snapshot_every: 2, ..WorkerLimits::default() };
    let worker = stage.worker("worker", limits);
    let send = |amount| Command::Send { account, to: account, amount };
    queue_in(&stage, 0, &[stage.envelope(&Command::Open { account, balance: 10 }).encode().unwrap()]);
    queue_in(&stage, 0, &[stage.envelope(&send(4)).encode().unwrap()]);
    queue_in(&stage, 0, &[stage.envelope(&send(4)).encode().unwrap()]);
    stage.world.run_until(|| outcomes(&stage, 0).len() == 3, STEPS).unwrap();
    worker.task.kill();
    // A later release has written it, and says what this one would get wrong.
    let mut snapshot = stage.log.snapshot(&ledger::account(account)).expect("one was taken");
    snapshot.state.schema = 99;
    snapshot.state.data = "{\"opened\":10,\"balance\":1000000}".to_owned();
    stage.log.overwrite_snapshot(snapshot);
    let _worker = stage.worker("worker", WorkerLimits::default());
    queue_in(&stage, 0, &[stage.envelope(&send(4)).encode().unwrap()]);
    queue_in(&stage, 0, &[stage.envelope(&send(2)).encode().unwrap()]);
    stage.world.run_until(|| outcomes(&stage, 0).len() == 5, STEPS).unwrap();
    assert_eq!(outcomes(&stage, 0), ["Opened", "Sent", "Sent", "CommandRefused", "Sent"]);
}

#[test]
fn a_client_whose_reply_was_lost_is_answered_from_the_inbox() {
    let mut stage = Stage::new(11);
    let lost = Arc::new(AtomicU32::new(0));
    let losing = Arc::clone(&lost);
    stage.interfere(Arc::new(move |call: Call| {
        let first = call == Call::RepliesSend && losing.fetch_add(1, Ordering::Relaxed) == 0;
        if first { Fault::Fail } else { Fault::None }
    }));
    let (intake, _listener) = stage.listener("listener");
    let _worker = stage.worker("worker", WorkerLimits::default());
    let command = stage.envelope(&Command::Open { account: stage.id_in(0), balance: 1 });
    let reply = async move { intake.submit_and_wait(command, Duration::from_secs(4)).await };
    let reply = stage.world.block_on(reply, STEPS).unwrap();
    assert!(matches!(reply, Ok(Some(Reply::Outcome(_)))), "{reply:?}");
    assert_eq!(lost.load(Ordering::Relaxed), 2, "one reply was lost, the other one came");
    assert_eq!(stage.log.all_records().len(), 1);
}

#[test]
fn a_partition_with_much_to_do_starves_nobody() {
    // given an even number of partitions, a worker that reads one message at a time, and a long queue before a short one
    let stage = Stage::of(14, 4);
    for (partition, count) in [(1, 40), (2, 1)] {
        for balance in 0..count {
            let command = Command::Open { account: stage.id_in(partition), balance };
            queue_in(&stage, partition, &[stage.envelope(&command).encode().unwrap()]);
        }
    }
    let limits = WorkerLimits { batch: 1, messages: 1, ..WorkerLimits::default() };
    let _worker = stage.worker("worker", limits);
    stage.world.run_until(|| !outcomes(&stage, 2).is_empty(), STEPS).unwrap();
    assert!(outcomes(&stage, 1).len() < 10, "{} before it", outcomes(&stage, 1).len());
}

#[test]
fn an_aggregate_that_exists_still_exists_when_the_memory_of_it_is_full() {
    // given a worker that remembers next to nothing, and senders that it has asked for before
    let stage = Stage::new(15);
    let limits = WorkerLimits { known: 1, ..WorkerLimits::default() };
    let _worker = stage.worker("worker", limits);
    let (receiver, senders) = (stage.id_in(0), [stage.id_in(1), stage.id_in(1), stage.id_in(1)]);
    for account in [receiver, senders[0], senders[1], senders[2]] {
        let partition = u16::from(account != receiver);
        let open = Command::Open { account, balance: 0 };
        queue_in(&stage, partition, &[stage.envelope(&open).encode().unwrap()]);
    }
    stage.world.run_until(|| outcomes(&stage, 1).len() == 3, STEPS).unwrap();

    // when each of them is referred to again and again, also when it is remembered and the memory is full
    let [first, second, third] = senders;
    let order = [first, second, second, third, third, first, first, second, second];
    for (sent, from) in (1..).zip(order) {
        let receive = Command::Receive { account: receiver, from, amount: 1 };
        queue_in(&stage, 0, &[stage.envelope(&receive).encode().unwrap()]);
        stage.world.run_until(|| outcomes(&stage, 0).len() == 1 + sent, STEPS).unwrap();
    }

    // then
    assert_eq!(outcomes(&stage, 0)[1..], ["Received"; 9]);
}
