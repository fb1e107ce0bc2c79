//! Fits models on feature rows and judges them on recordings they have not seen.

mod args;
pub mod data;
pub mod forest;
mod run;
pub mod score;
pub mod split;

pub use args::Args;
pub use run::run;
