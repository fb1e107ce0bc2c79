//! Memory pressure: the server's group runs against its limit.
//!
//! `thrash`: a neighbour in the group holds nearly all of it, and files are read again and again because they no
//! longer fit into what is left. `oom`: the neighbour wants more than there is, is killed and comes back.

use std::process::Command;

use anyhow::{Context as _, Result};
use event::Fault;
use features::Feature;

use super::{Dose, Injection, Recipe};
use crate::cgroup::Memory;
use crate::disk::Disk;
use crate::evidence::Evidence;
use crate::process::Process;
use crate::scene::Scene;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::MemoryPressure,
    mechanisms: &["thrash", "oom"],
    optional: &[],
    // All of the pod shares the group.
    affected: &["*/198.18.1.2:*"],
    shows: &[(Feature::MemoryUsagePercent, 85.0), (Feature::OomKills, 1.0)],
    own_drops: &[],
    inject,
};

const MIB: u64 = 1 << 20;
/// The group's limit in MiB.
const LIMIT: [(u32, u32); 3] = [(280, 340), (230, 270), (190, 220)];
/// What the neighbour leaves of it to the servers and to files, in MiB.
const LEFT: [u64; 3] = [26, 20, 15];
/// What it wants in the `oom` variant, in percent of the limit.
const WANTED: [u64; 3] = [110, 150, 250];

struct MemoryPressure {
    before: Memory,
    limit: u64,
    kills_expected: bool,
    /// Killed when this is dropped.
    neighbours: Vec<Process>,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let (low, high) = dose.severity.of(LIMIT);
    let limit = u64::from(dose.draw.integer(low, high)) * MIB;
    let oom = dose.mechanism == "oom";
    let held =
        if oom { limit * dose.severity.of(WANTED) / 100 } else { limit - dose.severity.of(LEFT) * MIB };
    let before = scene.groups.memory()?;
    scene.groups.limit_memory(limit)?;
    let seconds = dose.limit.as_secs();
    let mut neighbours = vec![neighbour(
        scene,
        &format!("exec stress-ng --vm 1 --vm-bytes {} --vm-hang 0 --vm-populate --timeout {seconds}s", held),
    )?];
    if !oom {
        Disk::of(scene.directory()).context("files that thrash have to be on a disk")?;
        // Written inside the group: its pages are then the group's own.
        let file = scene.directory().join("thrash");
        let (file, bytes) = (file.display(), limit / 2);
        neighbours.push(neighbour(
            scene,
            &format!(
                "head -c {bytes} /dev/zero > {file} && \
                 exec timeout {seconds} sh -c 'while cat {file} > /dev/null; do :; done'"
            ),
        )?);
    }
    Ok(Box::new(MemoryPressure { before, limit, kills_expected: oom, neighbours }))
}

fn neighbour(scene: &Scene, line: &str) -> Result<Process> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(line);
    scene.topology.server.spawn("memory neighbour", scene.groups.joined(&shell))
}

impl Injection for MemoryPressure {
    fn end(mut self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let after = scene.groups.memory()?;
        for mut neighbour in self.neighbours.drain(..) {
            neighbour.expect_running()?;
        }
        scene.groups.lift_limits()?;
        let mut evidence = Evidence::default();
        evidence.at_least("limit_hits", after.limit_hits - self.before.limit_hits, 20);
        let kills = after.kills - self.before.kills;
        if self.kills_expected {
            evidence.at_least("oom_kills", kills, 1);
        } else {
            evidence.at_least("memory_percent", after.usage * 100 / self.limit, 90);
            evidence.at_most("oom_kills", kills, 0);
        }
        Ok(evidence)
    }
}
