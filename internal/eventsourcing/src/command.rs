//! A command on its way, and the bundles that carry several.
//!
//! The rule this module protects: what travels in the queue can be read one command at a time, so that one that
//! cannot be read dies alone.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::letters::Discard;
use crate::model::{AggregateRef, DecodeError, Model};
use crate::partition::{Partition, PartitionCount};

/// The most that one queue message may hold, in bytes: a quarter of a bus's usual `max_payload` of 1 MiB, because
/// a record repeats the command that it refuses.
pub const MAX_BUNDLE_BYTES: usize = 256 * 1024;

/// The most commands that one queue message may hold.
pub const MAX_BUNDLE_COMMANDS: usize = 256;

/// A command with what is known of where it comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// The command's id: what makes a repeat a repeat.
    pub command_id: Uuid,
    /// The first command of the whole saga.
    pub correlation_id: Uuid,
    /// The record that a policy reacted to; for a client's command the command itself.
    pub causation_id: Uuid,
    /// Who sends it.
    pub actor: String,
    /// The W3C trace context it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Where somebody waits for the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// The aggregate that it changes.
    pub target: AggregateRef,
    /// Where it discards a dead letter instead of changing the aggregate: which one, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discards: Option<Discard>,
    /// The command itself.
    pub command: Box<RawValue>,
}

impl Envelope {
    /// Wraps a command that a client sent: it is the beginning of its saga.
    ///
    /// # Errors
    ///
    /// When the command cannot be written as JSON: a defect.
    pub fn first<M: Model>(
        command_id: Uuid,
        actor: String,
        command: &M::Command,
    ) -> Result<Self, DecodeError> {
        Ok(Self {
            command_id,
            correlation_id: command_id,
            causation_id: command_id,
            actor,
            traceparent: None,
            reply_to: None,
            target: M::target(command),
            discards: None,
            command: serde_json::value::to_raw_value(command)
                .map_err(|error| DecodeError::malformed("command", error))?,
        })
    }

    /// The partition that the command belongs to.
    #[must_use]
    pub fn partition(&self, partitions: PartitionCount) -> Partition {
        match &self.discards {
            Some(discard) => discard.partition,
            None => partitions.partition_of(self.target.id),
        }
    }

    /// The bytes it takes in a bundle.
    ///
    /// # Errors
    ///
    /// When it cannot be written as JSON: a defect.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        serde_json::to_vec(self).map_err(|error| DecodeError::malformed("envelope", error))
    }
}

/// Whether the text is a trace context in the form that the W3C gave it, version 00.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return false };
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let named = |part: &str| part.bytes().any(|byte| byte != b'0');
    *version == "00"
        && (hex(trace, 32) && named(trace))
        && (hex(parent, 16) && named(parent))
        && hex(flags, 2)
}

/// One queue message: one or more commands of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The partition of all of them.
    pub partition: Partition,
    /// How many there are.
    pub commands: usize,
    /// A JSON array of envelopes.
    pub payload: Vec<u8>,
}

/// Packs encoded envelopes of one partition into as few bundles as the limits allow, in order.
#[must_use]
pub fn pack<'a>(partition: Partition, envelopes: impl IntoIterator<Item = &'a [u8]>) -> Vec<Bundle> {
    let mut bundles: Vec<Bundle> = Vec::new();
    for envelope in envelopes {
        let fits = |bundle: &&mut Bundle| {
            bundle.commands < MAX_BUNDLE_COMMANDS
                && bundle.payload.len().saturating_add(envelope.len()) < MAX_BUNDLE_BYTES
        };
        if let Some(bundle) = bundles.last_mut().filter(fits) {
            bundle.payload.push(b',');
            bundle.payload.extend_from_slice(envelope);
            bundle.commands += 1;
        } else {
            if let Some(full) = bundles.last_mut() {
                full.payload.push(b']');
            }
            let mut payload = Vec::with_capacity(envelope.len() + 2);
            payload.push(b'[');
            payload.extend_from_slice(envelope);
            bundles.push(Bundle { partition, commands: 1, payload });
        }
    }
    if let Some(last) = bundles.last_mut() {
        last.payload.push(b']');
    }
    bundles
}

/// One place in a queue message: an envelope, or what could not be read as one.
#[derive(Debug, Clone)]
pub enum Slot {
    /// A command.
    Envelope(Box<Envelope>),
    /// Not a command.
    Unreadable {
        /// Its id where it says that much; else one derived from where it stands and what it says, so that it dies once.
        command_id: Uuid,
        /// What could be read of it, where that is enough to say whose it is, and to send it again.
        envelope: Option<Box<Envelope>>,
        /// What is wrong.
        reason: String,
        /// What it says, shortened to [`crate::record::DeadData::MAX_RAW`].
        raw: String,
    },
}

impl Slot {
    /// The command's id.
    #[must_use]
    pub fn command_id(&self) -> Uuid {
        match self {
            Self::Envelope(envelope) => envelope.command_id,
            Self::Unreadable { command_id, .. } => *command_id,
        }
    }
}

