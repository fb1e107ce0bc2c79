//! Hubble's messages, as protobuf and as JSON lines, to L7 events. No network.
//!
//! One set of types stands for both forms: [`proto`] has the wire's field numbers and the JSON's names. Field
//! numbers are those of Cilium 1.19; none was renumbered since 1.12, and unknown fields are passed over.

mod convert;
mod json;
mod names;
mod pairs;
pub mod proto;

pub use convert::{Converter, Counts, Lost, Skip};
pub use json::{BadLine, JsonMessage, JsonReader};
