//! The manifest of a set of recordings: what each one is, and the hash by which it is known. TOML, for people
//! and for programs; it is made from the recordings alone, which carry their proof inside.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use event::{Fault, Source};
use recording::Reader;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::check;
use crate::proof::Proof;

/// Stands beside its recordings.
pub const NAME: &str = "manifest.toml";

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    #[serde(rename = "recording", default)]
    pub recordings: Vec<Entry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the manifest's folder.
    pub file: PathBuf,
    pub bytes: u64,
    pub sha256: String,
    pub packets: u64,
    /// In windows of 5 s.
    pub rows: u64,
    /// Those that carry the fault's label.
    pub affected_rows: u64,
    /// Release of the kernel that it was made on.
    pub kernel: String,
    #[serde(flatten)]
    pub proof: Proof,
}

impl Entry {
    /// Describes one recording, which has to be whole.
    pub fn of(folder: &Path, file: &Path) -> Result<Self> {
        let path = folder.join(file);
        let mut reader = Reader::open(&path)?;
        while reader.next_item()?.is_some() {}
        if !reader.report().is_whole() {
            bail!("{} is damaged: make it again (`lab campaign` does)", path.display());
        }
        let proof = Proof::from_header(reader.header(), &path)?;
        let (bytes, sha256) = hash(&path)?;
        let packets = reader.report().counts.get(Source::Packets);
        let findings = check::check(&path)?;
        Ok(Self {
            file: file.to_owned(),
            bytes,
            sha256,
            packets,
            rows: findings.rows,
            affected_rows: findings.affected_rows,
            kernel: reader.header().kernel.clone(),
            proof,
        })
    }
}

impl Manifest {
    /// Describes all recordings of a folder, in the order of their names.
    pub fn of(folder: &Path) -> Result<Self> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        let mut files = Vec::new();
        for entry in entries {
            let name = PathBuf::from(
                entry.with_context(|| format!("cannot list {}", folder.display()))?.file_name(),
            );
            if name.extension().is_some_and(|extension| extension == "mcap") {
                files.push(name);
            }
        }
        files.sort();
        let recordings = files.iter().map(|file| Entry::of(folder, file)).collect::<Result<_>>()?;
        Ok(Self { recordings })
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(NAME);
        let text = toml::to_string(self).context("cannot write the manifest as TOML")?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// One line of Markdown for each class: how many runs, how much of what, and over all its runs the least and the
    /// most of each counter that proves it.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| class | runs | KiB | packets | rows | affected | counters, least to most of a run |\n\
             |---|--:|--:|--:|--:|--:|---|\n",
        );
        for fault in Fault::ALL {
            let runs: Vec<&Entry> =
                self.recordings.iter().filter(|entry| entry.proof.fault == fault).collect();
            if runs.is_empty() {
                continue;
            }
            let sum = |of: fn(&Entry) -> u64| runs.iter().map(|entry| of(entry)).sum::<u64>();
            let mut counters: BTreeMap<&str, RangeInclusive<u64>> = BTreeMap::new();
            for (name, &value) in runs.iter().flat_map(|entry| &entry.proof.counters) {
                let range = counters.entry(name).or_insert(value..=value);
                *range = value.min(*range.start())..=value.max(*range.end());
            }
            let counters: Vec<String> = counters
                .iter()
                .map(|(name, range)| format!("{name} {} to {}", range.start(), range.end()))
                .collect();
            let _ = writeln!(
                text,
                "| {} {fault} | {} | {} | {} | {} | {} | {} |",
                fault as u8,
                runs.len(),
                sum(|entry| entry.bytes) / 1024,
                sum(|entry| entry.packets),
                sum(|entry| entry.rows),
                sum(|entry| entry.affected_rows),
                counters.join(", ")
            );
        }
        text
    }

    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is no manifest", path.display()))
    }
}

fn hash(path: &Path) -> Result<(u64, String)> {
    let mut bytes = Vec::new();
    let mut file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let digest = Sha256::digest(&bytes);
    Ok((bytes.len() as u64, digest.iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The set that is kept with the source.
    #[test]
    fn the_committed_recordings_are_what_their_manifest_says() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
        let found = Manifest::of(&folder).unwrap();
        assert!(!found.recordings.is_empty());
        assert_eq!(found, Manifest::read(&folder).unwrap());
    }
}
