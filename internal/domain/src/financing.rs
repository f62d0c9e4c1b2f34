//! The bounded context as the kernel sees it: the sums of its aggregates and their commands.
//!
//! The rule this module protects: it only passes on. What a command means stands with its aggregate, so that a new
//! command changes nothing here.

use eventsourcing::model::{
    Aggregate, AggregateRef, DecodeError, EncodedEvent, EncodedSnapshot, Known, Model,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::events::Event;
use crate::ids::InvoiceId;
use crate::investor::{Investor, InvestorCommand};
use crate::invoice::{Invoice, InvoiceCommand};
use crate::issuer::{Issuer, IssuerCommand};
use crate::refusal::Refusal;

/// The Financing context.
#[derive(Debug, Clone, Copy, Default)]
pub struct Financing;

/// Every command. Its JSON names aggregate and command, as in `{"investor":{"CommitFunds":{..}}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// To an issuer.
    Issuer(IssuerCommand),
    /// To an investor.
    Investor(InvestorCommand),
    /// To an invoice.
    Invoice(InvoiceCommand),
}

/// The state of any one aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// An issuer's.
    Issuer(Issuer),
    /// An investor's.
    Investor(Investor),
    /// An invoice's.
    Invoice(Invoice),
}

impl Command {
    /// The invoice that it is about, where it is about one.
    #[must_use]
    pub const fn invoice_id(&self) -> Option<InvoiceId> {
        match self {
            Self::Issuer(_) => None,
            Self::Investor(command) => command.invoice_id(),
            Self::Invoice(command) => Some(command.invoice_id()),
        }
    }
}

impl From<IssuerCommand> for Command {
    fn from(command: IssuerCommand) -> Self {
        Self::Issuer(command)
    }
}

impl From<InvestorCommand> for Command {
    fn from(command: InvestorCommand) -> Self {
        Self::Investor(command)
    }
}

impl From<InvoiceCommand> for Command {
    fn from(command: InvoiceCommand) -> Self {
        Self::Invoice(command)
    }
}

impl State {
    const fn issuer(&self) -> Option<&Issuer> {
        match self {
            Self::Issuer(issuer) => Some(issuer),
            Self::Investor(_) | Self::Invoice(_) => None,
        }
    }

    const fn investor(&self) -> Option<&Investor> {
        match self {
            Self::Investor(investor) => Some(investor),
            Self::Issuer(_) | Self::Invoice(_) => None,
        }
    }

    const fn invoice(&self) -> Option<&Invoice> {
        match self {
            Self::Invoice(invoice) => Some(invoice),
            Self::Issuer(_) | Self::Investor(_) => None,
        }
    }
}

/// Decides, and makes events of the context of those of the aggregate. The kernel loads what [`Model::target`]
/// names, so the state is always of the command's aggregate; another one would say nothing about it, as if there
/// were none yet.
fn decide<A: Aggregate<Event: Into<Event>, Refusal = Refusal>>(
    state: Option<&A>,
    command: &A::Command,
    known: &Known,
) -> Result<Vec<Event>, Refusal> {
    let events = match state {
        Some(state) => state.decide(command, known),
        None => A::default().decide(command, known),
    }?;
    Ok(events.into_iter().map(Into::into).collect())
}

impl Model for Financing {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;

    const CONTEXT: &'static str = "financing";

    fn target(command: &Command) -> AggregateRef {
        match command {
            Command::Issuer(command) => command.target(),
            Command::Investor(command) => command.target(),
            Command::Invoice(command) => command.target(),
        }
    }

    fn method(command: &Command) -> &'static str {
        match command {
            Command::Issuer(command) => command.method(),
            Command::Investor(command) => command.method(),
            Command::Invoice(command) => command.method(),
        }
    }

    fn references(command: &Command) -> Vec<AggregateRef> {
        match command {
            Command::Issuer(command) => command.references(),
            Command::Investor(command) => command.references(),
            Command::Invoice(command) => command.references(),
        }
    }

    fn initial(target: &AggregateRef) -> Option<State> {
        match target.kind.as_ref() {
            Issuer::TYPE => Some(State::Issuer(Issuer::default())),
            Investor::TYPE => Some(State::Investor(Investor::default())),
            Invoice::TYPE => Some(State::Invoice(Invoice::default())),
            _ => None,
        }
    }

    fn decide(state: &State, command: &Command, known: &Known) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Issuer(command) => decide(state.issuer(), command, known),
            Command::Investor(command) => decide(state.investor(), command, known),
            Command::Invoice(command) => decide(state.invoice(), command, known),
        }
    }

    fn evolve(state: State, event: &Event) -> State {
        // A fact of another aggregate changes nothing: evolving is total.
        match (state, event) {
            (State::Issuer(state), Event::Issuer(event)) => State::Issuer(state.evolve(event)),
            (State::Investor(state), Event::Investor(event)) => State::Investor(state.evolve(event)),
            (State::Invoice(state), Event::Invoice(event)) => State::Invoice(state.evolve(event)),
            (state @ State::Issuer(_), Event::Investor(_) | Event::Invoice(_))
            | (state @ State::Investor(_), Event::Issuer(_) | Event::Invoice(_))
            | (state @ State::Invoice(_), Event::Issuer(_) | Event::Investor(_)) => state,
        }
    }

    fn reason(refusal: &Refusal) -> &'static str {
        refusal.code()
    }

    fn encode_event(event: &Event) -> Result<EncodedEvent, DecodeError> {
        event.encode()
    }

    fn decode_event(event_type: &str, schema: u16, data: &str) -> Result<Event, DecodeError> {
        Event::decode(event_type, schema, data)
    }

    fn encode_snapshot(state: &State) -> Result<EncodedSnapshot, DecodeError> {
        let (schema, data) = match state {
            State::Issuer(state) => (Issuer::SNAPSHOT_SCHEMA, serde_json::to_string(state)),
            State::Investor(state) => (Investor::SNAPSHOT_SCHEMA, serde_json::to_string(state)),
            State::Invoice(state) => (Invoice::SNAPSHOT_SCHEMA, serde_json::to_string(state)),
        };
        let data = data.map_err(|error| DecodeError::malformed("snapshot", error))?;
        Ok(EncodedSnapshot { schema, data })
    }

    fn decode_snapshot(target: &AggregateRef, snapshot: &EncodedSnapshot) -> Option<State> {
        match target.kind.as_ref() {
            Issuer::TYPE => read(snapshot, Issuer::SNAPSHOT_SCHEMA).map(State::Issuer),
            Investor::TYPE => read(snapshot, Investor::SNAPSHOT_SCHEMA).map(State::Investor),
            Invoice::TYPE => read(snapshot, Invoice::SNAPSHOT_SCHEMA).map(State::Invoice),
            _ => None,
        }
    }
}

/// A snapshot is a shortcut and nothing more: one that cannot be read is as good as none.
fn read<T: DeserializeOwned>(snapshot: &EncodedSnapshot, schema: u16) -> Option<T> {
    (snapshot.schema == schema).then(|| serde_json::from_str(&snapshot.data).ok()).flatten()
}
