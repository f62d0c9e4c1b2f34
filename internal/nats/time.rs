//! Times as RFC 3339 has them.
//!
//! The rule this module protects: a time that was written is read back to the microsecond.

use prost_types::Timestamp;

const MICROS: u64 = 1_000_000;
/// The end of the year 9999: RFC 3339 has four digits for a year.
const END: u64 = 253_402_300_800 * MICROS;

/// Microseconds since the Unix epoch, written out; `None` after the year 9999.
pub(super) fn format(micros: u64) -> Option<String> {
    let seconds = i64::try_from(micros / MICROS).ok().filter(|_| micros < END)?;
    let nanos = i32::try_from(micros % MICROS * 1000).ok()?;
    Some(Timestamp { seconds, nanos }.to_string())
}

/// Microseconds since the Unix epoch; what is finer is cut off.
pub(super) fn parse(text: &str) -> Option<u64> {
    let Timestamp { seconds, nanos } = text.parse().ok()?;
    let seconds = u64::try_from(seconds).ok()?.checked_mul(MICROS)?;
    seconds.checked_add(u64::try_from(nanos).ok()? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        assert_eq!(parse("2026-11-21T12:57:33.395060045Z"), Some(1_795_265_853_395_060));
        for micros in [0, 1, 999_999, 1_000_000, 1_795_265_853_395_060, END - 1] {
            assert_eq!(parse(&format(micros).unwrap()), Some(micros));
        }
        assert_eq!(format(END), None);
        assert_eq!(parse("yesterday"), None);
    }
}
