//! The one mapping from errors to a gRPC status.
//!
//! The rule this module protects: a client can tell from the status alone whether to correct its request, to repeat it
//! or to give up; nothing internal and nobody's personal data leaves through it; and every failure is logged here,
//! once.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};
use uuid::Uuid;

use domain::live::LiveError;
use domain::views::QueryError;
use eventsourcing::letters::Unresolved;
use eventsourcing::listener::SubmitError;
use eventsourcing::model::DecodeError;
use eventsourcing::partition::LogPosition;
use eventsourcing::ports::PortError;

/// The `domain` of every ErrorInfo.
pub(crate) const ERROR_DOMAIN: &str = "financing";

/// The reason of a `request_id` that was used before for something else.
pub(crate) const REQUEST_ID_REUSED: &str = "REQUEST_ID_REUSED";

/// The reason of a command that can never succeed.
pub(crate) const COMMAND_DEAD: &str = "COMMAND_DEAD";

/// The reason of a watch whose client did not take its messages in time: resume with the last token.
pub(crate) const WATCH_TOO_SLOW: &str = "WATCH_TOO_SLOW";

/// The reason of a watch that has lasted as long as one may: resume with the last token.
pub(crate) const WATCH_EXPIRED: &str = "WATCH_EXPIRED";

/// The reason of a token since which too much has changed: begin again without one.
pub(crate) const WATCH_TOO_FAR_BEHIND: &str = "WATCH_TOO_FAR_BEHIND";

/// The reason of a token that is of another state of the platform than what is stored: begin again without one.
pub(crate) const WATCH_TOKEN_ASTRAY: &str = "WATCH_TOKEN_ASTRAY";

