//! Everything at once: every process is killed and paused again and again, and so are NATS and PostgreSQL, which also drops
//! everybody, in an order that a seed decides; and when it is over, nothing that was accepted is lost, and no cent.
//!
//! `FINANCING_TEST_SEED` repeats an order. (It does not repeat the moments, which are the machine's.)

use std::time::Duration;

use eventsourcing::environment::{Environment as _, Timestamp};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use invoice_financing::runtime::environment::SystemEnvironment;
use services::{NatsServer, PostgresServer};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::cluster::{Cluster, Everything, Kind, Replica};
use crate::harness::proto::{CommandState, GetCommandRequest};
use crate::harness::{Audit, Dice, Platform};
use crate::ledger::Ledger;
use crate::market::{Manner, Market};
use crate::parts::settle;

const CLIENTS: usize = 3;
/// Each process is killed so often, and paused so often.
const KILLS: usize = 4;
const PAUSES: usize = 2;
/// NATS and PostgreSQL are killed so often, and paused so often; and PostgreSQL drops all connections so often.
const OUTAGES: usize = 2;
/// From the last harm to the last fact of all that it was done to.
const SETTLED: Duration = Duration::from_secs(30);
/// The longest that the harm may take.
const BOUND: Duration = Duration::from_mins(6);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_and_however_often_nothing_is_lost_and_no_cent() {
    // given
    let seed = Dice::seed();
    println!("FINANCING_TEST_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut cluster = Cluster::start_alone(|_| 2).await;
    let market = Market::open(&cluster, CLIENTS, Manner::Patient, dice.roll()).await;
    market.accepts(50).await;

    // when
    let began = SystemEnvironment.now();
    let harm = tokio::time::timeout(BOUND, harm(&mut cluster, &mut dice));
    let done = harm.await.unwrap_or_else(|_| panic!("the harm takes longer than {BOUND:?}"));
    let ended = SystemEnvironment.now();
    let closed = market.close().await;
    println!("harm for {:?}: {done}", between(began, ended));
    assert_eq!((done.kills, done.pauses), (12 * KILLS, 12 * PAUSES), "every process, so often");
    assert!(done.dropped > 0, "PostgreSQL had connections to drop");
    let recoveries = cluster.everything().postgres.log().matches("automatic recovery in progress").count();
    assert_eq!(recoveries, OUTAGES, "PostgreSQL recovered from each crash");

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
    assert!(closed.promised.len() > 200, "there was a market");
    tells_every_outcome(&platform, &audit).await;
    let ledger = Ledger::open(cluster.services()).await;
    println!("{} records, in the log and on the bus", ledger.agree().await);
    ledger.close().await;
    was_harmed(&cluster);
    for replica in cluster.everything().replicas {
        assert_eq!(replica.terminate().await, Some(0), "{} lives and stops in good order", replica.name);
    }
    is_verified(&cluster).await;
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_micros(to.as_micros().saturating_sub(from.as_micros()))
}

/// Every query for a command says what its last record says.
pub(crate) async fn tells_every_outcome(platform: &Platform, audit: &Audit) {
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
    let mut fenced = 0;
    for kind in Kind::OWNERS {
        let (rounds, refusals) = (cluster.rounds(kind), cluster.logged(kind, kind.refusal()));
        println!("{}: leases changed hands in {rounds} rounds, {refusals} refusals", kind.name());
        assert!(rounds > u64::try_from(KILLS).unwrap(), "owners were replaced");
        fenced += refusals;
    }
    assert!(fenced > 0, "somebody came back who had been replaced, and was refused");
}

/// `financing verify` finds nothing wrong in what they leave behind.
pub(crate) async fn is_verified(cluster: &Cluster) {
    let financing = cluster.services().program(env!("CARGO_BIN_EXE_financing"));
    let output = financing.flags(&["verify", "--settled"]).output().await;
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    println!("financing verify --settled\n{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
}

/// What was done.
struct Done {
    kills: usize,
    pauses: usize,
    dropped: u64,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kills, pauses, dropped } = self;
        write!(
            f,
            "{kills} kills and {pauses} pauses of processes; NATS and PostgreSQL killed {OUTAGES} times and paused {OUTAGES} \
             times each, {dropped} connections to PostgreSQL dropped"
        )
    }
}

async fn harm(cluster: &mut Cluster, dice: &mut Dice) -> Done {
    let Everything { replicas, services, postgres } = cluster.everything();
    let twins = replicas.chunk_by_mut(|one, other| one.kind == other.kind);
    let twins = twins.map(|twins| harm_twins(twins, Dice::new(dice.roll())));
    let (twins, (), dropped) = tokio::join!(
        join_all(twins),
        harm_nats(&mut services.nats, Dice::new(dice.roll())),
        harm_postgres(postgres, Dice::new(dice.roll()))
    );
    let (kills, pauses) = twins.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    Done { kills, pauses, dropped }
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

/// What is done to a server that processes stand on.
#[derive(Debug, Clone, Copy)]
enum Outage {
    Kill,
    Pause,
    Drop,
}

/// Each of them so often, in some order.
fn outages(kinds: &[Outage], dice: &mut Dice) -> Vec<Outage> {
    let mut outages = kinds.repeat(OUTAGES);
    dice.shuffle(&mut outages);
    outages
}

async fn harm_nats(nats: &mut NatsServer, mut dice: Dice) {
    for outage in outages(&[Outage::Kill, Outage::Pause], &mut dice) {
        sleep(dice.between(millis(4_000), millis(12_000))).await;
        match outage {
            Outage::Kill => {
                nats.kill();
                sleep(dice.between(millis(0), millis(1_500))).await;
                block_in_place(|| nats.start_again());
            }
            Outage::Pause => {
                nats.signal("STOP");
                sleep(dice.between(millis(50), millis(5_000))).await;
                nats.signal("CONT");
            }
            Outage::Drop => panic!("NATS drops nobody"),
        }
    }
}

/// How many connections it dropped. (One fault after the other: a paused server drops nobody.)
async fn harm_postgres(postgres: &mut PostgresServer, mut dice: Dice) -> u64 {
    let mut dropped = 0;
    for outage in outages(&[Outage::Kill, Outage::Pause, Outage::Drop], &mut dice) {
        sleep(dice.between(millis(3_000), millis(9_000))).await;
        match outage {
            Outage::Kill => {
                block_in_place(|| postgres.kill());
                sleep(dice.between(millis(0), millis(1_500))).await;
                block_in_place(|| postgres.start_again());
            }
            Outage::Pause => {
                block_in_place(|| postgres.freeze());
                sleep(dice.between(millis(50), millis(5_000))).await;
                block_in_place(|| postgres.thaw());
            }
            Outage::Drop => dropped += block_in_place(|| postgres.drop_connections()),
        }
    }
    dropped
}
