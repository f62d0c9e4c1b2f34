//! What each fact changes in the read models.
//!
//! The rule this module protects: a new kind of fact does not compile before somebody has said here what it changes.

use domain::events::Event;
use domain::financing::{Command, Financing};
use domain::ids::InvoiceId;
use domain::investor::InvestorEvent;
use domain::invoice::{InvoiceEvent, InvoiceStatus};
use domain::issuer::IssuerEvent;
use domain::money::Amount;
use domain::reservation::ReleaseKind;
use domain::saga::Saga;
use eventsourcing::model::{Entry, Policies as _, Projection};
use eventsourcing::mutants::{Mutant, planted};
use eventsourcing::policy::{derived_command_id, policy_of};
use eventsourcing::ports::{RowChange, Table, Value};
use eventsourcing::record::Record;
use uuid::Uuid;

use crate::tables::{BIDS, COMMANDS, INVESTORS, INVOICES, ISSUERS, settlement, state, verdict};

/// The read models of the Financing context.
#[derive(Debug, Clone, Copy, Default)]
pub struct FinancingProjection;

impl Projection<Financing> for FinancingProjection {
    fn project(&self, record: &Record, entry: &Entry<Financing>) -> Vec<RowChange> {
        let mut changes = business(entry);
        // A command's row is there when all of its facts are.
        if record.last_of_command {
            let row = outcome(record, entry);
            // A policy's command says what it is about where its cause is.
            changes.push(if is_derived(record) { row } else { about(row, record, concerned(record, entry)) });
        }
        changes.extend(expected(record, entry));
        changes
    }
}

/// What a record changes in any table but that of the commands.
pub(crate) fn business(entry: &Entry<Financing>) -> Vec<RowChange> {
    match entry {
        Entry::Fact(event) => on_fact(event),
        Entry::Refused { command, refusal } => on_refusal(command, refusal.code()),
        Entry::Unchanged { .. } | Entry::Dead | Entry::Discarded => Vec::new(),
    }
}

/// A change under construction.
fn change(table: Table, key: Uuid) -> RowChange {
    RowChange { table: table.name, key, set: Vec::new(), add: Vec::new() }
}

