//! An owner that is stopped in the middle of its work, and goes on when another owns what it had: it blocks nobody, and
//! changes nothing any more.

use std::time::Duration;

use eventsourcing::environment::Environment as _;
use invoice_financing::runtime::environment::SystemEnvironment;

use crate::cluster::{Cluster, Kind};
use crate::market::{Manner, Market};
use crate::ownership::{TAKEOVER, is_exact};

const CLIENTS: usize = 4;
/// Sold while one is paused: so many that nearly every partition has one.
const INVOICES: usize = 48;
/// Whether it is caught in the middle depends on the moment. So many moments are tried.
const ROUNDS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_paused_is_refused() {
    is_refused_after_a_pause(Kind::Worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_were_paused_are_refused() {
    is_refused_after_a_pause(Kind::Policies).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relayer_that_was_paused_is_refused() {
    is_refused_after_a_pause(Kind::Relayer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_that_was_paused_is_refused() {
    is_refused_after_a_pause(Kind::Projector).await;
}

async fn is_refused_after_a_pause(kind: Kind) {
    // given
    let mut cluster = Cluster::start(|other| if other == kind { 2 } else { 1 }).await;
    let market = Market::open(&cluster, CLIENTS, Manner::Patient, SystemEnvironment.random()).await;
    market.accepts(50).await;

    let mut refusals = 0;
    let mut round = 0;
    while refusals == 0 {
        round += 1;
        assert!(round <= ROUNDS, "{} was refused in none of {ROUNDS} rounds", kind.name());

        // when
        cluster.until_even(kind).await;
        let name = cluster.names(kind).remove(round % 2);
        let before = cluster.logged_by(&name, kind.refusal());
        let harmed = cluster.about_to_harm(kind, &name);
        cluster.replica(&name).pause().await;

        // then
        let (sold, after) = tokio::join!(market.sells(INVOICES), cluster.until_taken_over(&harmed));
        assert!(after.worked <= TAKEOVER, "{name} was replaced late: {after:?}");
        assert!(sold <= TAKEOVER, "outcomes came after {sold:?}");

        // when
        cluster.replica(&name).resume().await;

        // then
        cluster.until_even(kind).await;
        refusals = cluster.logged_by(&name, kind.refusal()) - before;
        println!(
            "{name} is paused: {after:?}, {INVOICES} invoices are sold after {sold:?}; it goes on and is refused \
             {refusals} times"
        );
    }
    is_exact(&cluster, &market.close().await).await;
}

/// Shorter than the term: nobody takes anything, and it goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_shorter_than_the_term_changes_no_owner() {
    // given
    let mut cluster = Cluster::start(|kind| if Kind::OWNERS.contains(&kind) { 2 } else { 1 }).await;
    for kind in Kind::OWNERS {
        cluster.until_even(kind).await;
    }
    let market = Market::open(&cluster, CLIENTS, Manner::Patient, SystemEnvironment.random()).await;
    market.accepts(50).await;
    let rounds = Kind::OWNERS.map(|kind| cluster.rounds(kind));

    // when
    for kind in Kind::OWNERS {
        let name = cluster.names(kind).remove(0);
        cluster.replica(&name).pause().await;
        // The harm itself.
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.replica(&name).resume().await;
        market.accepts(20).await;
    }

    // then
    assert_eq!(Kind::OWNERS.map(|kind| cluster.rounds(kind)), rounds, "nothing has changed hands");
    is_exact(&cluster, &market.close().await).await;
}
