//! Disk saturation: a neighbour keeps the disk that the web server reads from busy, with a long queue.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use event::Fault;
use features::Feature;

use super::{Dose, Injection, Recipe};
use crate::evidence::Evidence;
use crate::process::Process;
use crate::scene::Scene;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::DiskSaturation,
    mechanisms: &["random-read", "mixed"],
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
    before: Usage,
    since: Instant,
    fio: Process,
}

/// Of one line of /proc/diskstats, in ms.
struct Usage {
    busy: u64,
    weighted: u64,
    in_flight: u64,
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
    let (before, since) = (usage(scene)?, Instant::now());
    let fio = scene.topology.server.spawn("fio", scene.groups.joined(&fio))?;
    Ok(Box::new(DiskSaturation { before, since, fio }))
}

/// Of the disk that holds the documents.
fn usage(scene: &Scene) -> Result<Usage> {
    let device = fs::metadata(scene.directory())?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let statistics = fs::read_to_string("/proc/diskstats").context("cannot read /proc/diskstats")?;
    let line = statistics.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|fields| {
        fields.first() == Some(&major.to_string().as_str())
            && fields.get(1) == Some(&minor.to_string().as_str())
    });
    let line = line.context("/var/tmp is on no block device")?;
    let field = |place: usize| line.get(place).and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(Usage { in_flight: field(11), busy: field(12), weighted: field(13) })
}

impl Injection for DiskSaturation {
    fn end(mut self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let after = usage(scene)?;
        let elapsed = u64::try_from(self.since.elapsed().as_millis())?.max(1);
        self.fio.expect_running()?;
        let mut evidence = Evidence::default();
        let weighted = after.weighted - self.before.weighted;
        evidence.at_least("queue_depth_hundredths", weighted * 100 / elapsed, LEAST_QUEUE);
        evidence.at_least("busy_percent", (after.busy - self.before.busy) * 100 / elapsed, 50);
        evidence.note("in_flight_at_end", after.in_flight);
        Ok(evidence)
    }
}
