//! How long a call may take.
//!
//! The rule this module protects: every call ends, and it ends with our own answer a moment before the client's
//! deadline. (What tonic's own server answers then is CANCELLED, which tells a client that it did that itself.)

use std::time::Duration;

use hyper::HeaderMap;
use tonic::metadata::MetadataMap;

/// The longest `wait` that a client may ask for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// What a call gets where nothing else is said.
pub(crate) const DEFAULT_ALLOWANCE: Duration = Duration::from_secs(30);

/// What a call gets beyond the `wait` that it asked for.
const BEYOND_WAIT: Duration = Duration::from_secs(10);

/// The most that is kept back of a client's deadline, for the answer's way home.
const LARGEST_MARGIN: Duration = Duration::from_millis(100);

/// How long one call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    call: Duration,
    wait: Duration,
}

impl Budget {
    /// What the client's `grpc-timeout` and the server's allowance leave.
    pub(crate) fn of(metadata: &MetadataMap, allowance: Duration) -> Self {
        let timeout = asked_for(metadata.as_ref()).unwrap_or(Duration::MAX);
        let margin = (timeout / 10).min(LARGEST_MARGIN);
        let call = timeout.saturating_sub(margin).min(allowance);
        Self { call, wait: timeout.saturating_sub(margin.saturating_mul(2)).min(allowance) }
    }

    /// When the call is answered with DEADLINE_EXCEEDED.
    pub(crate) const fn call(self) -> Duration {
        self.call
    }

    /// As long as was asked for, but not so long that no time is left to say that there is nothing yet.
    pub(crate) fn wait(self, asked: Duration) -> Duration {
        asked.min(self.wait)
    }
}

/// How long the client waits, where it says so.
pub(crate) fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(grpc_timeout)
}

/// What the server allows a call that asks for this `wait`. A malformed one is refused elsewhere, at once.
pub(crate) fn allowance(wait: Option<&prost_types::Duration>) -> Duration {
    let asked = wait.and_then(|wait| u64::try_from(wait.seconds).ok()).map_or(Duration::ZERO, |seconds| {
        // A second more, for the fraction that is not looked at here.
        Duration::from_secs(seconds.saturating_add(1))
    });
    asked.min(LONGEST_WAIT).saturating_add(BEYOND_WAIT).max(DEFAULT_ALLOWANCE)
}

/// Reads a `grpc-timeout`: at most eight digits and a unit. `None` for anything else, as if there were none.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => number.checked_mul(3600).map(Duration::from_secs),
        "M" => number.checked_mul(60).map(Duration::from_secs),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(timeout: &str, allowance: Duration) -> Budget {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", timeout.parse().expect("ASCII"));
        Budget::of(&metadata, allowance)
    }

    #[test]
    fn every_unit_of_the_specification_is_understood() {
        for (text, expected) in [
            ("2H", Duration::from_hours(2)),
            ("3M", Duration::from_mins(3)),
            ("4S", Duration::from_secs(4)),
            ("5m", Duration::from_millis(5)),
            ("6u", Duration::from_micros(6)),
            ("7n", Duration::from_nanos(7)),
            ("99999999H", Duration::from_hours(99_999_999)),
        ] {
            assert_eq!(grpc_timeout(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_timeout_is_none() {
        for text in ["", "S", "5", "-5S", "+5S", "5s", "123456789S", "5 S", "5µ", "µ"] {
            assert_eq!(grpc_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn we_answer_before_the_client_gives_up_and_waits_end_before_we_do() {
        let hour = Duration::from_hours(1);
        for timeout in ["1n", "9m", "50m", "1S", "99999999H"] {
            let budget = budget(timeout, hour);
            let client = grpc_timeout(timeout).expect("a timeout");
            assert!(budget.call() <= client, "{timeout}");
            assert!(budget.wait(Duration::MAX) <= budget.call(), "{timeout}");
        }
        assert_eq!(budget("1S", hour).call(), Duration::from_millis(900));
        assert_eq!(budget("1S", hour).wait(Duration::from_secs(5)), Duration::from_millis(800));
        assert_eq!(budget("1S", hour).wait(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_call_without_a_deadline_gets_the_servers() {
        let none = MetadataMap::new();
        assert_eq!(Budget::of(&none, allowance(None)).call(), Duration::from_secs(30));
        let wait = prost_types::Duration { seconds: 60, nanos: 0 };
        assert_eq!(Budget::of(&none, allowance(Some(&wait))).call(), Duration::from_secs(71));
        for seconds in [i64::MIN, -1, i64::MAX] {
            let absurd = prost_types::Duration { seconds, nanos: -1 };
            assert!(allowance(Some(&absurd)) <= LONGEST_WAIT + BEYOND_WAIT);
        }
    }
}
