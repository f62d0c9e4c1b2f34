//! What arrives from the Registering context, which owns who issuers and investors are.
//!
//! The rule this module protects: what is not for us is ignored, what is malformed is said to be so, and everything
//! else becomes a command like any other.

use eventsourcing::model::DecodeError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::financing::Command;
use crate::ids::{InvestorId, IssuerId};
use crate::investor::{CreateInvestor, InvestorCommand};
use crate::issuer::{CreateIssuer, IssuerCommand};
use crate::money::Money;
use crate::name::Name;

/// The CloudEvents type of [`IssuerRegistered`].
pub const ISSUER_REGISTERED: &str = "registering.v1.IssuerRegistered";
/// The CloudEvents type of [`InvestorRegistered`].
pub const INVESTOR_REGISTERED: &str = "registering.v1.InvestorRegistered";

/// What we want to know of the Registering context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntegrationEvent {
    /// See [`IssuerRegistered`].
    IssuerRegistered(IssuerRegistered),
    /// See [`InvestorRegistered`].
    InvestorRegistered(InvestorRegistered),
}

/// A business may sell invoices from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerRegistered {
    /// The issuer.
    pub issuer_id: IssuerId,
    /// The issuer's name.
    pub name: Name,
}

/// Somebody may finance invoices from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvestorRegistered {
    /// The investor.
    pub investor_id: InvestorId,
    /// The investor's name.
    pub name: Name,
    /// What is there to dispose of at first.
    pub balance: Money,
}

impl IntegrationEvent {
    /// Reads the data of a CloudEvent. `None`: a type that is not for us.
    ///
    /// # Errors
    ///
    /// When the type is known and the data does not have its shape, or is not valid.
    pub fn decode(event_type: &str, data: &str) -> Result<Option<Self>, DecodeError> {
        fn read<T: DeserializeOwned>(event_type: &str, data: &str) -> Result<T, DecodeError> {
            serde_json::from_str(data).map_err(|error| DecodeError::malformed(event_type, error))
        }
        match event_type {
            ISSUER_REGISTERED => read(event_type, data).map(Self::IssuerRegistered).map(Some),
            INVESTOR_REGISTERED => read(event_type, data).map(Self::InvestorRegistered).map(Some),
            _ => Ok(None),
        }
    }

    /// The CloudEvents type.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::IssuerRegistered(_) => ISSUER_REGISTERED,
            Self::InvestorRegistered(_) => INVESTOR_REGISTERED,
        }
    }

    /// The data of a CloudEvent.
    ///
    /// # Errors
    ///
    /// When it cannot be written as JSON: a defect.
    pub fn encode(&self) -> Result<String, DecodeError> {
        match self {
            Self::IssuerRegistered(event) => serde_json::to_string(event),
            Self::InvestorRegistered(event) => serde_json::to_string(event),
        }
        .map_err(|error| DecodeError::malformed(self.event_type(), error))
    }

    /// What it asks of us.
    #[must_use]
    pub fn command(self) -> Command {
        match self {
            Self::IssuerRegistered(IssuerRegistered { issuer_id, name }) => {
                IssuerCommand::CreateIssuer(CreateIssuer { issuer_id, name }).into()
            }
            Self::InvestorRegistered(InvestorRegistered { investor_id, name, balance }) => {
                InvestorCommand::CreateInvestor(CreateInvestor { investor_id, name, balance }).into()
            }
        }
    }
}
