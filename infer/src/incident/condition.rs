//! Whether one fault holds at one target: k of the last n windows to enter, m clear ones to leave, and how
//! often it changed its mind.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::IncidentSettings;

/// Windows that are remembered; the flap score looks at all of them.
pub const HISTORY: usize = 21;

/// What one window said about the fault at the target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    /// Enough rows named it: their mean confidence, mean margin, and how many they were.
    Vote { confidence: f64, margin: f64, rows: u64 },
    /// There were rows with an answer, and they did not name it.
    Clear,
    /// There were rows, and the model knew no answer to any of them.
    Unknown,
    /// No row, or too much was lost to judge by the rest.
    NoData,
}

/// One window as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Slot {
    observation: Observation,
    /// Whether the fault held after this window.
    holds: bool,
}

/// The memory of one fault at one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// The latest last, at most [`HISTORY`].
    slots: VecDeque<Slot>,
    holds: bool,
    /// Clear windows in a row.
    clear: u32,
    /// Windows without data in a row.
    missing: u32,
    flapping: bool,
}

impl Condition {
    /// Takes the next window.
    pub fn observe(&mut self, observation: Observation, settings: &IncidentSettings) {
        self.clear = match observation {
            Observation::Clear => self.clear.saturating_add(1),
            // A gap is neither: the windows before and after it still stand side by side.
            Observation::NoData => self.clear,
            Observation::Vote { .. } | Observation::Unknown => 0,
        };
        self.missing = match observation {
            Observation::NoData => self.missing.saturating_add(1),
            _ => 0,
        };
        if self.slots.len() == HISTORY {
            self.slots.pop_front();
        }
        self.slots.push_back(Slot { observation, holds: self.holds });
        if self.holds {
            self.holds = self.clear < settings.leave_windows;
        } else if matches!(observation, Observation::Vote { .. }) {
            self.holds = self.enough_votes(settings);
        }
        if let Some(latest) = self.slots.back_mut() {
            latest.holds = self.holds;
        }
        let score = self.flap_score();
        self.flapping =
            if self.flapping { score >= settings.flap_stop } else { score >= settings.flap_start };
    }

    fn enough_votes(&self, settings: &IncidentSettings) -> bool {
        let latest = self.slots.len().saturating_sub(settings.of_windows as usize);
        let (mut votes, mut confidences, mut margins, mut all_rows) = (0u32, 0.0, 0.0, 0);
        for slot in self.slots.iter().skip(latest) {
            if let Observation::Vote { confidence, margin, rows } = slot.observation {
                votes += 1;
                confidences += confidence;
                margins += margin;
                all_rows += rows;
            }
        }
        votes >= settings.enter_windows
            && all_rows >= settings.min_rows
            && confidences / f64::from(votes) >= settings.enter_confidence
            && margins / f64::from(votes) >= settings.enter_margin
    }

    /// How often the condition changed over the remembered windows, 0 to 1, recent changes weighing up to half
    /// as much again as old ones (0.8 to 1.2, as Nagios scores flapping).
    pub fn flap_score(&self) -> f64 {
        let changes = HISTORY - 1;
        let missing = HISTORY - self.slots.len();
        let mut score = 0.0;
        for (place, pair) in self.slots.iter().zip(self.slots.iter().skip(1)).enumerate() {
            if pair.0.holds != pair.1.holds {
                score += 0.8 + 0.4 * (missing + place) as f64 / (changes - 1) as f64;
            }
        }
        score / changes as f64
    }

    /// Whether the fault holds: it entered and has not left.
    pub const fn holds(&self) -> bool {
        self.holds
    }

    /// Whether it comes and goes too often to be acted on.
    pub const fn is_flapping(&self) -> bool {
        self.flapping
    }

    /// Windows without data in a row.
    pub const fn missing(&self) -> u32 {
        self.missing
    }

    /// Votes among the last n windows.
    pub fn votes(&self, settings: &IncidentSettings) -> usize {
        let latest = self.slots.len().saturating_sub(settings.of_windows as usize);
        self.slots
            .iter()
            .skip(latest)
            .filter(|slot| matches!(slot.observation, Observation::Vote { .. }))
            .count()
    }

