//! What travels: bundles of commands, and what the Registering context sends.
//!
//! The rule this module protects: one command or event that cannot be read takes nothing else with it.

use domain::financing::{Command, Financing};
use domain::integration::{INVESTOR_REGISTERED, ISSUER_REGISTERED, IntegrationEvent, Registering};
use eventsourcing::command::{Envelope, Slot, is_traceparent, pack, unpack};
use eventsourcing::importer::{Translate as _, Translated};
use eventsourcing::model::Model as _;
use eventsourcing::partition::Partition;
use eventsourcing::record::DeadData;

use crate::MOST_WORDS;

const PARTITION: Partition = Partition::from_index(3);
const MESSAGE: u64 = 7;

/// A command that was read is the same command when it is written and read again.
pub(crate) fn is_written_again(command: &Command) {
    let again = serde_json::to_string(command).map(|text| serde_json::from_str::<Command>(&text));
    assert!(matches!(&again, Ok(Ok(again)) if again == command), "{command:?} was read again as {again:?}");
    let target = Financing::target(command);
    assert!(["issuer", "investor", "invoice"].contains(&target.kind.as_ref()), "{target}");
}

fn same(one: &Envelope, other: &Envelope) -> bool {
    let ids = |envelope: &Envelope| [envelope.command_id, envelope.correlation_id, envelope.causation_id];
    ids(one) == ids(other)
        && one.actor == other.actor
        && one.traceparent == other.traceparent
        && one.reply_to == other.reply_to
        && one.target == other.target
        && one.command.get() == other.command.get()
}

/// A message of the command queue.
///
/// # Panics
///
/// When the property does not hold.
pub fn bundle(bytes: &[u8]) {
    let slots = unpack(PARTITION, MESSAGE, bytes);
    let again = unpack(PARTITION, MESSAGE, bytes);
    assert!(!slots.is_empty() && slots.len() <= bytes.len().max(1), "{} slots", slots.len());
    assert!(
        slots.iter().map(Slot::command_id).eq(again.iter().map(Slot::command_id)),
        "an id does not repeat"
    );
    for slot in slots {
        match slot {
            Slot::Unreadable { command_id, envelope, reason, raw } => {
                if let Some(envelope) = &envelope {
                    written_again(envelope);
                }
                assert!(!command_id.is_nil() && !reason.is_empty());
                assert!(raw.len() <= DeadData::MAX_RAW && reason.len() <= bytes.len() + MOST_WORDS);
            }
            Slot::Envelope(envelope) => written_again(&envelope),
        }
    }
}

fn written_again(envelope: &Envelope) {
    let encoded = envelope.encode();
    assert!(encoded.is_ok(), "{envelope:?} cannot be written: {encoded:?}");
    let Ok(encoded) = encoded else { return };
    let bundles = pack(PARTITION, [encoded.as_slice()]);
    assert_eq!(bundles.len(), 1);
    for bundle in bundles {
        let slots = unpack(PARTITION, MESSAGE, &bundle.payload);
        let [Slot::Envelope(again)] = slots.as_slice() else {
            return assert_eq!(slots.len(), 0, "{envelope:?} was read again as {slots:?}");
        };
        assert!(same(envelope, again), "{envelope:?} was read again as {again:?}");
    }
    if let Ok(command) = serde_json::from_str::<Command>(envelope.command.get()) {
        is_written_again(&command);
    }
}

/// A message of the Registering context.
///
/// # Panics
///
/// When the property does not hold.
pub fn registering(bytes: &[u8]) {
    for event_type in [ISSUER_REGISTERED, INVESTOR_REGISTERED] {
        let Some(Ok(Some(event))) =
            std::str::from_utf8(bytes).ok().map(|data| IntegrationEvent::decode(event_type, data))
        else {
            continue;
        };
        let again = event.encode().and_then(|data| IntegrationEvent::decode(event_type, &data));
        assert_eq!(again, Ok(Some(event)));
    }
    match Registering.translate("registering.events.issuer.IssuerRegistered", bytes) {
        Translated::Ignored => {}
        Translated::Malformed(reason) => {
            assert!(!reason.is_empty() && reason.len() <= bytes.len() + MOST_WORDS, "{reason}");
        }
        Translated::Command { id, actor, traceparent, command } => {
            assert!(!id.is_nil() && !actor.is_empty());
            assert!(traceparent.as_deref().is_none_or(is_traceparent), "{traceparent:?}");
            assert!(!Financing::target(&command).id.is_nil());
            is_written_again(&command);
            let Translated::Command { id: again, .. } = Registering.translate("elsewhere", bytes) else {
                return assert!(id.is_nil(), "the subject matters");
            };
            assert_eq!(id, again, "an id does not repeat");
        }
    }
}