trait Build: Sized {
    fn text(self, column: &'static str, value: impl Into<String>) -> Self;
    fn uuid(self, column: &'static str, value: Uuid) -> Self;
    fn integer(self, column: &'static str, value: i64) -> Self;
    fn plus(self, column: &'static str, amount: Amount) -> Self;
    fn minus(self, column: &'static str, amount: Amount) -> Self;
}

impl Build for RowChange {
    fn text(mut self, column: &'static str, value: impl Into<String>) -> Self {
        self.set.push((column, Value::Text(value.into())));
        self
    }

    fn uuid(mut self, column: &'static str, value: Uuid) -> Self {
        self.set.push((column, Value::Uuid(value)));
        self
    }

    fn integer(mut self, column: &'static str, value: i64) -> Self {
        self.set.push((column, Value::Integer(value)));
        self
    }

    fn plus(mut self, column: &'static str, amount: Amount) -> Self {
        self.add.push((column, amount.minor()));
        self
    }

    fn minus(mut self, column: &'static str, amount: Amount) -> Self {
        // An amount is positive and far below the limits of the type.
        self.add.push((column, amount.minor().saturating_neg()));
        self
    }
}

fn on_fact(event: &Event) -> Vec<RowChange> {
    match event {
        Event::Issuer(IssuerEvent::IssuerCreated(created)) => {
            vec![change(ISSUERS, created.issuer_id.as_uuid()).text("name", created.name.as_str())]
        }
        Event::Investor(event) => on_investor(event),
        Event::Invoice(event) => on_invoice(event),
    }
}

fn on_investor(event: &InvestorEvent) -> Vec<RowChange> {
    match event {
        InvestorEvent::InvestorCreated(created) => vec![
            change(INVESTORS, created.investor_id.as_uuid())
                .text("name", created.name.as_str())
                .text("currency", created.currency_code.code()),
        ],
        InvestorEvent::InvestorFundsAdded(added) => {
            vec![change(INVESTORS, added.investor_id.as_uuid()).plus("available", added.amount)]
        }
        InvestorEvent::BidOnInvoicePlaced(bid) => vec![
            change(INVESTORS, bid.investor_id.as_uuid())
                .minus("available", bid.amount)
                .plus("reserved", bid.amount),
            change(BIDS, bid.bid_id.as_uuid())
                .uuid("investor_id", bid.investor_id.as_uuid())
                .uuid("invoice_id", bid.invoice_id.as_uuid())
                .text("currency", bid.amount.currency().code())
                .integer("amount", bid.amount.minor()),
        ],
        InvestorEvent::InvestorFundsReleased(released) => {
            if released.kind == ReleaseKind::Excess && planted(Mutant::ExcessNotShown) {
                return Vec::new();
            }
            let mut changes = vec![
                change(INVESTORS, released.investor_id.as_uuid())
                    .minus("reserved", released.amount)
                    .plus("available", released.amount),
            ];
            match released.kind {
                ReleaseKind::Release | ReleaseKind::Return => {
                    let bid = change(BIDS, released.bid_id.as_uuid());
                    changes.push(bid.text("settlement", settlement::RELEASED));
                }
                // The bid still stands: only what it had too much is back.
                ReleaseKind::Excess => {}
            }
            changes
        }
        InvestorEvent::InvestorFundsCommitted(committed) => vec![
            change(INVESTORS, committed.investor_id.as_uuid())
                .minus("reserved", committed.amount)
                .plus("committed", committed.amount),
            change(BIDS, committed.bid_id.as_uuid()).text("settlement", settlement::COMMITTED),
        ],
    }
}

fn on_invoice(event: &InvoiceEvent) -> Vec<RowChange> {
    match event {
        InvoiceEvent::InvoiceCreated(created) => vec![
            change(INVOICES, created.invoice_id.as_uuid())
                .uuid("issuer_id", created.issuer_id.as_uuid())
                .text("currency", created.asking_price.currency().code())
                .integer("asking_price", created.asking_price.minor())
                .text("status", InvoiceStatus::Available.code()),
        ],
        InvoiceEvent::InvoiceFinanced(winner) => vec![
            change(INVOICES, winner.invoice_id.as_uuid())
                .text("status", InvoiceStatus::Financed.code())
                .uuid("winning_bid", winner.bid_id.as_uuid())
                .uuid("winning_investor", winner.investor_id.as_uuid())
                .integer("winning_amount", winner.amount.minor()),
            change(BIDS, winner.bid_id.as_uuid()).text("verdict", verdict::WON),
        ],
        InvoiceEvent::BidOnInvoiceRejected(bid) => vec![rejected(bid.bid_id.as_uuid(), bid.reason.code())],
        InvoiceEvent::InvoiceApproved(approved) => {
            vec![status(approved.invoice_id.as_uuid(), InvoiceStatus::Approved)]
        }
        InvoiceEvent::InvoiceReversed(reversed) => {
            vec![status(reversed.invoice_id.as_uuid(), InvoiceStatus::Reversed)]
        }
    }
}

/// A refused command that carried a bid is the bid's rejection.
fn on_refusal(command: &Command, reason: &str) -> Vec<RowChange> {
    match command {
        Command::Invoice(command) => {
            command.carried_bid().map(|bid| rejected(bid.bid_id.as_uuid(), reason)).into_iter().collect()
        }
        Command::Issuer(_) | Command::Investor(_) => Vec::new(),
    }
}

fn rejected(bid_id: Uuid, reason: &str) -> RowChange {
    change(BIDS, bid_id).text("verdict", verdict::REJECTED).text("reason", reason)
}

fn status(invoice_id: Uuid, status: InvoiceStatus) -> RowChange {
    change(INVOICES, invoice_id).text("status", status.code())
}

/// Whether the record's command is one that [`expected`] names where its cause is projected.
fn is_derived(record: &Record) -> bool {
    policy_of(&record.actor)
        .is_some_and(|policy| derived_command_id(record.causation_id, policy) == record.command_id)
}

/// The invoice that a record is about, where it is about one.
fn concerned(record: &Record, entry: &Entry<Financing>) -> Option<InvoiceId> {
    match entry {
        Entry::Fact(event) => event.invoice_id(),
        Entry::Refused { command, .. } | Entry::Unchanged { command } => command.invoice_id(),
        Entry::Dead => record.dead_command::<Financing>()?.invoice_id(),
        // It is about a letter.
        Entry::Discarded => None,
    }
}

/// What follows from the record by a policy: the command that is expected from now on.
fn expected(record: &Record, entry: &Entry<Financing>) -> Option<RowChange> {
    let (policy, command) = Saga.react(entry)?;
    let row = change(COMMANDS, derived_command_id(record.record_id, policy))
        .integer("cause_partition", i64::from(record.partition.index()))
        .integer("cause_sequence", signed(record.sequence.get()));
    Some(about(row, record, command.invoice_id()))
}

fn about(row: RowChange, record: &Record, invoice_id: Option<InvoiceId>) -> RowChange {
    match invoice_id {
        Some(invoice_id) => row
            .uuid("invoice_id", invoice_id.as_uuid())
            .integer("since", signed(record.recorded_at.as_micros())),
        None => row,
    }
}

/// What counts records or microseconds never comes near the limits of the type.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn outcome(record: &Record, entry: &Entry<Financing>) -> RowChange {
    let row = change(COMMANDS, record.command_id)
        .integer("log_partition", i64::from(record.partition.index()))
        .integer("log_sequence", signed(record.sequence.get()));
    match entry {
        Entry::Fact(_) | Entry::Discarded => row.text("state", state::APPLIED),
        Entry::Unchanged { .. } => row.text("state", state::UNCHANGED),
        Entry::Refused { refusal, .. } => {
            let row = row.text("state", state::REFUSED).text("reason", refusal.code());
            // In the words that the client was told, which another release may choose otherwise.
            match record.refusal_reason() {
                Ok(Some(told)) => row.text("message", told.message),
                Ok(None) | Err(_) => row.text("message", refusal.to_string()),
            }
        }
        Entry::Dead => {
            let row = row.text("state", state::DEAD);
            // The record was decoded before, so this cannot fail; a row without a reason would still be true.
            match record.dead_letter() {
                Ok(Some(dead)) => row.text("reason", dead.reason.code()).text("message", dead.message),
                Ok(None) | Err(_) => row,
            }
        }
    }
}