    /// Whether nothing remembered differs from a target that never had this fault.
    pub fn is_blank(&self) -> bool {
        !self.holds
            && !self.flapping
            && self
                .slots
                .iter()
                .all(|slot| !slot.holds && !matches!(slot.observation, Observation::Vote { .. }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VOTE: Observation = Observation::Vote { confidence: 0.9, margin: 0.8, rows: 5 };

    fn after(observations: &[Observation]) -> Condition {
        let mut condition = Condition::default();
        for observation in observations {
            condition.observe(*observation, &IncidentSettings::default());
        }
        condition
    }

    #[test]
    fn three_of_five_enter_and_six_clear_leave() {
        use Observation::Clear;
        assert!(!after(&[VOTE, VOTE]).holds());
        assert!(after(&[VOTE, Clear, VOTE, Clear, VOTE]).holds());
        assert!(!after(&[VOTE, Clear, VOTE, Clear, Clear, VOTE]).holds());
        let mut windows = vec![VOTE; 3];
        windows.extend([Clear; 5]);
        assert!(after(&windows).holds());
        windows.push(Clear);
        assert!(!after(&windows).holds());
    }

    #[test]
    fn means_must_be_convincing() {
        let hesitant = Observation::Vote { confidence: 0.7, margin: 0.5, rows: 50 };
        assert!(!after(&[hesitant; 5]).holds());
        let close = Observation::Vote { confidence: 0.9, margin: 0.1, rows: 50 };
        assert!(!after(&[close; 5]).holds());
    }

    #[test]
    fn one_row_never_acts_alone() {
        let settings = IncidentSettings { enter_windows: 1, of_windows: 1, ..IncidentSettings::default() };
        let mut condition = Condition::default();
        condition.observe(Observation::Vote { confidence: 1.0, margin: 1.0, rows: 1 }, &settings);
        assert!(!condition.holds());
        condition.observe(Observation::Vote { confidence: 1.0, margin: 1.0, rows: 2 }, &settings);
        assert!(condition.holds());
    }

    #[test]
    fn coming_and_going_is_flapping_until_it_is_calm() {
        use Observation::Clear;
        let mut windows = Vec::new();
        for _ in 0..3 {
            windows.extend([VOTE; 3]);
            windows.extend([Clear; 6]);
        }
        let flapping = after(&windows);
        assert!(flapping.is_flapping(), "{}", flapping.flap_score());
        windows.extend([Clear; HISTORY]);
        assert!(!after(&windows).is_flapping());
        assert!(after(&windows).is_blank());
    }

    fn observation() -> impl Strategy<Value = Observation> {
        prop_oneof![
            3 => (0.5f64..=1.0, 0.0f64..=1.0, 1u64..50)
                .prop_map(|(confidence, margin, rows)| Observation::Vote { confidence, margin, rows }),
            2 => Just(Observation::Clear),
            1 => Just(Observation::Unknown),
            1 => Just(Observation::NoData),
        ]
    }

    fn settings() -> impl Strategy<Value = IncidentSettings> {
        (1u32..=6, 0u32..=6, 1u32..=8, 0.5f64..=1.0, 0.0f64..=0.5, 1u64..=20).prop_map(
            |(k, more, m, confidence, margin, rows)| IncidentSettings {
                enter_windows: k,
                of_windows: k + more,
                leave_windows: m,
                enter_confidence: confidence,
                enter_margin: margin,
                min_rows: rows,
                ..IncidentSettings::default()
            },
        )
    }

    proptest! {
        /// Whatever the windows say: it enters on k convincing votes among the last n alone, and leaves after m
        /// windows with data alone.
        #[test]
        fn it_enters_and_leaves_by_the_book(
            windows in prop::collection::vec(observation(), 1..80),
            settings in settings(),
        ) {
            let mut condition = Condition::default();
            for (now, window) in windows.iter().enumerate() {
                let before = condition.holds();
                condition.observe(*window, &settings);
                let recent = &windows[(now + 1).saturating_sub(settings.of_windows as usize)..=now];
                let votes: Vec<(f64, f64, u64)> = recent.iter().filter_map(|window| match window {
                    Observation::Vote { confidence, margin, rows } => Some((*confidence, *margin, *rows)),
                    _ => None,
                }).collect();
                if !before && condition.holds() {
                    prop_assert!(votes.len() >= settings.enter_windows as usize);
                    let count = votes.len() as f64;
                    prop_assert!(votes.iter().map(|vote| vote.0).sum::<f64>() / count >= settings.enter_confidence);
                    prop_assert!(votes.iter().map(|vote| vote.1).sum::<f64>() / count >= settings.enter_margin);
                    prop_assert!(votes.iter().map(|vote| vote.2).sum::<u64>() >= settings.min_rows);
                }
                if before && !condition.holds() {
                    let clear: Vec<&Observation> = windows[..=now].iter().rev()
                        .filter(|window| **window != Observation::NoData)
                        .take(settings.leave_windows as usize).collect();
                    prop_assert_eq!(clear.len(), settings.leave_windows as usize);
                    prop_assert!(clear.iter().all(|window| **window == Observation::Clear));
                    prop_assert!(*window == Observation::Clear, "no data never ends an incident");
                }
                let score = condition.flap_score();
                prop_assert!((0.0..=1.0 + 1e-9).contains(&score), "{score}");
            }
        }
    }
}
