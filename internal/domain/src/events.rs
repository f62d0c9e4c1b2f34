//! The sum of all facts, and how they are written down.
//!
//! The rule this module protects: a fact that was written once can be read for ever. A changed shape gets the next
//! schema number; the older numbers stay in [`Event::decode`], each with the step that brings it to the current shape.
//! The data holds the fact's fields and nothing else: name and schema stand beside it.

use eventsourcing::model::{DecodeError, EncodedEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ids::InvoiceId;
use crate::investor::InvestorEvent;
use crate::invoice::InvoiceEvent;
use crate::issuer::IssuerEvent;

/// Every fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Of an issuer.
    Issuer(IssuerEvent),
    /// Of an investor.
    Investor(InvestorEvent),
    /// Of an invoice.
    Invoice(InvoiceEvent),
}

impl From<IssuerEvent> for Event {
    fn from(event: IssuerEvent) -> Self {
        Self::Issuer(event)
    }
}

impl From<InvestorEvent> for Event {
    fn from(event: InvestorEvent) -> Self {
        Self::Investor(event)
    }
}

impl From<InvoiceEvent> for Event {
    fn from(event: InvoiceEvent) -> Self {
        Self::Invoice(event)
    }
}

impl Event {
    /// The fact's name.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        self.name_and_schema().0
    }

    /// The fact's name and the current version of its shape.
    #[must_use]
    pub const fn name_and_schema(&self) -> (&'static str, u16) {
        match self {
            Self::Issuer(event) => match event {
                IssuerEvent::IssuerCreated(_) => ("IssuerCreated", 1),
            },
            Self::Investor(event) => match event {
                InvestorEvent::InvestorCreated(_) => ("InvestorCreated", 1),
                InvestorEvent::InvestorFundsAdded(_) => ("InvestorFundsAdded", 1),
                InvestorEvent::BidOnInvoicePlaced(_) => ("BidOnInvoicePlaced", 1),
                InvestorEvent::InvestorFundsReleased(_) => ("InvestorFundsReleased", 1),
                InvestorEvent::InvestorFundsCommitted(_) => ("InvestorFundsCommitted", 1),
            },
            Self::Invoice(event) => match event {
                InvoiceEvent::InvoiceCreated(_) => ("InvoiceCreated", 1),
                InvoiceEvent::InvoiceFinanced(_) => ("InvoiceFinanced", 1),
                InvoiceEvent::BidOnInvoiceRejected(_) => ("BidOnInvoiceRejected", 1),
                InvoiceEvent::InvoiceApproved(_) => ("InvoiceApproved", 1),
                InvoiceEvent::InvoiceReversed(_) => ("InvoiceReversed", 1),
            },
        }
    }

    /// The name of the command that brings it about.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Issuer(event) => match event {
                IssuerEvent::IssuerCreated(_) => "CreateIssuer",
            },
            Self::Investor(event) => event.method(),
            Self::Invoice(event) => event.method(),
        }
    }

    /// The invoice that it is about, where it is about one.
    #[must_use]
    pub const fn invoice_id(&self) -> Option<InvoiceId> {
        match self {
            Self::Issuer(_) => None,
            Self::Investor(event) => event.invoice_id(),
            Self::Invoice(event) => Some(event.invoice_id()),
        }
    }

    /// Writes the fact down.
    ///
    /// # Errors
    ///
    /// When it cannot be written as JSON: a defect.
    pub fn encode(&self) -> Result<EncodedEvent, DecodeError> {
        let (event_type, schema) = self.name_and_schema();
        let data = match self {
            Self::Issuer(event) => match event {
                IssuerEvent::IssuerCreated(event) => json(event),
            },
            Self::Investor(event) => match event {
                InvestorEvent::InvestorCreated(event) => json(event),
                InvestorEvent::InvestorFundsAdded(event) => json(event),
                InvestorEvent::BidOnInvoicePlaced(event) => json(event),
                InvestorEvent::InvestorFundsReleased(event) => json(event),
                InvestorEvent::InvestorFundsCommitted(event) => json(event),
            },
            Self::Invoice(event) => match event {
                InvoiceEvent::InvoiceCreated(event) => json(event),
                InvoiceEvent::InvoiceFinanced(event) => json(event),
                InvoiceEvent::BidOnInvoiceRejected(event) => json(event),
                InvoiceEvent::InvoiceApproved(event) => json(event),
                InvoiceEvent::InvoiceReversed(event) => json(event),
            },
        };
        let data = data.map_err(|error| DecodeError::malformed(event_type, error))?;
        Ok(EncodedEvent { event_type, schema, data })
    }

    /// Reads a fact of any version ever written.
    ///
    /// # Errors
    ///
    /// An unknown name or schema, or data that does not have its shape.
    pub fn decode(event_type: &str, schema: u16, data: &str) -> Result<Self, DecodeError> {
        let source = Source { event_type, data };
        // An older schema is one more line: `("InvoiceCreated", 1) => source.read(|old: v1::InvoiceCreated|
        // InvoiceEvent::InvoiceCreated(old.into()))`, with the old shape and its `From` in a module `v1`.
        match (event_type, schema) {
            ("IssuerCreated", 1) => source.read(IssuerEvent::IssuerCreated),
            ("InvestorCreated", 1) => source.read(InvestorEvent::InvestorCreated),
            ("InvestorFundsAdded", 1) => source.read(InvestorEvent::InvestorFundsAdded),
            ("BidOnInvoicePlaced", 1) => source.read(InvestorEvent::BidOnInvoicePlaced),
            ("InvestorFundsReleased", 1) => source.read(InvestorEvent::InvestorFundsReleased),
            ("InvestorFundsCommitted", 1) => source.read(InvestorEvent::InvestorFundsCommitted),
            ("InvoiceCreated", 1) => source.read(InvoiceEvent::InvoiceCreated),
            ("InvoiceFinanced", 1) => source.read(InvoiceEvent::InvoiceFinanced),
            ("BidOnInvoiceRejected", 1) => source.read(InvoiceEvent::BidOnInvoiceRejected),
            ("InvoiceApproved", 1) => source.read(InvoiceEvent::InvoiceApproved),
            ("InvoiceReversed", 1) => source.read(InvoiceEvent::InvoiceReversed),
            _ => Err(DecodeError::UnknownEvent { event_type: event_type.to_owned(), schema }),
        }
    }
}

fn json(fields: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(fields)
}

/// A fact's data on its way in.
struct Source<'a> {
    event_type: &'a str,
    data: &'a str,
}

impl Source<'_> {
    fn read<T: DeserializeOwned, E: Into<Event>>(
        &self,
        event: impl Fn(T) -> E,
    ) -> Result<Event, DecodeError> {
        serde_json::from_str(self.data)
            .map(|fields| event(fields).into())
            .map_err(|error| DecodeError::malformed(self.event_type, error))
    }
}
