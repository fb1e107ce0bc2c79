//! Many runs: every class with every severity, mechanism and a seed of its own, into one folder with a
//! manifest. A campaign that was interrupted goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cli::Interrupt;
use event::Fault;
use recording::Reader;

use crate::fault::{Recipe, Severity};
use crate::load::Workload;
use crate::manifest::{Entry, Manifest};
use crate::proof::Proof;
use crate::run::{Destination, Plan, Witnesses};
use crate::topology::Congestion;

/// What a campaign makes.
pub struct Campaign {
    pub faults: Vec<Fault>,
    /// Of each fault.
    pub runs: u32,
    pub duration: Duration,
    /// Added to the number of each run.
    pub seed: u64,
    pub folder: PathBuf,
    pub capture: PathBuf,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub made: u32,
    /// Were there already.
    pub kept: u32,
    /// Did not take, with the reason.
    pub failed: Vec<String>,
}

impl Campaign {
    /// All runs, the classes in turn: what an interrupted campaign leaves is balanced.
    pub fn plans(&self) -> Vec<Plan> {
        (0..self.runs).flat_map(|run| self.faults.iter().map(move |&fault| self.plan(fault, run))).collect()
    }

    /// Severities change with every run, mechanisms after each round of severities. Every fourth run has the
    /// second workload, for tests alone.
    fn plan(&self, fault: Fault, run: u32) -> Plan {
        let recipe = Recipe::of(fault);
        let (severities, mechanisms) = (Severity::ALL.len(), recipe.mechanisms.len());
        let run_number = run as usize;
        Plan {
            fault,
            severity: Severity::ALL[run_number % severities],
            mechanism: recipe.mechanisms[(run_number % severities + run_number / severities) % mechanisms],
            seed: self.seed + u64::from(run) * 100 + fault as u64,
            workload: if run % 4 == 3 { Workload::Batch } else { Workload::Web },
            // Every fifth: a node has clients of many kinds.
            congestion: if run % 5 == 4 { Congestion::Bbr } else { Congestion::Cubic },
            duration: self.duration,
        }
    }

    pub fn run(&self, interrupt: &Interrupt) -> Result<Tally> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        let (plans, mut tally) = (self.plans(), Tally::default());
        let (start, mut worked) = (Instant::now(), 0_u32);
        let bar = cli::counter(plans.len() as u64, "runs");
        for (number, plan) in plans.iter().enumerate() {
            let file = self.folder.join(file_name(plan));
            if is_made(&file, plan) {
                tally.kept += 1;
            } else {
                match plan.run(&recorded(file, &self.capture), interrupt) {
                    Ok(_) => tally.made += 1,
                    Err(error) if interrupt.is_raised() => return Err(error),
                    Err(error) => tally.failed.push(format!("{}: {error:#}", file_name(plan).display())),
                }
                worked += 1;
                let left = start.elapsed() / worked * u32::try_from(plans.len() - number - 1)?;
                tracing::info!(
                    "run {} of {}, at most {} min left",
                    number + 1,
                    plans.len(),
                    left.as_secs() / 60 + 1
                );
            }
            bar.inc(1);
        }
        Manifest::of(&self.folder)?.write(&self.folder)?;
        Ok(tally)
    }
}

/// A whole recording of exactly this plan.
fn is_made(file: &Path, plan: &Plan) -> bool {
    let proof = Reader::open(file).ok().and_then(|reader| Proof::from_header(reader.header(), file).ok());
    proof.and_then(|proof| proof.plan().ok()).as_ref() == Some(plan)
}

fn recorded(file: PathBuf, capture: &Path) -> Witnesses {
    let destination = Destination { file, capture: capture.to_owned() };
    Witnesses { recording: Some(destination), ..Witnesses::default() }
}

fn file_name(plan: &Plan) -> PathBuf {
    let Plan { fault, mechanism, seed, .. } = plan;
    let (severity, workload) = (plan.severity, plan.workload);
    let [severity, workload] = [crate::proof::name(severity), crate::proof::name(workload)];
    format!("{:02}-{fault}-{severity}-{mechanism}-{workload}-{seed}.mcap", *fault as u8).into()
}

/// Makes again what a manifest lists, into another folder.
pub fn repeat(manifest: &Path, folder: &Path, capture: &Path, interrupt: &Interrupt) -> Result<Tally> {
    let source = manifest.parent().unwrap_or(Path::new("."));
    if fs::canonicalize(source).ok() == fs::canonicalize(folder).ok() && folder.exists() {
        bail!("{} holds the recordings of that manifest: name another folder", folder.display());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut tally = Tally::default();
    for Entry { file, proof, .. } in Manifest::read(source)?.recordings {
        match proof.plan()?.run(&recorded(folder.join(&file), capture), interrupt) {
            Ok(_) => tally.made += 1,
            Err(error) if interrupt.is_raised() => return Err(error),
            Err(error) => tally.failed.push(format!("{}: {error:#}", file.display())),
        }
    }
    Manifest::of(folder)?.write(folder)?;
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_has_all_severities_mechanisms_and_both_workloads_of_each_class() {
        let campaign = Campaign {
            faults: Fault::ALL.to_vec(),
            runs: 10,
            duration: Duration::from_secs(30),
            seed: 1,
            folder: PathBuf::new(),
            capture: PathBuf::new(),
        };
        let plans = campaign.plans();
        assert_eq!(plans.len(), 120);
        let mut names: Vec<PathBuf> = plans.iter().map(file_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 120);
        for fault in Fault::ALL {
            let of_fault: Vec<&Plan> = plans.iter().filter(|plan| plan.fault == fault).collect();
            for mechanism in Recipe::of(fault).mechanisms {
                for severity in Severity::ALL {
                    assert!(of_fault.iter().any(|p| p.severity == severity && p.mechanism == *mechanism));
                }
            }
            assert!(of_fault.iter().any(|plan| plan.workload == Workload::Batch));
        }
    }
}
