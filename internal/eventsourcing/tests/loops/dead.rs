//! Dead letters: retried and discarded, once, and in order.

use std::cell::RefCell;
use std::rc::Rc;

use eventsourcing::command::{Envelope, pack};
use eventsourcing::letters::{
    Content, Discard, Filter, ForeignPlace, Letter, LetterState, Place, Resolve, Unresolved, resolution_id,
};
use eventsourcing::model::AggregateRef;
use eventsourcing::outcome::{Fingerprint, Outcome, Reply, Verdict};
use eventsourcing::partition::Partition;
use eventsourcing::ports::{
    Commit, DeadLetter, DeadLetters as _, EventLog as _, ForeignMessage, ForeignPosition, InboxEntry,
    PartitionCommit, PortResult,
};
use eventsourcing::record::{COMMAND_DEAD, DEAD_LETTER_DISCARDED};
use eventsourcing::worker::WorkerLimits;
use uuid::Uuid;

use crate::ledger::{self, Command};
use crate::stage::Stage;

const STEPS: u64 = 500_000;

/// An answer of the letters, on the stage's own thread.
fn ask<T: 'static>(stage: &Stage, question: impl Future<Output = T> + 'static) -> T {
    let task = stage.world.spawn("a person", question);
    stage.world.run_until(|| task.is_finished(), STEPS).unwrap();
    task.take().unwrap()
}

fn all(stage: &Stage) -> Vec<Letter> {
    let letters = stage.letters();
    ask(stage, async move { letters.list(&Filter::default(), None, 100).await }).unwrap().0
}

fn retry(stage: &Stage, id: Uuid) -> Result<Resolve, Unresolved> {
    let letters = stage.letters();
    ask(stage, async move { letters.retry(id).await })
}

fn discard(stage: &Stage, id: Uuid, reason: &'static str) -> Result<Resolve, Unresolved> {
    let letters = stage.letters();
    ask(stage, async move { letters.discard(id, "somebody".to_owned(), reason.to_owned()).await })
}

fn envelope(resolve: Result<Resolve, Unresolved>) -> Envelope {
    match resolve.unwrap() {
        Resolve::Queue(envelope) => *envelope,
        Resolve::Done(outcome) => panic!("it was done: {outcome:?}"),
    }
}

fn put(stage: &Stage, envelope: &Envelope) {
    put_in(stage, envelope.partition(stage.partitions), envelope);
}

fn put_in(stage: &Stage, partition: Partition, envelope: &Envelope) {
    let bytes = envelope.encode().unwrap();
    for bundle in pack(partition, [bytes.as_slice()]) {
        stage.queue.push(bundle.partition, &bundle.payload);
    }
}

fn opened(stage: &Stage, account: Uuid) {
    let open = stage.envelope(&Command::Open { account, balance: 10 });
    put(stage, &open);
    stage.world.run_until(|| stage.log.has_outcome(open.command_id), STEPS).unwrap();
}

/// A command that the store refuses until somebody mends it.
fn dies(stage: &Stage, command: &Command) -> Envelope {
    stage.log.refuse_content(Some("\"amount\":"));
    let envelope = stage.envelope(command);
    put(stage, &envelope);
    stage.world.run_until(|| stage.log.has_outcome(envelope.command_id), STEPS).unwrap();
    stage.log.refuse_content(None);
    envelope
}

fn decided(stage: &Stage, envelope: &Envelope) -> Verdict {
    stage.world.run_until(|| stage.log.has_outcome(envelope.command_id), STEPS).unwrap();
    let inbox = stage.log.inbox();
    inbox.into_iter().find(|entry| entry.outcome.command_id == envelope.command_id).unwrap().outcome.verdict
}

fn states(stage: &Stage) -> Vec<LetterState> {
    all(stage).iter().map(|letter| letter.state).collect()
}