/// What is read of an envelope that has not its shape: who it is, and what it was to do. The rest was for its way here.
#[derive(Deserialize)]
struct Remains {
    command_id: Uuid,
    correlation_id: Uuid,
    causation_id: Uuid,
    actor: String,
    target: AggregateRef,
    reply_to: Option<serde_json::Value>,
    discards: Option<serde::de::IgnoredAny>,
    command: Box<RawValue>,
}

impl Remains {
    /// The longest name that is believed, in bytes.
    const MAX_NAME: usize = 256;

    /// What can be read of it: enough to write down whose it was, and to send it again. `None` for anything less, which is known
    /// by its place alone, so that its sender may send it again under its id.
    fn of(item: &str) -> Option<Box<Envelope>> {
        let is_plain = |name: &str| {
            !name.is_empty() && name.len() <= Self::MAX_NAME && !name.chars().any(char::is_control)
        };
        let remains: Self = serde_json::from_str(item).ok()?;
        let is_believed = !remains.command_id.is_nil()
            && is_plain(&remains.actor)
            && is_plain(&remains.target.kind)
            && remains.discards.is_none();
        is_believed.then(|| {
            Box::new(Envelope {
                command_id: remains.command_id,
                correlation_id: remains.correlation_id,
                causation_id: remains.causation_id,
                actor: remains.actor,
                traceparent: None,
                reply_to: remains.reply_to.as_ref().and_then(|to| to.as_str()).map(ToOwned::to_owned),
                target: remains.target,
                discards: None,
                command: remains.command,
            })
        })
    }
}

/// The id of a command of which nothing can be read: of its place and all that it says.
fn id_of_place(partition: Partition, message: u64, index: usize, raw: &[u8]) -> Uuid {
    let mut name = format!("{partition}/{message}/{index}/").into_bytes();
    name.extend_from_slice(raw);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &name)
}

/// The ids under which a release may know the first command of a message: its own, where it could read it, and that of its place,
/// where it could not. Releases differ in what they can read, and a position may be an earlier one's.
pub(crate) fn ids_of_first(partition: Partition, message: u64, payload: &[u8]) -> Vec<Uuid> {
    let items = serde_json::from_slice::<Vec<&RawValue>>(payload).unwrap_or_default();
    let raw = items.first().map_or(payload, |item| item.get().as_bytes());
    let own = unpack(partition, message, payload).first().map(Slot::command_id);
    own.into_iter().chain([id_of_place(partition, message, 0, raw)]).collect()
}

