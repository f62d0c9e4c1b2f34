//! What an answer of the server means: to whoever starts, and to a port.
//!
//! The rule this module protects: whether an error says retry, refuse or stop is decided in one place.

use std::error::Error as _;

use async_nats::jetstream::context::{PublishError, PublishErrorKind, RequestError, RequestErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use eventsourcing::ports::PortError;

/// Why the platform did not start on this server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NatsError {
    /// The settings contradict each other, or cannot be read.
    #[error("the connection to NATS is not configured rightly: {0}")]
    Settings(String),
    /// Nobody answers, or not in time.
    #[error("NATS is not reachable: {0}")]
    Unreachable(String),
    /// The server does not let us in.
    #[error("NATS refuses the connection: {0}")]
    Refused(String),
    /// The server is older than what the platform relies on.
    #[error("the NATS server has version {found}, at least {least} is needed")]
    TooOld {
        /// What it says it is.
        found: String,
        /// The least that is accepted.
        least: String,
    },
    /// The server stores nothing now: it was never told to, or it has given up because its disk was full, until it is started again.
    #[error("JetStream is not enabled on this NATS server, or it was given up for want of room")]
    NoJetStream,
    /// The server stores nothing for us.
    #[error("JetStream is not enabled for this account of NATS")]
    NotForAccount,
    /// The server answered, but could not do what it was asked.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody has to create it first.
    #[error("the stream {stream} is not there yet: {creator} creates it")]
    Missing {
        /// Which stream.
        stream: String,
        /// Who creates it.
        creator: &'static str,
    },
    /// The server does not create a stream, and will not, as it is asked and as it is configured.
    #[error("the server does not create the stream {stream}: {reason}")]
    NotCreated {
        /// Which stream.
        stream: String,
        /// What the server says.
        reason: String,
    },
    /// A stream is not what it has to be.
    #[error("the stream {stream} has {field} = {found}, but it has to be {asked}")]
    Mismatch {
        /// Which stream.
        stream: String,
        /// Which part of its configuration.
        field: String,
        /// What it is.
        found: String,
        /// What it has to be.
        asked: String,
    },
}

impl NatsError {
    /// Whether the same may succeed later, without anybody changing anything about it.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NoJetStream | Self::Unavailable(_) | Self::Missing { .. } => true,
            Self::Settings(_)
            | Self::Refused(_)
            | Self::TooOld { .. }
            | Self::NotForAccount
            | Self::NotCreated { .. }
            | Self::Mismatch { .. } => false,
        }
    }
}

impl From<PortError> for NatsError {
    fn from(error: PortError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Why a stream was not created. What is wrong with the request stays wrong; room may be made, and servers may come up.
pub(super) fn create_error(stream: &str, error: &jetstream::Error) -> NatsError {
    let stays = match error.error_code() {
        // It blames the request for these.
        ErrorCode::CLUSTER_NO_PEERS | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => false,
        // It blames itself for these.
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED | ErrorCode::STREAM_INVALID_CONFIG => true,
        // All that it blames the request for, but for too late (408) and too many (429).
        _ => matches!(error.code(), 400..=407 | 409..=428 | 430..=499),
    };
    if stays {
        NatsError::NotCreated { stream: stream.to_owned(), reason: error.to_string() }
    } else {
        NatsError::Unavailable(format!("{stream} was not created: {error}"))
    }
}

/// What JetStream's refusal says to whoever called a port.
pub(super) fn api_error(what: &str, error: &jetstream::Error) -> PortError {
    let text = format!("{what}: {error}");
    match error.error_code() {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
            PortError::Conflict(text)
        }
        ErrorCode::STREAM_NOT_FOUND => PortError::Unavailable(missing(what)),
        ErrorCode::STREAM_STORE_FAILED if error.to_string().contains("maximum") => PortError::Full(text),
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED => PortError::Full(text),
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => PortError::Content(text),
        ErrorCode::STREAM_SEALED => PortError::Broken(text),
        _ => PortError::Unavailable(text),
    }
}

/// What it says that a publish was not acknowledged.
pub(super) fn publish_error(subject: &str, error: &PublishError) -> PortError {
    if let Some(refusal) = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>()) {
        return api_error(subject, refusal);
    }
    match error.kind() {
        PublishErrorKind::StreamNotFound => PortError::Unavailable(missing(subject)),
        PublishErrorKind::MaxPayloadExceeded => PortError::Content(format!("{subject}: {error}")),
        PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
            PortError::Conflict(format!("{subject}: {error}"))
        }
        PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending
        | PublishErrorKind::Other => PortError::Unavailable(format!("{subject}: {error}")),
    }
}

/// What it says that a request was not answered.
pub(super) fn request_error(what: &str, error: &RequestError) -> PortError {
    PortError::Unavailable(match error.kind() {
        RequestErrorKind::NoResponders => format!("{what}: JetStream does not answer, it may be starting"),
        RequestErrorKind::TimedOut | RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
            format!("{what}: {error}")
        }
    })
}

/// Nobody takes what is sent there.
pub(super) fn missing(what: &str) -> String {
    format!(
        "{what}: the stream is not there: it was lost or deleted, JetStream is starting, or its servers choose who leads it"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_may_pass_by_itself_is_worth_a_retry() {
        assert!(NatsError::Unreachable(String::new()).retryable());
        assert!(NatsError::Missing { stream: String::new(), creator: "x" }.retryable());
        assert!(!NatsError::Refused(String::new()).retryable());
        assert!(NatsError::NoJetStream.retryable());
        assert!(!NatsError::NotForAccount.retryable());
        assert!(!NatsError::NotCreated { stream: String::new(), reason: String::new() }.retryable());
        assert!(!NatsError::TooOld { found: String::new(), least: String::new() }.retryable());
    }

    #[test]
    fn a_stream_is_asked_for_again_only_where_that_may_help() {
        let retried = |code: u64, err_code: u64| {
            let error = json!({"code": code, "err_code": err_code, "description": "no"});
            create_error("S", &serde_json::from_value(error).unwrap()).retryable()
        };
        for (code, err_code) in [(500, 10_074), (500, 10_052), (400, 10_113), (400, 10_027)] {
            assert!(!retried(code, err_code), "{err_code}");
        }
        for (code, err_code) in
            [(500, 10_047), (503, 10_023), (503, 10_008), (400, 10_005), (400, 10_002), (429, 1), (408, 2)]
        {
            assert!(retried(code, err_code), "{err_code}");
        }
    }
}
