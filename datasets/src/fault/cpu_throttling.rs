//! CPU throttling: a limit on processor time that the server's load exceeds.
//!
//! `quota`: a limit too small for the load. `sidecar`: a busy neighbour in the same group uses the quota up.

use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use event::Fault;
use features::Feature;

use super::{Dose, Injection, Recipe};
use crate::cgroup::{CpuLimit, Periods};
use crate::evidence::Evidence;
use crate::load::Session;
use crate::process::Process;
use crate::scene::Scene;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::CpuThrottling,
    mechanisms: &["quota", "sidecar"],
    optional: &[],
    // All of the pod shares the group with the side-car.
    affected: &["*/198.18.1.2:*"],
    shows: &[(Feature::CpuThrottleRatio, 0.01)],
    own_drops: &[],
    inject,
};

/// Share of the periods that are to be throttled.
const THROTTLED: [(f64, f64); 3] = [(0.2, 0.35), (0.45, 0.65), (0.8, 0.95)];
/// Where the search for the quota begins: some processor time for each 100 ms.
const QUOTA: [(f64, f64); 3] = [(4.0, 6.0), (2.0, 4.0), (1.0, 2.0)];
/// The least that kernels take.
const LEAST_QUOTA: Duration = Duration::from_millis(1);
/// Long enough to see ten periods.
const TUNING: Duration = Duration::from_millis(1000);
/// The threshold from which a group counts as throttled, in percent of its periods.
const LEAST_SHARE: u64 = 10;

struct CpuThrottling {
    limit: CpuLimit,
    before: Periods,
    session: Session,
    tuner: Option<JoinHandle<()>>,
    sidecar: Option<Process>,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let limit = scene.groups.cpu_limit()?;
    let (low, high) = dose.severity.of(THROTTLED);
    let wanted = dose.draw.between(low, high);
    let before = limit.periods()?;
    let session = Session::new(dose.limit);
    let mut fault = CpuThrottling { limit: limit.clone(), before, session, tuner: None, sidecar: None };
    if dose.mechanism == "sidecar" {
        let share = dose.severity.of([30, 20, 10]);
        limit.set(Duration::from_millis(share))?;
        let mut hog = Command::new("stress-ng");
        hog.args(["--cpu", "1", "--timeout"]).arg(format!("{}s", dose.limit.as_secs()));
        fault.sidecar = Some(scene.topology.server.spawn("stress-ng", scene.groups.joined(&hog))?);
    } else {
        let (low, high) = dose.severity.of(QUOTA);
        let quota = Duration::from_secs_f64(dose.draw.between(low, high) / 1e3);
        limit.set(quota)?;
        let until = fault.session.clone();
        fault.tuner = Some(std::thread::spawn(move || tune(&limit, quota, wanted, &until)));
    }
    Ok(Box::new(fault))
}

/// Brings the share of throttled periods near to the wanted one: what a server needs depends on the machine.
fn tune(limit: &CpuLimit, mut quota: Duration, wanted: f64, session: &Session) {
    let Ok(mut before) = limit.periods() else { return };
    while session.pause(TUNING) {
        let Ok(now) = limit.periods() else { return };
        let share = (now.throttled - before.throttled) as f64 / (now.all - before.all).max(1) as f64;
        before = now;
        if (share - wanted).abs() > 0.1 {
            quota = quota.mul_f64(if share < wanted { 0.75 } else { 1.25 }).max(LEAST_QUOTA);
            if let Err(error) = limit.set(quota) {
                tracing::warn!("the quota stays as it is: {error:#}");
            }
        }
    }
}

impl Injection for CpuThrottling {
    fn end(mut self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let after = self.limit.periods()?;
        self.session.end();
        if let Some(tuner) = self.tuner.take() {
            tuner.join().ok().context("the tuner of the quota panicked")?;
        }
        if let Some(sidecar) = &mut self.sidecar {
            sidecar.expect_running()?;
        }
        scene.groups.lift_limits()?;
        let (all, throttled) = (after.all - self.before.all, after.throttled - self.before.throttled);
        let mut evidence = Evidence::default();
        evidence.note("nr_periods", all);
        evidence.at_least("nr_throttled", throttled, (all * LEAST_SHARE / 100).max(5));
        Ok(evidence)
    }
}
