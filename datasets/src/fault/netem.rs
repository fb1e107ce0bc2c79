//! netem, the kernel's emulator of networks, at both of the router's devices. Not every kernel has it.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::scene::Scene;

const DEVICES: [&str; 2] = ["client0", "server0"];

/// What it did, in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    pub packets: u64,
    pub drops: u64,
}

/// What it shall do from now on, in the words of tc-netem(8).
pub fn start(scene: &Scene, what: &str) -> Result<()> {
    for device in DEVICES {
        let line = format!("tc qdisc add dev {device} root netem {what}");
        scene
            .topology
            .router
            .run(&line)
            .context("this kernel may lack netem (modprobe sch_netem); the other mechanisms do without it")?;
    }
    Ok(())
}

pub fn end(scene: &Scene) -> Result<Passed> {
    let (router, mut passed) = (&scene.topology.router, Passed::default());
    for device in DEVICES {
        let json = router.run(&format!("tc -j -s qdisc show dev {device}"))?;
        let found: Vec<Value> = serde_json::from_str(&json).context("cannot parse the output of tc -j")?;
        let netem = found.iter().find(|one| one["kind"] == "netem").context("netem is gone")?;
        passed.packets += netem["packets"].as_u64().unwrap_or_default();
        passed.drops += netem["drops"].as_u64().unwrap_or_default();
        router.run(&format!("tc qdisc del dev {device} root"))?;
    }
    Ok(passed)
}
