//! Where a watch stands, and when it cannot go on.

use domain::ids::InvoiceId;
use domain::live::{LiveError, LiveRows as _, Resume, UnderWay};
use eventsourcing::partition::Sequence;
use eventsourcing::ports::PortError;
use uuid::Uuid;

use super::business::{ada, created, funds, on_sale};
use super::platform::Platform;
use super::{SMALL, Watcher, every_investor, now, partitions};
use crate::live::Bounds;

fn places(platform: &Platform) -> Vec<Sequence> {
    partitions().all().map(|partition| platform.models.checkpoint(partition)).collect()
}

/// A platform with so many investors, all projected, and what a watcher of them has been told.
fn with_investors(count: u128) -> (Platform, Resume) {
    let platform = Platform::new(1, 0);
    (0..count).for_each(|number| platform.publish(&created(ada(number))));
    platform.project_all();
    let mut watcher = Watcher::begin(&platform, every_investor, None);
    watcher.drain();
    assert_eq!(watcher.seen.len() as u128, count);
    (platform, watcher.resumes.pop().unwrap().0)
}

fn refusal(platform: &Platform, from: Resume, bounds: Bounds) -> LiveError {
    let mut feed = platform.feed(every_investor(), Some(from), bounds);
    match now(feed.begin()) {
        Ok(()) => now(feed.next()).expect_err("refused"),
        Err(error) => error,
    }
}

#[test]
fn a_snapshot_comes_in_pages_and_each_says_where_to_go_on() {
    let (platform, _) = with_investors(5);
    let mut watcher = Watcher::begin(&platform, every_investor, None);
    let first = watcher.step();
    assert_eq!(first.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [ada(0), ada(1)]);
    let under_way = first.resume.under_way.clone().unwrap();
    assert_eq!((under_way.since, under_way.after, under_way.left), (None, ada(1).as_uuid(), false));
    assert!(!first.resume.complete);
    let mut other = Watcher::begin(&platform, every_investor, Some(first.resume));
    other.drain();
    assert_eq!(other.seen.iter().map(|row| row.id).collect::<Vec<_>>(), [ada(2), ada(3), ada(4)]);
    let last = other.resumes.pop().unwrap().0;
    assert!(last.complete);
    assert_eq!((last.under_way, last.at), (None, places(&platform)));
}

#[test]
fn a_row_that_changes_while_it_is_read_comes_with_the_next_batch_and_the_snapshot_is_whole_then() {
    let (platform, _) = with_investors(1);
    let mut feed = platform.feed(every_investor(), None, SMALL);
    now(feed.begin()).unwrap();
    platform.publish(&funds(ada(0), 5));
    platform.project_all();
    let first = now(feed.next()).unwrap();
    assert_eq!((first.rows.len(), first.resume.complete), (0, false));
    let second = now(feed.next()).unwrap();
    assert_eq!((second.rows.len(), second.resume.complete, second.caught_up), (1, true, false));
    assert!(now(feed.next()).unwrap().caught_up);
}

#[test]
fn what_changes_elsewhere_is_no_news_but_moves_the_place_on() {
    let (platform, before) = with_investors(1);
    platform.publish(&on_sale(InvoiceId::new(Uuid::from_u128(7))));
    platform.project_all();
    let mut watcher = Watcher::begin(&platform, every_investor, Some(before.clone()));
    let delivery = watcher.step();
    assert!(delivery.rows.is_empty() && delivery.caught_up);
    assert_eq!(delivery.resume.at, places(&platform));
    assert_ne!(delivery.resume, before);
}

#[test]
fn who_comes_from_a_later_state_or_from_another_log_is_astray() {
    let (platform, resume) = with_investors(3);
    let (younger, _) = with_investors(2);
    assert_eq!(refusal(&younger, resume.clone(), SMALL), LiveError::Astray);
    let another_log = Resume { log: resume.log ^ 1, ..resume.clone() };
    assert_eq!(refusal(&platform, another_log, SMALL), LiveError::Astray);
    let other_partitions = Resume { at: resume.at[1..].to_vec(), ..resume.clone() };
    assert_eq!(refusal(&platform, other_partitions, SMALL), LiveError::Astray);
    let since = Some(resume.at.iter().map(|at| at.next()).collect());
    let backwards = UnderWay { since, after: Uuid::nil(), left: false };
    assert_eq!(refusal(&platform, Resume { under_way: Some(backwards), ..resume }, SMALL), LiveError::Astray);
}