/// When to try again where there is too much to do, or something is down.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The ids that a command's reply would have held, under the names of their fields.
pub(crate) type ReplyIds = Vec<(&'static str, Uuid)>;

/// Why a call fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request is malformed.
    Invalid(Vec<FieldViolation>),
    /// A rule of the business says no.
    Refused {
        /// From the published catalogue.
        reason: String,
        /// In plain words.
        message: String,
        /// What the reply would have held.
        ids: ReplyIds,
        /// The refusal's record.
        token: LogPosition,
    },
    /// The command can never succeed.
    Dead {
        /// Why.
        reason: String,
        /// What the reply would have held.
        ids: ReplyIds,
        /// The record that says so.
        token: LogPosition,
    },
    /// The command's id was used before, for something else.
    Reused {
        /// What the reply would have held.
        ids: ReplyIds,
    },
    /// The command was not queued.
    NotQueued(SubmitError),
    /// The command could not be written down: a defect.
    Unwritable(DecodeError),
    /// The read model gave no answer.
    Unread(QueryError),
    /// The bus gave no answer.
    Unheard(PortError),
    /// Nothing is done about a dead letter.
    Unresolved(Unresolved),
    /// A live query cannot go on.
    Unwatched(LiveError),
    /// A live query's client does not take what it is sent.
    TooSlow,
    /// A live query has lasted as long as one may.
    Expired,
    /// There is no such thing.
    NotFound(&'static str),
    /// The deadline passed.
    Late,
    /// There is too much to do already.
    Shed,
    /// The platform stops.
    Stopping,
    /// The handler panicked: a defect. The panic hook has said where.
    Panicked,
}

impl Failure {
    /// What the client is told; logs the failure.
    pub(crate) fn status(self, method: &'static str) -> Status {
        match self {
            Self::Invalid(violations) => invalid(method, violations),
            Self::Refused { reason, message, ids, token } => {
                tracing::debug!(method, reason, command_id = %command_id(&ids), "refused");
                let metadata = metadata(&ids, Some(token));
                precondition(reason, message, metadata)
            }
            Self::Dead { reason, ids, token } => {
                tracing::warn!(method, reason, command_id = %command_id(&ids), "the command is dead");
                let mut metadata = metadata(&ids, Some(token));
                metadata.insert("death_reason".to_owned(), reason);
                precondition(COMMAND_DEAD.to_owned(), "the command can never succeed".to_owned(), metadata)
            }
            Self::Reused { ids } => {
                tracing::info!(method, command_id = %command_id(&ids), "a request_id was reused");
                let message = "the request_id was used before, for another request".to_owned();
                precondition(REQUEST_ID_REUSED.to_owned(), message, metadata(&ids, None))
            }
            Self::NotQueued(error) => not_queued(method, &error),
            Self::Unwritable(error) => internal(method, &error),
            Self::Unread(error) => match &error {
                QueryError::Unavailable(_) => unavailable(method, &error, "the read models do not answer"),
                QueryError::Corrupt(_) => internal(method, &error),
            },
            Self::Unheard(error) => match &error {
                PortError::Unavailable(_) | PortError::Conflict(_) | PortError::Full(_) => {
                    unavailable(method, &error, "the event bus does not answer")
                }
                PortError::Content(_) | PortError::Broken(_) => internal(method, &error),
            },
            Self::Unresolved(unresolved) => not_resolved(method, &unresolved),
            Self::Unwatched(error) => unwatched(method, error),
            Self::TooSlow => {
                tracing::info!(method, "the client was too slow");
                watch(
                    Code::Aborted,
                    WATCH_TOO_SLOW,
                    "messages were not taken in time: resume with the last token",
                )
            }
            Self::Expired => {
                tracing::debug!(method, "the watch has lasted long enough");
                watch(
                    Code::Aborted,
                    WATCH_EXPIRED,
                    "the watch has lasted long enough: resume with the last token",
                )
            }
            Self::NotFound(what) => {
                tracing::debug!(method, what, "not found");
                Status::not_found(format!("there is no such {what}"))
            }
            Self::Late => {
                tracing::info!(method, "the deadline passed");
                Status::deadline_exceeded("the deadline passed")
            }
            Self::Shed => {
                // Not louder: under load a line for every call would be more load.
                tracing::debug!(method, "shed");
                shed()
            }
            Self::Stopping => {
                tracing::debug!(method, "ended, because the server stops");
                retry(Code::Unavailable, "the server stops")
            }
            Self::Panicked => internal(method, &"the handler panicked"),
        }
    }
}

/// What is told of a call that there is no place for.
pub(crate) fn shed() -> Status {
    retry(Code::ResourceExhausted, "the server has too much to do")
}

fn not_resolved(method: &'static str, unresolved: &Unresolved) -> Status {
    let refused = |reason: &str, metadata| {
        tracing::debug!(method, reason, "a dead letter stays as it is");
        precondition(reason.to_owned(), unresolved.to_string(), metadata)
    };
    match unresolved {
        Unresolved::Unknown => Failure::NotFound("dead letter").status(method),
        Unresolved::AlreadyRetried => refused("DEAD_LETTER_RETRIED", HashMap::new()),
        Unresolved::AlreadyDiscarded => refused("DEAD_LETTER_DISCARDED", HashMap::new()),
        Unresolved::NotRetryable(_) => refused("NOT_RETRYABLE", HashMap::new()),
        Unresolved::Earlier(id) => {
            refused("EARLIER_DEAD_LETTER", HashMap::from([("dead_letter_id".to_owned(), id.to_string())]))
        }
        Unresolved::NotRelayed => unavailable(method, unresolved, "the event bus is behind the event log"),
        Unresolved::Port(error) => match error {
            PortError::Unavailable(_) | PortError::Conflict(_) | PortError::Full(_) => {
                unavailable(method, error, "the event log does not answer")
            }
            PortError::Content(_) | PortError::Broken(_) => internal(method, error),
        },
    }
}

impl From<Unresolved> for Failure {
    fn from(unresolved: Unresolved) -> Self {
        Self::Unresolved(unresolved)
    }
}

/// Of the dead letters' stores.
impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        Self::Unresolved(Unresolved::Port(error))
    }
}

fn unwatched(method: &'static str, error: LiveError) -> Status {
    match error {
        LiveError::Unread(error) => Failure::Unread(error).status(method),
        LiveError::Unheard(error) => Failure::Unheard(error).status(method),
        LiveError::NotYet => unavailable(method, &error, "the event bus is behind the read models"),
        LiveError::TooFarBehind => {
            tracing::info!(method, %error, "the watch is too far behind");
            let message = "too much has changed since: begin again without a token";
            watch(Code::OutOfRange, WATCH_TOO_FAR_BEHIND, message)
        }
        LiveError::Astray => {
            tracing::warn!(method, %error, "the token is of another state");
            let message =
                "what the token goes on from is not here, or not any more: begin again without a token";
            watch(Code::FailedPrecondition, WATCH_TOKEN_ASTRAY, message)
        }
    }
}

fn watch(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

fn invalid(method: &'static str, violations: Vec<FieldViolation>) -> Status {
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    tracing::debug!(method, ?fields, "malformed request");
    let message = violations.first().map_or_else(
        || "the request is malformed".to_owned(),
        |first| match violations.len() {
            1 => format!("{}: {}", first.field, first.description),
            count => format!("{}: {} (and {} more)", first.field, first.description, count.saturating_sub(1)),
        },
    );
    Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(violations))
}

