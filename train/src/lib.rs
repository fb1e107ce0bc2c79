//! Fits models on feature rows and judges them on recordings they have not seen.

mod args;
mod compare;
pub mod data;
pub mod evaluate;
pub mod forest;
mod inspect;
pub mod isolation;
mod onnx;
mod plan;
mod report;
pub mod rules;
mod run;
mod sample;
mod search;
mod set;

pub use args::Args;
pub use run::run;
