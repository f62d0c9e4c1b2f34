//! What the log says: facts of every type and schema, outcomes, snapshots.
//!
//! The rule this module protects: a fact that was read is the fact that is written again, whatever version it was read from.

use std::borrow::Cow;

use domain::events::Event;
use domain::financing::Financing;
use domain::refusal::Refusal;
use eventsourcing::environment::Timestamp;
use eventsourcing::model::{AggregateRef, DecodeError, EncodedSnapshot, Entry, Model as _};
use eventsourcing::partition::{Partition, Sequence, Version};
use eventsourcing::record::{
    COMMAND_DEAD, COMMAND_REFUSED, COMMAND_UNCHANGED, DEAD_LETTER_DISCARDED, Record,
};
use uuid::Uuid;

use crate::MOST_WORDS;

/// Every fact; the last one is none. A corpus file begins with the place of its fact here, and its schema.
const FACTS: [&str; 12] = [
    "IssuerCreated",
    "InvestorCreated",
    "InvestorFundsAdded",
    "BidOnInvoicePlaced",
    "InvestorFundsReleased",
    "InvestorFundsCommitted",
    "InvoiceCreated",
    "InvoiceFinanced",
    "BidOnInvoiceRejected",
    "InvoiceApproved",
    "InvoiceReversed",
    "InvoiceEaten",
];

const OUTCOMES: [&str; 4] = [COMMAND_REFUSED, COMMAND_UNCHANGED, COMMAND_DEAD, DEAD_LETTER_DISCARDED];

const KINDS: [&str; 4] = ["issuer", "investor", "invoice", "stranger"];

/// The choice that the first byte makes, and the text behind it.
fn chosen<'a, const N: usize>(bytes: &'a [u8], of: &[&'static str; N]) -> Option<(&'static str, &'a str)> {
    let (choice, rest) = bytes.split_first()?;
    let name = of.get(usize::from(*choice) % N)?;
    Some((name, std::str::from_utf8(rest).ok()?))
}

fn says_which(error: &DecodeError, name: &str, text: &str) {
    let said = error.to_string();
    assert!(said.contains(name), "what is not readable is not said: {said}");
    assert!(said.len() <= text.len() + MOST_WORDS, "too much is said: {said}");
}

/// One byte for the fact's name, one for its schema, then its data.
///
/// # Panics
///
/// When the property does not hold.
pub fn stored_event(bytes: &[u8]) {
    let Some((name, rest)) = bytes.split_first() else { return };
    let (Some(name), Some((schema, data))) =
        (FACTS.get(usize::from(*name) % FACTS.len()), rest.split_first())
    else {
        return;
    };
    let Ok(data) = std::str::from_utf8(data) else { return };
    let event = match Event::decode(name, u16::from(*schema), data) {
        Ok(event) => event,
        Err(error) => return says_which(&error, name, data),
    };
    assert_eq!(event.event_type(), *name);
    let again = event.encode().and_then(|again| Event::decode(again.event_type, again.schema, &again.data));
    assert_eq!(again, Ok(event));
}

/// One byte for the kind of outcome, then its data.
///
/// # Panics
///
/// When the property does not hold.
pub fn outcome(bytes: &[u8]) {
    let Some((event_type, data)) = chosen(bytes, &OUTCOMES) else { return };
    let record = |version: Option<Version>, event_type: &str, schema: u16, data: &str| Record {
        partition: Partition::from_index(0),
        sequence: Sequence::new(1),
        record_id: Uuid::nil(),
        recorded_at: Timestamp::from_micros(0),
        aggregate: AggregateRef::new("invoice", Uuid::nil()),
        version,
        event_type: Cow::Owned(event_type.to_owned()),
        schema,
        data: data.to_owned(),
        command_id: Uuid::nil(),
        correlation_id: Uuid::nil(),
        causation_id: Uuid::nil(),
        actor: String::new(),
        traceparent: None,
        last_of_command: true,
    };
    let record = record(None, event_type, 1, data);
    let command = match record.entry::<Financing>() {
        Err(error) => return says_which(&error, event_type, data),
        Ok(Entry::Dead) => {
            let letter = record.dead_letter();
            return assert!(matches!(letter, Ok(Some(_))), "a dead command without a letter: {letter:?}");
        }
        Ok(Entry::Discarded) => {
            let discard = record.discard();
            return assert!(matches!(discard, Ok(Some(_))), "discarded, and nobody says what: {discard:?}");
        }
        Ok(Entry::Refused { command, refusal }) => {
            let again = serde_json::to_string(&refusal).map(|text| serde_json::from_str::<Refusal>(&text));
            assert!(matches!(again, Ok(Ok(again)) if again == refusal), "{refusal:?}");
            assert!(matches!(record.refusal_reason(), Ok(Some(_))));
            command
        }
        Ok(Entry::Unchanged { command }) => command,
        Ok(Entry::Fact(fact)) => return assert!(record.version.is_some(), "an outcome was read as {fact:?}"),
    };
    crate::messages::is_written_again(&command);
}

/// One byte for the aggregate's kind, then its state.
///
/// # Panics
///
/// When the property does not hold.
pub fn snapshot(bytes: &[u8]) {
    let Some((kind, data)) = chosen(bytes, &KINDS) else { return };
    let aggregate = AggregateRef::new(kind, Uuid::from_u128(1));
    let snapshot = EncodedSnapshot { schema: 1, data: data.to_owned() };
    let Some(state) = Financing::decode_snapshot(&aggregate, &snapshot) else { return };
    let again = Financing::encode_snapshot(&state);
    assert!(again.is_ok(), "{state:?} cannot be written: {again:?}");
    if let Ok(again) = again {
        assert_eq!(Financing::decode_snapshot(&aggregate, &again), Some(state));
    }
}
