//! VERDICT -> INCIDENT: what many rows of many windows say about one target, without haste and without flapping.

mod condition;
mod settings;
mod storm;
mod tally;
mod target;
mod tracker;

pub use condition::{Condition, Observation};
pub use settings::{IncidentSettings, StormSettings};
pub use storm::{Storm, StormChange};
pub use tally::{FaultTally, Tally, TargetTally};
pub use target::Target;
pub use tracker::{Change, Event, Incident, Snapshot, State, Suppression, Tracker};
