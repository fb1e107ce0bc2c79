//! When an incident begins and ends.

use serde::{Deserialize, Serialize};

/// Thresholds of one incident's life. Windows are the feature windows, five seconds each by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IncidentSettings {
    /// Windows that must vote for the fault ...
    pub enter_windows: u32,
    /// ... among so many of the latest.
    pub of_windows: u32,
    /// Mean confidence of those votes, 0 to 1.
    pub enter_confidence: f64,
    /// Mean lead of those votes over the runner-up, 0 to 1.
    pub enter_margin: f64,
    /// Rows that those windows must have together: one flow's row never acts alone.
    pub min_rows: u64,
    /// Share of a target's answered rows in a window that must name the fault for the window to vote, 0 to 1.
    pub quorum: f64,
    /// Windows in a row, with data and without a vote, after which the incident is over.
    pub leave_windows: u32,
    /// A window whose rows name the fault with less mean confidence than this does not vote.
    pub leave_confidence: f64,
    /// Share of a window's packets that may be lost before the window is no data at all, 0 to 1.
    pub max_loss: f64,
    /// Flap score (0 to 1, over the last 21 windows) from which an incident is suppressed ...
    pub flap_start: f64,
    /// ... and below which it is not any longer.
    pub flap_stop: f64,
    /// Windows without data after which a stale incident is forgotten.
    pub forget_windows: u32,
}

impl Default for IncidentSettings {
    fn default() -> Self {
        Self {
            enter_windows: 3,
            of_windows: 5,
            enter_confidence: 0.8,
            enter_margin: 0.2,
            min_rows: 2,
            quorum: model::vote::QUORUM,
            leave_windows: 6,
            leave_confidence: model::vote::CONFIDENCE,
            max_loss: 0.01,
            flap_start: 0.2,
            flap_stop: 0.1,
            forget_windows: 720,
        }
    }
}

/// When so much is faulty at once that acting on each fault would do harm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StormSettings {
    /// Share of a window's targets that vote for a fault, above which the brake is pulled.
    pub share: f64,
    /// With fewer targets than this a share says nothing.
    pub min_targets: usize,
    /// Windows in a row below the share after which the brake is let go.
    pub leave_windows: u32,
}

impl Default for StormSettings {
    fn default() -> Self {
        Self { share: 0.3, min_targets: 10, leave_windows: 6 }
    }
}

impl IncidentSettings {
    /// What is wrong with the values, each with the key's name.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let shares = [
            ("enter_confidence", self.enter_confidence),
            ("enter_margin", self.enter_margin),
            ("quorum", self.quorum),
            ("leave_confidence", self.leave_confidence),
            ("max_loss", self.max_loss),
            ("flap_start", self.flap_start),
            ("flap_stop", self.flap_stop),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                problems.push(format!("{key} = {share}: must lie between 0 and 1"));
            }
        }
        if self.enter_windows == 0 || self.enter_windows > self.of_windows {
            problems.push(format!(
                "enter_windows = {}: must be at least 1 and at most of_windows ({})",
                self.enter_windows, self.of_windows
            ));
        }
        let most = super::condition::HISTORY;
        if self.of_windows as usize > most {
            problems.push(format!("of_windows = {}: at most {most} windows are kept", self.of_windows));
        }
        for (key, count) in [("leave_windows", self.leave_windows), ("forget_windows", self.forget_windows)] {
            if count == 0 {
                problems.push(format!("{key} = 0: must be at least 1"));
            }
        }
        if self.leave_confidence > self.enter_confidence {
            problems.push(format!(
                "leave_confidence = {}: must not be above enter_confidence ({}), or an incident ends as it begins",
                self.leave_confidence, self.enter_confidence
            ));
        }
        if self.flap_stop > self.flap_start {
            problems.push(format!(
                "flap_stop = {}: must not be above flap_start ({})",
                self.flap_stop, self.flap_start
            ));
        }
        problems
    }
}

impl StormSettings {
    /// What is wrong with the values, each with the key's name.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(0.0..=1.0).contains(&self.share) {
            problems.push(format!("share = {}: must lie between 0 and 1", self.share));
        }
        if self.leave_windows == 0 {
            problems.push("leave_windows = 0: must be at least 1".to_owned());
        }
        problems
    }
}
