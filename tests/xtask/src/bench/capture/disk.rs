//! Bytes a packet on disk: the lab's mixed traffic, recorded and beside it dumped and compressed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::recorder::counts;
use super::{Args, Stage};
use crate::bench::measure::median;
use crate::bench::wire::output;
use crate::workspace::say;

/// Seconds of a run: enough that the file's frame weighs little.
const SECONDS: &str = "20";
const WORKLOADS: [&str; 2] = ["web", "batch"];

pub fn run(stage: &Stage, args: &Args) -> anyhow::Result<()> {
    say(&format!(
        "\n| the lab's traffic, {} runs of {SECONDS} s, bytes a packet | packets | tcpdump -s 96, zstd -3 | capture \
         record, packets alone | times smaller | capture record | times smaller | with --l7 dns,http \
         |\n|---|---|---|---|---|---|---|---|",
        args.rounds
    ))?;
    for workload in WORKLOADS {
        let mut columns: [Vec<f64>; 7] = Default::default();
        for seed in 1..=args.rounds {
            for (column, value) in columns.iter_mut().zip(measure(stage, workload, seed)?) {
                column.push(value);
            }
        }
        let [packets, dumped, alone, less, default, less_default, with_l7] =
            columns.map(|mut column| median(&mut column));
        say(&format!(
            "| {workload} | {packets:.0} | {dumped:.2} | {alone:.2} | {less:.1} | {default:.2} | {less_default:.1} \
             | {with_l7:.2} |"
        ))?;
    }
    Ok(())
}

/// Packets; bytes a packet of the compressed dump; of a recording of packets alone, and how many times smaller that is;
/// of a recording of all that is recorded by default, and likewise; of one with application messages too.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn measure(stage: &Stage, workload: &str, seed: u32) -> anyhow::Result<[f64; 7]> {
    let path = |name: &str| stage.folder.join(name);
    // The lab's own recorder reads application messages.
    let (with_l7, default, alone) = (path("lab.mcap"), path("lab-default.mcap"), path("lab-packets.mcap"));
    let (dump, packed) = (path("lab.pcap"), path("lab.pcap.zst"));
    for file in [&with_l7, &default, &alone, &dump, &packed] {
        let _ = fs::remove_file(file);
    }
    let capture = stage.programs.join("capture");
    // The lab asks shell and programs to stop by SIGINT; the shell waits for them.
    let with = format!(
        "trap : INT; rm -f '{}' '{}'; \
         '{capture}' record server0 --duration 0 --no-kernel-events --system-interval 0 --output '{}' & first=$!; \
         '{capture}' record server0 --duration 0 --output '{}' & second=$!; \
         tcpdump -q -i server0 -s 96 -n -w '{}' & dumper=$!; wait $first; wait $second; wait $dumper; wait",
        // Of a run whose fault did not take: the lab tries again.
        alone.display(),
        default.display(),
        alone.display(),
        default.display(),
        dump.display(),
        capture = capture.display()
    );
    let mut lab = Command::new(stage.programs.join("lab"));
    lab.args(["run", "--fault", "normal", "--workload", workload, "--seed", &seed.to_string()]);
    lab.args(["--duration", SECONDS, "--with", &with, "--output"]).arg(&with_l7);
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
    let each = |file: &Path, counted: &Path| {
        let (packets, _) = counts(stage, counted)?;
        ensure!(packets > 0, "{} holds no packets: {said}", counted.display());
        Ok(size(file)? / packets as f64)
    };
    let dumped = each(&packed, &imported)?;
    let [alone_each, default_each] = [each(&alone, &alone)?, each(&default, &default)?];
    let (packets, _) = counts(stage, &alone)?;
    Ok([
        packets as f64,
        dumped,
        alone_each,
        dumped / alone_each,
        default_each,
        dumped / default_each,
        each(&with_l7, &with_l7)?,
    ])
}
