//! A record as the world outside sees it: a CloudEvent 1.0 in its JSON format.
//!
//! The rule this module protects: whichever way a record leaves the platform, over the bus or over gRPC, it says the
//! same.

use std::collections::BTreeMap;

use crate::record::Record;

/// The media type of every event's data.
pub const DATA_CONTENT_TYPE: &str = "application/json";

/// The version of the CloudEvents specification.
pub const SPEC_VERSION: &str = "1.0";

/// A CloudEvent's attributes, borrowed from the record where they can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent<'a> {
    /// `<partition>-<sequence>`.
    pub id: String,
    /// `/<context>`.
    pub source: String,
    /// `<context>.v1.<Event>`.
    pub event_type: String,
    /// `<aggregate>/<id>`.
    pub subject: String,
    /// Microseconds since the Unix epoch.
    pub time_micros: u64,
    /// JSON.
    pub data: &'a str,
    /// The extension attributes.
    pub extensions: BTreeMap<&'static str, String>,
}

impl<'a> CloudEvent<'a> {
    /// The record as an event of this context.
    #[must_use]
    pub fn of(record: &'a Record, context: &str) -> Self {
        let mut extensions = BTreeMap::from([
            ("recordid", record.record_id.to_string()),
            ("partition", record.partition.to_string()),
            ("sequence", record.sequence.to_string()),
            ("schemaversion", record.schema.to_string()),
            ("commandid", record.command_id.to_string()),
            ("correlationid", record.correlation_id.to_string()),
            ("causationid", record.causation_id.to_string()),
            ("actor", record.actor.clone()),
            ("commandlast", record.last_of_command.to_string()),
        ]);
        if let Some(version) = record.version {
            extensions.insert("aggregateversion", version.to_string());
        }
        if let Some(traceparent) = &record.traceparent {
            extensions.insert("traceparent", traceparent.clone());
        }
        Self {
            id: record.position().to_string(),
            source: format!("/{context}"),
            event_type: format!("{context}.v1.{}", record.event_type),
            subject: record.aggregate.to_string(),
            time_micros: record.recorded_at.as_micros(),
            data: &record.data,
            extensions,
        }
    }
}
