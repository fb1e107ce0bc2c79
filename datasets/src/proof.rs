//! What a recording of the lab says of itself: how it was made, and the counters that prove its label. It
//! stands in the recording's metadata, under keys that begin with `lab.`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use event::{Fault, Label};
use recording::Header;
use serde::{Deserialize, Serialize};

use crate::fault::{Recipe, Severity};
use crate::load::Workload;
use crate::run::{Outcome, Plan};
use crate::topology::Congestion;

const PREFIX: &str = "lab.";
const COUNTER: &str = "lab.counter.";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    #[serde(with = "by_name")]
    pub fault: Fault,
    pub severity: Severity,
    pub mechanism: String,
    pub seed: u64,
    pub workload: Workload,
    pub congestion: Congestion,
    /// Of the labelled stretch, in seconds.
    pub duration: u64,
    /// Runs until one took.
    pub attempts: u32,
    /// Which flows carry the label.
    pub affected: Vec<String>,
    /// Of the labelled stretch.
    pub counters: BTreeMap<String, u64>,
}

impl Proof {
    pub fn new(plan: &Plan, outcome: &Outcome) -> Self {
        Self {
            fault: plan.fault,
            severity: plan.severity,
            mechanism: plan.mechanism.to_owned(),
            seed: plan.seed,
            workload: plan.workload,
            congestion: plan.congestion,
            duration: plan.duration.as_secs(),
            attempts: outcome.attempts,
            affected: Recipe::of(plan.fault).affected.iter().map(|&selector| selector.to_owned()).collect(),
            counters: outcome.evidence.counters.clone(),
        }
    }

    /// What would make such a run again.
    pub fn plan(&self) -> Result<Plan> {
        Ok(Plan {
            fault: self.fault,
            severity: self.severity,
            mechanism: Recipe::of(self.fault).mechanism(Some(&self.mechanism))?,
            seed: self.seed,
            workload: self.workload,
            congestion: self.congestion,
            duration: Duration::from_secs(self.duration),
        })
    }

    /// The command line of such a run.
    pub fn command(&self) -> String {
        let Self { fault, mechanism, seed, duration, .. } = self;
        let (severity, workload, congestion) =
            (name(self.severity), name(self.workload), name(self.congestion));
        format!(
            "lab run --fault {fault} --severity {severity} --mechanism {mechanism} --seed {seed} \
             --workload {workload} --congestion {congestion} --duration {duration}"
        )
    }

    pub fn to_pairs(&self) -> BTreeMap<String, String> {
        let mut pairs: BTreeMap<String, String> = [
            ("fault", self.fault.to_string()),
            ("severity", name(self.severity)),
            ("mechanism", self.mechanism.clone()),
            ("seed", self.seed.to_string()),
            ("workload", name(self.workload)),
            ("congestion", name(self.congestion)),
            ("duration", self.duration.to_string()),
            ("attempts", self.attempts.to_string()),
            ("affected", self.affected.join(" ")),
        ]
        .into_iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), value))
        .collect();
        pairs.extend(self.counters.iter().map(|(key, value)| (format!("{COUNTER}{key}"), value.to_string())));
        pairs
    }

    /// From the header of a recording at `path`.
    ///
    /// # Errors
    /// Where the lab did not make it.
    pub fn from_header(header: &Header, path: &Path) -> Result<Self> {
        Self::from_pairs(&header.metadata)
            .with_context(|| format!("{}: no recording of the lab (`lab run -o`)", path.display()))
    }

    fn from_pairs(pairs: &BTreeMap<String, String>) -> Result<Self> {
        let text = |key: &str| {
            let key = format!("{PREFIX}{key}");
            pairs.get(&key).cloned().with_context(|| format!("its metadata has no `{key}`"))
        };
        let number =
            |key: &str| text(key)?.parse::<u64>().with_context(|| format!("`lab.{key}` is no number"));
        let label: Label = text("fault")?.parse()?;
        // Recordings that do not name it were made before there was a choice.
        let congestion = pairs.get("lab.congestion").map(|name| Congestion::from_str(name, false));
        let congestion = congestion.transpose().map_err(anyhow::Error::msg)?.unwrap_or_default();
        let counters = pairs.iter().filter_map(|(key, value)| Some((key.strip_prefix(COUNTER)?, value)));
        Ok(Self {
            fault: label.fault().context("`lab.fault` names no fault")?,
            severity: Severity::from_str(&text("severity")?, false).map_err(anyhow::Error::msg)?,
            mechanism: text("mechanism")?,
            seed: number("seed")?,
            workload: Workload::from_str(&text("workload")?, false).map_err(anyhow::Error::msg)?,
            congestion,
            duration: number("duration")?,
            attempts: u32::try_from(number("attempts")?)?,
            affected: text("affected")?.split_whitespace().map(str::to_owned).collect(),
            counters: counters
                .map(|(key, value)| Ok((key.to_owned(), value.parse()?)))
                .collect::<Result<_>>()
                .context("a counter is no number")?,
        })
    }
}

/// As it stands on the command line.
pub fn name(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|possible| possible.get_name().to_owned()).unwrap_or_default()
}

/// Faults stand in manifests by name.
mod by_name {
    use event::{Fault, Label};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(fault: &Fault, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(fault.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fault, D::Error> {
        let label: Label = String::deserialize(deserializer)?.parse().map_err(D::Error::custom)?;
        label.fault().ok_or_else(|| D::Error::custom("no fault has that number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_into_a_recording_is_read_back() {
        let proof = Proof {
            fault: Fault::SynFlood,
            severity: Severity::High,
            mechanism: "no-cookies".into(),
            seed: u64::MAX,
            workload: Workload::Batch,
            congestion: Congestion::Bbr,
            duration: 30,
            attempts: 2,
            affected: vec!["tcp/198.18.1.2:80".into(), "*/198.18.1.2:*".into()],
            counters: [("listen_drops".to_owned(), 7563)].into(),
        };
        assert_eq!(Proof::from_pairs(&proof.to_pairs()).unwrap(), proof);
        assert_eq!(proof.plan().unwrap().mechanism, "no-cookies");
        let mut pairs = proof.to_pairs();
        pairs.remove("lab.seed");
        assert!(Proof::from_pairs(&pairs).unwrap_err().to_string().contains("lab.seed"));
    }
}
