//! What every gRPC client in the house shares.
//!
//! The rule this module protects: a client tells a refusal by the business from a failure, and an amount of money goes
//! from what a person types to the wire without ever being a float.

use std::time::Duration;

use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic_types::StatusExt as _;

use crate::api::proto::financing::v1::Money;
use crate::api::proto::financing::v1::command_service_client::CommandServiceClient;
use crate::api::proto::financing::v1::query_service_client::QueryServiceClient;
use crate::api::proto::registering::v1::integration_service_client::IntegrationServiceClient;

/// Why a client did not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A rule of the business said no.
    #[error("refused: {message} ({reason})")]
    Refused {
        /// The machine-readable reason.
        reason: String,
        /// The reason in plain words.
        message: String,
    },
    /// It ended, and what it found has an exit code of its own.
    #[error("{message}")]
    Ended {
        /// What it found.
        message: String,
        /// The exit code.
        code: u8,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// The exit code of a call that was wrong and will be for ever: EX_USAGE of sysexits.
const USAGE: u8 = 64;

impl ClientError {
    /// It was asked for something that is not well formed: to ask again is of no use.
    #[must_use]
    pub fn malformed(message: String) -> Self {
        Self::Ended { message, code: USAGE }
    }

    /// The exit code: 2 for a refusal, 1 for a failure, unless there is one of its own.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 2,
            Self::Ended { code, .. } => *code,
            Self::Failed(_) => 1,
        }
    }
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        match status.get_details_error_info() {
            // A command that is dead was not refused by the business: somebody has to look at it.
            Some(information) if information.reason != "COMMAND_DEAD" => {
                return Self::Refused { reason: information.reason, message: status.message().to_owned() };
            }
            Some(_) | None => {}
        }
        let violations: Vec<String> = status
            .get_details_bad_request()
            .into_iter()
            .flat_map(|bad| bad.field_violations)
            .map(|one| format!("  {}: {}", one.field, one.description))
            .collect();
        if !violations.is_empty() {
            return Self::malformed(format!("the request is malformed\n{}", violations.join("\n")));
        }
        let said = if status.message().is_empty() { status.code().description() } else { status.message() };
        Self::Failed(said.to_owned())
    }
}

/// Connects to a server.
///
/// # Errors
///
/// When nobody listens there.
pub async fn connect(address: &str) -> Result<Channel, ClientError> {
    let failed = |error: tonic::transport::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        ClientError::Failed(format!("{address} does not answer ({error}{cause}). Is the platform running?"))
    };
    let mut endpoint = Endpoint::from_shared(address.to_owned()).map_err(failed)?;
    if address.starts_with("https://") {
        let roots = ClientTlsConfig::new().with_native_roots();
        endpoint = endpoint.tls_config(roots).map_err(failed)?;
    }
    endpoint.connect_timeout(Duration::from_secs(5)).connect().await.map_err(failed)
}

/// The command side.
#[derive(Debug, Clone)]
pub struct Commands(Channel);

impl Commands {
    /// Over a connection.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self(channel)
    }

    /// The commands.
    #[must_use]
    pub fn client(&self) -> CommandServiceClient<Channel> {
        CommandServiceClient::new(self.0.clone())
    }

    /// The integration events.
    #[must_use]
    pub fn integration(&self) -> IntegrationServiceClient<Channel> {
        IntegrationServiceClient::new(self.0.clone())
    }
}

/// The query side.
#[derive(Debug, Clone)]
pub struct Queries(Channel);

impl Queries {
    /// Over a connection.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self(channel)
    }

    /// The queries.
    #[must_use]
    pub fn client(&self) -> QueryServiceClient<Channel> {
        QueryServiceClient::new(self.0.clone())
    }
}

/// The longest that a call may take: longer than any wait that is asked for here. A server that is silent is not waited
/// for, for ever.
const DEADLINE: Duration = Duration::from_secs(45);

/// How much later than the wait that it asks for a call has to end.
const BEYOND_WAIT: Duration = Duration::from_secs(15);

/// A request with its deadline.
pub(crate) fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// A request that asks the server to wait this long, with a deadline a little later.
pub(crate) fn timed_for<T>(message: T, wait: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(DEADLINE.max(wait.saturating_add(BEYOND_WAIT)));
    request
}

/// An amount as a person types it, as in `100`, `0.5` or `99.95`.
///
/// # Errors
///
/// When it is no decimal number, or has more than nine digits behind the point. All else is the server's to judge.
pub fn amount(text: &str, currency_code: &str) -> Result<Money, ClientError> {
    let wrong = || ClientError::malformed(format!("{text:?} is not an amount: expected digits, as in 99.95"));
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let sign = if negative { "-" } else { "" };
    let units = format!("{sign}{whole}").parse().map_err(|_| wrong())?;
    let nanos = format!("{sign}{fraction:0<9}").parse().map_err(|_| wrong())?;
    Ok(Money { currency_code: currency_code.to_owned(), units, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_read_exactly() {
        let read = |text| amount(text, "EUR").map(|money| (money.units, money.nanos));
        assert_eq!(read("100").unwrap(), (100, 0));
        assert_eq!(read("100.00").unwrap(), (100, 0));
        assert_eq!(read("0.1").unwrap(), (0, 100_000_000));
        assert_eq!(read("99.000000001").unwrap(), (99, 1));
        assert_eq!(read("-0.5").unwrap(), (0, -500_000_000));
        for wrong in ["", ".", "1.", ".5", "1e3", "1,5", "+1", " 1", "0.0000000001", "99999999999999999999"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
