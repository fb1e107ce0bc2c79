//! What every benchmark needs: release builds, medians, and the name of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::workspace::{cargo, root, succeed};

/// A program that has not begun by then never will.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Builds programs with the release profile; the folder that holds them.
pub fn release(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--quiet", "--bins"]);
    for package in packages {
        command.args(["--package", package]);
    }
    succeed(&mut command)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let folder = root().join(target).join("release");
    ensure!(folder.is_dir(), "cargo built, but {} is not there", folder.display());
    Ok(folder)
}

/// Programs of ours, to be measured.
#[derive(clap::Args)]
pub struct Programs {
    /// Use the programs in this folder instead of building them
    #[arg(long = "programs", value_name = "FOLDER")]
    made: Option<PathBuf>,
}

impl Programs {
    /// The folder that holds them; without one of the user's they are built.
    pub fn folder(&self, packages: &[&str]) -> anyhow::Result<PathBuf> {
        match &self.made {
            Some(folder) => folder.canonicalize().with_context(|| format!("no {}", folder.display())),
            None => release(packages),
        }
    }
}

/// Where benchmarks write.
pub fn scratch() -> anyhow::Result<PathBuf> {
    let folder = root().join("target/bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Waits until a program's log holds one of these texts; an error where it ends before, or takes too long.
pub fn wait_for(child: &mut Child, log: &Path, texts: &[&str]) -> anyhow::Result<()> {
    let limit = Instant::now() + START_LIMIT;
    loop {
        let said = fs::read_to_string(log).unwrap_or_default();
        if texts.iter().any(|text| said.contains(text)) {
            return Ok(());
        }
        if let Some(status) = child.try_wait().context("cannot ask whether it runs")? {
            bail!("it ended with {status}: {said}");
        }
        ensure!(Instant::now() < limit, "it does not begin: {said}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a running process has taken until now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Seconds of all its threads, and of them those outside the kernel.
    pub processor: f64,
    pub user: f64,
    /// Most memory that was resident, in bytes.
    pub memory: u64,
}

pub fn taken(pid: u32) -> anyhow::Result<Taken> {
    let mut taken = Taken::default();
    let folder = format!("/proc/{pid}");
    let read = |path: String| fs::read_to_string(&path).with_context(|| format!("cannot read {path}"));
    for task in fs::read_dir(format!("{folder}/task")).context("the process is gone")? {
        let text = read(format!("{}/schedstat", task?.path().display()))?;
        let nanos: f64 = text.split(' ').next().unwrap_or_default().parse().context("schedstat")?;
        taken.processor += nanos / 1e9;
    }
    // After the name in parentheses: state is the first, utime and stime the 12th and 13th.
    let stat = read(format!("{folder}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let (user, system) = (ticks(11), ticks(12));
    taken.user = taken.processor * user / (user + system).max(1.0);
    let status = read(format!("{folder}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    taken.memory = peak.context("the process has no VmHWM")? << 10;
    Ok(taken)
}

/// The middle value; of an even number the upper of both.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Processor model, processors and kernel, in a line.
pub fn machine() -> anyhow::Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let processors = read("/proc/cpuinfo")?;
    let field = |name: &str| {
        let line = processors.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.trim().to_owned())
    };
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let guest = if field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")) {
        " of a virtual machine"
    } else {
        ""
    };
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let kernel = read("/proc/sys/kernel/osrelease")?;
    Ok(format!("{count} processors{guest} ({model}), Linux {}", kernel.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 3.0);
        assert!(median(&mut []).is_nan());
    }
}
