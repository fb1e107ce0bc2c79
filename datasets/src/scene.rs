//! What a run plays on: the three nodes, the server's control groups, and the servers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::cgroup::Groups;
use crate::service::{App, Dnsmasq, Nginx, Zone};
use crate::topology::{Congestion, Topology};

/// On a disk (FHS 3.0, 5.15), where /tmp may be memory: the web server reads its documents from there.
const PLACE: &str = "/var/tmp";
/// Then the process id of the lab and something random.
const PREFIX: &str = "faultline-lab-";

/// Dropped in the order of declaration: servers, then the nodes with all that runs in them, then the groups
/// (which must be empty), then the files.
pub struct Scene {
    pub app: App,
    pub nginx: Nginx,
    pub dnsmasq: Dnsmasq,
    pub topology: Topology,
    pub groups: Groups,
    directory: TempDir,
}

impl Scene {
    /// Everything in it ends by itself after `limit`.
    pub fn set(congestion: Congestion, limit: Duration) -> Result<Self> {
        sweep()?;
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let directory = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(PLACE)
            .context("cannot create a directory in /var/tmp")?;
        let groups = Groups::create()?;
        let topology = Topology::build(congestion)?;
        // All of the pod is in the groups: one process outside would leave the pod without a limit.
        groups.adopt(topology.server.init())?;
        let app = App::start(&topology.server, &groups, limit)?;
        let nginx = Nginx::start(&topology.server, &groups, directory.path())?;
        let dnsmasq = Dnsmasq::start(&topology.server, &groups, directory.path())?;
        Ok(Self { app, nginx, dnsmasq, topology, groups, directory })
    }

    pub fn change_zone(&mut self, zone: Zone) -> Result<()> {
        let Self { dnsmasq, topology, groups, directory, .. } = self;
        dnsmasq.change_zone(&topology.server, groups, directory.path(), zone)
    }

    /// Configuration and documents of the run.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories of labs that were killed.
fn sweep() -> Result<()> {
    for entry in std::fs::read_dir(PLACE).context("cannot list /var/tmp")?.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            tracing::info!("removing what a killed lab left behind: {}", entry.path().display());
            match std::fs::remove_dir_all(entry.path()) {
                // Another lab was faster.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => result.with_context(|| format!("cannot remove {}", entry.path().display()))?,
            }
        }
    }
    Ok(())
}
