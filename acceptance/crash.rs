//! `kill -9` in the middle of everything: nothing that was accepted is lost, and no cent with it.

use eventsourcing::environment::Environment as _;
use invoice_financing::runtime::environment::SystemEnvironment;

use crate::harness::{Audit, Dice, Home, Load, Platform, eur, in_time};

mod moments;

use moments::{Plan, killed_again_and_again};

const ROUNDS: usize = 6;
const CLIENTS: usize = 8;
/// Commands that are accepted in each round before the platform is killed.
const COMMANDS: usize = 150;

#[tokio::test]
async fn what_was_accepted_survives_being_killed_again_and_again() {
    // given
    let mut platform = Platform::alone().await;
    let load = Load::prepare(&platform, 12).await;

    // when
    let mut kills = Vec::new();
    for round in 0..ROUNDS {
        load.until(&platform, CLIENTS, load.accepted(COMMANDS + round)).await;
        let home = platform.kill().await;
        kills.push((load.promises(), SystemEnvironment.now().as_micros()));
        platform = Platform::start_in(home, &[]).await;
        // Before anything is sent again: a repeat would hide that something was lost.
        has_lost_nothing(&platform, &load).await;
        load.repeat(&platform).await;
    }

    // then
    let promised = load.promises();
    assert!(promised.len() >= ROUNDS * COMMANDS, "{} commands", promised.len());
    let audit = settle(&platform, &promised).await;
    for (promised, killed_at) in kills {
        let unfinished =
            promised.iter().filter(|command_id| audit.last_fact_at(command_id) > killed_at).count();
        assert!(unfinished > 0, "the platform was killed in the middle of something");
    }
}

/// Its moments are random in time. `FINANCING_TEST_SEED` repeats their order.
#[tokio::test]
async fn killed_at_fifty_random_moments_it_keeps_every_promise() {
    // given
    let seed = Dice::seed();
    println!("FINANCING_TEST_SEED={seed}");

    // when
    let course = killed_again_and_again(Plan { seed, kills: 50, compared: 10, bug: None }).await;

    // then
    let course = course.unwrap_or_else(|found| panic!("{found}"));
    println!("{course}");
    assert_eq!(course.kills, 50);
    assert!(course.accepted > 200, "there was a market");
    assert!(course.in_the_middle > 25, "it was killed in the middle of something");
}

/// The same, of platforms that have a bug: so what it says of one without it means something.
#[cfg(feature = "mutants")]
mod with_a_bug {
    use super::{Dice, Plan, killed_again_and_again};

    /// Each of these bugs shows after one kill in four, at the very least: all of these show nothing once in thirty million runs.
    const KILLS: usize = 60;

    /// What is found of a platform with this bug.
    async fn found(bug: &'static str) -> String {
        let seed = Dice::seed();
        println!("FINANCING_TEST_SEED={seed}");
        let plan = Plan { seed, kills: KILLS, compared: 4, bug: Some(bug) };
        let found = killed_again_and_again(plan).await.expect_err("the bug is found");
        println!("{bug}: {found}");
        found.to_string()
    }

    #[tokio::test]
    async fn commands_that_are_accepted_before_they_are_queued_are_lost() {
        let breach = found("accepted-before-queued").await;
        assert!(breach.starts_with("I2: "), "{breach}");
    }

    #[tokio::test]
    async fn sagas_stop_where_the_policies_checkpoint_moves_before_what_follows_is_queued() {
        let breach = found("checkpoint-first").await;
        // Or, of the files as a kill left them, what is found of them is the command that should be there.
        let missed = breach.starts_with("I2: ") && breach.contains("is neither queued nor done");
        assert!(breach.starts_with("I3: ") || missed, "{breach}");
    }

    #[tokio::test]
    async fn commands_are_skipped_where_the_queue_position_is_not_in_the_transaction() {
        let breach = found("position-outside-the-transaction").await;
        // A client's command that is gone, or one of the saga's.
        assert!(breach.starts_with("I2: ") || breach.starts_with("I3: "), "{breach}");
    }
}

/// Every command that was accepted has an outcome, or gets one without anybody asking for it again.
pub(crate) async fn has_lost_nothing(platform: &Platform, load: &Load) {
    let promised = load.promises();
    let mut audit = Audit::begin(platform).await;
    audit.until(|audit| audit.has_outcomes(&promised) && audit.every_bid_is_answered()).await;
}

/// Every command has its outcome, every saga comes to its end, the money adds up.
pub(crate) async fn settle(platform: &Platform, promised: &[String]) -> Audit {
    let mut audit = Audit::begin(platform).await;
    audit.until(|audit| audit.has_outcomes(promised) && audit.every_bid_is_answered()).await;
    let mut last = Vec::new();
    for (number, invoice_id) in audit.financed.keys().enumerate() {
        let decided = match number % 2 {
            0 => platform.approve(invoice_id).await,
            _ => platform.reverse(invoice_id).await,
        };
        last.push(decided.expect("a financed invoice can be approved or reversed").command_id);
    }
    audit.until(|audit| audit.has_outcomes(&last) && audit.no_bid_is_open()).await;
    assert!(audit.winners() > 0 && audit.winners() < audit.bids(), "some bids won, some lost");
    audit.adds_up(platform).await;
    audit
}

#[tokio::test]
async fn a_second_platform_on_the_same_directory_is_refused() {
    // given
    let platform = Platform::start_in(Home::embedded(), &[]).await;

    // when
    let (code, message) = Platform::refusal_to_start(&platform.data(), &[]).await;

    // then
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {message}");
    let directory = platform.data().display().to_string();
    assert!(message.contains(&directory), "names the directory: {message}");
    assert!(message.contains("process"), "says that another process has it: {message}");
    platform.issuer().await;
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    // given
    let platform = Platform::start_in(Home::embedded(), &[]).await;
    let issuer_id = platform.issuer().await;
    let home = platform.kill().await;

    // when
    let (code, message) = Platform::refusal_to_start(&home.data(), &["--partitions", "8"]).await;

    // then
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {message}");
    assert!(message.contains("16") && message.contains('8'), "names both numbers: {message}");
    assert!(message.contains("partition"), "{message}");
    let platform = Platform::start_in(home, &[]).await;
    platform.sell(&issuer_id, eur(1, 0)).await;
}

#[tokio::test]
async fn a_platform_with_one_partition_does_the_same() {
    // given
    let platform = Platform::start_in(Home::new(), &["--partitions", "1"]).await;
    let load = Load::prepare(&platform, 3).await;

    // when
    load.until(&platform, 2, in_time("the load", load.accepted(30))).await;
    load.repeat(&platform).await;

    // then
    settle(&platform, &load.promises()).await;
}
