//! Disk saturation: a neighbour keeps the disk that the web server reads from busy, with a long queue.

use std::process::Command;

use anyhow::Result;
use event::Fault;
use features::Feature;

use super::{Dose, Injection, Recipe};
use crate::disk::Disk;
use crate::evidence::Evidence;
use crate::process::Process;
use crate::scene::Scene;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::DiskSaturation,
    mechanisms: &["random-read", "mixed"],
    optional: &[],
    affected: &["tcp/198.18.1.2:80"],
    shows: &[(Feature::DiskQueueDepth, 5.0)],
    own_drops: &[],
    inject,
};

/// Requests in flight.
const DEPTH: [(u32, u32); 3] = [(24, 36), (40, 72), (96, 160)];
/// Of the file that is read and written; it has to be written first, which must not take long.
const FILE: &str = "64m";
/// Hundredths of a request: a disk is saturated from a mean queue of 10 on.
const LEAST_QUEUE: u64 = 10_00;

struct DiskSaturation {
    before: Disk,
    fio: Process,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let (low, high) = dose.severity.of(DEPTH);
    let depth = dose.draw.integer(low, high);
    let mut fio = Command::new("fio");
    fio.args([
        "--name=neighbour",
        "--thread",
        "--direct=1",
        "--ioengine=libaio",
        "--time_based",
        "--norandommap",
    ])
    .args(["--bs=16k", "--output=/dev/null", "--fallocate=none"])
    .arg(format!("--rw={}", if dose.mechanism == "mixed" { "randrw" } else { "randread" }))
    .arg(format!("--size={FILE}"))
    .arg(format!("--iodepth={depth}"))
    .arg(format!("--directory={}", scene.directory().display()))
    .arg(format!("--runtime={}", dose.limit.as_secs()))
    .arg(format!("--randseed={}", dose.draw.integer(1, u32::MAX)));
    let before = Disk::of(scene.directory())?;
    let fio = scene.topology.server.spawn("fio", scene.groups.joined(&fio))?;
    Ok(Box::new(DiskSaturation { before, fio }))
}

impl Injection for DiskSaturation {
    fn end(mut self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let after = Disk::of(scene.directory())?;
        self.fio.expect_running()?;
        let mut evidence = Evidence::default();
        evidence.at_least("queue_depth_hundredths", after.mean_queue_since(&self.before), LEAST_QUEUE);
        evidence.at_least("busy_percent", after.busy_since(&self.before), 50);
        evidence.note("in_flight_at_end", after.in_flight);
        Ok(evidence)
    }
}
