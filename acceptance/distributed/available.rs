//! Two of everything: three servers of NATS that each have every stream, PostgreSQL with a standby, two processes of each
//! component. Any one of them is lost while clients go on, which costs seconds, and no command. And a standby that was not
//! synchronous, and so is behind what the bus has: nothing is published under it, and an operator gets the platform to go on.

use std::time::Duration;

use eventsourcing::environment::Environment as _;
use invoice_financing::runtime::environment::SystemEnvironment;
use serde_json::Value;
use services::PostgresServer;
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::chaos::{is_verified, tells_every_outcome};
use crate::cluster::Cluster;
use crate::harness::proto::ListInvestorsRequest;
use crate::harness::{Dice, Home, Load, Services};
use crate::ledger::{Ledger, connect_raw, count, until};
use crate::market::{Manner, Market};
use crate::parts::{ALL, Parts, settle};
use crate::restored::{page, type_in};

const CLIENTS: usize = 4;
/// So many commands have to be accepted behind each loss.
const GO_ON: usize = 20;
/// The longest that clients may be held up by one loss: to choose who leads takes servers of NATS up to nine seconds, and whoever
/// waits looks again every two.
const HELD_UP: Duration = Duration::from_secs(30);

/// Every stream of a platform with sixteen partitions.
fn streams() -> Vec<String> {
    let events = (0..16).map(|partition| format!("EVENTS_{partition}"));
    ["COMMANDS", "REGISTERING", "DEAD"].into_iter().map(str::to_owned).chain(events).collect()
}

/// Asks JetStream's API, over the first server that answers.
async fn ask(services: &Services, subject: &str) -> Option<Value> {
    for server in services.servers() {
        let Ok(client) = async_nats::connect(server.url()).await else { continue };
        let asking = client.request(format!("$JS.API.{subject}"), "".into());
        if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(2), asking).await {
            return serde_json::from_slice(&answer.payload).ok();
        }
    }
    None
}

/// Who leads a stream, when all three servers have all of it.
async fn leads(services: &Services, stream: &str) -> Option<String> {
    let info = ask(services, &format!("STREAM.INFO.{stream}")).await?;
    let copies = info.pointer("/cluster/replicas")?.as_array()?;
    let current = copies.iter().filter(|copy| copy["current"] == true && copy["offline"] != true).count();
    assert_eq!(info["config"]["num_replicas"], 3, "{info}");
    (current == 2).then(|| info.pointer("/cluster/leader")?.as_str().map(str::to_owned)).flatten()
}

/// Waits until every server has all of every stream.
async fn until_whole(services: &Services) {
    for stream in streams() {
        let whole = async || leads(services, &stream).await.is_some();
        until(&format!("every server has all of {stream}"), whole).await;
    }
}

