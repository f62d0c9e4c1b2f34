//! What a run has measured.
//!
//! The rule this module protects: only what began within the window counts, and all of it: no latency is left out because it came
//! late, and what failed is counted, too.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that can be told apart from a longer one, in microseconds: ten minutes.
const LONGEST: u64 = 600_000_000;
/// How many digits of a latency are kept.
const DIGITS: u8 = 3;

/// A point on the way of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Point {
    /// The platform has answered.
    Accepted,
    /// The platform had too much to do, and has said so.
    Refused,
    /// A query sees what the command did.
    Projected,
    /// The same, counted from the answer.
    Behind,
    /// The last fact of a financing is on the bus.
    Relayed,
    /// A query sees the winning bid committed, and its excess was released.
    Settled,
}

impl Point {
    /// Its name, for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Projected => "projected",
            Self::Behind => "behind",
            Self::Relayed => "relayed",
            Self::Settled => "settled",
        }
    }
}

/// From when until when is measured, in microseconds of the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// The end of the warm-up.
    pub(super) from: u64,
    /// When nothing new is begun any more.
    pub(super) until: u64,
}

impl Window {
    fn has(self, moment: u64) -> bool {
        (self.from..self.until).contains(&moment)
    }
}

/// One point's latencies.
struct Latencies {
    histogram: Histogram<u64>,
    /// How often the point was reached within the window, whenever that began.
    reached: u64,
}

/// The latencies of one point, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Percentiles {
    pub(super) point: Point,
    /// How many were measured.
    pub(super) measured: u64,
    pub(super) p50_micros: u64,
    pub(super) p90_micros: u64,
    pub(super) p99_micros: u64,
    pub(super) p999_micros: u64,
    pub(super) max_micros: u64,
}

/// What was measured so far.
pub(super) struct Measured {
    window: Window,
    points: BTreeMap<Point, Latencies>,
    failures: BTreeMap<&'static str, u64>,
}

impl Measured {
    /// Nothing yet.
    pub(super) const fn new(window: Window) -> Self {
        Self { window, points: BTreeMap::new(), failures: BTreeMap::new() }
    }

    /// What began then has come to this point now. An error is a defect: the histogram's bounds are no bounds.
    pub(super) fn reached(
        &mut self,
        point: Point,
        began: u64,
        now: u64,
    ) -> Result<(), hdrhistogram::CreationError> {
        let latencies = match self.points.entry(point) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS)?;
                entry.insert(Latencies { histogram, reached: 0 })
            }
        };
        if self.window.has(began) {
            latencies.histogram.saturating_record(now.saturating_sub(began).max(1));
        }
        if self.window.has(now) {
            latencies.reached += 1;
        }
        Ok(())
    }

    /// A call failed.
    pub(super) fn failed(&mut self, why: &'static str) {
        *self.failures.entry(why).or_default() += 1;
    }

    /// How often a point was reached within the window.
    pub(super) fn count(&self, point: Point) -> u64 {
        self.points.get(&point).map_or(0, |latencies| latencies.reached)
    }

    /// What failed, and how often.
    pub(super) fn failures(&self) -> BTreeMap<&'static str, u64> {
        self.failures.clone()
    }

    /// Every point's percentiles, in the order of the way.
    pub(super) fn percentiles(&self) -> Vec<Percentiles> {
        let measured = self.points.iter().filter(|(_, latencies)| !latencies.histogram.is_empty());
        measured
            .map(|(point, Latencies { histogram, .. })| Percentiles {
                point: *point,
                measured: histogram.len(),
                p50_micros: histogram.value_at_quantile(0.5),
                p90_micros: histogram.value_at_quantile(0.9),
                p99_micros: histogram.value_at_quantile(0.99),
                p999_micros: histogram.value_at_quantile(0.999),
                max_micros: histogram.max(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::api::observation::code_name;

    const WINDOW: Window = Window { from: 1_000_000, until: 2_000_000 };

    #[test]
    fn percentiles_are_of_what_began_in_the_window_however_late_it_came() {
        let mut measured = Measured::new(WINDOW);
        measured.reached(Point::Accepted, 999_999, 1_500_000).unwrap();
        for number in 1..=1000 {
            measured.reached(Point::Accepted, 1_000_000, 1_000_000 + number * 100).unwrap();
        }
        measured.reached(Point::Accepted, 1_999_999, 11_999_999).unwrap();
        let [accepted] = measured.percentiles().try_into().unwrap();
        assert_eq!(accepted.measured, 1001, "the one of the warm-up is not measured, the late one is");
        assert!((50_000..=50_200).contains(&accepted.p50_micros), "{accepted:?}");
        assert!((98_900..=99_200).contains(&accepted.p99_micros), "{accepted:?}");
        assert!(accepted.max_micros >= 10_000_000, "{accepted:?}");
        assert_eq!(measured.count(Point::Accepted), 1001, "counted is what was reached in the window");
    }

    #[test]
    fn what_takes_longer_than_can_be_told_is_not_left_out() {
        let mut measured = Measured::new(WINDOW);
        measured.reached(Point::Settled, 1_500_000, u64::MAX).unwrap();
        assert!(measured.percentiles()[0].max_micros >= LONGEST);
    }

    #[test]
    fn failures_are_counted_by_name() {
        let mut measured = Measured::new(WINDOW);
        measured.failed(code_name(Code::Unavailable));
        measured.failed(code_name(Code::Unavailable));
        assert_eq!(measured.failures(), BTreeMap::from([("UNAVAILABLE", 2)]));
    }
}
