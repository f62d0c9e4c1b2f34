//! The command queue is lost, or restored to an earlier state, or full: nobody goes on as if nothing had happened, and
//! nothing acts twice when somebody has said that it may.

use std::collections::BTreeMap;
use std::path::Path;

use eventsourcing::partition::PartitionCount;
use tonic::Code;
use uuid::Uuid;

use crate::harness::proto::SellInvoiceRequest;
use crate::harness::{Load, eur, uuid};
use crate::ledger::{Ledger, connect_raw, outcomes, until};
use crate::parts::{ALL, Parts, settle};

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What became of every command so far, and where that stands.
async fn decided(parts: &Parts) -> BTreeMap<Uuid, Uuid> {
    let log = Ledger::open(parts.services()).await.log().await;
    outcomes(&log).into_iter().map(|(command_id, record)| (command_id, record.record_id)).collect()
}

/// Has commands that are decided, and some that are only in the queue.
async fn with_commands_waiting(parts: &mut Parts, load: &Load) -> BTreeMap<Uuid, Uuid> {
    parts.trade(load, 60).await;
    parts.kill("worker").await;
    parts.trade(load, 20).await;
    let decided = decided(parts).await;
    let waiting = undecided(load, &decided);
    assert!(waiting > 0, "commands are accepted that only the queue has");
    println!("{} commands with an outcome, {waiting} accepted that only the queue has", decided.len());
    decided
}

fn undecided(load: &Load, decided: &BTreeMap<Uuid, Uuid>) -> usize {
    let promised = load.promises();
    promised.iter().filter(|command_id| !decided.contains_key(&command_id.parse().unwrap())).count()
}

/// The worker has halted in front of another queue. An operator accepts it, and the clients send again what they were
/// promised: what had an outcome keeps it, what had none acts once.
async fn goes_on_after_adoption(
    mut parts: Parts,
    load: &Load,
    before: &BTreeMap<Uuid, Uuid>,
    through_the_door: bool,
) {
    parts.gives_up("worker", &["partition ", "`financing queue adopt`"]).await;
    // It does not get better by itself.
    parts.begin("worker", &parts.program("worker"));
    parts.gives_up("worker", &["partition ", "`financing queue adopt`"]).await;
    // Through the door of a process that runs the policies it is refused.
    let admin = parts.process("policies").says("admin on ").await;
    let refused = parts.operate(&["queue", "adopt", "--admin-addr", &admin]).await;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("(POLICIES_RUN)"), "{refused:?}");
    parts.stop(&["policies"]).await;

    // when
    let said = if through_the_door { parts.adopt_through_the_door().await } else { parts.adopt().await };

    // then
    assert!(said.contains("partition 0: ") && said.contains("partition 15: "), "{said}");
    assert!(said.contains(": forgot message "), "says what was forgotten: {said}");
    assert!(said.contains("policies back from "), "says how far the policies go back: {said}");
    parts.run(&["worker", "policies"]).await;
    let platform = parts.platform().await;
    load.repeat(&platform).await;
    parts.trade(load, 20).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    let after = decided(&parts).await;
    for (command_id, record_id) in before {
        assert_eq!(after.get(command_id), Some(record_id), "{command_id} keeps its outcome");
    }
    let records = Ledger::open(parts.services()).await.agree().await;
    println!("{} commands, {records} records, on bus and log", load.promises().len());
    // It stays accepted.
    parts.stop(&ALL).await;
    parts.run(&ALL).await;
    parts.trade(load, 10).await;
}

