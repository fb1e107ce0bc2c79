//! What the daemon takes at 10,000 packets a second.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{Stage, say};
use crate::bench::measure::taken;
use crate::bench::wire::{End, NOBODY, Wire, output};

const PACKETS_PER_SECOND: u32 = 10_000;
/// Six windows.
const SECONDS: u64 = 30;
const START_LIMIT: Duration = Duration::from_secs(30);

pub fn run(stage: &Stage) -> anyhow::Result<()> {
    let wire = Wire::lay(true)?;
    let log = stage.folder.join("infer.log");
    let stderr = fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut infer = wire.command(End::Right, &stage.programs.join("infer"));
    infer.args(["--iface", "right0", "--print", "none"]);
    if let Some(model) = &stage.model {
        infer.arg("--model").arg(model);
    }
    let mut infer = infer.stdout(Stdio::null()).stderr(stderr).spawn().context("cannot start infer")?;
    let limit = Instant::now() + START_LIMIT;
    while !fs::read_to_string(&log).unwrap_or_default().contains("right0") {
        if Instant::now() > limit || infer.try_wait()?.is_some() {
            bail!("infer does not watch: {}", fs::read_to_string(&log).unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let (before, received_before, began) = (taken(infer.id())?, wire.received()?, Instant::now());
    let this = std::env::current_exe().context("this program has no path")?;
    let rate = PACKETS_PER_SECOND.to_string();
    let mut sender = wire.command(End::Left, &this);
    output(sender.args(["flood", NOBODY, &SECONDS.to_string(), "--rate", &rate]))?;
    let (after, received, elapsed) = (taken(infer.id())?, wire.received()?, began.elapsed());
    output(std::process::Command::new("kill").args(["-TERM", &infer.id().to_string()]))?;
    infer.wait().context("cannot wait for infer")?;
    let share = (after.processor - before.processor) / elapsed.as_secs_f64();
    say(&format!(
        "\n| packets/s | processor, % of one | most memory, MB |\n|---|---|---|\n| {:.0} | {:.1} | {:.0} |",
        (received - received_before) as f64 / elapsed.as_secs_f64(),
        share * 100.0,
        after.memory as f64 / 1e6,
    ))
}
