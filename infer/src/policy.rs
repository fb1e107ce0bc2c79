//! INCIDENT -> DECISION: who is told, what may be done, and what must not be.

mod level;

pub use level::{Mode, Severity};
