//! Features of flows and windows. No input, output, clock or randomness: the same events give the same rows,
//! byte for byte, for any number of threads.
//!
//! [`Engine`] takes events and gives closed windows; a window gives rows; [`schema`] says what stands in them.

mod affected;
mod application;
mod endpoint;
mod engine;
mod flow;
mod join;
mod key;
mod latency;
mod names;
mod prefetch;
mod row;
mod samples;
pub mod schema;
mod shard;
mod system;
pub mod tcp;
mod value;
mod window;

pub use affected::{Affected, METADATA_KEY as AFFECTED_KEY, ParseAffectedError};
pub use engine::{ClosedWindow, Closing, Config, Counts, Engine, FlowId};
pub use join::Coverage;
pub use row::Row;
pub use samples::{EXACT, SKETCH_ERROR};
pub use schema::Feature;
pub use value::Value;
