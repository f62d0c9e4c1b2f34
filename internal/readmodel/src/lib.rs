//! The read models: what the platform remembers of its facts for those who ask.
//!
//! # Layout
//!
//! - [`tables`]: the tables and their columns
//! - `projection`: what each fact changes in them
//! - `queries`: reading them as the views of the domain
//! - [`story`]: one invoice's story, put together from its records; `stories`: reading what it is made of

mod projection;
mod queries;
mod stories;
pub mod story;
pub mod tables;

pub use projection::FinancingProjection;
pub use queries::ReadModelQueries;
pub use stories::MOST_COMMANDS;
