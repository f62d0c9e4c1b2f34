//! The read models' tables.
//!
//! The rule this module protects: every column is written from the facts of one partition only, so that the order in
//! which partitions are projected makes no difference. What joins partitions is computed when it is read.

use eventsourcing::ports::{Column, ColumnType, Index, Table};

/// The version of all tables together: another one means that the read models have to be built anew.
pub const SCHEMA_VERSION: u32 = 2;

const fn column(name: &'static str, kind: ColumnType) -> Column {
    Column { name, kind, index: Index::None }
}

const fn indexed(name: &'static str, kind: ColumnType) -> Column {
    Column { name, kind, index: Index::All }
}

/// Issuers, by their id.
pub const ISSUERS: Table = Table { name: "issuers", columns: &[indexed("name", ColumnType::Text)] };

/// Investors and their balances in minor units, by their id.
pub const INVESTORS: Table = Table {
    name: "investors",
    columns: &[
        indexed("name", ColumnType::Text),
        column("currency", ColumnType::Text),
        column("available", ColumnType::Integer),
        column("reserved", ColumnType::Integer),
        column("committed", ColumnType::Integer),
    ],
};

/// Invoices, by their id.
pub const INVOICES: Table = Table {
    name: "invoices",
    columns: &[
        indexed("issuer_id", ColumnType::Uuid),
        column("currency", ColumnType::Text),
        column("asking_price", ColumnType::Integer),
        indexed("status", ColumnType::Text),
        column("winning_bid", ColumnType::Uuid),
        indexed("winning_investor", ColumnType::Uuid),
        column("winning_amount", ColumnType::Integer),
    ],
};

/// Bids, by their id. `verdict` and `reason` come from the invoice's partition, all else from the investor's; so a row
/// may for a moment have only one half.
pub const BIDS: Table = Table {
    name: "bids",
    columns: &[
        indexed("investor_id", ColumnType::Uuid),
        indexed("invoice_id", ColumnType::Uuid),
        column("currency", ColumnType::Text),
        column("amount", ColumnType::Integer),
        indexed("settlement", ColumnType::Text),
        indexed("verdict", ColumnType::Text),
        column("reason", ColumnType::Text),
    ],
};

/// Commands, by their id. The outcome (`state` to `log_sequence`) comes from the partition of the command's aggregate. What a
/// policy's command is about comes from its cause's partition, from the moment that the cause is projected; so a row may for
/// a while have only one half, and one without `state` is a step of a saga that has not been taken.
///
/// `invoice_id` and `since` come with the cause of a policy's command, and with the outcome of any other that is about an
/// invoice. `since` is when that was, in microseconds since the Unix epoch.
pub const COMMANDS: Table = Table {
    name: "commands",
    columns: &[
        column("state", ColumnType::Text),
        column("reason", ColumnType::Text),
        column("message", ColumnType::Text),
        column("log_partition", ColumnType::Integer),
        column("log_sequence", ColumnType::Integer),
        indexed("invoice_id", ColumnType::Uuid),
        Column { name: "since", kind: ColumnType::Integer, index: Index::WhileAbsent("state") },
        column("cause_partition", ColumnType::Integer),
        column("cause_sequence", ColumnType::Integer),
    ],
};

/// All of them.
pub const TABLES: &[Table] = &[ISSUERS, INVESTORS, INVOICES, BIDS, COMMANDS];

/// The investor's part of a bid's way: nothing, or how its reservation ended.
pub(super) mod settlement {
    pub(in super::super) const COMMITTED: &str = "COMMITTED";
    pub(in super::super) const RELEASED: &str = "RELEASED";
}

/// The invoice's part of a bid's way: nothing, or what was decided.
pub(super) mod verdict {
    pub(in super::super) const WON: &str = "WON";
    pub(in super::super) const REJECTED: &str = "REJECTED";
}

/// An outcome's state.
pub(super) mod state {
    pub(in super::super) const APPLIED: &str = "APPLIED";
    pub(in super::super) const UNCHANGED: &str = "UNCHANGED";
    pub(in super::super) const REFUSED: &str = "REFUSED";
    pub(in super::super) const DEAD: &str = "DEAD";
}