/// Waits until clients have gone on for a while, and says how long that took.
async fn goes_on(market: &Market, what: &str) {
    let lost = Instant::now();
    market.accepts(GO_ON).await;
    let held_up = lost.elapsed();
    println!("{what}: {GO_ON} more commands were accepted within {held_up:?}");
    assert!(held_up < HELD_UP, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_one_server_and_whoever_leads_a_stream_may_be_lost() {
    // given
    let (mut cluster, standby) = Cluster::start_highly_available(|_| 2).await;
    let seed = Dice::seed();
    println!("FINANCING_TEST_SEED={seed}");
    let market = Market::open(&cluster, CLIENTS, Manner::Patient, seed).await;
    market.accepts(GO_ON).await;
    until_whole(cluster.services()).await;

    // when: one server of NATS after the other
    for number in 0..3 {
        let services = cluster.everything().services;
        services.servers_mut().nth(number).expect("there are three").kill();
        goes_on(&market, &format!("server {} of NATS was killed", number + 1)).await;
        let services = cluster.everything().services;
        let server = services.servers_mut().nth(number).expect("there are three");
        block_in_place(|| server.start_again());
        until_whole(services).await;
    }
    // and whoever leads, of every stream and of the cluster
    let mut changed = 0;
    for stream in streams() {
        let before = leads(cluster.services(), &stream).await;
        let stepped = async || {
            let answer = ask(cluster.services(), &format!("STREAM.LEADER.STEPDOWN.{stream}")).await;
            answer.is_some_and(|answer| answer["success"] == true)
        };
        until(&format!("the leader of {stream} steps down"), stepped).await;
        let mut after = None;
        until(&format!("{stream} has a leader"), async || {
            after = leads(cluster.services(), &stream).await;
            after.is_some()
        })
        .await;
        changed += usize::from(before != after);
    }
    println!("{changed} of {} streams are led by another", streams().len());
    assert!(changed > 0);
    goes_on(&market, "every leader stepped down").await;
    // and PostgreSQL
    block_in_place(|| cluster.everything().postgres.fail_over_to(standby));
    goes_on(&market, "PostgreSQL was killed, and its standby promoted").await;

    // then
    let ended = SystemEnvironment.now();
    let closed = market.close().await;
    let platform = cluster.platform().await;
    // (The query service finds out with its next query that its connections have gone with the primary.)
    let answers = async || platform.queries().list_investors(ListInvestorsRequest::default()).await.is_ok();
    until("queries are answered", answers).await;
    let audit = settle(&platform, &closed.promised).await;
    let settled = SystemEnvironment.now().as_micros().saturating_sub(ended.as_micros());
    println!(
        "{} commands accepted, {} calls repeated; all of it settled {:?} later",
        closed.promised.len(),
        closed.repeats,
        Duration::from_micros(settled)
    );
    tells_every_outcome(&platform, &audit).await;
    let ledger = Ledger::open(cluster.services()).await;
    println!("{} records, in the log and on the bus", ledger.agree().await);
    ledger.close().await;
    for replica in cluster.everything().replicas {
        assert_eq!(replica.terminate().await, Some(0), "{} lives and stops in good order", replica.name);
    }
    is_verified(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_behind_the_bus_stops_the_relayer_and_the_platform_goes_on_when_an_operator_says_so()
 {
    // given: what is committed does not wait for the standby, which is away
    let mut postgres = PostgresServer::start();
    let mut parts = Parts::on(Home::over(postgres.database(), postgres.database()));
    parts.run(&ALL).await;
    let load = Load::prepare(&parts.platform().await, 8).await;
    let platform = parts.trade(&load, 30).await;
    settle(&platform, &load.promises()).await;
    let mut standby = postgres.standby(false);
    standby.stop();
    let platform = parts.trade(&load, 60).await;
    load.repeat(&platform).await;
    settle(&platform, &load.promises()).await;
    let ledger = Ledger::open(parts.services()).await;
    let before = ledger.agree().await;
    ledger.close().await;
    // What is left in the queue is the last message of each partition, which every purge spares.
    let nats = connect_raw(parts.services()).await;
    let purged = async || {
        let queue = nats.get_stream("COMMANDS").await.expect("there is a queue");
        queue.cached_info().state.messages <= 16
    };
    until("the queue is purged behind what has an outcome", purged).await;

    // when: the primary is gone, and the standby has its address, under everybody who runs
    block_in_place(|| postgres.fail_over_to(standby));

    // then
    parts.gives_up("relayer", &["of partition ", "the bus", "restored"]).await;
    let ledger = Ledger::open(parts.services()).await;
    assert_eq!(count(&ledger.bus().await), before, "nothing was published");
    let left = count(&ledger.log().await);
    println!("the bus has {before} records, the standby's log {left}");
    assert!(left < before);

    // and when: an operator does what docs/high-availability.md says
    for name in ["listener", "queries", "worker", "policies", "projector"] {
        // (A worker that has looked at the queue has halted: it was purged behind what the log knows.)
        let _code = parts.halt(name).await;
    }
    let folder = TempDir::new().unwrap();
    let commands = page("docs/high-availability.md", "When a failover lost something");
    println!("{}", type_in(folder.path(), parts.services(), &commands));
    parts.run(&ALL).await;

    // then: whoever repeats what was promised gets it
    let platform = parts.platform().await;
    load.begin_again(&platform).await;
    settle(&platform, &load.promises()).await;
    parts.trade(&load, 30).await;
    load.begin_again(&platform).await;
    settle(&platform, &load.promises()).await;
    println!("{} records, in the log and on the bus", ledger.agree().await);
    ledger.close().await;
    parts.stop(&ALL).await;
    let verified = parts.operate(&["verify", "--settled"]).await;
    let said = [&verified.stdout[..], &verified.stderr[..]].map(String::from_utf8_lossy).concat();
    println!("{said}");
    assert!(verified.status.success(), "{said}");
}
