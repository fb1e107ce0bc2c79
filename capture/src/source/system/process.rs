//! The processes of the node: their use of the processor, and the namespace and cgroups they are in.

use std::collections::BTreeMap;
use std::fs;

use event::Duration;
use procfs_core::FromRead as _;

use super::files::Files;

/// Snapshots after which a process's namespace and cgroups are looked up again: runtimes move a process once,
/// shortly after its start.
const SETTLED: u32 = 10;

/// Most processes in one snapshot. Those left out used the processor less than all that are in.
const MAX_PROCESSES: usize = 64;

/// A cgroup of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// Comma-separated controllers; empty in the unified hierarchy.
    pub controllers: String,
    /// From the hierarchy's root, with a leading slash.
    pub path: String,
}

#[derive(Debug)]
pub(super) struct Process {
    start_time: u64,
    name: String,
    /// Clock ticks of user and system time.
    ticks: u64,
    /// Since the snapshot before.
    used: u64,
    is_zombie: bool,
    /// Snapshots that it was in.
    age: u32,
    /// Inode of its network namespace; 0 where it cannot be read.
    pub namespace: u64,
    pub cgroups: Vec<Membership>,
}

/// All processes, by pid.
#[derive(Debug)]
pub(super) struct Processes {
    pub by_pid: BTreeMap<u32, Process>,
    ticks_per_second: u64,
    is_first: bool,
}

impl Processes {
    pub fn new() -> Self {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
        let ticks_per_second = ticks.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100).max(1);
        Self { by_pid: BTreeMap::new(), ticks_per_second, is_first: true }
    }

    /// Reads all processes anew.
    pub fn update(&mut self, files: &Files) {
        let mut before = std::mem::take(&mut self.by_pid);
        self.is_first = before.is_empty();
        let Ok(entries) = fs::read_dir(&files.proc_root) else { return };
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(process) = Process::read(files, pid, before.remove(&pid)) {
                self.by_pid.insert(pid, process);
            }
        }
    }

    /// Those that used the processor since the snapshot before, busiest first; at the first snapshot all, so that
    /// whoever reads on has a value to start from.
    pub fn busiest(&self) -> Vec<event::Process> {
        let mut busy: Vec<(&u32, &Process)> =
            self.by_pid.iter().filter(|(_, process)| self.is_first || process.used > 0).collect();
        busy.sort_by_key(|(pid, process)| (std::cmp::Reverse(process.used), **pid));
        if !self.is_first {
            busy.truncate(MAX_PROCESSES);
        }
        let event = |(pid, process): (&u32, &Process)| event::Process {
            pid: *pid,
            start_time: process.start_time,
            name: process.name.clone(),
            cpu: self.duration(process.ticks),
        };
        busy.into_iter().map(event).collect()
    }

    pub fn zombies(&self) -> u64 {
        self.by_pid.values().filter(|process| process.is_zombie).count() as u64
    }

    fn duration(&self, ticks: u64) -> Duration {
        let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(self.ticks_per_second);
        Duration::from_nanos(i64::try_from(nanoseconds).unwrap_or(i64::MAX))
    }
}

impl Process {
    fn read(files: &Files, pid: u32, before: Option<Self>) -> Option<Self> {
        let text = files.read_of_process(pid, "stat")?;
        let stat = procfs_core::process::Stat::from_read(text.as_bytes()).ok()?;
        // A pid that is used again is another process.
        let before = before.filter(|before| before.start_time == stat.starttime);
        let ticks = stat.utime.saturating_add(stat.stime);
        let mut process = Self {
            start_time: stat.starttime,
            name: stat.comm,
            ticks,
            used: ticks.saturating_sub(before.as_ref().map_or(0, |before| before.ticks)),
            is_zombie: stat.state == 'Z',
            age: before.as_ref().map_or(0, |before| before.age.saturating_add(1)),
            namespace: 0,
            cgroups: Vec::new(),
        };
        match before {
            Some(before) if process.age > 2 && !process.age.is_multiple_of(SETTLED) => {
                (process.namespace, process.cgroups) = (before.namespace, before.cgroups);
            }
            _ => process.find_place(files, pid),
        }
        Some(process)
    }

    fn find_place(&mut self, files: &Files, pid: u32) {
        self.namespace = namespace(files, pid).unwrap_or(0);
        self.cgroups =
            files.read_of_process(pid, "cgroup").map(|text| memberships(&text)).unwrap_or_default();
    }
}

/// The inode of a process's network namespace.
pub(super) fn namespace(files: &Files, pid: u32) -> Option<u64> {
    let link = fs::read_link(files.of_process(pid, "ns/net")).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The lines `number:controllers:path` of `/proc/PID/cgroup`.
fn memberships(text: &str) -> Vec<Membership> {
    let membership = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some(Membership { controllers: controllers.to_owned(), path: path.to_owned() })
    };
    text.lines().filter_map(membership).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_keep_colons_in_paths() {
        let found = memberships("12:cpu,cpuacct:/a\n0::/b:c\n");
        let expected = [("cpu,cpuacct", "/a"), ("", "/b:c")];
        let found: Vec<(&str, &str)> =
            found.iter().map(|found| (found.controllers.as_str(), found.path.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn this_process_is_found_with_what_it_uses() {
        let files = Files::new("/proc".into());
        let mut processes = Processes::new();
        processes.update(&files);
        let own = processes.by_pid.get(&std::process::id()).unwrap();
        assert!(own.namespace > 0 && !own.name.is_empty());
        assert!(processes.busiest().iter().any(|process| process.pid == std::process::id()));
        // Until the kernel has counted a tick of ours.
        while processes.by_pid[&std::process::id()].used == 0 || processes.is_first {
            (0..1_000_000u64).for_each(|number| {
                std::hint::black_box(number);
            });
            processes.update(&files);
        }
        assert!(processes.busiest()[..].iter().any(|process| process.pid == std::process::id()));
    }
}
