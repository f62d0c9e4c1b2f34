//! What went wrong, for people and for scripts.
//!
//! The rule this module protects: a script that asks for JSON reads on standard output what a person reads on standard error, with
//! the ids that there are already.

use std::collections::BTreeMap;

use serde::Serialize;
use tonic_types::StatusExt as _;

use crate::runtime::client::ClientError;

use super::json;

/// Why a command of the shell did not do what it was asked for.
#[derive(Debug)]
pub(super) struct Failure {
    /// What is printed on standard output all the same.
    pub(super) said: String,
    /// Why.
    pub(super) error: ClientError,
    /// The ids that there are, and the token, by the names of the contract.
    pub(super) ids: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Line<'a> {
    error: Said<'a>,
}

#[derive(Serialize)]
struct Said<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    message: &'a str,
    #[serde(flatten)]
    ids: &'a BTreeMap<String, String>,
}

impl Failure {
    /// With what is printed on standard output all the same.
    pub(super) fn saying(said: String, error: ClientError) -> Self {
        Self { said, error, ids: BTreeMap::new() }
    }

    /// A failure of this command.
    pub(super) fn of_command(message: String, command_id: &str) -> Self {
        Self::from(ClientError::Failed(message)).after("", &[("command_id", command_id)])
    }

    /// After the command was done: with what it would have printed, and its ids.
    pub(super) fn after(mut self, said: &str, ids: &[(&str, &str)]) -> Self {
        said.clone_into(&mut self.said);
        self.ids.extend(ids.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())));
        self
    }

    /// With an object on standard output that says what went wrong.
    pub(super) fn for_scripts(mut self) -> Self {
        let (kind, reason, message) = match &self.error {
            ClientError::Refused { reason, message } => ("REFUSED", Some(reason.as_str()), message),
            ClientError::Ended { message, .. } | ClientError::Failed(message) => ("FAILED", None, message),
        };
        let error = Said { kind, reason, message, ids: &self.ids };
        self.said = json::line(&Line { error });
        self
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::saying(String::new(), error)
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let information = status.get_details_error_info();
        let ids =
            information.map(|information| information.metadata.into_iter().collect()).unwrap_or_default();
        Self { said: String::new(), error: status.into(), ids }
    }
}

/// The answer; where there is none and a script asks, with an object that says why.
pub(super) fn answered(json: bool, answer: Result<String, Failure>) -> Result<String, Failure> {
    if json { answer.map_err(Failure::for_scripts) } else { answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_reads_the_reason_and_the_ids() {
        let error = ClientError::Refused { reason: "NO".to_owned(), message: "it is not so".to_owned() };
        let mut failure = Failure::from(error);
        failure.ids.insert("command_id".to_owned(), "c".to_owned());
        assert_eq!(
            failure.for_scripts().said,
            "{\"error\":{\"kind\":\"REFUSED\",\"reason\":\"NO\",\"message\":\"it is not so\",\"command_id\":\"c\"}}\n"
        );
        let failure = Failure::from(ClientError::Failed("nobody answers".to_owned()));
        assert_eq!(
            failure.for_scripts().said,
            "{\"error\":{\"kind\":\"FAILED\",\"message\":\"nobody answers\"}}\n"
        );
    }
}
