//! Everything at once: every process is killed and paused again and again, NATS is killed, PostgreSQL drops everybody, in an
//! order that a seed decides; and when it is over, nothing that was accepted is lost, and no cent.
//!
//! `FINANCING_TEST_SEED` repeats an order. (It does not repeat the moments, which are the machine's.)

use std::time::Duration;

use eventsourcing::environment::{Environment as _, Timestamp};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use invoice_financing::runtime::environment::SystemEnvironment;
use services::{Database, NatsServer};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::cluster::{Cluster, Kind, Replica};
use crate::harness::proto::{CommandState, GetCommandRequest};
use crate::harness::{Audit, Platform, Services};
use crate::ledger::Ledger;
use crate::market::{Dice, Manner, Market};
use crate::parts::settle;

const CLIENTS: usize = 3;
/// Each process is killed so often, and paused so often.
const KILLS: usize = 10;
const PAUSES: usize = 5;
/// NATS is killed so often, and PostgreSQL drops all connections so often.
const OUTAGES: usize = 3;
/// From the last harm to the last fact of all that it was done to.
const SETTLED: Duration = Duration::from_secs(30);
/// The longest that the harm may take.
const BOUND: Duration = Duration::from_mins(6);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn seed() -> u64 {
    let given = std::env::var("FINANCING_TEST_SEED").ok();
    given.map_or_else(|| SystemEnvironment.random(), |seed| seed.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_and_however_often_nothing_is_lost_and_no_cent() {
    // given
    let seed = seed();
    println!("FINANCING_TEST_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut cluster = Cluster::start(|_| 2).await;
    let market = Market::open(&cluster, CLIENTS, Manner::Patient, dice.roll()).await;
    market.accepts(50).await;

    // when
    let began = SystemEnvironment.now();
    let harm = tokio::time::timeout(BOUND, harm(&mut cluster, &mut dice));
    let done = harm.await.unwrap_or_else(|_| panic!("the harm takes longer than {BOUND:?}"));
    let ended = SystemEnvironment.now();
    let closed = market.close().await;
    println!(
        "harm for {:?}: {} kills, {} pauses; NATS killed {} times, {} connections to PostgreSQL dropped",
        between(began, ended),
        done.kills,
        done.pauses,
        done.servers_killed,
        done.connections_dropped
    );
    assert_eq!((done.kills, done.pauses), (12 * KILLS, 12 * PAUSES), "every process, so often");

    // then
    let platform = cluster.platform().await;
    let audit = settle(&platform, &closed.promised).await;
    let audited = SystemEnvironment.now();
    let last = closed.promised.iter().map(|command_id| audit.last_fact_at(command_id)).max();
    let settled = between(ended, Timestamp::from_micros(last.expect("something was accepted")));
    println!(
        "{} commands accepted, {} calls repeated; settled after {settled:?}, all of it seen and the rest decided after {:?}",
        closed.promised.len(),
        closed.repeats,
        between(ended, audited)
    );
    assert!(settled <= SETTLED, "every saga comes to its end");
    assert!(closed.promised.len() > 500, "there was a market");
    tells_every_outcome(&platform, &audit).await;
    let ledger = Ledger::open(cluster.services()).await;
    println!("{} records, in the log and on the bus", ledger.agree().await);
    ledger.close().await;
    was_harmed(&cluster);
    for replica in cluster.everything().0 {
        assert_eq!(replica.terminate().await, Some(0), "{} lives and stops in good order", replica.name);
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_micros(to.as_micros().saturating_sub(from.as_micros()))
}

/// Every query for a command says what its last record says.
async fn tells_every_outcome(platform: &Platform, audit: &Audit) {
    let token = audit.token();
    let answers = stream::iter(&audit.outcomes).map(|(command_id, outcome)| {
        let request = GetCommandRequest { command_id: command_id.clone(), token: token.clone() };
        let mut queries = platform.queries();
        async move {
            let command = queries.get_command(request).await.unwrap().into_inner().command.unwrap();
            let expected = match outcome.as_str() {
                "CommandRefused" => CommandState::Refused,
                "CommandUnchanged" => CommandState::Unchanged,
                _ => CommandState::Applied,
            };
            assert_eq!(command.state(), expected, "{command_id}: {outcome}");
        }
    });
    let told = answers.buffer_unordered(32).count().await;
    println!("{told} commands have one outcome each");
}

/// What was done to the platform was felt.
fn was_harmed(cluster: &Cluster) {
    let takeovers: u64 = cluster.epochs().values().sum();
    println!("partitions were taken over {takeovers} times by workers");
    for kind in Kind::OWNERS {
        let (rounds, refusals) = (cluster.rounds(kind), cluster.logged(kind, kind.refusal()));
        println!("{}: leases changed hands in {rounds} rounds, {refusals} refusals", kind.name());
        assert!(rounds > u64::try_from(KILLS).unwrap(), "owners were replaced");
    }
}

/// What was done.
struct Done {
    kills: usize,
    pauses: usize,
    servers_killed: usize,
    connections_dropped: u64,
}

async fn harm(cluster: &mut Cluster, dice: &mut Dice) -> Done {
    let (replicas, services) = cluster.everything();
    let Services { nats, commands, queries } = services;
    let twins = replicas.chunk_by_mut(|one, other| one.kind == other.kind);
    let twins = twins.map(|twins| harm_twins(twins, Dice::new(dice.roll())));
    let (twins, servers_killed, connections_dropped) = tokio::join!(
        join_all(twins),
        kill_the_server(nats, Dice::new(dice.roll())),
        drop_connections([&*commands, &*queries], Dice::new(dice.roll()))
    );
    let (kills, pauses) = twins.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    Done { kills, pauses, servers_killed, connections_dropped }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill(usize),
    Pause(usize),
}

/// Harms the two of a kind one after the other, and sometimes the one while the other is paused.
async fn harm_twins(twins: &mut [Replica], mut dice: Dice) -> (usize, usize) {
    let of_one = |one| [[Fault::Kill(one)].repeat(KILLS), [Fault::Pause(one)].repeat(PAUSES)].concat();
    let mut faults: Vec<Fault> = (0..twins.len()).flat_map(of_one).collect();
    dice.shuffle(&mut faults);
    let (mut kills, mut pauses) = (0, 0);
    while let Some(fault) = faults.pop() {
        sleep(dice.between(millis(200), millis(2500))).await;
        match fault {
            Fault::Kill(one) => {
                kills += 1;
                kill(&mut twins[one], &mut dice).await;
            }
            Fault::Pause(one) => {
                pauses += 1;
                let other = 1 - one;
                let [first, second] = twins else { panic!("there are two of each") };
                let (paused, lives) = if one == 0 { (first, second) } else { (second, first) };
                let next_hits_it = matches!(faults.last(), Some(Fault::Kill(next)) if *next == other);
                if next_hits_it && dice.below(2) == 0 {
                    faults.pop();
                    kills += 1;
                    let mut others = Dice::new(dice.roll());
                    tokio::join!(pause(paused, &mut dice), kill(lives, &mut others));
                } else {
                    pause(paused, &mut dice).await;
                }
            }
        }
    }
    (kills, pauses)
}

async fn kill(replica: &mut Replica, dice: &mut Dice) {
    replica.kill().await;
    sleep(dice.between(millis(0), millis(300))).await;
    replica.begin();
    replica.ready().await;
}

async fn pause(replica: &mut Replica, dice: &mut Dice) {
    replica.pause().await;
    sleep(dice.between(millis(50), millis(5000))).await;
    replica.resume().await;
}

async fn kill_the_server(nats: &mut NatsServer, mut dice: Dice) -> usize {
    for _ in 0..OUTAGES {
        sleep(dice.between(millis(5_000), millis(25_000))).await;
        nats.kill();
        sleep(dice.between(millis(0), millis(1_500))).await;
        block_in_place(|| nats.start_again());
    }
    OUTAGES
}

async fn drop_connections(databases: [&Database; 2], mut dice: Dice) -> u64 {
    let mut dropped = 0;
    for _ in 0..OUTAGES {
        sleep(dice.between(millis(5_000), millis(25_000))).await;
        for database in databases {
            let answer = block_in_place(|| {
                database.psql(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
            });
            dropped += answer.trim().parse::<u64>().unwrap();
        }
    }
    dropped
}
