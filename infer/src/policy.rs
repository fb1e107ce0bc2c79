//! INCIDENT -> DECISION: who is told, what may be done, and what must not be.

mod decide;
mod file;
mod guard;
mod level;

pub use decide::{ActionState, Decider, Decision, Memory, Proposal};
pub use file::{ActionBounds, Format, Policy, PolicyError, Problem, ReceiverSettings, Route, Secrets};
pub use guard::{Ledger, Refusal};
pub use level::{Mode, Severity};
