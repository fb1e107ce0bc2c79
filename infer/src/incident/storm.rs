//! The storm brake: where much is faulty at once, acting on each fault would do harm.

use serde::{Deserialize, Serialize};

use super::StormSettings;

/// Whether the brake is pulled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    active: bool,
    /// Windows in a row below the share.
    calm: u32,
}

/// What a window did to the brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StormChange {
    Began,
    Ended,
}

impl Storm {
    /// Takes a window's count of targets and of those with a vote for any fault. A window without targets says
    /// nothing.
    pub fn observe(
        &mut self,
        targets: usize,
        faulty: usize,
        settings: &StormSettings,
    ) -> Option<StormChange> {
        if targets == 0 {
            return None;
        }
        let stormy = targets >= settings.min_targets && faulty as f64 > settings.share * targets as f64;
        if stormy {
            self.calm = 0;
            if !self.active {
                self.active = true;
                return Some(StormChange::Began);
            }
        } else if self.active {
            self.calm += 1;
            if self.calm >= settings.leave_windows {
                *self = Self::default();
                return Some(StormChange::Ended);
            }
        }
        None
    }

    pub const fn is_active(&self) -> bool {
        self.active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brake_is_pulled_once_and_let_go_after_calm_windows() {
        let settings = StormSettings { leave_windows: 2, ..StormSettings::default() };
        let mut storm = Storm::default();
        assert_eq!(storm.observe(10, 3, &settings), None);
        assert_eq!(storm.observe(10, 4, &settings), Some(StormChange::Began));
        assert_eq!(storm.observe(10, 9, &settings), None);
        assert_eq!(storm.observe(10, 0, &settings), None);
        assert_eq!(storm.observe(10, 5, &settings), None);
        assert_eq!(storm.observe(0, 0, &settings), None);
        assert_eq!(storm.observe(10, 0, &settings), None);
        assert_eq!(storm.observe(10, 0, &settings), Some(StormChange::Ended));
        assert!(!storm.is_active());
    }

    #[test]
    fn one_target_of_two_is_no_storm() {
        assert_eq!(Storm::default().observe(2, 2, &StormSettings::default()), None);
    }
}
