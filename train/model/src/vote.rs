//! When the rows of a window speak for a fault: what `infer` asks of them unless told otherwise, and what `train` judges
//! verdicts by.

/// A row whose likeliest class leads the next one by less answers nothing.
pub const MARGIN: f32 = 0.2;

/// Share of a target's rows with an answer that must name the fault.
pub const QUORUM: f64 = 0.1;

/// Mean probability of the fault over the rows that name it.
pub const CONFIDENCE: f64 = 0.5;