#[test]
fn a_dead_command_is_found_with_all_that_is_known_of_it() {
    let stage = Stage::new(1);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(1);
    opened(&stage, account);
    let dead = dies(&stage, &Command::Refund { account, amount: 5 });
    let letters = all(&stage);
    let [letter] = letters.as_slice() else { panic!("one: {letters:?}") };
    let Content::Command(record, data) = &letter.content else { panic!("a command: {letter:?}") };
    assert_eq!((letter.id, letter.state, letter.retry_of()), (record.record_id, LetterState::Open, None));
    assert_eq!((record.command_id, record.actor.as_str()), (dead.command_id, "test"));
    assert_eq!(data.command.as_ref().unwrap().get(), dead.command.get());
    assert_eq!(data.reason.code(), "UNSTORABLE");
}

#[test]
fn a_retry_acts_once_however_often_it_is_asked_for() {
    let stage = Stage::new(2);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(1);
    opened(&stage, account);
    let dead = dies(&stage, &Command::Refund { account, amount: 5 });
    let letter = all(&stage).remove(0);
    // Two people retry it at the same time, and the queue has both.
    let (one, other) = (envelope(retry(&stage, letter.id)), envelope(retry(&stage, letter.id)));
    assert_eq!(one.command_id, other.command_id);
    assert_eq!(one.command_id, resolution_id(letter.id));
    assert_eq!((one.correlation_id, one.causation_id), (dead.correlation_id, letter.id));
    assert_eq!(one.actor, dead.actor);
    put(&stage, &one);
    put(&stage, &other);
    assert_eq!(decided(&stage, &one), Verdict::Applied);
    let last = stage.envelope(&Command::Refund { account, amount: 1 });
    put(&stage, &last);
    assert_eq!(decided(&stage, &last), Verdict::Applied);
    assert_eq!(stage.balances()[&account], 10 + 5 + 1, "once");
    // Whoever asks again is told what became of it, and nobody can discard it any more.
    let Ok(Resolve::Done(outcome)) = retry(&stage, letter.id) else { panic!("it was retried") };
    assert_eq!((outcome.command_id, outcome.verdict), (one.command_id, Verdict::Applied));
    assert_eq!(discard(&stage, letter.id, "late").unwrap_err(), Unresolved::AlreadyRetried);
    assert_eq!(states(&stage), [LetterState::Retried]);
}

#[test]
fn of_a_retry_and_a_discard_the_first_one_wins() {
    for discard_first in [true, false] {
        let stage = Stage::new(3);
        let (intake, _listener) = stage.listener("listener");
        let worker = stage.worker("worker", WorkerLimits::default());
        let account = stage.id_in(1);
        opened(&stage, account);
        dies(&stage, &Command::Refund { account, amount: 5 });
        let letter = all(&stage).remove(0);
        // Both are asked for while it is open.
        let again = envelope(retry(&stage, letter.id));
        let away = envelope(discard(&stage, letter.id, "paid by hand"));
        assert_eq!(again.command_id, away.command_id);
        worker.task.pause();
        let (first, second) = if discard_first { (away, again) } else { (again, away) };
        let (won, lost) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let queued = |count| stage.queue.commands(Partition::from_index(1)).len() == count;
        let before = stage.queue.commands(Partition::from_index(1)).len();
        stage.client(&intake, first, &won);
        stage.world.run_until(|| queued(before + 1), STEPS).unwrap();
        stage.client(&intake, second, &lost);
        stage.world.run_until(|| queued(before + 2), STEPS).unwrap();
        worker.task.resume();
        stage.world.run_until(|| won.borrow().len() + lost.borrow().len() == 2, STEPS).unwrap();
        assert!(matches!(
            &won.borrow()[0],
            Reply::Outcome(outcome) if outcome.verdict == Verdict::Applied
        ));
        assert_eq!(lost.borrow()[0], Reply::Reused { command_id: resolution_id(letter.id) });
        let discarded = stage.log.all_records().iter().any(|one| one.event_type == DEAD_LETTER_DISCARDED);
        assert_eq!(discarded, discard_first);
        assert_eq!(stage.balances()[&account], if discard_first { 10 } else { 15 });
        let state = if discard_first { LetterState::Discarded } else { LetterState::Retried };
        assert_eq!(states(&stage), [state]);
    }
}

