//! Which part of the traces is kept.
//!
//! The rule this module protects: what somebody writes is what happens: a ratio is read digit by digit, and never through a
//! number that is only nearly the same.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// So many of a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(u32);

/// All of them.
const WHOLE: u32 = 1_000_000;

/// The digits behind the point.
const DIGITS: usize = 6;

impl Ratio {
    /// Whether the trace with this id is kept: by its last bits, which are random.
    pub(super) fn keeps(self, trace: Uuid) -> bool {
        let (_, low) = trace.as_u64_pair();
        // The two uppermost of them say which kind of UUID it is.
        (low << 2 >> 2) % u64::from(WHOLE) < u64::from(self.0)
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "expected a number from 0 to 1 with at most six digits behind the point".to_owned();
        let (units, rest) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(units) || !digits(rest) || units.len() > 1 || rest.len() > DIGITS {
            return Err(wrong());
        }
        let units: u32 = units.parse().map_err(|_| wrong())?;
        let millionths: u32 = format!("{rest:0<DIGITS$}").parse().map_err(|_| wrong())?;
        let all = units.checked_mul(WHOLE).and_then(|all| all.checked_add(millionths));
        all.filter(|all| *all <= WHOLE).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / WHOLE, self.0 % WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use eventsourcing::environment::Environment as _;

    use super::*;
    use crate::runtime::environment::SystemEnvironment;

    #[test]
    fn a_ratio_is_read_exactly() {
        for (text, millionths) in [
            ("1", 1_000_000),
            ("0", 0),
            ("1.0", 1_000_000),
            ("1.000000", 1_000_000),
            ("0.25", 250_000),
            ("0.000001", 1),
            ("0.1", 100_000),
            ("0.999999", 999_999),
        ] {
            assert_eq!(text.parse(), Ok(Ratio(millionths)), "{text}");
        }
        for wrong in
            ["", ".", "1.", ".5", "-0.5", "+1", "1.000001", "2", "0.0000001", "1e-3", "10%", "0,5", "NaN"]
        {
            assert!(wrong.parse::<Ratio>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn so_many_traces_are_kept() {
        let kept = |ratio: &str| {
            let ratio: Ratio = ratio.parse().unwrap();
            (0..4000).filter(|_| ratio.keeps(SystemEnvironment.uuid())).count()
        };
        assert_eq!((kept("0"), kept("1")), (0, 4000));
        assert!((800..1200).contains(&kept("0.25")));
    }
}
