//! Fits models on feature rows and judges them on recordings they have not seen.

mod args;
pub mod data;
pub mod evaluate;
pub mod forest;
pub mod isolation;
mod plan;
pub mod rules;
mod run;
mod set;

pub use args::Args;
pub use run::run;
