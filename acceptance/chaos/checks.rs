//! What must hold when the harm is over.
//!
//! The rule this module protects: **a promise was kept or was not**: of everything that was accepted the platform says what became of
//! it, nothing is still on its way, and the money adds up.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eventsourcing::environment::{Environment as _, Timestamp};
use futures_util::{StreamExt as _, stream};
use invoice_financing::runtime::environment::SystemEnvironment;
use tokio::time::{Instant, timeout};

use crate::ground::Ground;
use crate::harness::proto::{CommandState, ListStuckRequest, WaitCommandRequest};
use crate::harness::{Audit, Platform, wait};
use crate::plan::Component;

/// From the last fault to the last step of every saga.
pub(crate) const SETTLED: Duration = Duration::from_secs(30);
/// How long it may take until all facts were read: so long, and so many of what was promised in a second.
const READING: Duration = Duration::from_mins(1);
const READ_A_SECOND: u64 = 100;
/// How often it is asked whether something is stuck.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// Questions at the same time.
const AT_ONCE: usize = 32;

/// Waits until no step of any saga is under way; how long after the last fault that was.
pub(crate) async fn nothing_is_stuck(platform: &Platform, last_fault: Instant) -> Duration {
    let mut looks = tokio::time::interval(BETWEEN_LOOKS);
    loop {
        looks.tick().await;
        let request = ListStuckRequest {
            older_than: Some(prost_types::Duration { seconds: 0, nanos: 0 }),
            ..ListStuckRequest::default()
        };
        let steps = platform.queries().list_stuck(request).await.map(|answer| answer.into_inner().steps);
        let after = last_fault.elapsed();
        match steps {
            Ok(steps) if steps.is_empty() => return after,
            Ok(steps) => assert!(
                after < SETTLED,
                "{} steps are stuck {after:?} after the last fault, the first of them {:?}",
                steps.len(),
                steps[0]
            ),
            Err(status) => assert!(after < SETTLED, "{after:?} after the last fault: {status:?}"),
        }
    }
}

/// Reads every fact until every promise has its outcome, every bid its answer, and what is not wanted any more is released. When the
/// last fact of what was promised was recorded.
pub(crate) async fn read_all(platform: &Platform, promised: &[String]) -> (Audit, Timestamp) {
    let mut audit = Audit::begin(platform).await;
    let kept = Cell::new(0);
    let all_kept = |audit: &Audit| {
        while promised.get(kept.get()).is_some_and(|id| audit.outcomes.contains_key(id)) {
            kept.set(kept.get() + 1);
        }
        kept.get() == promised.len() && audit.every_bid_is_answered() && audit.unsettled().is_empty()
    };
    let patience = READING + Duration::from_secs(u64::try_from(promised.len()).unwrap() / READ_A_SECOND);
    let read = timeout(patience, audit.until(all_kept)).await;
    if read.is_err() {
        let lost: Vec<_> = promised.iter().filter(|id| !audit.outcomes.contains_key(*id)).collect();
        panic!(
            "of {} accepted commands {} have no outcome: {lost:?}; bids without an answer: {:?}; reserved although decided: {:?}",
            promised.len(),
            lost.len(),
            audit.unanswered(),
            audit.unsettled()
        );
    }
    let last = promised.iter().map(|command_id| audit.last_fact_at(command_id)).max();
    (audit, Timestamp::from_micros(last.expect("something was accepted")))
}

/// Every invoice that waits for its issuer's word gets it, so that nothing stays reserved; then the money adds up, and the read models
/// say the same.
pub(crate) async fn the_money_adds_up(platform: &Platform, audit: &mut Audit) {
    let decide = |(number, invoice_id): (usize, String)| async move {
        let decided = match number % 2 {
            0 => platform.approve(&invoice_id).await,
            _ => platform.reverse(&invoice_id).await,
        };
        decided.expect("a financed invoice can be approved or reversed").command_id
    };
    let financed: Vec<String> = audit.financed.keys().cloned().collect();
    let last: Vec<String> =
        stream::iter(financed.into_iter().enumerate()).map(decide).buffer_unordered(AT_ONCE).collect().await;
    audit.until(|audit| audit.no_bid_is_open() && audit.has_outcomes(&last)).await;
    audit.adds_up(platform).await;
}

/// Every query service knows the one outcome of every command. How many have which.
pub(crate) async fn every_outcome_is_told(
    platform: &Platform,
    promised: &[String],
) -> BTreeMap<&'static str, usize> {
    let asked: BTreeSet<&String> = promised.iter().collect();
    let answers = stream::iter(asked).map(|command_id| {
        let request = WaitCommandRequest { command_id: command_id.clone(), wait: wait() };
        let mut queries = platform.queries();
        async move {
            let command = queries.wait_command(request).await.unwrap().into_inner().command.unwrap();
            match command.state() {
                CommandState::Applied => "applied",
                CommandState::Unchanged => "unchanged",
                CommandState::Refused => "refused",
                CommandState::Dead | CommandState::Pending | CommandState::Unspecified => {
                    panic!("{command:?}")
                }
            }
        }
    });
    let mut told = BTreeMap::new();
    let mut answers = answers.buffer_unordered(AT_ONCE);
    while let Some(state) = answers.next().await {
        *told.entry(state).or_default() += 1;
    }
    told
}

/// What an operator sees: nothing is stuck.
pub(crate) async fn an_operator_finds_nothing_stuck(ground: &Ground) {
    let queries = ground.address(Component::Queries, 1).await;
    let stuck = ground.financing().await.flags(&["stuck", "--older-than", "0s", "--query-addr", &queries]);
    let output = stuck.output().await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// `financing verify --settled` finds nothing wrong in what they leave behind; what it says.
pub(crate) async fn is_verified(ground: &Ground) -> String {
    let output = ground.financing().await.flags(&["verify", "--settled"]).output().await;
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

/// How long after `from` that was.
pub(crate) fn since(from: Timestamp, at: Timestamp) -> Duration {
    Duration::from_micros(at.as_micros().saturating_sub(from.as_micros()))
}

/// Now, by the clock that facts are recorded by.
pub(crate) fn now() -> Timestamp {
    SystemEnvironment.now()
}
