//! What cgroups of both versions tell of processor, memory and pressure.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use event::{CgroupCpu, CgroupMemory, Duration, Pressure};

use super::files::{number, only_number, stall};
use super::process::Membership;

/// A limit of version 1 that stands for none: the largest multiple of the page size, which depends on the kernel.
const NO_LIMIT: u64 = 1 << 62;

/// Where the hierarchies are mounted.
#[derive(Debug)]
pub(super) struct Hierarchies {
    root: PathBuf,
    unified: Option<PathBuf>,
    /// A cgroup that this process cannot see was met, which was said.
    is_outside_named: Cell<bool>,
}

/// The directories of one cgroup: in mixed set-ups each controller has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    cpu: Option<PathBuf>,
    memory: Option<PathBuf>,
    unified: Option<PathBuf>,
}

impl Hierarchies {
    pub fn new(root: PathBuf) -> Self {
        let unified = [root.clone(), root.join("unified")]
            .into_iter()
            .find(|path| path.join("cgroup.controllers").exists());
        Self { root, unified, is_outside_named: Cell::new(false) }
    }

    /// Whether there is anything to read.
    pub fn are_mounted(&self) -> bool {
        self.unified.is_some() || self.root.join("cpu").exists() || self.root.join("memory").exists()
    }

    /// The cgroup of these memberships. The root of a hierarchy is no group of anybody.
    pub fn group(&self, memberships: &[Membership]) -> Group {
        let mut group = Group::default();
        for Membership { controllers, path } in memberships {
            let relative = path.trim_start_matches('/');
            if relative.split('/').any(|part| part == "..") {
                self.name_outside(path);
                continue;
            }
            if relative.is_empty() {
                continue;
            }
            if controllers.is_empty() {
                group.unified = self.unified.as_ref().map(|unified| unified.join(relative));
            } else if controllers.split(',').any(|name| name == "cpu") {
                group.cpu = self.directory(controllers, "cpu", relative);
            } else if controllers.split(',').any(|name| name == "memory") {
                group.memory = self.directory(controllers, "memory", relative);
            }
        }
        group
    }

    /// The kernel shows paths from the root of the reader's cgroup namespace, which starts below this one. Where it
    /// would be from the mount's root is not told.
    fn name_outside(&self, path: &str) {
        if !self.is_outside_named.replace(true) {
            tracing::warn!(
                "a process is in the cgroup {path}, outside of this process's cgroup namespace: processor, memory and \
                 pressure of such pods stay empty. Run in the node's cgroup namespace (cgroupns: host)"
            );
        }
    }

    /// Version 1 mounts a hierarchy by the names of its controllers, or by one of them.
    fn directory(&self, controllers: &str, name: &str, relative: &str) -> Option<PathBuf> {
        let mounts = [self.root.join(name), self.root.join(controllers)];
        mounts.into_iter().map(|mount| mount.join(relative)).find(|path| path.exists())
    }
}

impl Group {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn cpu(&self) -> Option<CgroupCpu> {
        // Version 1 first: where both are mounted, the controller is there.
        if let Some(text) = read(self.cpu.as_deref(), "cpu.stat") {
            return cpu(&text);
        }
        cpu(&read(self.unified.as_deref(), "cpu.stat")?)
    }

    pub fn memory(&self) -> Option<CgroupMemory> {
        self.memory_v1().or_else(|| self.memory_v2())
    }

    fn memory_v1(&self) -> Option<CgroupMemory> {
        let read = |name| read(self.memory.as_deref(), name);
        let usage = only_number(&read("memory.usage_in_bytes")?)?;
        let inactive = read("memory.stat").and_then(|text| number(&text, "total_inactive_file")).unwrap_or(0);
        Some(CgroupMemory {
            working_set: usage.saturating_sub(inactive),
            limit: read("memory.limit_in_bytes")
                .and_then(|text| only_number(&text))
                .filter(|limit| *limit < NO_LIMIT),
            oom_kills: read("memory.oom_control").and_then(|text| number(&text, "oom_kill")),
        })
    }

    fn memory_v2(&self) -> Option<CgroupMemory> {
        let read = |name| read(self.unified.as_deref(), name);
        let usage = only_number(&read("memory.current")?)?;
        let inactive = read("memory.stat").and_then(|text| number(&text, "inactive_file")).unwrap_or(0);
        Some(CgroupMemory {
            working_set: usage.saturating_sub(inactive),
            // The word `max` is no limit, and no number.
            limit: read("memory.max").and_then(|text| only_number(&text)),
            oom_kills: read("memory.events").and_then(|text| number(&text, "oom_kill")),
        })
    }

    pub fn pressure(&self) -> Pressure {
        let read = |name| read(self.unified.as_deref(), name).and_then(|text| stall(&text));
        Pressure { cpu: read("cpu.pressure"), memory: read("memory.pressure"), io: read("io.pressure") }
    }

    /// The paths from which a pod's uid and a container's id can be told.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.unified, &self.cpu, &self.memory].into_iter().filter_map(|path| path.as_deref())
    }
}

