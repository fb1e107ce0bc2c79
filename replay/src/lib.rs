//! Recordings and captures to rows of features.

pub mod args;
mod input;
mod output;
mod run;
mod summary;

pub use run::run;
