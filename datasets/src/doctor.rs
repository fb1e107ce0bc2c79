//! What this machine lacks for the lab, and the one command that installs it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use nix::unistd::geteuid;

use crate::topology::Congestion;

/// Programs, the Debian package that has each, and what it is for.
const PROGRAMS: [(&str, &str, &str); 10] = [
    ("ip", "iproute2", "links, addresses and routes"),
    ("tc", "iproute2", "bufferbloat"),
    ("nft", "nftables", "packet loss"),
    ("ethtool", "ethtool", "packets of wire size"),
    ("nginx", "nginx-light", "the web server"),
    ("dnsmasq", "dnsmasq-base", "the name server"),
    ("fio", "fio", "disk saturation"),
    ("stress-ng", "stress-ng", "memory pressure"),
    ("mount", "mount", "a node's own /proc"),
    ("setpriv", "util-linux", "nodes that end with the lab"),
];

/// What is missing.
#[derive(Debug, Default)]
pub struct Diagnosis {
    packages: Vec<&'static str>,
    problems: Vec<String>,
}

/// Looks at rights, programs and kernel features.
pub fn diagnose(capture: Option<&Path>) -> Diagnosis {
    let mut found = Diagnosis::default();
    for (program, package, purpose) in PROGRAMS {
        if find(program).is_none() {
            found.problems.push(format!("`{program}` is missing ({purpose})"));
            if !found.packages.contains(&package) {
                found.packages.push(package);
            }
        }
    }
    if !geteuid().is_root() {
        found
            .problems
            .push("no root: namespaces, control groups and raw sockets need it (run with sudo)".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        found.problems.push("/dev/net/tun is missing (latency jitter)".into());
    }
    let congestion = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let available = std::fs::read_to_string(congestion).unwrap_or_default();
    for control in Congestion::value_variants().iter().map(|control| crate::proof::name(*control)) {
        if !available.split_whitespace().any(|name| name == control) {
            found.problems.push(format!(
                "the kernel lacks the congestion control `{control}` (modprobe tcp_{control})"
            ));
        }
    }
    if capture.is_none() {
        found
            .problems
            .push("`capture` is not beside `lab`: build it (cargo build), or name it by --capture".into());
    }
    found
}

impl Diagnosis {
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty()
    }

    /// One line a problem, and then the command.
    pub fn text(&self) -> String {
        if self.is_healthy() {
            return "Nothing is missing: `lab run` can make every fault here.\n".to_owned();
        }
        let mut text: String = self.problems.iter().map(|problem| format!("{problem}\n")).collect();
        if !self.packages.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "\n  sudo apt-get install -y --no-install-recommends {}",
                self.packages.join(" ")
            );
        }
        text
    }
}

/// The program of that name in $PATH, or where Debian keeps what only root runs.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| file.is_file())
}
