//! Spans of time, as people type them.
//!
//! The rule this module protects: a number without a unit is no span of time.

use std::time::Duration;

/// The longest that the platform lets anybody wait for an outcome.
pub(super) const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// Reads `500ms`, `10s`, `2m` or `1h`.
///
/// # Errors
///
/// When it is nothing of the kind.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no span of time: expected a number and its unit, as in 500ms, 10s or 2m");
    let at = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let (digits, unit) = text.split_at(at);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let span = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    };
    span.ok_or_else(wrong)
}

/// A span of time that the platform lets a client wait for an outcome.
///
/// # Errors
///
/// When it is none, nothing, or too long.
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    match span(text)? {
        Duration::ZERO => Err("not to wait is --no-wait".to_owned()),
        wait if wait > LONGEST_WAIT => Err("five minutes (5m) is the longest".to_owned()),
        wait => Ok(wait),
    }
}

/// The same on the wire.
pub(super) fn wire(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_its_unit() {
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(span("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(span("1h"), Ok(Duration::from_hours(1)));
        for wrong in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 s",
            "10S",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(span(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn nobody_waits_longer_than_the_platform_lets_them() {
        assert_eq!(wait("5m"), Ok(Duration::from_mins(5)));
        assert!(wait("301s").unwrap_err().contains("5m"));
        assert!(wait("0s").unwrap_err().contains("--no-wait"));
        assert_eq!(
            wire(Duration::from_millis(1500)),
            prost_types::Duration { seconds: 1, nanos: 500_000_000 }
        );
    }
}
