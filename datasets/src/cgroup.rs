//! The server's control groups: one child group in every hierarchy that has a controller of ours.
//!
//! Limits are set by whichever version of a controller the machine has. On a machine of version 1 the child
//! of the bare version 2 mount still counts cpu and pressure per group, so the server joins both.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::Process;

/// Groups of the lab are called this and the process id of the lab that made them.
const PREFIX: &str = "faultline-lab-";
/// Processes of a group need a moment to go after they are killed.
const REMOVAL_LIMIT: Duration = Duration::from_secs(5);

/// The kernel's default period of the limit on processor time.
const PERIOD: Duration = Duration::from_millis(100);
/// Far more than the servers use.
const WIDE_MEMORY: u64 = 1 << 30;

/// One group in one hierarchy.
struct Group {
    path: PathBuf,
}

pub struct Groups(Vec<Group>);

impl Groups {
    /// Makes the groups; those that a lab of the past left behind are removed first.
    pub fn create() -> Result<Self> {
        let name = format!("{PREFIX}{}", std::process::id());
        let mut groups = Self(Vec::new());
        for parent in hierarchies()? {
            sweep(&parent)?;
            let path = parent.join(&name);
            fs::create_dir(&path)
                .with_context(|| format!("cannot create control group {}", path.display()))?;
            groups.0.push(Group { path });
        }
        groups.lift_limits()?;
        Ok(groups)
    }

    /// Every run has limits, wide ones: a limit alone must not tell a fault from none.
    pub fn lift_limits(&self) -> Result<()> {
        self.cpu_limit()?.set(4 * PERIOD)?;
        self.limit_memory(WIDE_MEMORY)
    }

    /// The same command, started inside the groups: it joins them before it becomes the program, so that
    /// everything it forks is in them too.
    pub fn joined(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        let join: String = self
            .0
            .iter()
            .map(|group| format!("echo 0 > '{}/cgroup.procs' && ", group.path.display()))
            .collect();
        shell.arg("-c").arg(format!("{join}exec \"$@\"")).arg("sh");
        shell.arg(command.get_program()).args(command.get_args());
        // Servers log to files of the run; what they say when they cannot start is read from here.
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        shell
    }

    /// Moves a process that runs already.
    pub fn adopt(&self, process: &Process) -> Result<()> {
        self.0.iter().try_for_each(|group| write(&group.path.join("cgroup.procs"), &process.id().to_string()))
    }

    /// The first of these files that is there: the version 2 file, then the version 1 file.
    fn file(&self, names: &[&str]) -> Result<PathBuf> {
        let found =
            names.iter().find_map(|name| self.0.iter().map(|g| g.path.join(name)).find(|p| p.exists()));
        found.with_context(|| format!("no control group here has {}", names.join(" or ")))
    }

    /// The limit on processor time, for a thread that changes it again and again.
    pub fn cpu_limit(&self) -> Result<CpuLimit> {
        let path = self.file(&["cpu.max", "cpu.cfs_quota_us"])?;
        if path.ends_with("cpu.cfs_quota_us") {
            write(&path.with_file_name("cpu.cfs_period_us"), &PERIOD.as_micros().to_string())?;
        }
        // The version 2 hierarchy has a cpu.stat even where the limit is version 1's: ask beside the limit.
        Ok(CpuLimit { statistics: path.with_file_name("cpu.stat"), limit: path })
    }

    /// At most that many bytes of memory, page cache included.
    pub fn limit_memory(&self, bytes: u64) -> Result<()> {
        write(&self.file(&["memory.max", "memory.limit_in_bytes"])?, &bytes.to_string())
    }

    pub fn memory(&self) -> Result<Memory> {
        let usage = read(&self.file(&["memory.current", "memory.usage_in_bytes"])?)?;
        let usage = usage.trim().parse().context("a group's memory usage is no number")?;
        if let Ok(events) = self.file(&["memory.events"]) {
            let text = read(&events)?;
            return Ok(Memory { usage, limit_hits: value(&text, "max"), kills: value(&text, "oom_kill") });
        }
        let hits = read(&self.file(&["memory.failcnt"])?)?;
        let oom = read(&self.file(&["memory.oom_control"])?)?;
        Ok(Memory {
            usage,
            limit_hits: hits.trim().parse().unwrap_or_default(),
            kills: value(&oom, "oom_kill"),
        })
    }
}

/// Memory of the group in bytes, and how often it met its limit or lost a process to it.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub usage: u64,
    pub limit_hits: u64,
    pub kills: u64,
}

/// The group's limit on processor time and what came of it.
#[derive(Clone, Debug)]
pub struct CpuLimit {
    limit: PathBuf,
    statistics: PathBuf,
}

/// Periods of the limit in which the group ran, and those in which it had to wait.
#[derive(Clone, Copy, Debug)]
pub struct Periods {
    pub all: u64,
    pub throttled: u64,
}

impl CpuLimit {
    /// Processor time for each 100 ms.
    pub fn set(&self, quota: Duration) -> Result<()> {
        let quota = quota.as_micros();
        let version_2 = self.limit.ends_with("cpu.max");
        let text = if version_2 { format!("{quota} {}", PERIOD.as_micros()) } else { quota.to_string() };
        write(&self.limit, &text)
    }

    pub fn periods(&self) -> Result<Periods> {
        let text = read(&self.statistics)?;
        Ok(Periods { all: value(&text, "nr_periods"), throttled: value(&text, "nr_throttled") })
    }
}

/// The value of that key in lines of key and value.
fn value(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in &self.0 {
            if let Err(error) = remove(&group.path) {
                tracing::warn!("control group left behind: {error:#}");
            }
        }
    }
}

/// Where to make groups: below the group that this process is in, so that no other group is touched. In a
/// version 2 hierarchy it is the nearest one above that hands out the controllers, since a group that has
/// processes cannot.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = read(Path::new("/proc/self/mounts"))?;
    let own = read(Path::new("/proc/self/cgroup"))?;
    let mut parents = Vec::new();
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        let &[_, root, kind, options, ..] = fields.as_slice() else { continue };
        let has = |controller: &str| options.split(',').any(|option| option == controller);
        // `4:memory:/path` in version 1, `0::/path` in version 2.
        let path_where = |is_it: &dyn Fn(&str) -> bool| {
            own.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                is_it(controllers).then(|| Path::new(root).join(path.trim_start_matches('/')))
            })
        };
        match kind {
            "cgroup" if has("cpu") || has("memory") => {
                parents.extend(path_where(&|cs| !cs.is_empty() && cs.split(',').all(has)));
            }
            "cgroup2" => parents.extend(path_where(&str::is_empty).map(|path| handing_out(&path))),
            _ => {}
        }
    }
    Ok(parents)
}

/// The nearest group at or above `path` that gives its children limits; `path` itself where there is none.
fn handing_out(path: &Path) -> PathBuf {
    let hands_out = |group: &&Path| {
        let text = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
        ["cpu", "memory"].iter().all(|controller| text.split_whitespace().any(|word| word == *controller))
    };
    path.ancestors().find(hands_out).unwrap_or(path).to_owned()
}

/// Removes the groups of labs that are no more.
fn sweep(parent: &Path) -> Result<()> {
    let entries = fs::read_dir(parent).with_context(|| format!("cannot list {}", parent.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            tracing::info!("removing the control group of a lab that has ended: {}", entry.path().display());
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVAL_LIMIT;
    while let Err(error) = fs::remove_dir(path) {
        // Another lab was faster.
        if error.kind() == ErrorKind::NotFound {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{}: {error}", path.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
