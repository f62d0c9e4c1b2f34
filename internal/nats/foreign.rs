//! Other contexts' events: the stream REGISTERING.
//!
//! The rule this module protects: what another context has published is read in its order, from a position that the reader
//! stores itself, whoever wrote to the stream and whatever.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use eventsourcing::environment::Doorbells;
use eventsourcing::partition::Partition;
use eventsourcing::ports::{ForeignEvents, ForeignMessage, PortError, PortResult};
use serde_json::Value;

use super::connect::Nats;
use super::event::CONTENT_TYPE;
use super::publish::{Outgoing, publish};
use super::queue::{as_stored, certain};
use super::streams::{REGISTERING, REGISTERING_SUBJECTS, created_at};
use super::tails::{InStream, Lanes, Tails};

/// There is one to own.
const LANE: Partition = Partition::from_index(0);

/// The one lane of REGISTERING.
pub(super) struct Registering;

impl Lanes for Registering {
    type Item = ForeignMessage;
    const GAPLESS: bool = false;

    fn stream(&self, _: Partition) -> String {
        REGISTERING.to_owned()
    }

    fn filter(&self, _: Partition) -> String {
        REGISTERING_SUBJECTS.to_owned()
    }

    fn item(&self, _: Partition, message: &InStream<'_>) -> PortResult<ForeignMessage> {
        let (subject, payload) = (message.subject.to_owned(), Arc::from(&**message.payload));
        Ok(ForeignMessage { message: message.sequence, subject, payload })
    }
}

/// Other contexts' events. A clone shares what was read, and is a reader of its own.
#[derive(Clone)]
pub struct NatsForeignEvents(Tails<Registering>);

impl NatsForeignEvents {
    /// Those of this connection.
    #[must_use]
    pub fn new(nats: &Nats) -> Self {
        Self(Tails::new(nats.clone(), Registering, true))
    }

    /// What rings when events arrive, while they are read.
    #[must_use]
    pub fn bells(&self) -> &Doorbells {
        self.0.bells()
    }
}

#[cfg(test)]
impl NatsForeignEvents {
    /// As if this process had published it.
    pub(super) fn is_told_of(&self, message: u64) {
        self.0.acknowledged(self.0.generation(), LANE, message);
    }
}

impl ForeignEvents for NatsForeignEvents {
    async fn created_at(&self) -> PortResult<u64> {
        let created_at = created_at(self.0.nats(), REGISTERING).await?;
        self.0.created(REGISTERING, created_at);
        Ok(created_at)
    }

    async fn message(&self, message: u64) -> PortResult<Option<ForeignMessage>> {
        let found = certain(self.0.nats(), REGISTERING, message).await?;
        found.map(|found| self.0.lanes().item(LANE, &as_stored(&found)?)).transpose()
    }

    async fn read(&self, after: u64, limit: usize) -> PortResult<Vec<ForeignMessage>> {
        self.0.read(&[(LANE, after)], limit).await
    }
}

impl Nats {
    /// Publishes events of the Registering context, CloudEvents in JSON under their subjects, in order, and waits until all
    /// are stored. An event that was published within the stream's duplicate window is not stored again. Answers with the
    /// number that each has.
    ///
    /// # Errors
    ///
    /// When an event has no id or a subject of another stream: then none is stored. When one is not stored: then any other may
    /// be, those behind it too, and whoever publishes all of them again may change their order.
    pub async fn publish_registered(&self, events: Vec<(String, Vec<u8>)>) -> PortResult<Vec<u64>> {
        let messages = events.into_iter().map(|(subject, payload)| registered(subject, payload));
        let messages: Vec<Outgoing> = messages.collect::<PortResult<_>>()?;
        publish(self, messages).await.into_iter().collect()
    }
}

fn registered(subject: String, payload: Vec<u8>) -> PortResult<Outgoing> {
    let content = |what: &str| PortError::Content(format!("{subject}: {what}"));
    if !subject.starts_with("registering.events.") {
        return Err(content("not a subject of the Registering context"));
    }
    let event: Value = serde_json::from_slice(&payload).map_err(|error| content(&error.to_string()))?;
    let id = event.get("id").and_then(Value::as_str).ok_or_else(|| content("an event without an id"))?;
    if id.is_empty() || id.chars().any(char::is_control) {
        return Err(content("an id that cannot be in a header"));
    }
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id);
    headers.insert("content-type", CONTENT_TYPE);
    Ok(Outgoing { subject, headers, payload: payload.into() })
}
