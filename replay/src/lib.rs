//! Recordings and captures to rows of features.

pub mod args;
mod input;
mod output;
mod run;
mod schema;
mod summary;

pub use output::Csv;
pub use run::run;
