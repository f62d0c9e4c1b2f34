//! The read models: what the platform remembers of its facts for those who ask.
//!
//! # Layout
//!
//! - [`tables`]: the tables and their columns
//! - [`projection`]: what each fact changes in them
//! - [`queries`]: reading them as the views of the domain

mod projection;
mod queries;
pub mod tables;

pub use projection::FinancingProjection;
pub use queries::ReadModelQueries;
