//! The ids of a command and of what it makes.
//!
//! The rule this module protects: with a `request_id`, a repeat of the request gets the same ids, so that it is the same
//! command; without one, no two requests share any.

use eventsourcing::environment::Environment;
use uuid::Uuid;

/// What an id is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command that a client sends.
    Command,
    /// The command that follows from an integration event. Another name than [`Kind::Command`]: whoever knows an
    /// event's id cannot take its command's id away by using it for a request.
    Event,
    /// The invoice that it offers.
    Invoice,
    /// The bid that it places.
    Bid,
}

impl Kind {
    /// The name under the request's id. Renaming one makes repeats act twice.
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Command => b"command",
            Self::Event => b"event",
            Self::Invoice => b"invoice",
            Self::Bid => b"bid",
        }
    }
}

/// The id of this kind: a UUIDv5 of the request's id where it has one, else a new one.
pub(crate) fn id<E: Environment>(environment: &E, request_id: Option<Uuid>, kind: Kind) -> Uuid {
    request_id.map_or_else(|| environment.uuid(), |request_id| Uuid::new_v5(&request_id, kind.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_that_stays() {
        // Clients repeat requests over releases: these are for ever.
        let names = [Kind::Command, Kind::Event, Kind::Invoice, Kind::Bid].map(Kind::name);
        assert_eq!(names, [&b"command"[..], b"event", b"invoice", b"bid"]);
    }
}
