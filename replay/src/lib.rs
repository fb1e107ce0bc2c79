//! Recordings and captures to rows of features.

pub mod args;
mod coverage;
mod filter;
mod input;
mod output;
mod run;
mod schema;
mod select;
mod stats;
mod summary;

pub use output::Csv;
pub use run::run;
