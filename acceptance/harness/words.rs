//! Money, ids, conditions and errors in the words of the tests. An amount comes in an `Option`, as the messages have it.

#![expect(clippy::unnecessary_wraps, reason = "the messages hold their fields in an Option")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eventsourcing::environment::Environment as _;
use invoice_financing::runtime::environment::SystemEnvironment;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::proto::Money;

/// The longest that any condition is waited for: far more than it takes, so that only a defect reaches it.
const PATIENCE: Duration = Duration::from_mins(1);

/// A `wait` that is long enough.
pub(crate) fn wait() -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: 50, nanos: 0 })
}

/// So much money; `minor` in hundredths.
pub(crate) fn money(currency_code: &str, units: i64, hundredths: i32) -> Option<Money> {
    Some(Money { currency_code: currency_code.to_owned(), units, nanos: hundredths * 10_000_000 })
}

/// Euros and cents.
pub(crate) fn eur(units: i64, cents: i32) -> Option<Money> {
    money("EUR", units, cents)
}

/// An amount of euros in cents.
#[track_caller]
pub(crate) fn cents(money: Option<&Money>) -> i64 {
    let money = money.expect("an amount");
    assert_eq!((money.currency_code.as_str(), money.nanos % 10_000_000), ("EUR", 0), "{money:?}");
    money.units * 100 + i64::from(money.nanos / 10_000_000)
}

/// Money as the facts' data has it.
pub(crate) fn json(money: Option<Money>) -> serde_json::Value {
    let money = money.expect("an amount");
    serde_json::json!({ "currency_code": money.currency_code, "units": money.units, "nanos": money.nanos })
}

/// A UUID that nobody else has.
pub(crate) fn uuid() -> String {
    SystemEnvironment.uuid().to_string()
}

/// What a future comes to, unless it takes longer than anything should.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// What a refusal by the business says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Information {
    pub(crate) reason: String,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// What a refusal by the business says of itself.
#[track_caller]
pub(crate) fn information(status: &Status) -> Information {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let information = status.get_details_error_info().expect("a refusal carries its reason");
    assert_eq!(information.domain, "financing");
    Information { reason: information.reason, metadata: information.metadata.into_iter().collect() }
}

/// The reason of a refusal by the business.
#[track_caller]
pub(crate) fn reason(status: &Status) -> String {
    information(status).reason
}

/// The fields that a malformed request is refused for.
#[track_caller]
pub(crate) fn violated(status: &Status) -> BTreeSet<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let request = status.get_details_bad_request().expect("a malformed request is told its mistakes");
    for violation in &request.field_violations {
        assert!(!violation.description.is_empty(), "{}: says what is wrong", violation.field);
    }
    request.field_violations.into_iter().map(|violation| violation.field).collect()
}
