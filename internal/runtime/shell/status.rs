//! Where something stands: its name for people and scripts, and in which tone it is said.
//!
//! The rule this module protects: one name and one tone for each status, and a new status does not compile until it has them.

use clap::ValueEnum;

use crate::api::proto::financing::v1::{Bid, BidStatus, CommandState, Invoice, InvoiceStatus};
use crate::runtime::terminal::Tone;

/// A status, as it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) struct Status {
    /// Its name.
    pub(in crate::runtime) name: &'static str,
    /// What it means to whoever reads it.
    pub(in crate::runtime) tone: Tone,
    /// Whether nothing can follow any more.
    pub(in crate::runtime) is_final: bool,
}

/// Where an invoice stands.
pub(in crate::runtime) fn of_invoice(invoice: &Invoice) -> Status {
    let status = invoice.status();
    let name = status.as_str_name().trim_start_matches("INVOICE_STATUS_");
    let (tone, is_final) = match status {
        InvoiceStatus::Unspecified | InvoiceStatus::Available => (Tone::Strong, false),
        InvoiceStatus::Financed => (Tone::Pending, false),
        InvoiceStatus::Approved => (Tone::Good, true),
        InvoiceStatus::Reversed => (Tone::Bad, true),
    };
    Status { name, tone, is_final }
}

/// Where a bid stands.
pub(in crate::runtime) fn of_bid(bid: &Bid) -> Status {
    let status = bid.status();
    let name = status.as_str_name().trim_start_matches("BID_STATUS_");
    let (tone, is_final) = match status {
        BidStatus::Unspecified | BidStatus::Placed => (Tone::Strong, false),
        BidStatus::Won => (Tone::Pending, false),
        BidStatus::Rejected => (Tone::Bad, false),
        BidStatus::Committed => (Tone::Good, true),
        BidStatus::Released => (Tone::Bad, true),
    };
    Status { name, tone, is_final }
}

/// Where a command stands.
pub(super) fn of_command(state: CommandState) -> Status {
    let name = state.as_str_name().trim_start_matches("COMMAND_STATE_");
    let (tone, is_final) = match state {
        CommandState::Unspecified | CommandState::Pending => (Tone::Pending, false),
        CommandState::Applied | CommandState::Unchanged => (Tone::Good, true),
        CommandState::Refused | CommandState::Dead => (Tone::Bad, true),
    };
    Status { name, tone, is_final }
}

/// An invoice's status, to filter by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InvoiceFilter {
    /// For sale.
    Available,
    /// A bid has won.
    Financed,
    /// The financing was approved.
    Approved,
    /// The financing was reversed.
    Reversed,
}

impl From<InvoiceFilter> for InvoiceStatus {
    fn from(filter: InvoiceFilter) -> Self {
        match filter {
            InvoiceFilter::Available => Self::Available,
            InvoiceFilter::Financed => Self::Financed,
            InvoiceFilter::Approved => Self::Approved,
            InvoiceFilter::Reversed => Self::Reversed,
        }
    }
}

/// A bid's status, to filter by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BidFilter {
    /// Neither won nor lost.
    Placed,
    /// Has won.
    Won,
    /// Has lost; its money is on its way back.
    Rejected,
    /// The asking price is committed.
    Committed,
    /// The money is back.
    Released,
}

impl From<BidFilter> for BidStatus {
    fn from(filter: BidFilter) -> Self {
        match filter {
            BidFilter::Placed => Self::Placed,
            BidFilter::Won => Self::Won,
            BidFilter::Rejected => Self::Rejected,
            BidFilter::Committed => Self::Committed,
            BidFilter::Released => Self::Released,
        }
    }
}
