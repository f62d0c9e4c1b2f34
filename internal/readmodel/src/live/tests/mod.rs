//! Watches over a platform in memory, whose projection moves on between any two calls.

mod business;
mod places;
mod platform;
mod shared;
mod together;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use domain::live::{Delivery, LiveRows, Resume};
use domain::views::{BidView, InvestorView, InvoiceView};
use eventsourcing::partition::{Partition, PartitionCount};
use eventsourcing::ports::{Row, Table, Test, Value};
use eventsourcing::testkit::memory::MemoryBus;
use eventsourcing::testkit::world::Dice;
use proptest::prelude::*;
use uuid::Uuid;

use super::feed::Feed;
use super::{Bounds, Watched};
use crate::queries::{Fields, Read, bid, investor, invoice};
use crate::tables::{BIDS, INVESTORS, INVOICES};
use business::{Business, ada};
use platform::Platform;

fn partitions() -> PartitionCount {
    PartitionCount::new(4).unwrap()
}

/// What is in memory yields, and waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..100_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
    panic!("it waits")
}

/// A watcher that loses its connection now and then, and sometimes what it had written down of late.
struct Watcher<V> {
    watched: fn() -> Watched<V>,
    feed: Feed<Platform, MemoryBus, V>,
    /// What was delivered.
    seen: Vec<V>,
    /// Each with how much had been delivered by then.
    resumes: Vec<(Resume, usize)>,
}

const SMALL: Bounds = Bounds { page: 2, ..Bounds::USUAL };

impl<V: Hash + Send + Debug + PartialEq + Clone + 'static> Watcher<V> {
    fn begin(platform: &Platform, watched: fn() -> Watched<V>, from: Option<Resume>) -> Self {
        let mut feed = platform.feed(watched(), from, SMALL);
        now(feed.begin()).unwrap();
        Self { watched, feed, seen: Vec::new(), resumes: Vec::new() }
    }

    fn step(&mut self) -> Delivery<V> {
        let delivery = now(self.feed.next()).unwrap();
        self.seen.extend(delivery.rows.iter().cloned());
        self.resumes.push((delivery.resume.clone(), self.seen.len()));
        delivery
    }

    /// Goes on from somewhere it has been.
    fn reconnects(&mut self, platform: &Platform, dice: &mut Dice) {
        let back = dice.below(4).min(self.resumes.len());
        self.resumes.truncate(self.resumes.len() - back);
        let (from, length) = match self.resumes.last() {
            Some((resume, length)) => (Some(resume.clone()), *length),
            None => (None, 0),
        };
        self.seen.truncate(length);
        let (seen, resumes) = (std::mem::take(&mut self.seen), std::mem::take(&mut self.resumes));
        *self = Self { seen, resumes, ..Self::begin(platform, self.watched, from) };
    }

    fn drain(&mut self) {
        while !self.step().caught_up {}
    }
}

/// Of every row what it said is delivered in order, nothing twice, and at last what it says now.
fn is_exact<V: Debug + PartialEq + Clone>(platform: &Platform, watched: &Watched<V>, seen: &[V]) {
    let said = platform.said.lock().unwrap();
    let mut delivered = seen.to_vec();
    for ((table, key), states) in said.iter() {
        if *table != watched.table.name || !is_watched(watched, *key, states.last().unwrap()) {
            continue;
        }
        let states = states.iter().map(|values| Row { key: *key, values: values.clone() });
        let views = states.filter_map(|row| (watched.read)(&Fields::of(watched.table, &row)).unwrap());
        let mut views: VecDeque<V> = views.collect();
        let (of_row, others): (Vec<V>, Vec<V>) = delivered.into_iter().partition(|view| views.contains(view));
        delivered = others;
        assert_eq!(of_row.last(), views.back(), "{table} {key}: the last one is missing");
        for view in of_row {
            let at = views.iter().position(|state| *state == view);
            let at = at.unwrap_or_else(|| panic!("{table} {key}: {view:?} comes twice, or too late"));
            views.drain(..=at);
        }
    }
    assert!(delivered.is_empty(), "nobody ever said, or asked for, {delivered:?}");
}

