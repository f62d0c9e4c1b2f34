//! A market that goes on while everything fails: a programme of faults, from a seed.
//!
//! # Layout
//!
//! - [`plan`]: which fault comes when, from a seed; pure
//! - [`proxy`]: a network between two processes that can be cut, slow, half open or silent
//! - [`player`], [`ground`]: the processes of the platform, the servers that they stand on, and a proxy on every link
//! - [`faults`], [`storm`]: doing what the plan says, and undoing it
//! - [`market`], [`registrar`]: the clients that keep going meanwhile, and remember what they were promised
//! - [`watchers`]: clients that watch all of it, over connections that break
//! - [`checks`]: what must hold afterwards
//! - [`settings`]: what is run, from the environment
//!
//! `scripts/chaos` runs it; `docs/chaos.md` says how.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how one says that something is wrong"
)]

#[expect(dead_code, unused_imports, reason = "each of the test targets needs another part of it")]
#[path = "../harness/mod.rs"]
mod harness;

#[expect(dead_code, reason = "each of the test targets needs another part of it")]
#[path = "../distributed/market.rs"]
mod market;

mod checks;
mod faults;
mod ground;
mod plan;
mod player;
mod proxy;
mod registrar;
mod settings;
mod storm;
mod watchers;

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use checks::{SETTLED, now, since};
use ground::Ground;
use harness::Dice;
use market::{Manner, Market};
use plan::{Component, Stage, plan};
use registrar::Registrar;
use settings::Settings;
use watchers::Watchers;

/// Clients that sell, bid and decide.
const CLIENTS: usize = 3;
/// Of each component.
const REPLICAS: usize = 2;
/// The market has come so far when the first fault comes.
const OPENED: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_market_goes_on_whatever_fails_and_nothing_that_was_accepted_is_lost() {
    let settings = Settings::from_environment();
    println!("{settings}");

    // given
    let stage = Stage { replicas: REPLICAS, nats_servers: settings.nats_servers };
    let plan = plan(settings.seed, settings.faults, &settings.kinds, stage);
    let logs = settings.logs();
    let ground = Arc::new(Ground::start(&settings, stage, logs.clone()).await);
    let platform = ground.platform().await;
    let mut dice = Dice::new(settings.seed);
    let listeners = ground.doors(Component::Listener);
    let market = Market::open_at(&platform, &listeners, CLIENTS, Manner::Patient, dice.roll()).await;
    let registrar = Registrar::open(&listeners, dice.roll());
    let watchers = Watchers::open(&ground.doors(Component::Queries), dice.roll());
    market.accepts(OPENED).await;

    // when
    let began = Instant::now();
    let harmed = faults::inflict(&ground, &plan).await;
    let (ended, ended_at) = (Instant::now(), now());
    ground.all_ready().await;
    println!("the last fault is over after {:?}; all are ready {:?} later", ended - began, ended.elapsed());
    let (closed, registered) = tokio::join!(market.close(), registrar.close());
    let promised = [closed.promised, registered].concat();
    println!("{} commands were accepted; {} calls were repeated", promised.len(), closed.repeats);

    // then
    let platform = ground.platform().await;
    let quiet = checks::nothing_is_stuck(&platform, ended).await;
    let (mut audit, last) = checks::read_all(&platform, &promised).await;
    let settled = since(ended_at, last);
    println!(
        "every saga settled {settled:?} after the last fault; nothing was stuck when asked after {quiet:?}"
    );
    assert!(settled <= SETTLED, "every saga comes to its end in time");
    checks::an_operator_finds_nothing_stuck(&ground).await;
    checks::the_money_adds_up(&platform, &mut audit).await;
    println!("{} bids, {} of them won; the money adds up", audit.bids(), audit.winners());
    let again = watchers.close(&audit).await;
    println!(
        "who watched has seen every fact once, and what everybody has; watches were begun again {again} times"
    );
    let told = checks::every_outcome_is_told(&platform, &promised).await;
    println!("each command has one outcome: {told:?}");
    assert!(promised.len() > OPENED + settings.faults, "there was a market");
    drop(platform);
    join_all(ground.players().map(async |player| player.lock().await.stop().await)).await;
    ground.keep_logs().await;
    let mut deaths = Vec::new();
    for player in ground.players() {
        deaths.extend_from_slice(player.lock().await.deaths());
    }
    println!("{}", checks::is_verified(&ground).await);
    assert!(deaths.is_empty(), "{} ended by themselves:\n{}", deaths.len(), deaths.join("\n"));
    let harmed: Vec<String> = harmed.iter().map(|(kind, times)| format!("{} {times}", kind.name())).collect();
    println!("seed {}, {} faults: {}", settings.seed, plan.len(), harmed.join(", "));
    println!("logs in {}", logs.display());
}