#[tokio::test]
async fn a_queue_that_was_restored_to_an_earlier_state_is_worked_on_when_somebody_says_so() {
    // given
    let mut parts = Parts::start().await;
    let load = Load::prepare(&parts.platform().await, 12).await;
    parts.trade(&load, 60).await;
    parts.stop(&ALL).await;
    let backup = tempfile::TempDir::new().unwrap();
    let nats = &mut parts.services_mut().nats;
    nats.stop();
    copy(&nats.store(), backup.path());
    nats.start_again();
    parts.run(&ALL).await;
    let before = with_commands_waiting(&mut parts, &load).await;

    // when
    parts.stop(&["listener", "queries", "policies", "relayer", "projector"]).await;
    let nats = &mut parts.services_mut().nats;
    nats.stop();
    std::fs::remove_dir_all(nats.store()).unwrap();
    copy(backup.path(), &nats.store());
    nats.start_again();
    for name in ALL {
        parts.begin(name, &parts.program(name));
    }

    // then
    for name in ALL {
        parts.ready(name).await;
    }
    goes_on_after_adoption(parts, &load, &before, false).await;
}

#[tokio::test]
async fn a_queue_that_was_lost_is_made_anew_and_worked_on_when_somebody_says_so() {
    // given
    let mut parts = Parts::start().await;
    let load = Load::prepare(&parts.platform().await, 12).await;
    let before = with_commands_waiting(&mut parts, &load).await;

    // when
    connect_raw(parts.services()).await.delete_stream("COMMANDS").await.unwrap();
    parts.stop(&["listener", "queries", "policies", "relayer", "projector"]).await;
    parts.run(&ALL).await;

    // then
    goes_on_after_adoption(parts, &load, &before, true).await;
}

#[tokio::test]
async fn a_queue_that_is_lost_under_a_running_platform_is_no_reason_to_lose_what_has_an_outcome() {
    // given
    let mut parts = Parts::start().await;
    let load = Load::prepare(&parts.platform().await, 12).await;
    let platform = parts.trade(&load, 60).await;
    let nats = connect_raw(parts.services()).await;

    // when
    let harm = async {
        load.accepted(20).await;
        nats.delete_stream("COMMANDS").await.unwrap();
    };
    load.until(&platform, 8, harm).await;

    // then
    let before = decided(&parts).await;
    parts.stop(&["listener", "policies"]).await;
    parts.run(&["listener", "policies"]).await;
    goes_on_after_adoption(parts, &load, &before, true).await;
}

#[tokio::test]
async fn a_full_queue_refuses_commands_and_loses_none() {
    // given
    let mut parts = Parts::new().set("FINANCING_QUEUE_BYTES", 1 << 20).set("FINANCING_PARTITIONS", 2);
    parts.run(&ALL).await;
    let platform = parts.platform().await;
    let load = Load::prepare(&platform, 8).await;
    let issuer_id = platform.issuer().await;
    parts.stop(&["worker"]).await;

    // when
    let (mut accepted, mut refused) = (Vec::new(), None);
    while refused.is_none() {
        let sells = (0..64).map(|_| {
            let request = SellInvoiceRequest {
                issuer_id: issuer_id.clone(),
                asking_price: eur(1, 0),
                request_id: uuid(),
                wait: None,
            };
            let mut commands = platform.commands();
            async move { (request.clone(), commands.sell_invoice(request).await) }
        });
        for (request, answer) in futures_util::future::join_all(sells).await {
            match answer {
                Ok(answer) => accepted.push(answer.into_inner().command_id),
                Err(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                    refused = Some(request);
                }
            }
        }
    }

    // then
    println!("{} commands were accepted before the queue was full", accepted.len());
    assert!(accepted.len() > 500, "{} commands in a megabyte", accepted.len());
    parts.run(&["worker"]).await;
    let ledger = Ledger::of(parts.services(), PartitionCount::new(2).unwrap()).await;
    let has_outcomes = async || {
        let outcomes = outcomes(&ledger.log().await);
        accepted.iter().all(|command_id| outcomes.contains_key(&command_id.parse().unwrap()))
    };
    until("every accepted command has an outcome", has_outcomes).await;
    // There is room again, though these were few messages: the worker has purged what it has done.
    let nats = connect_raw(parts.services()).await;
    let has_room = async || nats.get_stream("COMMANDS").await.unwrap().cached_info().state.bytes < 1 << 17;
    until("there is room again", has_room).await;
    platform.commands().sell_invoice(refused.unwrap()).await.expect("what was refused is taken now");
    parts.trade(&load, 40).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
}
