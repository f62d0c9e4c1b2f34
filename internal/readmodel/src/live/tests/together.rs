//! Many watches of one process at the same time: they share what was read, fall behind it, catch up with it, and are dropped in the
//! middle of whatever they do.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use domain::live::{Delivery, LiveRows as _, Resume};
use domain::views::BidView;
use eventsourcing::partition::Partition;
use eventsourcing::testkit::memory::MemoryBus;
use eventsourcing::testkit::world::Dice;
use proptest::prelude::*;

use super::business::Business;
use super::platform::{Platform, Shared};
use super::{SMALL, Watched, bids_of_one, every_bid, is_exact};
use crate::live::feed::Feed;

type Bids = Feed<Platform, MemoryBus, BidView>;

/// A step that a watch has begun.
type Step = Pin<Box<dyn Future<Output = (Bids, Delivery<BidView>)>>>;

/// One of many watches.
struct One {
    watched: fn() -> Watched<BidView>,
    step: Option<Step>,
    seen: Vec<BidView>,
    last: Option<Resume>,
    caught_up: bool,
}

impl One {
    fn new(watched: fn() -> Watched<BidView>) -> Self {
        Self { watched, step: None, seen: Vec::new(), last: None, caught_up: false }
    }

    /// Does something, until the next who wants to does.
    fn moves(&mut self, shared: &Shared) {
        let step = self.step.get_or_insert_with(|| {
            let (lookout, recent) = shared.clone();
            let mut feed = Feed::new(lookout, recent, (self.watched)(), self.last.clone(), SMALL);
            Box::pin(async move {
                feed.begin().await.unwrap();
                next(feed).await
            })
        });
        if let Poll::Ready((feed, delivery)) = step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            self.seen.extend(delivery.rows);
            self.caught_up = delivery.caught_up;
            self.last = Some(delivery.resume);
            self.step = Some(Box::pin(next(feed)));
        }
    }
}

async fn next(mut feed: Bids) -> (Bids, Delivery<BidView>) {
    let delivery = feed.next().await.unwrap();
    (feed, delivery)
}

fn watch_together(seed: u64, turns: usize) {
    let mut dice = Dice::new(seed);
    let platform = Platform::new(seed ^ 1, dice.below(40));
    let mut business = Business::begin(seed ^ 2);
    // From rings that hold next to nothing to rings that hold all there is.
    let shared = platform.shared(1 << dice.below(8));
    let mut watches: Vec<One> =
        (0..5).map(|number| One::new(if number % 2 == 0 { every_bid } else { bids_of_one })).collect();
    for _ in 0..turns {
        let one = dice.below(watches.len());
        match dice.below(16) {
            0..4 => platform.publish(&business.happens(&platform)),
            4 => {
                let partition = u16::try_from(dice.below(4)).unwrap();
                platform.project(Partition::from_index(partition), 1 + dice.below(4));
            }
            // Its client is gone, and comes back some time later.
            5 if dice.percent(40) => watches[one].step = None,
            // It is slow: others go on meanwhile, by more than a ring may hold.
            6 if dice.percent(20) => {
                (0..30).for_each(|_| platform.publish(&business.happens(&platform)));
                platform.project_all();
                let other = dice.below(watches.len());
                (0..40).for_each(|_| watches[other].moves(&shared));
            }
            _ => watches[one].moves(&shared),
        }
    }
    platform.project_all();
    // Whatever was looked at before the end may say that there was nothing.
    for _ in 0..2 {
        for watch in &mut watches {
            watch.caught_up = false;
        }
        let mut moves = 0;
        while watches.iter().any(|watch| !watch.caught_up) {
            watches.iter_mut().filter(|watch| !watch.caught_up).for_each(|watch| watch.moves(&shared));
            moves += 1;
            assert!(moves < 100_000, "nobody waits for ever");
        }
    }
    for watch in &watches {
        is_exact(&platform, &(watch.watched)(), &watch.seen);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_many_share_is_without_a_gap_or_a_repeat_for_each(seed: u64, turns in 0..600_usize) {
        watch_together(seed, turns);
    }
}