fn is_watched<V>(watched: &Watched<V>, key: Uuid, values: &[Option<Value>]) -> bool {
    let columns = watched.table.columns;
    let holds = |(name, test): &(&'static str, Test)| {
        let value = columns.iter().position(|column| column.name == *name).and_then(|at| values[at].clone());
        match test {
            Test::Is(expected) => value.as_ref() == Some(expected),
            Test::Present => value.is_some(),
            Test::Absent => value.is_none(),
        }
    };
    (watched.ids.is_empty() || watched.ids.contains(&key)) && watched.conditions.iter().all(holds)
}

fn all<V>(table: Table, read: Read<V>) -> Watched<V> {
    Watched { table, conditions: Vec::new(), ids: Vec::new(), read }
}

fn every_bid() -> Watched<BidView> {
    Watched { conditions: vec![("investor_id", Test::Present)], ..all(BIDS, bid) }
}

fn bids_of_one() -> Watched<BidView> {
    Watched { conditions: vec![("investor_id", Test::Is(Value::Uuid(ada(1).as_uuid())))], ..all(BIDS, bid) }
}

fn every_investor() -> Watched<InvestorView> {
    all(INVESTORS, investor)
}

fn two_investors() -> Watched<InvestorView> {
    Watched { ids: vec![ada(2).as_uuid(), ada(0).as_uuid()], ..all(INVESTORS, investor) }
}

fn every_invoice() -> Watched<InvoiceView> {
    all(INVOICES, invoice)
}

/// Lets a watcher watch a business for so long.
fn watches<V: Hash + Send + Debug + PartialEq + Clone + 'static>(
    seed: u64,
    watched: fn() -> Watched<V>,
    turns: usize,
) {
    let mut dice = Dice::new(seed);
    let platform = Platform::new(seed ^ 1, dice.below(60));
    let mut business = Business::begin(seed ^ 2);
    for _ in 0..dice.below(60) {
        platform.publish(&business.happens(&platform));
    }
    let mut watcher = Watcher::begin(&platform, watched, None);
    for _ in 0..turns {
        match dice.below(8) {
            0..3 => platform.publish(&business.happens(&platform)),
            3 => {
                let partition = u16::try_from(dice.below(4)).unwrap();
                platform.project(Partition::from_index(partition), 1 + dice.below(4));
            }
            4 if dice.percent(50) => watcher.reconnects(&platform, &mut dice),
            _ => drop(watcher.step()),
        }
    }
    platform.project_all();
    watcher.drain();
    assert!(watcher.resumes.last().unwrap().0.complete, "the snapshot is whole");
    is_exact(&platform, &watched(), &watcher.seen);
    // And whoever goes on from there has nothing to be told.
    let last = watcher.resumes.pop().unwrap().0;
    let mut other = Watcher::begin(&platform, watched, Some(last.clone()));
    other.drain();
    assert_eq!((other.seen.len(), &other.resumes[0].0), (0, &last));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_bid_is_followed_without_a_gap_or_a_repeat(seed: u64, turns in 0..400_usize) {
        watches(seed, every_bid, turns);
    }

    #[test]
    fn the_bids_of_one_investor_are_too(seed: u64, turns in 0..400_usize) {
        watches(seed, bids_of_one, turns);
    }

    #[test]
    fn every_investor_is_too(seed: u64, turns in 0..400_usize) {
        watches(seed, every_investor, turns);
    }

    #[test]
    fn and_two_that_are_named(seed: u64, turns in 0..400_usize) {
        watches(seed, two_investors, turns);
    }

    #[test]
    fn every_invoice_is_too(seed: u64, turns in 0..400_usize) {
        watches(seed, every_invoice, turns);
    }
}
