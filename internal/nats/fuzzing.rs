//! What must hold for whatever message stands on the bus.
//!
//! The rule this module protects: a message is the record that was published, or it is refused with its number. Run by the
//! fuzzer and by the tests.

use bytes::Bytes;
use eventsourcing::partition::Partition;
use eventsourcing::ports::PortError;

use super::event::{decode, encode, subject};

/// The seventh message of partition 3.
///
/// # Panics
///
/// When the property does not hold.
pub fn event(bytes: &[u8]) {
    match decode(Partition::from_index(3), 7, &Bytes::copy_from_slice(bytes)) {
        Err(PortError::Broken(what)) => {
            assert!(what.starts_with("message 3-7 of the bus: "), "which message is not said: {what}");
            assert!(what.len() <= bytes.len() + 4096, "too much is said: {what}");
        }
        Err(other) => assert!(matches!(other, PortError::Broken(_)), "not a broken message: {other}"),
        Ok(record) => {
            // What was read may be what nobody would write (a time after the year 9999), but then that is said.
            let Ok(payload) = encode(&record) else { return };
            let again = decode(record.partition, record.sequence.get(), &Bytes::from(payload));
            assert_eq!(again, Ok(record.clone()));
            if let Ok(subject) = subject(&record) {
                assert_eq!(subject.split('.').count(), 5, "{subject}");
            }
        }
    }
}