#[test]
fn a_discarded_letter_says_who_and_why_and_stays_so() {
    let stage = Stage::new(4);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let partition = Partition::from_index(2);
    stage.queue.push(partition, b"not even json");
    stage.world.run_until(|| stage.log.all_records().len() == 1, STEPS).unwrap();
    let letter = all(&stage).remove(0);
    assert!(matches!(retry(&stage, letter.id), Err(Unresolved::NotRetryable(_))), "it is no command");
    let away = envelope(discard(&stage, letter.id, "garbage"));
    put(&stage, &away);
    assert_eq!(decided(&stage, &away), Verdict::Applied);
    let letter = all(&stage).remove(0);
    assert_eq!(letter.state, LetterState::Discarded);
    let letters = stage.letters();
    let known = letter.clone();
    let record = ask(&stage, async move { letters.resolution(&known).await }).unwrap().unwrap();
    assert_eq!((record.partition, record.actor.as_str()), (partition, "somebody"));
    assert_eq!(record.causation_id, letter.id);
    let said = record.discard().unwrap().unwrap();
    assert_eq!((said.letter_id, said.reason.as_str()), (letter.id, "garbage"));
    // Again, with another reason: it is discarded already, for the first one.
    let Ok(Resolve::Done(outcome)) = discard(&stage, letter.id, "no, rubbish") else { panic!("it was done") };
    assert_eq!(outcome.position, record.position());
    put(&stage, &Envelope { discards: away.discards.clone(), ..away.clone() });
    assert_eq!(retry(&stage, letter.id).unwrap_err(), Unresolved::AlreadyDiscarded);
}

#[test]
fn what_died_for_its_form_alone_died_under_its_own_id_and_can_be_sent_again() {
    let stage = Stage::new(11);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(1);
    opened(&stage, account);
    let sent = Envelope {
        causation_id: Uuid::from_u128(9),
        ..stage.envelope(&Command::Refund { account, amount: 5 })
    };
    let mut torn: serde_json::Value = serde_json::from_slice(&sent.encode().unwrap()).unwrap();
    torn["traceparent"] = serde_json::json!({ "of": "the next release" });
    stage.queue.push(Partition::from_index(1), format!("[{torn}]").as_bytes());
    let Verdict::Dead { reason, message } = decided(&stage, &sent) else { panic!("it has not its form") };
    assert!(reason == "UNDECODABLE" && message.contains("expected a string"), "{reason}: {message}");
    let letter = all(&stage).remove(0);
    let Content::Command(record, _) = &letter.content else { panic!("a command: {letter:?}") };
    assert_eq!((record.command_id, record.causation_id), (sent.command_id, sent.causation_id));
    assert_eq!((&record.actor, &record.aggregate), (&sent.actor, &sent.target));

    let again = envelope(retry(&stage, letter.id));
    put(&stage, &again);

    assert_eq!(decided(&stage, &again), Verdict::Applied);
    assert_eq!(stage.balances()[&account], 10 + 5);
    assert_eq!(states(&stage), [LetterState::Retried]);
    // And whoever sends it again, in its form, is not heard a second time.
    put(&stage, &sent);
    let last = stage.envelope(&Command::Refund { account, amount: 1 });
    put(&stage, &last);
    assert_eq!(decided(&stage, &last), Verdict::Applied);
    assert_eq!(stage.balances()[&account], 10 + 5 + 1);
}