/// Reads a queue message, one command at a time. There is always at least one slot.
#[must_use]
pub fn unpack(partition: Partition, message: u64, payload: &[u8]) -> Vec<Slot> {
    let unreadable = |index: usize, raw: &[u8], reason: String, envelope: Option<Box<Envelope>>| {
        let text = String::from_utf8_lossy(raw);
        let end = text.floor_char_boundary(crate::record::DeadData::MAX_RAW);
        let from_its_place = || id_of_place(partition, message, index, raw);
        Slot::Unreadable {
            command_id: envelope.as_ref().map_or_else(from_its_place, |envelope| envelope.command_id),
            envelope,
            reason,
            raw: text.get(..end).unwrap_or_default().to_owned(),
        }
    };
    match serde_json::from_slice::<Vec<&RawValue>>(payload) {
        Ok(items) if items.is_empty() => vec![unreadable(0, payload, "an empty bundle".to_owned(), None)],
        Ok(items) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| match serde_json::from_str::<Envelope>(item.get()) {
                Ok(envelope) => Slot::Envelope(Box::new(envelope)),
                Err(error) => {
                    let remains = Remains::of(item.get());
                    unreadable(index, item.get().as_bytes(), error.to_string(), remains)
                }
            })
            .collect(),
        Err(error) => vec![unreadable(0, payload, error.to_string(), None)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: Partition = Partition::from_index(1);

    #[test]
    fn a_message_is_known_by_whoever_could_read_less_or_more_of_its_first_command() {
        // given a command of which one release can read the id, and the one before nothing
        let id = Uuid::from_u128(7);
        let of = |more: &str| {
            format!(
                r#"[{{"command_id":"{id}","correlation_id":"{id}","causation_id":"{id}","actor":"client","traceparent":1{more},"#
            ) + &format!(r#""target":{{"kind":"invoice","id":"{id}"}},"command":{{}}}}]"#)
        };
        let payload = of("");
        let raw = payload.trim_matches(['[', ']']).as_bytes();
        // when
        let ids = ids_of_first(PARTITION, 3, payload.as_bytes());
        // then
        assert_eq!(ids.last(), Some(&id_of_place(PARTITION, 3, 0, raw)));
        assert_eq!(
            ids.first(),
            unpack(PARTITION, 3, payload.as_bytes()).first().map(Slot::command_id).as_ref()
        );
        // and another message has none of that place
        let other = ids_of_first(PARTITION, 3, of(r#","x":1"#).as_bytes());
        assert_ne!(ids.last(), other.last());
    }

    #[test]
    fn an_unreadable_command_does_not_take_its_bundle_with_it() {
        let id = Uuid::from_u128(7);
        let good = format!(
            r#"{{"command_id":"{id}","correlation_id":"{id}","causation_id":"{id}","actor":"a",
                "target":{{"type":"thing","id":"{id}"}},"command":{{}}}}"#
        );
        let payload = format!("[{good},{{\"nonsense\":1}},{good}]");
        let slots = unpack(PARTITION, 9, payload.as_bytes());
        assert_eq!(slots.len(), 3);
        assert!(matches!(slots[0], Slot::Envelope(_)) && matches!(slots[2], Slot::Envelope(_)));
        assert!(matches!(&slots[1], Slot::Unreadable { raw, .. } if raw.contains("nonsense")));
    }

    #[test]
    fn garbage_is_one_slot_with_an_id_that_repeats() {
        let once = unpack(PARTITION, 9, b"\xff\x00garbage");
        let again = unpack(PARTITION, 9, b"\xff\x00garbage");
        let elsewhere = unpack(PARTITION, 10, b"\xff\x00garbage");
        assert_eq!(once.len(), 1);
        assert_eq!(once[0].command_id(), again[0].command_id());
        assert_ne!(once[0].command_id(), elsewhere[0].command_id());
        assert_eq!(unpack(PARTITION, 9, b"[]").len(), 1);
    }

    #[test]
    fn what_says_whose_it_is_dies_under_its_own_id() {
        let (id, saga, cause) = (Uuid::from_u128(7), Uuid::from_u128(8), Uuid::from_u128(9));
        let whole = serde_json::json!({
            "command_id": id, "correlation_id": saga, "causation_id": cause, "actor": "policy:p", "traceparent": 1,
            "reply_to": "1.2", "target": { "type": "thing", "id": id }, "command": { "do": "it" },
        });
        let read =
            |envelope: &serde_json::Value| unpack(PARTITION, 9, format!("[{envelope}]").as_bytes()).remove(0);
        let Slot::Unreadable { command_id, envelope: Some(envelope), .. } = read(&whole) else {
            panic!("its trace context is none")
        };
        assert_eq!((command_id, envelope.command_id), (id, id));
        assert_eq!((envelope.correlation_id, envelope.causation_id), (saga, cause));
        assert_eq!((envelope.actor.as_str(), envelope.command.get()), ("policy:p", r#"{"do":"it"}"#));
        assert_eq!(envelope.reply_to.as_deref(), Some("1.2"), "somebody waits for it");
        let others = [
            ("command_id", serde_json::json!(Uuid::nil())),
            ("causation_id", serde_json::json!("none")),
            ("actor", serde_json::json!("no\u{0}body")),
            ("actor", serde_json::json!("x".repeat(257))),
            ("target", serde_json::json!("thing")),
            ("discards", serde_json::json!({ "of": "the next release" })),
        ];
        for (name, other) in others {
            let mut changed = whole.clone();
            changed[name] = other;
            let slot = read(&changed);
            assert!(matches!(&slot, Slot::Unreadable { envelope: None, .. }), "{name}: {slot:?}");
            assert_ne!(slot.command_id(), id, "{name}: whoever has sent it may send it again");
        }
        for name in ["command_id", "correlation_id", "actor", "target", "command"] {
            let mut less = whole.clone();
            less.as_object_mut().unwrap().remove(name);
            assert!(matches!(read(&less), Slot::Unreadable { envelope: None, .. }), "without {name}");
        }
    }

    #[test]
    fn packing_keeps_order_and_limits() {
        let envelopes: Vec<Vec<u8>> =
            (0..600).map(|number| format!("{{\"n\":{number}}}").into_bytes()).collect();
        let bundles = pack(PARTITION, envelopes.iter().map(Vec::as_slice));
        assert_eq!(bundles.iter().map(|bundle| bundle.commands).collect::<Vec<_>>(), [256, 256, 88]);
        let numbers: Vec<u64> = bundles
            .iter()
            .flat_map(|bundle| serde_json::from_slice::<Vec<serde_json::Value>>(&bundle.payload).unwrap())
            .map(|value| value["n"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, (0..600).collect::<Vec<_>>());
    }

    #[test]
    fn a_bundle_stays_below_its_size_unless_one_command_alone_is_larger() {
        let envelope = vec![b'1'; MAX_BUNDLE_BYTES / 3];
        let bundles = pack(PARTITION, (0..4).map(|_| envelope.as_slice()));
        assert!(bundles.iter().all(|bundle| bundle.payload.len() <= MAX_BUNDLE_BYTES + 2));
        assert_eq!(bundles.iter().map(|bundle| bundle.commands).sum::<usize>(), 4);
    }
}
