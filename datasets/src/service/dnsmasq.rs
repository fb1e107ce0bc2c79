//! dnsmasq: the authority for a small zone on port 53.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::await_start;
use crate::cgroup::Groups;
use crate::node::Node;
use crate::process::Process;
use crate::topology::SERVER;

/// Names below `.example` belong to nobody (RFC 2606).
pub const ZONE: &str = "lab.example";
/// `service-0` to `service-19` have an address.
pub const HOSTS: u32 = 20;

/// What the server knows of its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    Complete,
    /// It is the authority, and there are no names.
    Empty,
    /// It is no authority, and knows nobody to ask.
    Disowned,
}

pub struct Dnsmasq {
    process: Process,
}

impl Dnsmasq {
    pub fn start(node: &Node, groups: &Groups, directory: &Path) -> Result<Self> {
        let process = node.spawn("dnsmasq", groups.joined(&command(directory, Zone::Complete)))?;
        let mut dnsmasq = Self { process };
        dnsmasq.await_start(node)?;
        Ok(dnsmasq)
    }

    /// Starts it again with another configuration.
    pub fn change_zone(&mut self, node: &Node, groups: &Groups, directory: &Path, zone: Zone) -> Result<()> {
        self.process.stop(nix::sys::signal::Signal::SIGTERM, super::START_LIMIT)?;
        self.process = node.spawn("dnsmasq", groups.joined(&command(directory, zone)))?;
        self.await_start(node)
    }

    fn await_start(&mut self, node: &Node) -> Result<()> {
        await_start("dnsmasq", || {
            self.process.expect_running()?;
            // 0035 is port 53.
            Ok(node.proc_net("udp")?.lines().any(|line| line.contains(":0035 ")))
        })
    }
}

fn command(directory: &Path, zone: Zone) -> Command {
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"])
        .args(["--user=root", "--bind-dynamic", "--cache-size=0"])
        .arg(format!("--listen-address={SERVER}"))
        .arg(format!("--pid-file={}", directory.join("dnsmasq.pid").display()));
    if zone != Zone::Disowned {
        dnsmasq.arg(format!("--local=/{ZONE}/"));
    }
    if zone == Zone::Complete {
        dnsmasq.args((0..HOSTS).map(|host| format!("--host-record=service-{host}.{ZONE},{SERVER}")));
    }
    dnsmasq
}
