//! A record as a message of the bus, and back.
//!
//! The rule this module protects: what comes back is what was published, to the byte of its data; and a message whose
//! number is not its record's sequence is no message of this bus.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use eventsourcing::cloudevent::{CloudEvent, DATA_CONTENT_TYPE, SPEC_VERSION};
use eventsourcing::environment::Timestamp;
use eventsourcing::model::AggregateRef;
use eventsourcing::partition::{LogPosition, Partition, Sequence, Version};
use eventsourcing::ports::{PortError, PortResult};
use eventsourcing::record::Record;
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::time;

/// The context that records are events of.
const CONTEXT: &str = "financing";
/// What the type of every event begins with.
const TYPE: &str = "financing.v1.";
/// The media type of a CloudEvent in JSON.
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json";

/// A CloudEvent in its JSON format.
struct Json<'a>(&'a CloudEvent<'a>);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let time = time::format(event.time_micros).ok_or_else(|| S::Error::custom("a time out of range"))?;
        let data: &RawValue = serde_json::from_str(event.data).map_err(S::Error::custom)?;
        if data.get().len() != event.data.len() {
            return Err(S::Error::custom("data with space around it"));
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", SPEC_VERSION)?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("source", &event.source)?;
        map.serialize_entry("type", &event.event_type)?;
        map.serialize_entry("subject", &event.subject)?;
        map.serialize_entry("time", &time)?;
        map.serialize_entry("datacontenttype", DATA_CONTENT_TYPE)?;
        for (name, value) in &event.extensions {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("data", data)?;
        map.end()
    }
}

/// The record as JSON.
///
/// # Errors
///
/// [`PortError::Content`] where it cannot be an event.
pub(super) fn encode(record: &Record) -> PortResult<Vec<u8>> {
    let event = CloudEvent::of(record, CONTEXT);
    serde_json::to_vec(&Json(&event))
        .map_err(|error| PortError::Content(format!("record {} is no event: {error}", record.position())))
}