fn read(directory: Option<&Path>, name: &str) -> Option<String> {
    // Absent where the controller is not enabled for this group, or the group is gone.
    fs::read_to_string(directory?.join(name)).ok()
}

/// `cpu.stat`: version 1 counts throttled time in nanoseconds, version 2 in microseconds.
fn cpu(text: &str) -> Option<CgroupCpu> {
    let nanoseconds = number(text, "throttled_time")
        .or_else(|| number(text, "throttled_usec").map(|micros| micros.saturating_mul(1000)));
    Some(CgroupCpu {
        periods: number(text, "nr_periods")?,
        throttled: number(text, "nr_throttled")?,
        throttled_time: Duration::from_nanos(i64::try_from(nanoseconds?).unwrap_or(i64::MAX)),
    })
}

/// The uid of the Kubernetes pod that a cgroup's path names: `pod<uid>` or, by systemd, `...-pod<uid with _>.slice`.
pub(super) fn pod_uid(path: &Path) -> Option<String> {
    path.iter().rev().filter_map(|part| part.to_str()).find_map(|part| {
        let (before, uid) = part.trim_end_matches(".slice").rsplit_once("pod")?;
        let uid = uid.replace('_', "-");
        // 8-4-4-4-12 digits, or the 32 of a static pod's hash.
        let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
        let is_uid = digits == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        (is_uid && (before.is_empty() || before.ends_with('-'))).then_some(uid)
    })
}

/// The container's id: the 64 hexadecimal digits at the end of the path, behind the runtime's name where systemd
/// manages the groups (`cri-containerd-<id>.scope`).
pub(super) fn container_id(path: &Path) -> Option<String> {
    let last = path.file_name()?.to_str()?.trim_end_matches(".scope");
    let id = last.rsplit(['-', ':']).next()?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    fn membership(controllers: &str, path: &str) -> Membership {
        Membership { controllers: controllers.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn version_1_is_read_with_its_own_units() {
        let root = tempfile::tempdir().unwrap();
        write(
            &root.path().join("cpu,cpuacct/a"),
            &[("cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 2500\n")],
        );
        write(
            &root.path().join("memory/a"),
            &[
                ("memory.usage_in_bytes", "1000\n"),
                ("memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ],
        );
        let hierarchies = Hierarchies::new(root.path().to_owned());
        let group = hierarchies.group(&[
            membership("cpu,cpuacct", "/a"),
            membership("memory", "/a"),
            membership("", "/a"),
        ]);
        let expected = CgroupCpu { periods: 10, throttled: 4, throttled_time: Duration::from_nanos(2500) };
        assert_eq!(group.cpu(), Some(expected));
        let expected = CgroupMemory { working_set: 700, limit: None, oom_kills: Some(2) };
        assert_eq!(group.memory(), Some(expected));
        assert_eq!(group.pressure(), Pressure::default());
    }

    #[test]
    fn version_2_is_read_with_its_own_units() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("cgroup.controllers", "cpu memory\n")]);
        write(
            &root.path().join("a/b"),
            &[
                ("cpu.stat", "usage_usec 5\nnr_periods 10\nnr_throttled 4\nthrottled_usec 25\n"),
                ("memory.current", "1000\n"),
                ("memory.stat", "file 5\ninactive_file 300\n"),
                ("memory.max", "5000\n"),
                ("memory.events", "oom 3\noom_kill 2\n"),
                ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"),
            ],
        );
        let hierarchies = Hierarchies::new(root.path().to_owned());
        assert!(hierarchies.are_mounted());
        let group = hierarchies.group(&[membership("", "/a/b")]);
        let expected = CgroupCpu { periods: 10, throttled: 4, throttled_time: Duration::from_micros(25) };
        assert_eq!(group.cpu(), Some(expected));
        let expected = CgroupMemory { working_set: 700, limit: Some(5000), oom_kills: Some(2) };
        assert_eq!(group.memory(), Some(expected));
        assert_eq!(group.pressure().cpu, Some(Duration::from_micros(7)));
        assert!(hierarchies.group(&[membership("", "/")]).is_empty());
        assert!(!hierarchies.is_outside_named.get());
        assert!(hierarchies.group(&[membership("", "/../x")]).is_empty());
        assert!(hierarchies.is_outside_named.get());
    }

    #[test]
    fn pods_and_containers_are_told_by_their_paths() {
        let id = "0123456789abcdef".repeat(4);
        let uid = "12345678-1234-1234-1234-123456789abc";
        let plain = format!("/cg/kubepods/burstable/pod{uid}/{id}");
        let systemd = format!(
            "/cg/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{id}.scope",
            uid.replace('-', "_")
        );
        for path in [plain, systemd] {
            assert_eq!(pod_uid(Path::new(&path)).as_deref(), Some(uid));
            assert_eq!(container_id(Path::new(&path)), Some(id.clone()));
        }
        assert_eq!(pod_uid(Path::new("/cg/kubepods.slice/podman.slice")), None);
        assert_eq!(container_id(Path::new("/cg/user.slice/session-1.scope")), None);
    }
}