fn not_queued(method: &'static str, error: &SubmitError) -> Status {
    match error {
        SubmitError::Overloaded => {
            tracing::debug!(method, %error, "shed");
            retry(Code::ResourceExhausted, "too many commands are waiting to be queued")
        }
        SubmitError::Unavailable => unavailable(method, error, "the command queue does not answer"),
        SubmitError::Unqueueable(_) => internal(method, error),
    }
}

fn precondition(reason: String, message: String, metadata: HashMap<String, String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

fn unavailable(method: &'static str, error: &dyn std::fmt::Display, message: &str) -> Status {
    tracing::warn!(method, %error, "unavailable");
    retry(Code::Unavailable, message)
}

fn internal(method: &'static str, error: &dyn std::fmt::Display) -> Status {
    tracing::error!(method, %error, "internal error");
    Status::internal("internal error")
}

fn retry(code: Code, message: &str) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(RETRY_DELAY)))
}

fn metadata(ids: &ReplyIds, token: Option<LogPosition>) -> HashMap<String, String> {
    let ids = ids.iter().map(|(name, id)| ((*name).to_owned(), id.to_string()));
    ids.chain(token.map(|token| ("token".to_owned(), token.to_string()))).collect()
}

fn command_id(ids: &ReplyIds) -> Uuid {
    ids.iter().find(|(name, _)| *name == "command_id").map_or(Uuid::nil(), |(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventsourcing::partition::{Partition, Sequence};

    const TOKEN: LogPosition =
        LogPosition { partition: Partition::from_index(3), sequence: Sequence::new(118) };

    fn ids() -> ReplyIds {
        vec![("command_id", Uuid::from_u128(1)), ("bid_id", Uuid::from_u128(2))]
    }

    #[test]
    fn a_refusal_carries_its_reason_the_ids_and_the_token() {
        let refused = Failure::Refused {
            reason: "INSUFFICIENT_FUNDS".to_owned(),
            message: "not enough".to_owned(),
            ids: ids(),
            token: TOKEN,
        };
        let status = refused.status("BidOnInvoice");
        assert_eq!(status.code(), Code::FailedPrecondition);
        let info = status.get_details_error_info().expect("an ErrorInfo");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INSUFFICIENT_FUNDS", "financing"));
        assert_eq!(info.metadata["command_id"], Uuid::from_u128(1).to_string());
        assert_eq!(info.metadata["bid_id"], Uuid::from_u128(2).to_string());
        assert_eq!(info.metadata["token"], "3-118");
    }

    #[test]
    fn the_dead_and_the_reused_have_reasons_too() {
        let dead = Failure::Dead { reason: "UNSTORABLE".to_owned(), ids: ids(), token: TOKEN }.status("m");
        let info = dead.get_details_error_info().expect("an ErrorInfo");
        assert_eq!(info.reason, COMMAND_DEAD);
        assert_eq!(info.metadata["death_reason"], "UNSTORABLE");
        let reused = Failure::Reused { ids: ids() }.status("m");
        assert_eq!(reused.code(), Code::FailedPrecondition);
        assert_eq!(reused.get_details_error_info().expect("an ErrorInfo").reason, REQUEST_ID_REUSED);
    }

    #[test]
    fn what_may_be_repeated_says_when() {
        for (failure, code) in [
            (Failure::Shed, Code::ResourceExhausted),
            (Failure::Stopping, Code::Unavailable),
            (Failure::NotQueued(SubmitError::Overloaded), Code::ResourceExhausted),
            (Failure::NotQueued(SubmitError::Unavailable), Code::Unavailable),
            (Failure::Unread(QueryError::Unavailable("disk".to_owned())), Code::Unavailable),
            (Failure::Unheard(PortError::Unavailable("net".to_owned())), Code::Unavailable),
        ] {
            let status = failure.status("m");
            assert_eq!(status.code(), code);
            assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
        }
    }

    #[test]
    fn nothing_internal_leaves() {
        for failure in [
            Failure::NotQueued(SubmitError::Unqueueable("secret".to_owned())),
            Failure::Unwritable(DecodeError::malformed("secret", "secret")),
            Failure::Unread(QueryError::Corrupt("secret".to_owned())),
            Failure::Unheard(PortError::Broken("secret".to_owned())),
            Failure::Panicked,
        ] {
            let status = failure.status("m");
            assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
            assert!(status.details().is_empty());
        }
        let unavailable = Failure::Unread(QueryError::Unavailable("secret".to_owned())).status("m");
        assert!(!unavailable.message().contains("secret"));
    }
}