/// Where the record is published.
///
/// # Errors
///
/// [`PortError::Content`] where a name cannot be part of a subject.
pub(super) fn subject(record: &Record) -> PortResult<String> {
    let (kind, event) = (&record.aggregate.kind, &record.event_type);
    for name in [kind, event] {
        if !is_token(name) {
            let position = record.position();
            return Err(PortError::Content(format!("record {position}: {name:?} cannot be in a subject")));
        }
    }
    Ok(format!("financing.events.{}.{kind}.{event}", record.partition))
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A CloudEvent as it is read. What else it has is not looked at: later releases may say more.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    recordid: Uuid,
    #[serde(borrow)]
    schemaversion: Cow<'a, str>,
    commandid: Uuid,
    correlationid: Uuid,
    causationid: Uuid,
    actor: String,
    #[serde(borrow)]
    commandlast: Cow<'a, str>,
    #[serde(borrow, default)]
    aggregateversion: Option<Cow<'a, str>>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Reads the message with this number of this partition's stream.
///
/// # Errors
///
/// [`PortError::Broken`] where it is not that record.
pub(super) fn decode(partition: Partition, sequence: u64, payload: &Bytes) -> PortResult<Arc<Record>> {
    let position = LogPosition { partition, sequence: Sequence::new(sequence) };
    let broken = |what: &str| PortError::Broken(format!("message {position} of the bus: {what}"));
    let read: Read<'_> = serde_json::from_slice(payload).map_err(|error| broken(&error.to_string()))?;
    if read.specversion != SPEC_VERSION {
        return Err(broken("not a CloudEvent 1.0"));
    }
    if read.id != position.to_string() {
        return Err(broken(&format!("it is record {}", read.id)));
    }
    let wrong = |name: &str| broken(&format!("its {name} cannot be read"));
    let (kind, id) = read.subject.split_once('/').ok_or_else(|| wrong("subject"))?;
    let version = read.aggregateversion.map(|version| version.parse().map(Version::new)).transpose();
    let recorded_at = time::parse(&read.time).ok_or_else(|| wrong("time"))?;
    Ok(Arc::new(Record {
        partition,
        sequence: position.sequence,
        record_id: read.recordid,
        recorded_at: Timestamp::from_micros(recorded_at),
        aggregate: AggregateRef {
            kind: Cow::Owned(kind.to_owned()),
            id: id.parse().map_err(|_| wrong("subject"))?,
        },
        version: version.map_err(|_| wrong("aggregateversion"))?,
        event_type: Cow::Owned(read.event_type.strip_prefix(TYPE).ok_or_else(|| wrong("type"))?.to_owned()),
        schema: read.schemaversion.parse().map_err(|_| wrong("schemaversion"))?,
        data: read.data.get().to_owned(),
        command_id: read.commandid,
        correlation_id: read.correlationid,
        causation_id: read.causationid,
        actor: read.actor,
        traceparent: read.traceparent,
        last_of_command: read.commandlast.parse().map_err(|_| wrong("commandlast"))?,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            any::<String>().prop_map(|text| serde_json::Value::String(text).to_string()),
            Just(r#"{ "a" : 1.10, "a": 2e5,"b":["\u00fc", null ] }"#.to_owned()),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[ {}]", items.join(" , ")))
        })
    }

    prop_compose! {
        fn record()(
            place in (0_u16..1024, 1_u64..),
            ids in any::<[u128; 5]>(),
            micros in 0_u64..253_402_300_800_000_000,
            kind in "[a-z]{1,9}",
            event in "[A-Z][A-Za-z]{0,20}",
            version in prop::option::of(1_u64..),
            schema in any::<u16>(),
            data in data(),
            actor in any::<String>(),
            traceparent in prop::option::of(any::<String>()),
            last_of_command in any::<bool>(),
        ) -> Record {
            let ids = ids.map(Uuid::from_u128);
            Record {
                partition: Partition::from_index(place.0),
                sequence: Sequence::new(place.1),
                record_id: ids[0],
                recorded_at: Timestamp::from_micros(micros),
                aggregate: AggregateRef { kind: Cow::Owned(kind), id: ids[1] },
                version: version.map(Version::new),
                event_type: Cow::Owned(event),
                schema,
                data,
                command_id: ids[2],
                correlation_id: ids[3],
                causation_id: ids[4],
                actor,
                traceparent,
                last_of_command,
            }
        }
    }

    proptest! {
        #[test]
        fn what_comes_back_is_what_was_published(record in record()) {
            let payload = Bytes::from(encode(&record).unwrap());
            let read = decode(record.partition, record.sequence.get(), &payload).unwrap();
            prop_assert_eq!(&*read, &record);
            prop_assert!(subject(&record).unwrap().split('.').count() == 5);
        }
    }

    fn sample() -> Record {
        let aggregate = AggregateRef::new("thing", Uuid::from_u128(1));
        eventsourcing::testkit::contract::sample::fact(Partition::from_index(3), 7, &aggregate, 1)
    }

    #[test]
    fn a_message_with_another_number_is_not_of_this_bus() {
        let record = sample();
        let payload = Bytes::from(encode(&record).unwrap());
        let other = Partition::from_index(4);
        for (partition, sequence) in [(record.partition, 8), (other, 7)] {
            let refused = decode(partition, sequence, &payload).unwrap_err();
            assert!(
                matches!(&refused, PortError::Broken(what) if what.contains("it is record 3-7")),
                "{refused}"
            );
        }
        assert!(matches!(decode(other, 1, &Bytes::from_static(b"{}")), Err(PortError::Broken(_))));
    }

    #[test]
    fn what_cannot_be_an_event_is_refused_before_it_is_sent() {
        for data in ["", "{", "1 2", " 1"] {
            let record = Record { data: data.to_owned(), ..sample() };
            assert!(matches!(encode(&record), Err(PortError::Content(_))), "{data:?}");
        }
        let record = Record { recorded_at: Timestamp::from_micros(u64::MAX), ..sample() };
        assert!(matches!(encode(&record), Err(PortError::Content(_))));
        for name in ["", "a.b", "a b", "*", ">", "a\r\n", "ü"] {
            let record = Record { event_type: Cow::Owned(name.to_owned()), ..sample() };
            assert!(matches!(subject(&record), Err(PortError::Content(_))), "{name:?}");
        }
    }

    #[test]
    fn an_event_says_what_the_specification_asks_for() {
        let payload = encode(&sample()).unwrap();
        let event: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        for attribute in ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"]
        {
            assert!(event.get(attribute).is_some(), "{attribute}");
        }
        assert_eq!(event["id"], "3-7");
        assert_eq!(event["source"], "/financing");
    }
}
