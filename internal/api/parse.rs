//! From the wire to the domain.
//!
//! The rule this module protects: a malformed request never reaches the queue or a store, and its sender learns all that
//! is wrong with it at once. What a sender wrote is never repeated in an answer or a log.

use std::collections::BTreeMap;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic_types::FieldViolation;
use uuid::Uuid;

use domain::money::{Amount, Money, MoneyError};
use domain::name::Name;
use domain::views::{BidStatus, InvoiceStatus, Page};
use eventsourcing::command::is_traceparent;
use eventsourcing::partition::{LogPosition, Partition, PartitionCount, Sequence};

use super::deadline::LONGEST_WAIT;
use super::paging::{DEFAULT_PAGE, LARGEST_PAGE, PagedQuery};
use super::proto::financing::v1;
use super::status::Failure;

/// The most violations that are told: they travel in the trailers, which clients limit to a few kilobytes.
const MOST_VIOLATIONS: usize = 32;

/// The most positions that a token may hold.
const MOST_POSITIONS: usize = 64;

/// The most characters of what a person says.
const LONGEST_TEXT: usize = 256;

/// The longest name of an actor.
const LONGEST_ACTOR: usize = 256;

/// Who sends a command, where it does not say.
const ANONYMOUS: &str = "client";

/// Reads the fields of one request and remembers what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// Where the fields are, as in `events[3].`.
    within: String,
    violations: Vec<FieldViolation>,
    untold: usize,
}

impl Fields {
    /// The parsed request, unless anything is wrong with any field.
    pub(crate) fn finish<T>(mut self, parsed: Option<T>) -> Result<T, Failure> {
        if self.untold > 0 {
            let untold = self.untold;
            let more = format!("there are {untold} more violations");
            self.violations.push(FieldViolation::new("", more));
        }
        match parsed {
            Some(parsed) if self.violations.is_empty() => Ok(parsed),
            Some(_) | None => Err(Failure::Invalid(self.violations)),
        }
    }

