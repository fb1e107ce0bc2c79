//! TCP at full speed between two namespaces: the rate with a recorder, and without.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};

use super::recorder::{Kind, Recorder};
use super::{Args, Stage};
use crate::bench::measure::median;
use crate::bench::wire::{End, Wire, output};
use crate::workspace::say;

pub fn run(stage: &Stage, args: &Args) -> anyhow::Result<()> {
    say(&format!(
        "\n| TCP by iperf3, {} runs of {} s | nothing, Gbit/s | capture record | tcpdump -s 96 -w | \
         ratio with capture | ratio with tcpdump |\n|---|---|---|---|---|---|",
        args.rounds, args.seconds
    ))?;
    for (name, offloads, are_awake) in [
        ("super-packets (offloads on)", true, false),
        ("super-packets, processors kept awake", true, true),
        ("packets of 1500 bytes", false, false),
        ("packets of 1500 bytes, processors kept awake", false, true),
    ] {
        let wire = Wire::lay(offloads)?;
        let processors = if are_awake { thread::available_parallelism()?.get() } else { 0 };
        let awake = Awake::on(processors);
        let mut rates: [Vec<f64>; 3] = Default::default();
        let mut ratios: [Vec<f64>; 2] = Default::default();
        for _ in 0..args.rounds {
            let mut round = [0.0; 3];
            for (rate, kind) in round.iter_mut().zip(Kind::ALL) {
                *rate = transfer(stage, &wire, kind, args.seconds)?;
            }
            for (column, rate) in rates.iter_mut().zip(round) {
                column.push(rate);
            }
            let [nothing, capture, tcpdump] = round;
            ratios[0].push(capture / nothing);
            ratios[1].push(tcpdump / nothing);
        }
        awake.end()?;
        let [nothing, capture, tcpdump] = rates.map(|mut rates| median(&mut rates) / 1e9);
        let [with_capture, with_tcpdump] = ratios.map(|mut ratios| median(&mut ratios));
        say(&format!(
            "| {name} | {nothing:.2} | {capture:.2} | {tcpdump:.2} | {with_capture:.2} | {with_tcpdump:.2} |"
        ))?;
    }
    Ok(())
}

/// Threads that give each processor something to do when it has nothing else. A processor of a virtual machine that
/// halts takes long to wake: without this the wake-ups of sender and receiver decide the rate.
struct Awake {
    threads: Vec<thread::JoinHandle<anyhow::Result<()>>>,
    is_over: Arc<AtomicBool>,
}

impl Awake {
    fn on(processors: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = (0..processors).map(|processor| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || spin(processor, &is_over))
        });
        Self { threads: threads.collect(), is_over }
    }

    fn end(self) -> anyhow::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    }
}

/// Leaves its processor to whoever else wants it.
fn spin(processor: usize, is_over: &AtomicBool) -> anyhow::Result<()> {
    let mut own = CpuSet::new();
    own.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &own)?;
    output(Command::new("chrt").args(["--idle", "--pid", "0", &gettid().to_string()]))?;
    while !is_over.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    Ok(())
}

/// Bits a second from left to right.
fn transfer(stage: &Stage, wire: &Wire, kind: Kind, seconds: u32) -> anyhow::Result<f64> {
    let recorder = Recorder::start(stage, wire, kind)?;
    let iperf3 = Path::new("iperf3");
    let mut server = wire.command(End::Right, iperf3);
    server.args(["--server", "--one-off"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = server.spawn().context("cannot start iperf3")?;
    let seconds = seconds.to_string();
    let mut report = None;
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(100));
        let mut client = wire.command(End::Left, iperf3);
        client.args(["--client", "198.18.0.2", "--json", "--time", &seconds]);
        // Until the server listens it is refused.
        if let Ok(text) = output(&mut client) {
            report = Some(text);
            break;
        }
    }
    let Some(report) = report else {
        let _ = server.kill();
        let _ = server.wait();
        bail!("iperf3 does not reach its server");
    };
    server.wait().context("cannot wait for iperf3")?;
    if let Some(recorder) = recorder {
        recorder.stop(stage)?;
    }
    let report: serde_json::Value = serde_json::from_str(&report).context("iperf3 prints no JSON")?;
    report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 tells no rate")
}