#[test]
fn a_letter_that_cannot_be_read_hides_no_other_and_can_be_discarded() {
    let stage = Stage::new(12);
    let partition = Partition::from_index(2);
    let worker = stage.worker("worker", WorkerLimits::default());
    stage.queue.push(partition, b"garbage");
    stage.world.run_until(|| stage.log.all_records().len() == 1, STEPS).unwrap();
    worker.task.kill();
    // What only damage, or a release that nobody has, can have written.
    let row = stage.log.row(partition);
    let mut torn = stage.log.all_records()[0].as_ref().clone();
    (torn.sequence, torn.record_id, torn.command_id) =
        (row.head.next(), Uuid::from_u128(1), Uuid::from_u128(2));
    torn.data = r#"{"reason":"BORED"}"#.to_owned();
    let position = row.position.unwrap();
    let outcome = Outcome {
        command_id: torn.command_id,
        position: torn.position(),
        verdict: Verdict::Dead { reason: "BORED".to_owned(), message: String::new() },
    };
    let inbox = vec![InboxEntry { fingerprint: Fingerprint::of(b""), outcome }];
    let snapshots = Vec::new();
    let part = PartitionCommit { partition, expected: row, position, records: vec![torn], inbox, snapshots };
    let log = stage.log.clone();
    assert_eq!(ask(&stage, async move { log.commit(vec![part]).await }), Ok(vec![Commit::Done]));

    let letters = all(&stage);

    let [whole, torn] = letters.as_slice() else { panic!("two: {letters:?}") };
    assert!(matches!(&whole.content, Content::Command(..)));
    assert!(
        matches!(&torn.content, Content::Unreadable(record, what) if record.data.contains("BORED") && what.contains("BORED"))
    );
    assert_eq!((torn.id, torn.state), (Uuid::from_u128(1), LetterState::Open));
    assert!(matches!(retry(&stage, torn.id), Err(Unresolved::NotRetryable(_))));
    let _worker = stage.worker("another worker", WorkerLimits::default());
    let away = envelope(discard(&stage, torn.id, "torn"));
    put(&stage, &away);
    assert_eq!(decided(&stage, &away), Verdict::Applied);
    assert_eq!(states(&stage), [LetterState::Open, LetterState::Discarded]);
}

#[test]
fn a_letter_that_dies_again_at_this_moment_is_still_before_the_next() {
    for seed in 0..200 {
        let stage = Stage::new(seed);
        let worker = stage.worker("worker", WorkerLimits::default());
        let account = stage.id_in(1);
        opened(&stage, account);
        dies(&stage, &Command::Refund { account, amount: 5 });
        dies(&stage, &Command::Refund { account, amount: 6 });
        let letters = all(&stage);
        let [first, second] = [letters[0].id, letters[1].id];
        let again = envelope(retry(&stage, first));
        stage.log.refuse_content(Some("\"amount\":"));
        worker.task.pause();
        put(&stage, &again);
        worker.task.resume();
        // Whether it is open, or has died again just now: the second one is not the next.
        let asked = retry(&stage, second);
        assert!(matches!(asked, Err(Unresolved::Earlier(_))), "seed {seed}: {asked:?}");
    }
}

