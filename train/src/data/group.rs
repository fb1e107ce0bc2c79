//! Which rows belong together: a recording is a group, because its windows know each other too well to stand
//! on both sides of a split.

use std::collections::BTreeSet;

use super::Table;

/// More empty windows than this between two rows of a recording, and they belong to different recordings.
const EMPTY_WINDOWS: i64 = 10;

/// The length of the windows in nanoseconds: the smallest step between two window starts of one recording, and
/// `None` where no recording has two windows.
pub fn window_of(table: &Table) -> Option<i64> {
    let steps = |times: &BTreeSet<i64>| times.iter().zip(times.iter().skip(1)).map(|(a, b)| b - a).min();
    window_starts(table).iter().filter_map(steps).min()
}

impl Table {
    /// Gives every row its group: the recording, and inside one recording each stretch of time that more than
    /// [`EMPTY_WINDOWS`] empty windows of `window` nanoseconds set apart.
    #[allow(clippy::cast_possible_truncation)] // no more groups than rows
    pub fn assign_groups(&mut self, window: i64) {
        let mut stretches = Vec::new();
        for (recording, times) in window_starts(self).iter().enumerate() {
            let apart = |(a, b): &(&i64, &i64)| **b - **a > (EMPTY_WINDOWS + 1) * window;
            let starts: Vec<i64> =
                times.iter().zip(times.iter().skip(1)).filter(apart).map(|(_, start)| *start).collect();
            let name = &self.recordings[recording];
            let first = self.group_names.len();
            match starts.len() {
                0 => self.group_names.push(name.clone()),
                more => {
                    self.group_names
                        .extend((1..=more + 1).map(|stretch| format!("{name} stretch {stretch}")));
                }
            }
            self.group_recordings.resize(self.group_names.len(), recording as u32);
            stretches.push((first as u32, starts));
        }
        for (group, time) in self.groups.iter_mut().zip(&self.times) {
            let (first, starts) = &stretches[*group as usize];
            *group = first + starts.partition_point(|start| start <= time) as u32;
        }
    }
}

/// The distinct window starts of every recording, or of every group where those are assigned.
fn window_starts(table: &Table) -> Vec<BTreeSet<i64>> {
    let mut starts = vec![BTreeSet::new(); table.recordings.len().max(table.group_names.len())];
    let mut last = None;
    for (recording, time) in table.groups.iter().zip(&table.times) {
        if last.replace((recording, time)) != Some((recording, time)) {
            starts[*recording as usize].insert(*time);
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(files: &[&[i64]]) -> Table {
        let mut table = Table::new(usize::MAX);
        for (number, seconds) in files.iter().enumerate() {
            table.times.extend(seconds.iter().map(|second| second * 1_000_000_000));
            table.groups.resize(table.times.len(), u32::try_from(number).unwrap());
            table.recordings.push(format!("{number}.csv"));
        }
        table
    }

    #[test]
    fn a_file_is_a_group_and_a_long_silence_divides_it() {
        // 10 empty windows of 5 s do not divide (20 -> 75), 11 do (75 -> 135); the order of rows is free.
        let mut table = table(&[&[10, 15, 135, 75, 20, 15], &[10, 140]]);
        assert_eq!(window_of(&table), Some(5_000_000_000));
        table.assign_groups(5_000_000_000);
        assert_eq!(table.groups, [0, 0, 1, 0, 0, 0, 2, 3]);
        assert_eq!(
            table.group_names,
            ["0.csv stretch 1", "0.csv stretch 2", "1.csv stretch 1", "1.csv stretch 2"]
        );
        assert_eq!(table.group_recordings, [0, 0, 1, 1]);
    }

    #[test]
    fn one_window_tells_no_length() {
        assert_eq!(window_of(&table(&[&[10, 10], &[700]])), None);
    }
}
