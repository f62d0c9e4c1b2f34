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

/// Takes in every command of a message.
pub(super) fn take_in(audit: &mut Audit, partition: u16, message: u64, payload: &[u8]) {
    let unreadable = |index: usize, raw: &[u8]| {
        let mut name = format!("{partition}/{message}/{index}/").into_bytes();
        name.extend_from_slice(raw);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &name)
    };
    let Some(items) =
        serde_json::from_slice::<Vec<&RawValue>>(payload).ok().filter(|items| !items.is_empty())
    else {
        audit.queued(unreadable(0, payload), partition, message, 0);
        return;
    };
    for (index, item) in items.into_iter().enumerate() {
        let command_id = serde_json::from_str::<Envelope>(item.get())
            .map_or_else(|_| unreadable(index, item.get().as_bytes()), |envelope| envelope.command_id);
        audit.queued(command_id, partition, message, u32::try_from(index).unwrap_or(u32::MAX));
    }
}
