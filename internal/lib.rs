//! The invoice-financing platform.
//!
//! # Layout
//!
//! - `eventsourcing` (crate): the kernel; knows no invoice
//! - `domain` (crate): issuers, investors, invoices, money, and the saga between them
//! - `verify` (crate): checks what is stored against the invariants, with code of its own
//! - `readmodel` (crate): projections and queries
//! - [`api`]: the gRPC services, conversions, and the one mapping from errors to a status
//! - [`sqlite`]: the embedded adapters
//! - [`postgres`], [`nats`]: the distributed adapters; adapters never import each other
//! - [`runtime`]: configuration, composition, telemetry, shutdown
//!
//! Arrows: `cmd -> runtime -> {api, readmodel, sqlite, postgres, nats} -> {domain, eventsourcing}`, `runtime -> verify`, `domain -> eventsourcing`;
//! `acceptance/architecture.rs` fails on any other.

pub mod api;
pub mod nats;
pub mod postgres;
pub mod runtime;
pub mod sqlite;
