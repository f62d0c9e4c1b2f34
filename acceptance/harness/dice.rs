//! Chance that can be repeated.

use std::time::Duration;

use eventsourcing::environment::Environment as _;
use invoice_financing::runtime::environment::SystemEnvironment;

/// Numbers that a seed decides (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed by chance, or the one that `FINANCING_TEST_SEED` says: it repeats an order.
    pub(crate) fn seed() -> u64 {
        let given = std::env::var("FINANCING_TEST_SEED").ok();
        given.map_or_else(|| SystemEnvironment.random(), |seed| seed.parse().expect("a number"))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(end).unwrap()).unwrap()
    }

    /// A time from the one to the other.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let micros = u64::try_from(most.saturating_sub(least).as_micros()).unwrap();
        least + Duration::from_micros(self.roll() % (micros + 1))
    }

    pub(crate) fn one_of<'a, T>(&mut self, many: &'a [T]) -> &'a T {
        &many[self.below(many.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, many: &mut [T]) {
        for end in (1..many.len()).rev() {
            many.swap(end, self.below(end + 1));
        }
    }
}
