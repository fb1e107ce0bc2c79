//! Packets of 64 bytes at the highest rate that one processor sends: what is recorded, lost, and what it takes.

use std::io::Write as _;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cli::Exit;

use super::recorder::{Kind, Recorder, Usage};
use super::{Args, Stage};
use crate::bench::measure::median;
use crate::bench::wire::{End, NOBODY, Wire, output};
use crate::workspace::say;

/// Bytes after the headers of Ethernet, IPv4 and UDP that make 64.
const PAYLOAD: usize = 22;
/// Of a sender that does not go as fast as it can.
const BATCHES_PER_SECOND: u32 = 100;

/// Sends packets of 64 bytes for some seconds, and prints how many.
#[derive(clap::Args)]
pub struct Flood {
    to: String,
    seconds: u64,
    /// Packets a second [default: as many as can be sent]
    #[arg(long)]
    rate: Option<u32>,
}

/// What is started in the sender's namespace.
pub fn flood(args: &Flood) -> anyhow::Result<Exit> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot open a socket")?;
    socket.connect((args.to.as_str(), 9)).with_context(|| format!("cannot reach {}", args.to))?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut sent: u64 = 0;
    let batch = args.rate.map_or(256, |rate| rate / BATCHES_PER_SECOND);
    let mut next = Instant::now();
    while Instant::now() < end {
        for _ in 0..batch {
            // Where the queue is full the packet was not sent.
            sent += u64::from(socket.send(&[0x5a; PAYLOAD]).is_ok());
        }
        if args.rate.is_some() {
            next += Duration::from_secs(1) / BATCHES_PER_SECOND;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    writeln!(std::io::stdout(), "{sent}")?;
    Ok(Exit::Done)
}

pub fn run(stage: &Stage, args: &Args) -> anyhow::Result<()> {
    say(&format!(
        "\n| UDP, 64 bytes, {} runs of {} s | packets/s | recorded | lost | processor, us a packet | of it in user \
         space | most memory, MB |\n|---|---|---|---|---|---|---|",
        args.rounds, args.seconds
    ))?;
    let wire = Wire::lay(true)?;
    let mut columns: [[Vec<f64>; 6]; 3] = Default::default();
    for _ in 0..args.rounds {
        for (columns, kind) in columns.iter_mut().zip(Kind::ALL) {
            for (column, value) in columns.iter_mut().zip(measure(stage, &wire, kind, args.seconds)?) {
                column.push(value);
            }
        }
    }
    for (columns, kind) in columns.into_iter().zip(Kind::ALL) {
        let [rate, recorded, lost, processor, user, memory] = columns.map(|mut column| median(&mut column));
        say(&match kind {
            Kind::Nothing => format!("| {} | {rate:.0} | | | | | |", kind.name()),
            _ => format!(
                "| {} | {rate:.0} | {:.2} % | {:.2} % | {processor:.3} | {user:.3} | {memory:.1} |",
                kind.name(),
                recorded * 100.0,
                lost * 100.0
            ),
        })?;
    }
    Ok(())
}

/// Packets a second that arrived, the parts of them that were recorded and lost, processor time per recorded packet
/// (all, and in user space) in microseconds, and memory in megabytes.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn measure(stage: &Stage, wire: &Wire, kind: Kind, seconds: u32) -> anyhow::Result<[f64; 6]> {
    let recorder = Recorder::start(stage, wire, kind)?;
    let before = wire.received()?;
    let this = std::env::current_exe().context("this program has no path")?;
    let mut sender = wire.command(End::Left, &this);
    let sent = output(sender.args(["flood", NOBODY, &seconds.to_string()]))?;
    let sent: u64 = sent.trim().parse().context("the sender tells no number")?;
    // What waits is taken in.
    thread::sleep(Duration::from_millis(300));
    let arrived = wire.received()? - before;
    let usage = match recorder {
        Some(recorder) => recorder.stop(stage)?,
        None => Usage::default(),
    };
    ensure!(arrived >= sent / 2, "{sent} packets sent, {arrived} arrived");
    let Usage { processor, user, memory, packets, lost, .. } = usage;
    if kind == Kind::Capture {
        ensure!(packets + lost >= arrived, "{arrived} packets, {packets} recorded and {lost} lost");
    }
    let arrived = arrived as f64;
    let each = |seconds: f64| seconds * 1e6 / (packets.max(1) as f64);
    Ok([
        arrived / f64::from(seconds),
        packets as f64 / arrived,
        lost as f64 / arrived,
        each(processor),
        each(user),
        memory as f64 / 1e6,
    ])
}
