//! `capture doctor`: what recording finds on this node, what it lacks, and what that costs.

use std::io::Write as _;
use std::path::Path;

use anyhow::bail;
use capture::source::{kernel, tc};
use capture::{Clock, Selection};
use clap::Args;
use cli::Exit;
use serde::Serialize;

/// Say what recording finds on this node, what is missing, and what it costs
///
/// Tries everything that recording uses, on the loopback interface, and takes it away again. Exit code 1 where
/// packets cannot be recorded.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo capture doctor
  sudo capture doctor --json")]
pub struct Doctor {
    /// One JSON array of checks on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Recording works with less.
    Less,
    /// Packets cannot be recorded.
    Missing,
}

#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    state: State,
    found: String,
    /// What is not recorded, or costs more; empty where all is well.
    cost: String,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: State::Ok, found: found.into(), cost: String::new() }
    }

    fn less(what: &'static str, found: impl Into<String>, cost: impl Into<String>) -> Self {
        Self { what, state: State::Less, found: found.into(), cost: cost.into() }
    }

    fn missing(what: &'static str, found: impl Into<String>, cost: impl Into<String>) -> Self {
        Self { what, state: State::Missing, found: found.into(), cost: cost.into() }
    }
}

impl Doctor {
    pub fn run(&self) -> anyhow::Result<Exit> {
        let checks = checks();
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&checks)?)?;
        } else {
            let width = checks.iter().map(|check| check.what.len()).max().unwrap_or_default();
            for Check { what, state, found, cost } in &checks {
                let state = match state {
                    State::Ok => "ok",
                    State::Less => "less",
                    State::Missing => "MISSING",
                };
                let cost = if cost.is_empty() { String::new() } else { format!(" -> {cost}") };
                writeln!(out, "{what:width$}  {state:7}  {found}{cost}")?;
            }
        }
        if checks.iter().any(|check| check.state == State::Missing) {
            bail!("packets cannot be recorded on this node as this user");
        }
        Ok(Exit::Done)
    }
}

fn checks() -> Vec<Check> {
    let mut checks = vec![kernel_release(), capabilities(), packets()];
    checks.extend(tracepoints());
    checks.extend([btf(), pods(), cgroups(), pressure(), clock(), disk()]);
    checks
}

fn kernel_release() -> Check {
    match nix::sys::utsname::uname() {
        Ok(system) => Check::ok("kernel", system.release().to_string_lossy()),
        Err(error) => Check::less("kernel", error.to_string(), "its version does not stand in recordings"),
    }
}

