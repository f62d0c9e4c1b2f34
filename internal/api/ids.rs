//! The ids of a command and of what it makes.
//!
//! The rule this module protects: with a `request_id`, a repeat of the request gets the same ids, so that it is the same
//! command; without one, no two requests share any.

use domain::integration::command_id;
use eventsourcing::environment::Environment;
use uuid::Uuid;

/// What an id is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command that a client sends.
    Command,
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
            Self::Invoice => b"invoice",
            Self::Bid => b"bid",
        }
    }
}

/// The id of this kind: a UUIDv5 of the request's id where it has one, else a new one.
pub(crate) fn id<E: Environment>(environment: &E, request_id: Option<Uuid>, kind: Kind) -> Uuid {
    request_id.map_or_else(|| environment.uuid(), |request_id| Uuid::new_v5(&request_id, kind.name()))
}

/// The id of the command that follows from an integration event: the domain's [`command_id`] of the event's id where it has
/// one, else a new one.
pub(crate) fn of_event<E: Environment>(environment: &E, event_id: Option<Uuid>, command: &[u8]) -> Uuid {
    event_id.map_or_else(|| environment.uuid(), |event_id| command_id(event_id, command))
}

#[cfg(test)]
mod tests {
    use eventsourcing::testkit::world::World;

    use super::*;

    #[test]
    fn every_kind_has_a_name_that_stays() {
        // Clients repeat requests over releases: these are for ever.
        let names = [Kind::Command, Kind::Invoice, Kind::Bid].map(Kind::name);
        assert_eq!(names, [&b"command"[..], b"invoice", b"bid"]);
    }

    #[test]
    fn an_event_has_one_command_and_with_other_content_another() {
        let world = World::new(1).environment();
        let event_id = Some(Uuid::from_u128(1));
        let one = of_event(&world, event_id, b"one");
        assert_eq!(one, of_event(&world, event_id, b"one"));
        assert_ne!(one, of_event(&world, event_id, b"other"));
        assert_ne!(one, id(&world, event_id, Kind::Command));
        assert_ne!(of_event(&world, None, b"one"), of_event(&world, None, b"one"));
    }
}
