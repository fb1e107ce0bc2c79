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
    checks.extend([btf(), cgroups(), pressure(), clock()]);
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
        Ok(source) => Check::ok("packets", format!("TC programs by {}", source.attachment())),
        Err(error) => Check::missing("packets", format!("{error:#}"), "only captures can be imported"),
    }
}

fn tracepoints() -> Vec<Check> {
    const WHAT: &str = "kernel events";
    let opened = Clock::start()
        .map_err(anyhow::Error::from)
        .and_then(|clock| Ok(kernel::Kernel::open(clock, kernel::Options::default())?));
    match opened {
        Err(error) => vec![Check::less(WHAT, format!("{error:#}"), "none is recorded")],
        Ok(kernel) if kernel.missing().is_empty() => vec![Check::ok(WHAT, "every tracepoint")],
        Ok(kernel) => kernel
            .missing()
            .iter()
            .map(|missing| {
                let found = format!("{}: {}", missing.tracepoint, missing.reason);
                Check::less(WHAT, found, format!("not recorded: {}", missing.tells))
            })
            .collect(),
    }
}

fn btf() -> Check {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Check::ok("BTF", "/sys/kernel/btf/vmlinux")
    } else {
        // The programs know the kernel's records by their format files.
        Check::ok("BTF", "none, and none is needed")
    }
}

fn cgroups() -> Check {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let kinds = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
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