    /// Something is wrong with a field.
    pub(crate) fn violation(&mut self, field: &str, description: impl Into<String>) {
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(FieldViolation::new(format!("{}{field}", self.within), description));
        } else {
            self.untold = self.untold.saturating_add(1);
        }
    }

    /// Reads the fields of a message inside, which has this path.
    pub(crate) fn inside<T>(&mut self, path: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.within.len();
        self.within.push_str(path);
        self.within.push('.');
        let value = read(self);
        self.within.truncate(length);
        value
    }

    /// An id: a UUID in its usual form, with hyphens. The nil UUID is nobody's.
    pub(crate) fn id<T: From<Uuid>>(&mut self, field: &str, text: &str) -> Option<T> {
        if text.is_empty() {
            self.violation(field, "is required");
            return None;
        }
        self.optional_id(field, text)
    }

    /// An id that may be left out.
    pub(crate) fn optional_id<T: From<Uuid>>(&mut self, field: &str, text: &str) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        // The length leaves only the hyphenated form.
        let id = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
        match id {
            Some(id) if id.is_nil() => self.violation(field, "must not be the nil UUID"),
            Some(id) => return Some(T::from(id)),
            None => self.violation(field, "must be a UUID, as in 0190163d-8694-739b-aea5-966c26f8ad90"),
        }
        None
    }

    /// Money: zero or more.
    pub(crate) fn money(&mut self, field: &str, money: Option<&v1::Money>) -> Option<Money> {
        self.exact(field, money, Money::from_wire)
    }

    /// Money: more than zero.
    pub(crate) fn amount(&mut self, field: &str, money: Option<&v1::Money>) -> Option<Amount> {
        self.exact(field, money, Amount::from_wire)
    }

    fn exact<T>(
        &mut self,
        field: &str,
        money: Option<&v1::Money>,
        read: impl FnOnce(&str, i64, i32) -> Result<T, MoneyError>,
    ) -> Option<T> {
        let Some(v1::Money { currency_code, units, nanos }) = money else {
            self.violation(field, "is required");
            return None;
        };
        match read(currency_code, *units, *nanos) {
            Ok(value) => Some(value),
            Err(error) => {
                let part = match error {
                    MoneyError::MissingCurrency
                    | MoneyError::UnknownCurrency
                    | MoneyError::CurrencyMismatch => ".currency_code",
                    MoneyError::TooFine | MoneyError::SignMismatch | MoneyError::NanosOutOfRange => ".nanos",
                    MoneyError::Negative | MoneyError::NotPositive | MoneyError::TooLarge => "",
                };
                self.violation(&format!("{field}{part}"), error.to_string());
                None
            }
        }
    }

    /// A name.
    pub(crate) fn name(&mut self, field: &str, text: String) -> Option<Name> {
        Name::try_new(text).map_err(|error| self.violation(field, error.to_string())).ok()
    }

    /// Words of a person.
    pub(crate) fn text(&mut self, field: &str, text: String) -> Option<String> {
        let said = if text.trim().is_empty() {
            "is required"
        } else if text.chars().nth(LONGEST_TEXT).is_some() {
            "must be at most 256 characters"
        } else if text.chars().any(char::is_control) {
            "must not contain control characters"
        } else {
            return Some(text);
        };
        self.violation(field, said);
        None
    }

    /// A name that may be left out, to filter by.
    pub(crate) fn optional_name(&mut self, field: &str, text: String) -> Option<String> {
        if text.is_empty() { None } else { self.name(field, text).map(String::from) }
    }

    /// How long something takes; `None` where nothing was said.
    pub(crate) fn duration(
        &mut self,
        field: &str,
        duration: Option<&prost_types::Duration>,
    ) -> Option<Duration> {
        let prost_types::Duration { seconds, nanos } = duration?;
        if *seconds < 0 || *nanos < 0 {
            self.violation(field, "must not be negative");
            return None;
        }
        let (Ok(whole), Ok(fraction @ 0..=999_999_999)) = (u64::try_from(*seconds), u32::try_from(*nanos))
        else {
            self.violation(&format!("{field}.nanos"), "must be between 0 and 999,999,999");
            return None;
        };
        Some(Duration::new(whole, fraction))
    }

    /// How long to wait; `None` where nothing was said.
    pub(crate) fn wait(&mut self, field: &str, wait: Option<&prost_types::Duration>) -> Option<Duration> {
        let wait = self.duration(field, wait)?;
        if wait > LONGEST_WAIT {
            let seconds = LONGEST_WAIT.as_secs();
            self.violation(field, format!("must be at most {seconds} seconds"));
            return None;
        }
        Some(wait)
    }

    /// What the projection must have seen: none, one or several positions.
    pub(crate) fn token(&mut self, text: &str, partitions: PartitionCount) -> Vec<LogPosition> {
        if text.is_empty() {
            return Vec::new();
        }
        let mut positions = Vec::new();
        for part in text.split(',') {
            if positions.len() == MOST_POSITIONS {
                self.violation("token", format!("must hold at most {MOST_POSITIONS} positions"));
                return Vec::new();
            }
            let position = part.parse().ok().filter(|position: &LogPosition| {
                position.partition.index() < partitions.get() && storable(position.sequence)
            });
            let Some(position) = position else {
                self.violation(
                    "token",
                    "must be what a command was answered with, or several, separated by commas",
                );
                return Vec::new();
            };
            positions.push(position);
        }
        positions
    }

    /// Which part of a list.
    pub(crate) fn page(&mut self, size: i32, token: &str, query: &PagedQuery) -> Page {
        let size = match u32::try_from(size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(size) => size.min(LARGEST_PAGE),
            Err(_) => {
                self.violation("page_size", "must not be negative");
                DEFAULT_PAGE
            }
        };
        if token.is_empty() {
            return Page { after: None, size };
        }
        let after = query.key(token);
        if after.is_none() {
            self.violation(
                "page_token",
                "must be the next_page_token of the same list with the same filters",
            );
        }
        Page { after, size }
    }

    /// An invoice's status to filter by.
    pub(crate) fn invoice_status(&mut self, status: i32) -> Option<InvoiceStatus> {
        match v1::InvoiceStatus::try_from(status) {
            Ok(v1::InvoiceStatus::Unspecified) => return None,
            Ok(v1::InvoiceStatus::Available) => return Some(InvoiceStatus::Available),
            Ok(v1::InvoiceStatus::Financed) => return Some(InvoiceStatus::Financed),
            Ok(v1::InvoiceStatus::Approved) => return Some(InvoiceStatus::Approved),
            Ok(v1::InvoiceStatus::Reversed) => return Some(InvoiceStatus::Reversed),
            Err(_) => self.violation("status", "is no status of an invoice"),
        }
        None
    }

    /// A bid's status to filter by.
    pub(crate) fn bid_status(&mut self, status: i32) -> Option<BidStatus> {
        match v1::BidStatus::try_from(status) {
            Ok(v1::BidStatus::Unspecified) => return None,
            Ok(v1::BidStatus::Placed) => return Some(BidStatus::Placed),
            Ok(v1::BidStatus::Won) => return Some(BidStatus::Won),
            Ok(v1::BidStatus::Rejected) => return Some(BidStatus::Rejected),
            Ok(v1::BidStatus::Committed) => return Some(BidStatus::Committed),
            Ok(v1::BidStatus::Released) => return Some(BidStatus::Released),
            Err(_) => self.violation("status", "is no status of a bid"),
        }
        None
    }

    /// Where a stream of facts begins, in every partition.
    pub(crate) fn positions(
        &mut self,
        after: &[v1::LogPosition],
        partitions: PartitionCount,
    ) -> BTreeMap<Partition, Sequence> {
        let mut named = BTreeMap::new();
        for (index, position) in after.iter().enumerate() {
            let partition =
                u16::try_from(position.partition).ok().and_then(|index| partitions.partition(index));
            let sequence = Sequence::new(position.sequence);
            self.inside(&format!("after[{index}]"), |fields| match partition {
                None => fields.violation("partition", format!("must be less than {partitions}")),
                Some(_) if !storable(sequence) => fields.violation("sequence", "is too large"),
                Some(partition) => {
                    if named.insert(partition, sequence).is_some() {
                        fields.violation("partition", "is named twice");
                    }
                }
            });
        }
        partitions
            .all()
            .map(|partition| (partition, named.get(&partition).copied().unwrap_or_default()))
            .collect()
    }

    /// Who sends the command, out of the metadata.
    pub(crate) fn actor(&mut self, metadata: &MetadataMap) -> String {
        let Some(actor) = metadata.get("actor") else {
            return ANONYMOUS.to_owned();
        };
        let printable = |text: &&str| {
            (1..=LONGEST_ACTOR).contains(&text.len())
                && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        if let Some(actor) = actor.to_str().ok().filter(printable) {
            return actor.to_owned();
        }
        self.violation("metadata.actor", format!("must be 1 to {LONGEST_ACTOR} printable ASCII characters"));
        ANONYMOUS.to_owned()
    }
}

/// The trace context out of the metadata, where it has the form that the W3C gave it; a broken one is no reason to
/// refuse a command.
pub(crate) fn traceparent(metadata: &MetadataMap) -> Option<String> {
    let text = metadata.get("traceparent")?.to_str().ok()?;
    is_traceparent(text).then(|| text.to_owned())
}

/// Stores count with signed numbers.
fn storable(sequence: Sequence) -> bool {
    i64::try_from(sequence.get()).is_ok()
}

#[cfg(test)]
mod tests;
