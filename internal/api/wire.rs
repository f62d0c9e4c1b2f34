//! From the read side and the kernel to the wire.
//!
//! The rule this module protects: every value of the domain has one form on the wire, and a new one does not compile
//! until it has.

use domain::money::{Amount, Money};
use domain::views::{
    BidStatus, BidView, CommandState, CommandView, InvestorView, InvoiceStatus, InvoiceView, IssuerView,
    WinningBid,
};
use eventsourcing::cloudevent::{CloudEvent, DATA_CONTENT_TYPE, SPEC_VERSION};
use eventsourcing::environment::Timestamp;
use eventsourcing::model::Model as _;
use eventsourcing::record::Record;
use uuid::Uuid;

use super::proto::financing::v1;

impl From<Money> for v1::Money {
    fn from(money: Money) -> Self {
        let (currency_code, units, nanos) = money.to_wire();
        Self { currency_code: currency_code.to_owned(), units, nanos }
    }
}

impl From<Amount> for v1::Money {
    fn from(amount: Amount) -> Self {
        amount.money().into()
    }
}

impl From<IssuerView> for v1::Issuer {
    fn from(issuer: IssuerView) -> Self {
        Self { id: issuer.id.to_string(), name: issuer.name }
    }
}

impl From<InvestorView> for v1::Investor {
    fn from(investor: InvestorView) -> Self {
        Self {
            id: investor.id.to_string(),
            name: investor.name,
            available: Some(investor.available.into()),
            reserved: Some(investor.reserved.into()),
            committed: Some(investor.committed.into()),
        }
    }
}

impl From<InvoiceStatus> for v1::InvoiceStatus {
    fn from(status: InvoiceStatus) -> Self {
        match status {
            InvoiceStatus::Available => Self::Available,
            InvoiceStatus::Financed => Self::Financed,
            InvoiceStatus::Approved => Self::Approved,
            InvoiceStatus::Reversed => Self::Reversed,
        }
    }
}

impl From<WinningBid> for v1::WinningBid {
    fn from(bid: WinningBid) -> Self {
        Self {
            bid_id: bid.bid_id.to_string(),
            investor_id: bid.investor_id.to_string(),
            amount: Some(bid.amount.into()),
        }
    }
}

impl From<InvoiceView> for v1::Invoice {
    fn from(invoice: InvoiceView) -> Self {
        Self {
            id: invoice.id.to_string(),
            issuer_id: invoice.issuer_id.to_string(),
            asking_price: Some(invoice.asking_price.into()),
            status: v1::InvoiceStatus::from(invoice.status).into(),
            winning_bid: invoice.winning_bid.map(Into::into),
        }
    }
}

impl From<BidStatus> for v1::BidStatus {
    fn from(status: BidStatus) -> Self {
        match status {
            BidStatus::Placed => Self::Placed,
            BidStatus::Won => Self::Won,
            BidStatus::Rejected => Self::Rejected,
            BidStatus::Committed => Self::Committed,
            BidStatus::Released => Self::Released,
        }
    }
}

impl From<BidView> for v1::Bid {
    fn from(bid: BidView) -> Self {
        Self {
            id: bid.id.to_string(),
            investor_id: bid.investor_id.to_string(),
            invoice_id: bid.invoice_id.to_string(),
            amount: Some(bid.amount.into()),
            status: v1::BidStatus::from(bid.status).into(),
            reason: bid.reason.unwrap_or_default(),
        }
    }
}

impl From<CommandState> for v1::CommandState {
    fn from(state: CommandState) -> Self {
        match state {
            CommandState::Applied => Self::Applied,
            CommandState::Unchanged => Self::Unchanged,
            CommandState::Refused => Self::Refused,
            CommandState::Dead => Self::Dead,
        }
    }
}

impl From<CommandView> for v1::Command {
    fn from(command: CommandView) -> Self {
        Self {
            id: command.id.to_string(),
            state: v1::CommandState::from(command.state).into(),
            reason: command.reason.unwrap_or_default(),
            message: command.message.unwrap_or_default(),
            token: command.position.to_string(),
        }
    }
}

/// A command without an outcome.
pub(crate) fn pending(command_id: Uuid) -> v1::Command {
    v1::Command {
        id: command_id.to_string(),
        state: v1::CommandState::Pending.into(),
        ..v1::Command::default()
    }
}

/// A moment.
pub(crate) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, micros) = (at.as_micros() / 1_000_000, at.as_micros() % 1_000_000);
    prost_types::Timestamp {
        // A u64 of microseconds has few enough seconds, and a million of microseconds few enough nanos.
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(micros.saturating_mul(1000)).unwrap_or_default(),
    }
}

/// So many microseconds; seconds and nanoseconds have the same sign.
pub(crate) fn duration(micros: i64) -> prost_types::Duration {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    prost_types::Duration { seconds, nanos: i32::try_from(micros.saturating_mul(1000)).unwrap_or_default() }
}

/// A record as it is streamed.
pub(crate) fn fact(record: &Record) -> v1::WatchFactsResponse {
    let event = CloudEvent::of(record, domain::financing::Financing::CONTEXT);
    let time = timestamp(Timestamp::from_micros(event.time_micros));
    v1::WatchFactsResponse {
        fact: Some(v1::CloudEvent {
            id: event.id,
            source: event.source,
            spec_version: SPEC_VERSION.to_owned(),
            r#type: event.event_type,
            subject: event.subject,
            time: Some(time),
            data_content_type: DATA_CONTENT_TYPE.to_owned(),
            data: event.data.to_owned(),
            extensions: event.extensions.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }),
        position: Some(v1::LogPosition {
            partition: record.partition.index().into(),
            sequence: record.sequence.get(),
        }),
    }
}
