//! Bytes a packet on disk: the lab's mixed traffic, recorded and beside it dumped and compressed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::recorder::counts;
use super::{Args, Stage, say};
use crate::bench::measure::median;
use crate::bench::wire::output;

/// Seconds of a run: enough that the file's frame weighs little.
const SECONDS: &str = "20";
const WORKLOADS: [&str; 2] = ["web", "batch"];

pub fn run(stage: &Stage, args: &Args) -> anyhow::Result<()> {
    say(&format!(
        "\n| the lab's traffic, {} runs of {SECONDS} s, bytes a packet | packets | tcpdump -s 96, zstd -3 | packets \
         recorded alone | times smaller | with kernel events and snapshots |\n|---|---|---|---|---|---|",
        args.rounds
    ))?;
    for workload in WORKLOADS {
        let mut columns: [Vec<f64>; 5] = Default::default();
        for seed in 1..=args.rounds {
            for (column, value) in columns.iter_mut().zip(measure(stage, workload, seed)?) {
                column.push(value);
            }
        }
        let [packets, dumped, alone, ratio, all] = columns.map(|mut column| median(&mut column));
        say(&format!("| {workload} | {packets:.0} | {dumped:.2} | {alone:.2} | {ratio:.1} | {all:.2} |"))?;
    }
    Ok(())
}

/// Packets; bytes a packet of the compressed dump and of a recording of packets alone, and their ratio; bytes a packet
/// of a recording with all that a recorder records by default.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn measure(stage: &Stage, workload: &str, seed: u32) -> anyhow::Result<[f64; 5]> {
    let path = |name: &str| stage.folder.join(name);
    let (all, alone, dump, packed) =
        (path("lab.mcap"), path("lab-packets.mcap"), path("lab.pcap"), path("lab.pcap.zst"));
    for file in [&all, &alone, &dump, &packed] {
        let _ = fs::remove_file(file);
    }
    let capture = stage.programs.join("capture");
    // The lab asks shell and programs to stop by SIGINT; the shell waits for them.
    let with = format!(
        "trap : INT; \
         '{}' record server0 --duration 0 --no-kernel-events --system-interval 0 --output '{}' & recorder=$!; \
         tcpdump -q -i server0 -s 96 -n -w '{}' & dumper=$!; wait $recorder; wait $dumper; wait",
        capture.display(),
        alone.display(),
        dump.display()
    );
    let mut lab = Command::new(stage.programs.join("lab"));
    lab.args(["run", "--fault", "normal", "--workload", workload, "--seed", &seed.to_string()]);
    lab.args(["--duration", SECONDS, "--with", &with, "--output"]).arg(&all);
    let said = output(&mut lab)?;
    output(Command::new("zstd").args(["-q", "-3", "-o"]).args([&packed, &dump]))?;
    let size = |file: &Path| {
        let length = fs::metadata(file).map(|file| file.len() as f64);
        length.with_context(|| format!("no {}: {said}", file.display()))
    };
    // Each by its own packets: the lab's recording starts some seconds before the load.
    let imported = path("lab-dump.mcap");
    let _ = fs::remove_file(&imported);
    output(Command::new(&capture).arg("import").arg(&dump).arg("-o").arg(&imported))?;
    let mut packets = [0.0; 3];
    for (count, file) in packets.iter_mut().zip([&imported, &alone, &all]) {
        let (found, _) = counts(stage, file)?;
        ensure!(found > 0, "{} holds no packets: {said}", file.display());
        *count = found as f64;
    }
    let [dumped, recorded, beside] = packets;
    let (dumped, each, beside) = (size(&packed)? / dumped, size(&alone)? / recorded, size(&all)? / beside);
    Ok([recorded, dumped, each, dumped / each, beside])
}
