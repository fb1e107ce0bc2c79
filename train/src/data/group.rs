//! Which rows belong together: a recording is a group, because its windows know each other too well to stand
//! on both sides of a split.

use super::Table;

/// More empty windows than this between two rows of a file, and they belong to different recordings.
const EMPTY_WINDOWS: i64 = 10;

/// The length of the windows in nanoseconds: the smallest step between two window starts of one file. `None`
/// where no file has two windows.
pub fn window_of(table: &Table) -> Option<i64> {
    table
        .file_rows()
        .filter_map(|rows| {
            let times = distinct(&table.times[rows]);
            times.windows(2).map(|pair| pair[1] - pair[0]).min()
        })
        .min()
}

impl Table {
    /// Gives every row its group: the file, and inside one file each stretch of time that more than
    /// [`EMPTY_WINDOWS`] empty windows of `window` nanoseconds set apart.
    #[allow(clippy::cast_possible_truncation)] // no more groups than rows
    pub fn assign_groups(&mut self, window: i64) {
        let mut groups = vec![0; self.len()];
        let mut names = Vec::new();
        for (file, rows) in self.file_rows().enumerate() {
            let times = distinct(&self.times[rows.clone()]);
            let apart = |pair: &[i64]| pair[1] - pair[0] > (EMPTY_WINDOWS + 1) * window;
            let starts: Vec<i64> = times.windows(2).filter(|pair| apart(pair)).map(|pair| pair[1]).collect();
            let first = names.len();
            for row in rows {
                let stretch = starts.partition_point(|start| *start <= self.times[row]);
                groups[row] = (first + stretch) as u32;
            }
            let name = &self.files[file].name;
            match starts.len() {
                0 => names.push(name.clone()),
                more => names.extend((1..=more + 1).map(|stretch| format!("{name} stretch {stretch}"))),
            }
        }
        self.groups = groups;
        self.group_names = names;
    }
}

fn distinct(times: &[i64]) -> Vec<i64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.dedup();
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DataFile;

    fn table(files: &[&[i64]]) -> Table {
        let mut table = Table::new();
        for (number, seconds) in files.iter().enumerate() {
            table.file_starts.push(table.len());
            table.times.extend(seconds.iter().map(|second| second * 1_000_000_000));
            table.labels.resize(table.times.len(), 0);
            table.files.push(DataFile { name: format!("{number}.csv"), sha256: String::new(), rows: 0 });
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
    }

    #[test]
    fn one_window_tells_no_length() {
        assert_eq!(window_of(&table(&[&[10, 10], &[700]])), None);
    }
}
