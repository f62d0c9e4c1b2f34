//! A message of the bus: a CloudEvent 1.0 in JSON, as a record.
//!
//! The rule this module protects: an event that says something else than the record it was made of is found out, in every
//! attribute.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::Record;

#[derive(Deserialize)]
pub(super) struct CloudEvent<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    recordid: Uuid,
    #[serde(borrow)]
    partition: Cow<'a, str>,
    #[serde(borrow)]
    sequence: Cow<'a, str>,
    #[serde(borrow)]
    schemaversion: Cow<'a, str>,
    commandid: Uuid,
    correlationid: Uuid,
    causationid: Uuid,
    #[serde(borrow)]
    actor: Cow<'a, str>,
    #[serde(borrow)]
    commandlast: Cow<'a, str>,
    #[serde(borrow, default)]
    aggregateversion: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl CloudEvent<'_> {
    /// The record that it says it is, under the number that the message has; or what is wrong with it.
    pub(super) fn record(&self, partition: u16, number: u64) -> Result<Record<'_>, String> {
        let place = format!("{partition}-{number}");
        let says = (self.id.as_ref(), self.source.as_ref(), self.specversion.as_ref());
        if says != (place.as_str(), "/financing", "1.0") {
            return Err(format!("it says that it is {says:?}"));
        }
        if self.partition != partition.to_string() || self.sequence != number.to_string() {
            return Err(format!("it says that it is {}-{}", self.partition, self.sequence));
        }
        let wrong = |attribute: &str| format!("its {attribute} cannot be read");
        let (aggregate_type, id) = self.subject.split_once('/').ok_or_else(|| wrong("subject"))?;
        let version = self.aggregateversion.as_ref().map(|version| version.parse()).transpose();
        Ok(Record {
            partition,
            sequence: number,
            record_id: self.recordid,
            recorded_at: micros(&self.time).ok_or_else(|| wrong("time"))?,
            aggregate_type,
            aggregate_id: id.parse().map_err(|_| wrong("subject"))?,
            version: version.map_err(|_| wrong("aggregateversion"))?,
            event_type: self.kind.strip_prefix("financing.v1.").ok_or_else(|| wrong("type"))?,
            schema: self.schemaversion.parse().map_err(|_| wrong("schemaversion"))?,
            payload: self.data.get(),
            command_id: self.commandid,
            correlation_id: self.correlationid,
            causation_id: self.causationid,
            actor: &self.actor,
            traceparent: self.traceparent.as_deref(),
            command_last: self.commandlast.parse().map_err(|_| wrong("commandlast"))?,
        })
    }
}

/// Microseconds since the Unix epoch, of a time in UTC such as `2026-11-21T12:57:33.395060Z`.
fn micros(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by: char| -> Option<[u64; 3]> {
        let mut parts = text.split(by).map(|part| part.parse().ok());
        let found = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(found)
    };
    let [year, month, day] = numbers(date, '-')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hours, minutes, seconds] = numbers(clock, ':')?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    // The days of the proleptic Gregorian calendar, of years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day.checked_sub(1)?;
    let days = days.checked_sub(719_468)?;
    let seconds = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
    Some(seconds * 1_000_000 + nanos / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_to_the_microsecond() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(micros("1970-01-01T00:00:00.000001Z"), Some(1));
        assert_eq!(micros("2026-11-21T12:57:33.395060045Z"), Some(1_795_265_853_395_060));
        assert_eq!(micros("2024-02-29T23:59:59.5Z"), Some(1_709_251_199_500_000));
        assert_eq!(micros("9999-12-31T23:59:59.999999Z"), Some(253_402_300_799_999_999));
        for wrong in ["", "yesterday", "1970-01-01", "1970-01-01T00:00:00", "1969-12-31T00:00:00Z"] {
            assert_eq!(micros(wrong), None, "{wrong:?}");
        }
    }
}