fn capabilities() -> Check {
    let missing = capture::missing_capabilities();
    if missing.is_empty() {
        return Check::ok("capabilities", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Check::missing("capabilities", format!("no {}", names.join(", ")), "run as root or grant them")
}

/// The programs themselves, attached to loopback for a moment.
fn packets() -> Check {
    let attached = Clock::start().map_err(anyhow::Error::from).and_then(|clock| {
        let selection = Selection::parse(&["lo"])?;
        Ok(tc::Tc::open(&selection, clock, tc::Options::default())?)
    });
    match attached {
        Ok(mut source) => {
            let cost = source.cost();
            let by = source.attachment();
            let cost = cost.map(|cost| format!(", {} ns of one processor a packet", cost.as_nanos()));
            Check::ok("packets", format!("TC programs by {by}{}", cost.unwrap_or_default()))
        }
        Err(error) => Check::missing("packets", format!("{error:#}"), "only captures can be imported"),
    }
}

fn tracepoints() -> Vec<Check> {
    const WHAT: &str = "kernel events";
    let opened = Clock::start()
        .map_err(anyhow::Error::from)
        .and_then(|clock| Ok(kernel::Kernel::open(clock, kernel::Options::default())?));
    let kernel = match opened {
        Err(error) => return vec![Check::less(WHAT, format!("{error:#}"), "none is recorded")],
        Ok(kernel) => kernel,
    };
    let mut checks: Vec<Check> = kernel
        .missing()
        .iter()
        .map(|missing| {
            let found = format!("{}: {}", missing.tracepoint, missing.reason);
            Check::less(WHAT, found, format!("not recorded: {}", missing.tells))
        })
        .collect();
    if checks.is_empty() {
        checks.push(Check::ok(WHAT, "every tracepoint"));
    }
    if !kernel.names_listen_overflows() {
        checks.push(Check::less(
            "listen overflows",
            "this kernel does not name them among its drops",
            "they are counted for each pod and second, not told one by one",
        ));
    }
    checks
}

fn btf() -> Check {
    if kernel::knows_dropped_packets() {
        Check::ok("BTF", "/sys/kernel/btf/vmlinux")
    } else {
        let cost = "drops are recorded without their five-tuple, and round-trip times cost more";
        Check::less("BTF", "none that tells of packets", cost)
    }
}

/// Which pod an interface leads to: by the namespaces of other users' processes.
fn pods() -> Check {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.map(|entry| entry.path()).filter(|path| path.join("stat").exists());
    let readable: Vec<bool> = processes
        .filter(|path| path.join("ns").exists())
        .map(|path| path.join("ns/net").read_link().is_ok())
        .collect();
    let (seen, all) = (readable.iter().filter(|is_readable| **is_readable).count(), readable.len());
    let found = format!("network namespaces of {seen} of {all} processes can be read");
    // A process that ends meanwhile, or is of a user namespace above, is none of a pod here.
    if 2 * seen >= all {
        Check::ok("pods", found)
    } else {
        let cost =
            "which pod an interface leads to, and its cgroups, are not recorded: CAP_SYS_PTRACE is needed";
        Check::less("pods", found, cost)
    }
}

fn cgroups() -> Check {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let kinds = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    // The first process is in the root of the node, or of a container.
    let first = std::fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    if first.lines().any(|line| line.contains(":/..")) {
        return Check::less(
            "cgroups",
            "the node's are outside of this process's cgroup namespace",
            "throttling and memory of pods are not recorded: run in the node's (cgroupns: host)",
        );
    }
    match (kinds("cgroup2"), kinds("cgroup")) {
        (true, false) => Check::ok("cgroups", format!("version 2: {}", controllers.trim())),
        (_, true) => Check::ok("cgroups", "version 1"),
        (false, false) => Check::less(
            "cgroups",
            "none is mounted",
            "throttling and memory limits of pods are not recorded (--cgroup-root names another place)",
        ),
    }
}

fn pressure() -> Check {
    match std::fs::read("/proc/pressure/cpu") {
        Ok(_) => Check::ok("pressure (PSI)", "/proc/pressure"),
        Err(error) => Check::less("pressure (PSI)", error.to_string(), "stall times are not recorded"),
    }
}

fn clock() -> Check {
    const FILE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match std::fs::read_to_string(FILE) {
        Ok(source) => match source.trim() {
            fast @ ("tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter") => {
                Check::ok("clock", fast)
            }
            slow => Check::less("clock", slow, "reading it costs every packet a microsecond or so"),
        },
        Err(error) => Check::less("clock", error.to_string(), "what a packet's time costs is unknown"),
    }
}

/// Where recordings go by default.
fn disk() -> Check {
    /// What recordings of mixed traffic take, and an hour of a node with 10,000 packets a second.
    const BYTES_PER_PACKET: u64 = 5;
    const HOUR: u64 = BYTES_PER_PACKET * 10_000 * 3600;
    let folder = if Path::new("recordings").is_dir() { "recordings" } else { "." };
    match nix::sys::statvfs::statvfs(folder) {
        Ok(found) => {
            let free = found.blocks_available() * found.fragment_size();
            let free_gib = free >> 30;
            if free < HOUR {
                let cost = "an hour of 10,000 packets/s takes 180 MB: a full disk ends a recording (--retain-size, --keep)";
                Check::less("disk", format!("{} MB free in {folder}", free / 1_000_000), cost)
            } else {
                let hours = free / HOUR;
                Check::ok(
                    "disk",
                    format!("{free_gib} GiB free in {folder}, about {hours} hours of 10,000 packets/s"),
                )
            }
        }
        Err(error) => {
            Check::less("disk", format!("{folder}: {error}"), "how long a recording fits is unknown")
        }
    }
}
