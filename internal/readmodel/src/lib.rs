//! The read models: what the platform remembers of its facts for those who ask.
//!
//! # Layout
//!
//! - [`tables`]: the tables and their columns
//! - `projection`: what each fact changes in them
//! - `queries`: reading them as the views of the domain; `together`: those who ask for the same kind of thing ask once
//! - [`story`]: one invoice's story, put together from its records; `stories`: reading what it is made of
//! - [`live`]: reading them, and then what changes in them

mod live;
mod projection;
mod queries;
mod stories;
pub mod story;
pub mod tables;
mod together;

pub use live::LiveReadModels;
pub use projection::FinancingProjection;
pub use queries::ReadModelQueries;
pub use stories::{MOST_COMMANDS, oldest_unsettled};
