//! Which rows a record changes of the tables that can be watched.
//!
//! The rule this module protects: exactly what the projection changes in them. A record whose type says that it changes none is not
//! decoded; a type that is not known here may change any, and so it is.

use std::collections::BTreeSet;

use domain::financing::Financing;
use eventsourcing::model::DecodeError;
use eventsourcing::record::{
    COMMAND_DEAD, COMMAND_REFUSED, COMMAND_UNCHANGED, DEAD_LETTER_DISCARDED, Record,
};
use uuid::Uuid;

use crate::projection::business;
use crate::tables::{BIDS, INVESTORS, INVOICES};

/// A row: its table and its key.
pub(super) type Touched = (&'static str, Uuid);

/// The tables that can be watched.
const WATCHED: &[&str] = &[INVOICES.name, INVESTORS.name, BIDS.name];

/// The tables of which a record of this type may change rows.
fn tables(event_type: &str) -> &'static [&'static str] {
    match event_type {
        "IssuerCreated" | COMMAND_UNCHANGED | COMMAND_DEAD | DEAD_LETTER_DISCARDED => &[],
        "InvestorCreated" | "InvestorFundsAdded" => &[INVESTORS.name],
        "BidOnInvoicePlaced" | "InvestorFundsReleased" | "InvestorFundsCommitted" => {
            &[INVESTORS.name, BIDS.name]
        }
        "InvoiceCreated" | "InvoiceApproved" | "InvoiceReversed" => &[INVOICES.name],
        "InvoiceFinanced" => &[INVOICES.name, BIDS.name],
        "BidOnInvoiceRejected" | COMMAND_REFUSED => &[BIDS.name],
        _ => WATCHED,
    }
}

/// The rows that the record changes.
pub(super) fn rows(record: &Record) -> Result<BTreeSet<Touched>, DecodeError> {
    if tables(&record.event_type).is_empty() {
        return Ok(BTreeSet::new());
    }
    let changes = business(&record.entry::<Financing>()?);
    let changes = changes.into_iter().filter(|change| WATCHED.contains(&change.table));
    Ok(changes.map(|change| (change.table, change.key)).collect())
}

/// The rows of one table that the record changes.
pub(super) fn rows_of(table: &str, record: &Record) -> Result<BTreeSet<Touched>, DecodeError> {
    if !tables(&record.event_type).contains(&table) {
        return Ok(BTreeSet::new());
    }
    Ok(rows(record)?.into_iter().filter(|(of, _)| *of == table).collect())
}
