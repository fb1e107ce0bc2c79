//! What the daemon takes at 10,000 packets a second.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;

use super::Stage;
use crate::bench::measure::{taken, wait_for};
use crate::bench::wire::{End, NOBODY, Wire, output};
use crate::workspace::say;

const PACKETS_PER_SECOND: u32 = 10_000;
/// Six windows.
const SECONDS: u64 = 30;

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
    let measured = measure(&mut infer, &wire, &log);
    // Whatever came of it, it does not outlive its wire.
    output(Command::new("kill").args(["-TERM", &infer.id().to_string()]))?;
    infer.wait().context("cannot wait for infer")?;
    let [packets, share, memory] = measured?;
    say(&format!(
        "\n| packets/s | processor, % of one | most memory, MB |\n|---|---|---|\n| {packets:.0} | {:.1} | {:.0} |",
        share * 100.0,
        memory / 1e6,
    ))
}

/// Packets a second, the share of one processor that they took, and memory in bytes.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn measure(infer: &mut Child, wire: &Wire, log: &Path) -> anyhow::Result<[f64; 3]> {
    wait_for(infer, log, &["watching right0"]).context("infer does not watch")?;
    let (before, received_before, began) = (taken(infer.id())?, wire.received()?, Instant::now());
    let this = std::env::current_exe().context("this program has no path")?;
    let rate = PACKETS_PER_SECOND.to_string();
    let mut sender = wire.command(End::Left, &this);
    output(sender.args(["flood", NOBODY, &SECONDS.to_string(), "--rate", &rate]))?;
    let (after, received, elapsed) = (taken(infer.id())?, wire.received()?, began.elapsed().as_secs_f64());
    Ok([
        (received - received_before) as f64 / elapsed,
        (after.processor - before.processor) / elapsed,
        after.memory as f64,
    ])
}
