//! What is known of the recordings: how each run was made, from the manifest that stands beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::Table;

/// What a manifest may tell of a run, and rows may be judged by.
pub const KEYS: [&str; 5] = ["fault", "severity", "mechanism", "workload", "congestion"];

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} is no manifest of runs: it wants a table `[[recording]]` with `file` for every run",
        path.display()
    )]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error(
        "{}: {first} and {second} have the same name without their extensions, and rows are matched by it; rename one",
        path.display()
    )]
    Twice { path: PathBuf, first: String, second: String },
    #[error("{}: `{key}` of {file} is no text", path.display())]
    NoText { path: PathBuf, file: String, key: &'static str },
    #[error("{} has no run with {condition}; it knows {known}", path.display())]
    NoRun { path: PathBuf, condition: String, known: String },
    #[error(
        "{} knows none of the recordings of these rows (such as {example}): its files must have the same names, \
         but for their extensions",
        path.display()
    )]
    NoneKnown { path: PathBuf, example: String },
    #[error(
        "{recording} has rows with label {label} ({name}), and {} says that its fault is {fault}: give the manifest \
         of these recordings",
        path.display()
    )]
    OtherFault { path: PathBuf, recording: String, label: u16, name: String, fault: String },
}

/// How a run was made, by [`KEYS`]; what the manifest does not tell is absent.
pub type Run = BTreeMap<&'static str, String>;

/// The runs of a manifest, for the recordings of a table.
#[derive(Debug)]
pub struct Runs {
    path: PathBuf,
    /// One per recording of the table; `None` where the manifest does not have it.
    of_recording: Vec<Option<Run>>,
}

#[derive(Deserialize)]
struct Manifest {
    recording: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    file: String,
    #[serde(flatten)]
    facts: BTreeMap<String, toml::Value>,
}

/// What the runs of a part of the data have in common: `key=value`, several divided by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(Vec<(&'static str, String)>);

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').ok_or(format!("`{pair}` is not KEY=VALUE"))?;
            let known = KEYS.into_iter().find(|known| *known == key);
            let key = known.ok_or_else(|| format!("`{key}` is none of {}", KEYS.join(", ")))?;
            Ok((key, value.to_owned()))
        };
        text.split(',').map(pair).collect::<Result<_, String>>().map(Self)
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&pairs.join(","))
    }
}

impl Condition {
    fn holds(&self, run: &Run) -> bool {
        self.0.iter().all(|(key, value)| run.get(key) == Some(value))
    }
}

/// Several conditions of which one is enough, in words.
pub fn any_of(conditions: &[Condition]) -> String {
    conditions.iter().map(Condition::to_string).collect::<Vec<_>>().join(" or ")
}

impl Runs {
    /// Reads a manifest and finds the run of every recording of the table by its name without extension.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(path: &Path, table: &Table) -> Result<Self, Error> {
        let text =
            fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let manifest: Manifest =
            toml::from_str(&text).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
        let mut known: BTreeMap<String, (String, Run)> = BTreeMap::new();
        for entry in manifest.recording {
            let run = facts(path, &entry)?;
            if let Some((first, _)) = known.insert(stem(&entry.file), (entry.file.clone(), run)) {
                return Err(Error::Twice { path: path.to_owned(), first, second: entry.file });
            }
        }
        let of_recording: Vec<Option<Run>> =
            table.recordings.iter().map(|name| known.get(&stem(name)).map(|(_, run)| run.clone())).collect();
        let runs = Self { path: path.to_owned(), of_recording };
        runs.check(table)?;
        Ok(runs)
    }

    fn check(&self, table: &Table) -> Result<(), Error> {
        let path = self.path.clone();
        if self.of_recording.iter().all(Option::is_none) {
            let example = table.recordings.first().cloned().unwrap_or_default();
            return Err(Error::NoneKnown { path, example });
        }
        let mut last = None;
        for (label, group) in table.labels.iter().zip(&table.groups) {
            if last.replace((label, group)) == Some((label, group)) {
                continue;
            }
            let Some(fault) = self.of_group(table, *group).and_then(|run| run.get("fault")) else { continue };
            let name = event::Label(*label).to_string();
            if *label != crate::set::NORMAL && name != *fault {
                let recording = table.group_names[*group as usize].clone();
                return Err(Error::OtherFault { path, recording, label: *label, name, fault: fault.clone() });
            }
        }
        Ok(())
    }

    /// Names of the table's recordings that the manifest does not have.
    pub fn unknown<'a>(&self, table: &'a Table) -> Vec<&'a str> {
        let names = table.recordings.iter().zip(&self.of_recording);
        names.filter(|(_, run)| run.is_none()).map(|(name, _)| name.as_str()).collect()
    }

    /// The run that a group of rows is of.
    pub fn of_group(&self, table: &Table, group: u32) -> Option<&Run> {
        self.of_recording[table.group_recordings[group as usize] as usize].as_ref()
    }

    /// For every group of the table whether one of the conditions holds.
    ///
    /// # Errors
    /// Where no run of the table fulfils a condition.
    pub fn matching(&self, table: &Table, conditions: &[Condition]) -> Result<Vec<bool>, Error> {
        for condition in conditions {
            if !self.of_recording.iter().flatten().any(|run| condition.holds(run)) {
                let (path, condition) = (self.path.clone(), condition.to_string());
                return Err(Error::NoRun { path, condition, known: self.values() });
            }
        }
        let holds = |group: u32| {
            self.of_group(table, group)
                .is_some_and(|run| conditions.iter().any(|condition| condition.holds(run)))
        };
        #[allow(clippy::cast_possible_truncation)] // no more groups than rows
        let groups = table.group_names.len() as u32;
        Ok((0..groups).map(holds).collect())
    }

    /// All values that occur, in words.
    fn values(&self) -> String {
        let values = |key: &'static str| -> BTreeSet<&str> {
            self.of_recording.iter().flatten().filter_map(|run| run.get(key)).map(String::as_str).collect()
        };
        let keys = KEYS.into_iter().map(|key| (key, values(key))).filter(|(_, values)| !values.is_empty());
        let keys: Vec<String> = keys
            .map(|(key, values)| format!("{key} {}", values.into_iter().collect::<Vec<_>>().join(", ")))
            .collect();
        keys.join("; ")
    }
}

fn facts(path: &Path, entry: &Entry) -> Result<Run, Error> {
    let mut run = Run::new();
    for key in KEYS {
        match entry.facts.get(key) {
            None => {}
            Some(toml::Value::String(value)) => {
                run.insert(key, value.clone());
            }
            Some(_) => return Err(Error::NoText { path: path.to_owned(), file: entry.file.clone(), key }),
        }
    }
    Ok(run)
}

/// A file's name without folder and extension.
fn stem(name: &str) -> String {
    Path::new(name).file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_told() {
        let condition: Condition = "workload=batch,severity=low".parse().unwrap();
        assert_eq!(condition.to_string(), "workload=batch,severity=low");
        let run =
            |workload: &str| Run::from([("workload", workload.to_owned()), ("severity", "low".to_owned())]);
        assert!(condition.holds(&run("batch")) && !condition.holds(&run("web")));
        assert!("batch".parse::<Condition>().unwrap_err().contains("KEY=VALUE"));
        assert!("seed=1".parse::<Condition>().unwrap_err().contains("severity"));
    }

    #[test]
    fn files_are_known_by_their_stem() {
        assert_eq!(stem("01-low.mcap"), "01-low");
        assert_eq!(stem("folder/01-low.csv"), "01-low");
        assert_eq!(stem("standard input"), "standard input");
    }
}