#[test]
fn read_models_that_go_back_end_a_watch() {
    let (platform, _) = with_investors(1);
    let before = platform.models.save();
    platform.publish(&funds(ada(0), 5));
    platform.project_all();
    let mut feed = platform.feed(every_investor(), None, SMALL);
    now(feed.begin()).unwrap();
    platform.models.restore(before);
    assert_eq!(now(feed.next()), Err(LiveError::Astray));
    assert!(matches!(now(feed.next()), Err(LiveError::Unheard(PortError::Broken(_)))), "then it is over");
}

#[test]
fn a_bus_that_is_behind_is_waited_for_and_nothing_is_lost_over_it() {
    let (platform, resume) = with_investors(1);
    let partition = partitions().partition_of(ada(0).as_uuid());
    let before = platform.bus.save();
    platform.publish(&funds(ada(0), 5));
    platform.project_all();
    let after = platform.bus.save();

    // A change that the read models have and the bus has not yet; the same while a snapshot is read.
    platform.bus.restore(before.clone());
    let mut changes = platform.feed(every_investor(), Some(resume.clone()), SMALL);
    now(changes.begin()).unwrap();
    assert_eq!(now(changes.next()), Err(LiveError::NotYet));
    platform.bus.restore(after.clone());
    let mut snapshot = platform.feed(every_investor(), None, SMALL);
    now(snapshot.begin()).unwrap();
    platform.publish(&funds(ada(0), 1));
    let last = platform.bus.save();
    platform.project_all();
    platform.bus.restore(after);
    assert_eq!(now(snapshot.next()), Err(LiveError::NotYet));
    assert_eq!(now(changes.next()), Err(LiveError::NotYet));

    // Where the bus has lost what a token stands at, nobody can say yet whether it is another's.
    platform.bus.truncate(partition, Sequence::ZERO);
    let mut other = platform.feed(every_investor(), Some(resume), SMALL);
    assert_eq!(now(other.begin()), Err(LiveError::NotYet));

    platform.bus.restore(last);
    now(other.begin()).unwrap();
    for mut feed in [changes, other, snapshot] {
        let mut seen = Vec::new();
        loop {
            let delivery = now(feed.next()).unwrap();
            seen.extend(delivery.rows.iter().map(|row| row.available.minor()));
            if delivery.caught_up {
                break;
            }
        }
        assert_eq!(seen, [6]);
    }
}

#[test]
fn who_is_too_far_behind_begins_again() {
    let (platform, resume) = with_investors(4);
    (0..4).for_each(|number| platform.publish(&funds(ada(number), 5)));
    platform.project_all();
    let few = Bounds { keys: 3, ..SMALL };
    assert_eq!(refusal(&platform, resume.clone(), few), LiveError::TooFarBehind);
    let enough = Bounds { keys: 4, ..SMALL };
    let mut feed = platform.feed(every_investor(), Some(resume.clone()), enough);
    now(feed.begin()).unwrap();
    let delivery = now(feed.next()).unwrap();
    assert_eq!(delivery.rows.len(), 2);
    // In the middle of a batch as well: what it holds has to be found again.
    assert_eq!(refusal(&platform, delivery.resume, few), LiveError::TooFarBehind);
    // And many records of few rows, beyond what is read ahead in one go.
    (0..1500).for_each(|number| platform.publish(&funds(ada(number % 4), 5)));
    platform.project_all();
    let quick = Bounds { records: 400, ..SMALL };
    assert_eq!(refusal(&platform, resume, quick), LiveError::TooFarBehind);
}

#[test]
fn who_has_too_many_keys_to_hold_is_told_so_before_the_rest_is_read() {
    let (platform, resume) = with_investors(4);
    (4..44).for_each(|number| platform.publish(&created(ada(number))));
    platform.project_all();
    // The rest cannot be read: who wants all of it first has to wait.
    let partition = partitions().partition_of(ada(0).as_uuid());
    platform.bus.truncate(partition, Sequence::new(2));
    assert_eq!(refusal(&platform, resume.clone(), SMALL), LiveError::NotYet);
    let few = Bounds { keys: 3, ..SMALL };
    assert_eq!(refusal(&platform, resume, few), LiveError::TooFarBehind);
}
