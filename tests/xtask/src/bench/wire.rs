//! Two network namespaces and a veth pair between them, removed with their value.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// left0 (198.18.0.1) in the one, right0 (198.18.0.2) in the other.
pub struct Wire {
    names: [String; 2],
}

/// One end of the wire.
#[derive(Clone, Copy)]
pub enum End {
    Left,
    Right,
}

impl Wire {
    /// Lays it. With `offloads` TCP sends super-packets; without, what passes are packets of the wire's size.
    pub fn lay(offloads: bool) -> anyhow::Result<Self> {
        let name = |side: &str| format!("faultline-bench-{side}-{}", std::process::id());
        let wire = Self { names: [name("left"), name("right")] };
        let [left, right] = &wire.names;
        ip(&format!("netns add {left}"))?;
        ip(&format!("netns add {right}"))?;
        ip(&format!("-n {left} link add left0 type veth peer name right0 netns {right}"))?;
        for (namespace, device, host) in [(left, "left0", 1), (right, "right0", 2)] {
            ip(&format!("-n {namespace} link set lo up"))?;
            ip(&format!("-n {namespace} address add 198.18.0.{host}/24 dev {device}"))?;
            ip(&format!("-n {namespace} link set {device} up"))?;
        }
        // A host that is not there: what is sent to it passes right0 and goes no further.
        let link = output(Command::new("ip").args(["-n", right, "-j", "link", "show", "right0"]))?;
        let link: serde_json::Value = serde_json::from_str(&link).context("ip prints no JSON")?;
        let address = link[0]["address"].as_str().context("right0 has no address")?;
        ip(&format!("-n {left} neighbour add {NOBODY} lladdr {address} dev left0"))?;
        if !offloads {
            for (end, device) in [(End::Left, "left0"), (End::Right, "right0")] {
                output(
                    wire.command(end, Path::new("ethtool"))
                        .args(["-K", device, "tso", "off", "gso", "off", "gro", "off"]),
                )?;
            }
        }
        Ok(wire)
    }

    /// A program in the namespace of one end. Not by `ip netns exec`, which hides tracefs.
    pub fn command(&self, end: End, program: &Path) -> Command {
        let [left, right] = &self.names;
        let name = match end {
            End::Left => left,
            End::Right => right,
        };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{name}")).arg("--").arg(program);
        command
    }

    /// Packets that right0 has taken in.
    pub fn received(&self) -> anyhow::Result<u64> {
        let [_, right] = &self.names;
        let text = output(Command::new("ip").args(["-n", right, "-s", "-j", "link", "show", "right0"]))?;
        let link: serde_json::Value = serde_json::from_str(&text).context("ip prints no JSON")?;
        link[0]["stats64"]["rx"]["packets"].as_u64().context("ip tells no packets")
    }
}

/// On the right side's network, and nobody's.
pub const NOBODY: &str = "198.18.0.3";

impl Drop for Wire {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    output(Command::new("ip").args(arguments.split(' '))).map(drop)
}

/// What a command prints; an error where it does not succeed.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?} ended with {}: {}", done.status, said.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
