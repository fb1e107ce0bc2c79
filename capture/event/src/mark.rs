//! Labels that somebody put on a stretch of time.

use crate::{Label, Timestamp};

/// From `time` on, what the node does carries this label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub time: Timestamp,
    pub arrival: Timestamp,
    /// Absent for a note that does not change the label.
    pub label: Option<Label>,
    pub note: String,
}