#[test]
fn an_aggregates_letters_are_retried_in_their_order() {
    let stage = Stage::new(5);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let (account, other) = (stage.id_in(1), stage.id_in(1));
    opened(&stage, account);
    opened(&stage, other);
    for (account, amount) in [(account, 1), (other, 2), (account, 3), (account, 4)] {
        dies(&stage, &Command::Refund { account, amount });
    }
    let ids: Vec<Uuid> = all(&stage).iter().map(|letter| letter.id).collect();
    let [first, elsewhere, second, third] = ids[..] else { panic!("four: {ids:?}") };
    assert_eq!(retry(&stage, second).unwrap_err(), Unresolved::Earlier(first));
    assert_eq!(retry(&stage, third).unwrap_err(), Unresolved::Earlier(first));
    let free = envelope(retry(&stage, elsewhere));
    put(&stage, &free);
    assert_eq!(decided(&stage, &free), Verdict::Applied);
    // The first one dies again: it still stands before the others.
    stage.log.refuse_content(Some("\"amount\":"));
    let again = envelope(retry(&stage, first));
    put(&stage, &again);
    assert!(matches!(decided(&stage, &again), Verdict::Dead { .. }));
    stage.log.refuse_content(None);
    let reborn = all(&stage).remove(4);
    assert_eq!((reborn.retry_of(), reborn.state), (Some(first), LetterState::Open));
    assert_eq!(retry(&stage, second).unwrap_err(), Unresolved::Earlier(reborn.id));
    // Retried at last; then the next may be discarded, out of its order, and the last one is free.
    let again = envelope(retry(&stage, reborn.id));
    put(&stage, &again);
    assert_eq!(decided(&stage, &again), Verdict::Applied);
    assert_eq!(retry(&stage, third).unwrap_err(), Unresolved::Earlier(second));
    let away = envelope(discard(&stage, second, "void"));
    put(&stage, &away);
    assert_eq!(decided(&stage, &away), Verdict::Applied);
    let last = envelope(retry(&stage, third));
    put(&stage, &last);
    assert_eq!(decided(&stage, &last), Verdict::Applied);
    assert_eq!(stage.balances()[&account], 10 + 1 + 4);
}

#[test]
fn a_command_of_another_partition_is_retried_where_it_belongs_once_its_death_is_on_the_bus() {
    let stage = Stage::new(6);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(2);
    let strayed = stage.envelope(&Command::Open { account, balance: 7 });
    put_in(&stage, Partition::from_index(1), &strayed);
    assert!(matches!(decided(&stage, &strayed), Verdict::Dead { .. }));
    let id = all(&stage).remove(0).id;
    assert_eq!(retry(&stage, id).unwrap_err(), Unresolved::NotRelayed);
    let _relayer = stage.relayer("relayer");
    stage.world.run_until(|| stage.bus.stream(Partition::from_index(1)).len() == 1, STEPS).unwrap();
    let again = envelope(retry(&stage, id));
    assert_eq!(again.partition(stage.partitions), Partition::from_index(2));
    put(&stage, &again);
    assert_eq!(decided(&stage, &again), Verdict::Applied);
    assert_eq!(stage.balances()[&account], 7);
}

#[test]
fn a_malformed_message_of_another_context_is_discarded_or_stays() {
    let stage = Stage::new(7);
    let (_worker, _importer) = (stage.worker("worker", WorkerLimits::default()), stage.importer("importer"));
    stage.foreign.publish("accounts.opened", b"{ malformed");
    stage.world.run_until(|| stage.imported() == 1, STEPS).unwrap();
    let letter = all(&stage).remove(0);
    assert!(matches!(&letter.content, Content::Foreign(foreign) if foreign.message.message == 1));
    assert!(matches!(letter.place(), Place::Foreign(_)));
    assert!(matches!(retry(&stage, letter.id), Err(Unresolved::NotRetryable(_))));
    let letters = stage.letters();
    let found: PortResult<Option<Letter>> = ask(&stage, async move { letters.get(letter.id).await });
    assert_eq!(found.unwrap().unwrap().id, letter.id);
    let away = envelope(discard(&stage, letter.id, "not ours"));
    put(&stage, &away);
    assert_eq!(decided(&stage, &away), Verdict::Applied);
    assert_eq!(states(&stage), [LetterState::Discarded]);
    let record = stage.log.all_records().pop().unwrap();
    assert_eq!(record.discard().unwrap().unwrap().foreign.unwrap().message, 1);
}

/// What has died, in order.
fn letters_after(stage: &Stage, dead: usize) -> Vec<Letter> {
    let died = || stage.log.all_records().iter().filter(|one| one.event_type == COMMAND_DEAD).count() == dead;
    stage.world.run_until(died, STEPS).unwrap();
    all(stage)
}

