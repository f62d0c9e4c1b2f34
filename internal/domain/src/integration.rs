//! What arrives from the Registering context, which owns who issuers and investors are.
//!
//! The rule this module protects: what is not for us is ignored, what is malformed is said to be so, and everything
//! else becomes a command like any other: the same one through whichever door it comes, so that an event that comes
//! through both acts once.

use std::borrow::Cow;

use eventsourcing::command::is_traceparent;
use eventsourcing::importer::{Translate, Translated};
use eventsourcing::model::DecodeError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::financing::{Command, Financing};
use crate::ids::{InvestorId, IssuerId};
use crate::investor::{CreateInvestor, InvestorCommand};
use crate::issuer::{CreateIssuer, IssuerCommand};
use crate::money::Money;
use crate::name::Name;

/// The CloudEvents type of [`IssuerRegistered`].
pub const ISSUER_REGISTERED: &str = "registering.v1.IssuerRegistered";
/// The CloudEvents type of [`InvestorRegistered`].
pub const INVESTOR_REGISTERED: &str = "registering.v1.InvestorRegistered";

/// Who sends the commands that follow from these events.
pub const ACTOR: &str = "registering";

/// The most bytes of a message that is for us: as much as a request may have.
const MAX_BYTES: usize = 64 * 1024;

/// The most characters of an event's id, and of its source.
const MAX_CHARS: usize = 256;

/// The id of the command that follows from an integration event: a UUIDv5 of the event's id and of what the command says,
/// as JSON.
///
/// Whoever knows an event's id cannot take its command's id away by using it for a request. And an event that comes again
/// with other content is another command: it is refused, where a repeated id would hide it.
#[must_use]
pub fn command_id(event_id: Uuid, command: &[u8]) -> Uuid {
    Uuid::new_v5(&event_id, &[b"event/", command].concat())
}

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

    /// Who was registered.
    #[must_use]
    pub const fn party(&self) -> Uuid {
        match self {
            Self::IssuerRegistered(event) => event.issuer_id.as_uuid(),
            Self::InvestorRegistered(event) => event.investor_id.as_uuid(),
        }
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

/// The Registering context's messages, as commands: CloudEvents 1.0 in their JSON format. What they were published under
/// does not matter; their type says what they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Registering;

impl Translate<Financing> for Registering {
    fn translate(&self, _subject: &str, payload: &[u8]) -> Translated<Command> {
        translate(payload).unwrap_or_else(Translated::Malformed)
    }
}

/// What is read of any message, before it is known to be for us.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(rename = "type", borrow, default)]
    event_type: Option<Cow<'a, str>>,
}

/// What is read of a message that is for us.
#[derive(Deserialize)]
struct CloudEvent<'a> {
    #[serde(borrow, default)]
    specversion: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    traceparent: Option<&'a RawValue>,
}

fn translate(payload: &[u8]) -> Result<Translated<Command>, String> {
    let no_event = |error: serde_json::Error| format!("not a CloudEvent in JSON: {error}");
    let typed: Typed<'_> = serde_json::from_slice(payload).map_err(no_event)?;
    let event_type = typed.event_type.ok_or("not a CloudEvent: it has no type")?;
    if ![ISSUER_REGISTERED, INVESTOR_REGISTERED].contains(&event_type.as_ref()) {
        return Ok(Translated::Ignored);
    }
    if payload.len() > MAX_BYTES {
        return Err(format!("larger than {MAX_BYTES} bytes"));
    }
    let event: CloudEvent<'_> = serde_json::from_slice(payload).map_err(no_event)?;
    if event.specversion.as_deref() != Some("1.0") {
        return Err("not a CloudEvent 1.0: its specversion is another".to_owned());
    }
    let id = attribute("id", event.id)?;
    let source = attribute("source", event.source)?;
    let data = event.data.ok_or("it has no data")?;
    let decoded = IntegrationEvent::decode(&event_type, data.get()).map_err(|error| error.to_string())?;
    let Some(decoded) = decoded else { return Ok(Translated::Ignored) };
    if decoded.party().is_nil() {
        return Err("the party's id is the nil UUID".to_owned());
    }
    let command = decoded.command();
    let content = serde_json::to_vec(&command).map_err(|error| error.to_string())?;
    let traceparent: Option<String> =
        event.traceparent.and_then(|traceparent| serde_json::from_str(traceparent.get()).ok());
    Ok(Translated::Command {
        id: command_id(event_id(&id, &source), &content),
        actor: ACTOR.to_owned(),
        // A broken one is no reason to refuse an event.
        traceparent: traceparent.filter(|traceparent| is_traceparent(traceparent)),
        command,
    })
}

/// An attribute that every CloudEvent has.
fn attribute<'a>(name: &str, text: Option<Cow<'a, str>>) -> Result<Cow<'a, str>, String> {
    let text = text.filter(|text| !text.is_empty()).ok_or_else(|| format!("it has no {name}"))?;
    if text.chars().nth(MAX_CHARS).is_some() {
        return Err(format!("its {name} has more than {MAX_CHARS} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("its {name} contains control characters"));
    }
    Ok(text)
}

/// The event's id as a UUID. One that is a UUID (in its usual form, and not nil) counts as it is, as the gRPC door takes
/// it: the same event through both doors is one event. Any other text is unique only together with its source, says the
/// specification of CloudEvents: a UUIDv5 of both.
fn event_id(id: &str, source: &str) -> Uuid {
    // The length leaves only the hyphenated form.
    let uuid = if id.len() == 36 { Uuid::try_parse(id).ok() } else { None };
    uuid.filter(|uuid| !uuid.is_nil()).unwrap_or_else(|| {
        Uuid::new_v5(&Uuid::new_v5(&Uuid::NAMESPACE_URL, source.as_bytes()), id.as_bytes())
    })
}
