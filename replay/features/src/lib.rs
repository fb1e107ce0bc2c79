//! Features of flows and windows. No input, output, clock or randomness: the same events give the same rows.

pub mod schema;
mod value;

pub use schema::Feature;
pub use value::Value;