#[test]
fn what_was_no_command_when_it_died_stays_none_whatever_is_read_in_it_today() {
    let stage = Stage::new(10);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(1);
    // A whole envelope, but not in a bundle: nobody knows as what it was sent, and to whom.
    let strange = stage.envelope(&Command::Open { account, balance: 7 }).encode().unwrap();
    stage.queue.push(Partition::from_index(1), &strange);
    let letter = letters_after(&stage, 1).remove(0);
    let Content::Command(_, data) = &letter.content else { panic!("a command: {letter:?}") };
    let raw = data.raw.as_deref().unwrap();
    assert!(data.command.is_none() && serde_json::from_str::<Envelope>(raw).is_ok(), "{data:?}");
    assert!(matches!(retry(&stage, letter.id), Err(Unresolved::NotRetryable(_))));
    let away = envelope(discard(&stage, letter.id, "sent again"));
    put(&stage, &away);
    assert_eq!(decided(&stage, &away), Verdict::Applied);
}

#[test]
fn a_discard_that_an_older_release_could_not_read_is_a_letter_that_can_only_be_discarded() {
    let stage = Stage::new(11);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(1);
    opened(&stage, account);
    dies(&stage, &Command::Refund { account, amount: 5 });
    let letter = all(&stage).remove(0).id;
    // An older worker reads an envelope without that field.
    let away = Envelope { discards: None, ..envelope(discard(&stage, letter, "paid by hand")) };
    put(&stage, &away);
    assert!(matches!(decided(&stage, &away), Verdict::Dead { .. }));
    let letters = all(&stage);
    let [first, died] = letters.as_slice() else { panic!("two: {letters:?}") };
    assert_eq!((first.state, died.state), (LetterState::Discarded, LetterState::Open));
    assert!(matches!(first.outcome.as_ref().unwrap().verdict, Verdict::Dead { .. }));
    assert_eq!(died.retry_of(), Some(letter));
    assert_eq!(retry(&stage, letter).unwrap_err(), Unresolved::AlreadyDiscarded);
    assert!(matches!(retry(&stage, died.id), Err(Unresolved::NotRetryable(_))));
    let again = envelope(discard(&stage, died.id, "by a newer worker"));
    put(&stage, &again);
    assert_eq!(decided(&stage, &again), Verdict::Applied);
    assert_eq!(states(&stage), [LetterState::Discarded; 2]);
}

/// Two dead letters of one message, which came twice, from a release that did not understand it yet.
fn kept_twice(stage: &Stage, account: Uuid) -> (Letter, Letter) {
    let payload = format!("open {account} 7");
    let letters = [1, 2].map(|message| {
        let fingerprint = Fingerprint::of(payload.as_bytes());
        let position = ForeignPosition { created_at: 9, message, fingerprint };
        let (subject, payload) = ("accounts".to_owned(), payload.as_bytes().into());
        let message = ForeignMessage { message, subject, payload };
        DeadLetter::Foreign { position, message, reason: "not understood".to_owned() }
    });
    let kept = stage.dead_letters.clone();
    ask(stage, async move { kept.keep(letters.into()).await }).unwrap();
    let letters = all(stage);
    let [one, other] = letters.as_slice() else { panic!("two: {letters:?}") };
    (one.clone(), other.clone())
}

#[test]
fn whoever_discards_a_message_that_is_understood_discards_its_copies_and_nobody_is_told_that_they_were_applied()
 {
    let stage = Stage::new(12);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(1);
    let (one, copy) = kept_twice(&stage, account);
    let import = envelope(retry(&stage, copy.id));
    let away = envelope(discard(&stage, one.id, "not ours"));
    assert_eq!(away.command_id, import.command_id);
    put(&stage, &away);
    assert_eq!(decided(&stage, &away), Verdict::Applied);
    assert_eq!(states(&stage), [LetterState::Discarded; 2]);
    assert_eq!(retry(&stage, copy.id).unwrap_err(), Unresolved::AlreadyDiscarded);
    let letters = stage.letters();
    let record = ask(&stage, async move {
        let copy = letters.get(copy.id).await?.unwrap();
        letters.resolution(&copy).await
    });
    assert_eq!(record.unwrap().unwrap().discard().unwrap().unwrap().letter_id, one.id);
    assert!(stage.balances().is_empty());
}

