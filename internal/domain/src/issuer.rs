//! An issuer: a business that sells its unpaid invoices.
//!
//! The rule this module protects: an issuer is registered once. The same registration again changes nothing, the same
//! id with other content is refused.

use eventsourcing::model::{Aggregate, AggregateRef, Known};
use serde::{Deserialize, Serialize};

use crate::ids::IssuerId;
use crate::name::Name;
use crate::refusal::Refusal;

/// What an issuer can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IssuerCommand {
    /// See [`CreateIssuer`].
    CreateIssuer(CreateIssuer),
}

/// Takes over an issuer that the Registering context registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateIssuer {
    /// The issuer.
    pub issuer_id: IssuerId,
    /// The issuer's name.
    pub name: Name,
}

/// What has happened to an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerEvent {
    /// See [`IssuerCreated`].
    IssuerCreated(IssuerCreated),
}

/// There is a new issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerCreated {
    /// The issuer.
    pub issuer_id: IssuerId,
    /// The issuer's name.
    pub name: Name,
}

/// An issuer's state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Issuer {
    /// There is none yet.
    #[default]
    Missing,
    /// There is one.
    Registered {
        /// The issuer's name.
        name: Name,
    },
}

impl Issuer {
    /// The version of the state's shape in snapshots.
    pub const SNAPSHOT_SCHEMA: u16 = 1;
}

impl IssuerCommand {
    /// The command's name.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::CreateIssuer(_) => "CreateIssuer",
        }
    }

    /// The issuer that it changes.
    #[must_use]
    pub const fn target(&self) -> AggregateRef {
        match self {
            Self::CreateIssuer(command) => command.issuer_id.aggregate(),
        }
    }

    /// The other aggregates whose existence matters to it.
    #[must_use]
    pub const fn references(&self) -> Vec<AggregateRef> {
        match self {
            Self::CreateIssuer(_) => Vec::new(),
        }
    }
}

impl Aggregate for Issuer {
    const TYPE: &'static str = "issuer";
    type Command = IssuerCommand;
    type Event = IssuerEvent;
    type Refusal = Refusal;

    fn decide(&self, command: &IssuerCommand, _known: &Known) -> Result<Vec<IssuerEvent>, Refusal> {
        match command {
            IssuerCommand::CreateIssuer(command) => command.decide(self),
        }
    }

    fn evolve(self, event: &IssuerEvent) -> Self {
        match event {
            IssuerEvent::IssuerCreated(event) => Self::Registered { name: event.name.clone() },
        }
    }
}

impl CreateIssuer {
    fn decide(&self, issuer: &Issuer) -> Result<Vec<IssuerEvent>, Refusal> {
        match issuer {
            Issuer::Missing => Ok(vec![IssuerEvent::IssuerCreated(IssuerCreated {
                issuer_id: self.issuer_id,
                name: self.name.clone(),
            })]),
            Issuer::Registered { name } if *name == self.name => Ok(Vec::new()),
            Issuer::Registered { .. } => Err(Refusal::AlreadyRegistered { id: self.issuer_id.as_uuid() }),
        }
    }
}
