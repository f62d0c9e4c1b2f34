//! The invoice-financing platform.
//!
//! # Layout
//!
//! - `eventsourcing` (crate): the kernel; knows no invoice
//! - `domain` (crate): issuers, investors, invoices, money, and the saga between them
//! - [`sqlite`]: the embedded adapters

pub mod sqlite;