#[test]
fn the_copies_of_a_message_that_was_imported_are_retried_with_it() {
    let stage = Stage::new(13);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(1);
    let (one, copy) = kept_twice(&stage, account);
    let import = envelope(retry(&stage, one.id));
    put(&stage, &import);
    assert_eq!(decided(&stage, &import), Verdict::Applied);
    assert_eq!(states(&stage), [LetterState::Retried; 2]);
    assert!(
        matches!(retry(&stage, copy.id), Ok(Resolve::Done(outcome)) if outcome.verdict == Verdict::Applied)
    );
    assert_eq!(discard(&stage, copy.id, "late").unwrap_err(), Unresolved::AlreadyRetried);
}

#[test]
fn what_was_discarded_before_anybody_understood_it_stays_discarded() {
    let stage = Stage::new(14);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(1);
    let (one, _) = kept_twice(&stage, account);
    // The release of that day did not know the command that it would be.
    let away = envelope(discard(&stage, one.id, "not ours"));
    let command_id = resolution_id(one.id);
    let away = Envelope { command_id, correlation_id: command_id, causation_id: command_id, ..away };
    put(&stage, &away);
    assert_eq!(decided(&stage, &away), Verdict::Applied);
    assert_eq!(states(&stage), [LetterState::Discarded, LetterState::Open], "its copy is another letter");
    assert_eq!(retry(&stage, one.id).unwrap_err(), Unresolved::AlreadyDiscarded);
    assert!(matches!(discard(&stage, one.id, "again"), Ok(Resolve::Done(_))));
}

#[test]
fn what_was_discarded_before_anybody_understood_it_is_not_imported_when_its_stream_is_read_again() {
    let stage = Stage::new(16);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let (account, other) = (stage.id_in(1), stage.id_in(2));
    stage.foreign.recreate(9);
    stage.foreign.publish("accounts", format!("open {account} 7").as_bytes());
    // The release of that day did not understand it.
    let place = ForeignPlace { created_at: 9, message: 1 };
    let (letter_id, partition) = (place.letter_id(), Partition::from_index(1));
    let command_id = resolution_id(letter_id);
    let discard = Discard { letter_id, partition, reason: "not ours".to_owned(), foreign: Some(place) };
    let command = serde_json::value::to_raw_value(&serde_json::json!({ "discards": letter_id })).unwrap();
    let away = Envelope {
        command_id,
        discards: Some(discard),
        command,
        ..stage.envelope(&Command::Open { account, balance: 0 })
    };
    put(&stage, &away);
    assert_eq!(decided(&stage, &away), Verdict::Applied);

    // The next one does, and reads from the beginning.
    stage.foreign.publish("accounts", format!("open {other} 8").as_bytes());
    let _importer = stage.importer("importer");
    stage.world.run_until(|| stage.imported() == 2, STEPS).unwrap();

    stage.world.run_until(|| stage.balances().contains_key(&other), STEPS).unwrap();
    assert_eq!(stage.queue.commands(partition).len(), 1, "the discard, and no import");
    assert!(!stage.balances().contains_key(&account));
}

#[test]
fn a_list_leaves_the_payloads_of_others_where_they_are() {
    let stage = Stage::new(15);
    let (one, _) = kept_twice(&stage, Uuid::nil());
    let payload = |letter: &Letter| match &letter.content {
        Content::Foreign(foreign) => foreign.message.payload.len(),
        Content::Command(..) | Content::Unreadable(..) => panic!("{letter:?}"),
    };
    assert_eq!(payload(&one), 0);
    let letters = stage.letters();
    let found = ask(&stage, async move { letters.get(one.id).await }).unwrap().unwrap();
    assert_eq!(payload(&found), "open ".len() + 36 + " 7".len());
}

