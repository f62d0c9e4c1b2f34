//! The messages of the command queue: JSON arrays of commands in their envelopes.
//!
//! The rule this module protects: what cannot be read has an id too, so that it can be looked for in the log.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::Audit;

#[derive(Deserialize)]
#[expect(dead_code, reason = "read to see that it can be read")]
struct Target {
    #[serde(rename = "type")]
    kind: String,
    id: Uuid,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read to see that it can be read")]
struct Envelope {
    command_id: Uuid,
    correlation_id: Uuid,
    causation_id: Uuid,
    actor: String,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    reply_to: Option<String>,
    target: Target,
    command: Box<RawValue>,
}

/// The ids of all commands of a message: at least one.
fn ids(partition: u16, message: u64, payload: &[u8]) -> impl Iterator<Item = (u32, Uuid)> {
    let unreadable = move |index: u32, raw: &[u8]| {
        let mut name = format!("{partition}/{message}/{index}/").into_bytes();
        name.extend_from_slice(raw);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &name)
    };
    let items = serde_json::from_slice::<Vec<&RawValue>>(payload).unwrap_or_default();
    let nothing = items.is_empty().then(|| (0, unreadable(0, payload)));
    let read = move |(index, item): (u32, &RawValue)| {
        let envelope = serde_json::from_str::<Envelope>(item.get());
        let id = envelope
            .map_or_else(|_| unreadable(index, item.get().as_bytes()), |envelope| envelope.command_id);
        (index, id)
    };
    nothing.into_iter().chain((0..).zip(items).map(read))
}

/// The first command of a message.
pub(super) fn first(partition: u16, message: u64, payload: &[u8]) -> Uuid {
    ids(partition, message, payload).next().map_or(Uuid::nil(), |(_, id)| id)
}

/// Takes in every command of a message.
pub(super) fn take_in(audit: &mut Audit, partition: u16, message: u64, payload: &[u8]) {
    for (index, command_id) in ids(partition, message, payload) {
        audit.queued(command_id, partition, message, index);
    }
}