#[test]
fn more_letters_of_an_aggregate_than_are_read_at_once_keep_their_order() {
    let stage = Stage::new(16);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(1);
    let unknown = |_| {
        let command = serde_json::value::RawValue::from_string("{\"nobody\":1}".to_owned()).unwrap();
        Envelope { command, ..stage.envelope(&Command::Open { account, balance: 1 }) }
    };
    let encoded: Vec<Vec<u8>> = (0..600).map(unknown).map(|one| one.encode().unwrap()).collect();
    for bundle in pack(Partition::from_index(1), encoded.iter().map(Vec::as_slice)) {
        stage.queue.push(bundle.partition, &bundle.payload);
    }
    let done = || stage.log.all_records().len() == 600;
    stage.world.run_until(done, STEPS).unwrap();
    let ids: Vec<Uuid> = stage.log.all_records().iter().map(|record| record.record_id).collect();
    let away = envelope(discard(&stage, ids[0], "void"));
    put(&stage, &away);
    decided(&stage, &away);
    // The second dies again, behind all others, and stands before them.
    let again = envelope(retry(&stage, ids[1]));
    put(&stage, &again);
    decided(&stage, &again);
    let reborn = stage.log.all_records().last().unwrap().record_id;
    assert_eq!(retry(&stage, ids[599]).unwrap_err(), Unresolved::Earlier(reborn));
    let away = envelope(discard(&stage, reborn, "void"));
    put(&stage, &away);
    decided(&stage, &away);
    assert_eq!(retry(&stage, ids[599]).unwrap_err(), Unresolved::Earlier(ids[2]));
}

#[test]
fn letters_are_listed_in_pages_by_state_and_by_target() {
    let stage = Stage::new(8);
    let _worker = stage.worker("worker", WorkerLimits::default());
    let account = stage.id_in(0);
    opened(&stage, account);
    for amount in 1..=5 {
        dies(&stage, &Command::Refund { account, amount });
    }
    stage.queue.push(Partition::from_index(1), b"garbage");
    let done = || stage.log.all_records().iter().filter(|one| one.event_type == COMMAND_DEAD).count() == 6;
    stage.world.run_until(done, STEPS).unwrap();
    let first = all(&stage).remove(0);
    let again = envelope(retry(&stage, first.id));
    put(&stage, &again);
    decided(&stage, &again);
    let list = |filter: Filter, after: Option<Place>, limit: usize| {
        let letters = stage.letters();
        ask(&stage, async move { letters.list(&filter, after, limit).await }).unwrap()
    };
    let open = Filter { state: Some(LetterState::Open), target: None };
    let (page, more) = list(open.clone(), None, 3);
    assert!(more && page.len() == 3 && page.iter().all(|letter| letter.state == LetterState::Open));
    let (rest, more) = list(open, page.last().map(Letter::place), 3);
    assert_eq!((rest.len(), more), (2, false));
    let of_account = Filter { state: None, target: Some(ledger::account(account)) };
    assert_eq!(list(of_account.clone(), None, 5).0.len(), 5);
    assert!(!list(of_account, None, 5).1, "exactly as many as there are");
    let nobody = Filter { state: None, target: Some(AggregateRef::new("account", Uuid::nil())) };
    assert!(list(nobody, None, 5).0.is_empty());
    let retried = Filter { state: Some(LetterState::Retried), target: None };
    assert_eq!(list(retried, None, 5).0[0].id, first.id);
}

#[test]
fn an_unknown_letter_is_neither_retried_nor_discarded() {
    let stage = Stage::new(9);
    assert_eq!(retry(&stage, Uuid::from_u128(1)).unwrap_err(), Unresolved::Unknown);
    assert_eq!(discard(&stage, Uuid::from_u128(1), "?").unwrap_err(), Unresolved::Unknown);
}
