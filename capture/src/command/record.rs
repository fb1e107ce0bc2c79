//! `capture record`: this node, live, into a recording.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use capture::source::{Source as _, kernel, tc};
use capture::{Clock, POLL_INTERVAL, Selection};
use cli::{Exit, Interrupt};
use event::{Event, Label, Timestamp};
use recording::{ClockPair, Header, Interface, Writer};

/// Record this node live
///
/// Writes down the metadata of every IP packet that passes the chosen interfaces, in both directions, and what the
/// kernel tells of the node's connections (retransmissions, resets, drops, states, round-trip times). No payload is
/// recorded, no packet is changed or dropped. What could not be recorded is counted, in the recording too.
///
/// The path of the recording is printed on stdout when it is complete. Needs root, or CAP_BPF, CAP_NET_ADMIN
/// and CAP_PERFMON.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Record {
    /// Interfaces to record: names, patterns (lxc*), or `all`: the node's side of every pod (lxc*, veth*, cali*,
    /// eni*) and the interfaces of the default routes; loopback only by name
    #[arg(value_name = "IFACE", default_value = "all")]
    interfaces: Vec<String>,

    /// Seconds to record; 0: until Ctrl-C or SIGTERM
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    duration: f64,

    /// Label of the whole recording: a number, or a fault's name such as packet-loss
    #[arg(short, long, value_name = "LABEL")]
    label: Option<Label>,

    /// The recording to write, which must not exist yet [default: recordings/<UTC time>-<host>.mcap]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Leave out the kernel's events: packets alone
    #[arg(long)]
    no_kernel_events: bool,

    /// Room for packets between kernel and recorder, in KiB; a power of two
    #[arg(long, value_name = "KIB", default_value_t = 8192, value_parser = ring_size, help_heading = "Bounds")]
    ring_size: u32,
}

const EXAMPLES: &str = "\
Examples:
  capture record                               all pods and the uplink, one minute
  capture record eth0 --duration 0             until Ctrl-C
  capture record 'lxc*' eth0 -o node7.mcap     every Cilium pod, and the uplink
  capture record all --label packet-loss       as a labelled example for training

Exit codes:
  0  done
  1  failed: a right or a kernel feature is missing, or the disk is full
  2  wrong usage";

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        // Three hundred years, more than a time can hold.
        Ok(seconds) if (0.0..1e10).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds, 0 or more".to_owned()),
    }
}

fn ring_size(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(kibibytes) if kibibytes.is_power_of_two() && (4..=1 << 20).contains(&kibibytes) => Ok(kibibytes),
        _ => Err("a power of two from 4 to 1048576".to_owned()),
    }
}

impl Record {
    pub fn run(&self) -> anyhow::Result<Exit> {
        run(self)
    }
}

fn run(args: &Record) -> anyhow::Result<Exit> {
    let selection = Selection::parse(&args.interfaces)?;
    let interrupt = Interrupt::install().context("cannot listen to signals")?;
    let clock = Clock::start().context("cannot read the clocks")?;
    let options = tc::Options { ring_size: args.ring_size << 10 };
    let mut source = tc::Tc::open(&selection, clock, options)?;
    let mut kernel = if args.no_kernel_events { None } else { kernel_events(clock) };
    let path = match &args.output {
        Some(path) => path.clone(),
        None => default_path(clock.now())?,
    };
    let header = header(args, &source, &clock);
    let mut writer = Writer::create(&path, &header, recording::Options::default())?;
    let names: Vec<&str> = source.interfaces().map(|interface| interface.name.as_str()).collect();
    tracing::info!(path = %path.display(), by = source.attachment(), "recording {}", names.join(", "));

    let end = (args.duration > 0.0).then(|| Instant::now() + Duration::from_secs_f64(args.duration));
    let recorded = record(&mut source, kernel.as_mut(), &mut writer, &clock, &interrupt, end);
    // Closed in any case: what was recorded until a failure stays readable.
    let summary = writer.finish();
    recorded?;
    report(&source, kernel.as_ref(), &path, &summary?)?;
    Ok(Exit::Done)
}

/// Polls until the end or the interrupt, then stops and takes what is left.
fn record(
    source: &mut tc::Tc,
    mut kernel: Option<&mut kernel::Kernel>,
    writer: &mut Writer,
    clock: &Clock,
    interrupt: &Interrupt,
    end: Option<Instant>,
) -> anyhow::Result<()> {
    let mut failure = None;
    let mut write = |writer: &mut Writer, event: &Event| {
        if failure.is_none() {
            failure = writer.write(event).err();
        }
    };
    let mut interfaces = source.interfaces().count();
    while !interrupt.is_raised() && end.is_none_or(|end| Instant::now() < end) {
        let mut count = source.poll(&mut |event| write(writer, &event))?;
        if let Some(kernel) = &mut kernel {
            count += kernel.poll(&mut |event| write(writer, &event))?;
        }
        // Before the first packet that names them.
        for interface in source.interfaces().skip(interfaces) {
            writer.add_interface(&described(interface))?;
            interfaces += 1;
        }
        writer.tick(clock.now())?;
        if count == 0 {
            let left = end.map_or(POLL_INTERVAL, |end| end.saturating_duration_since(Instant::now()));
            std::thread::sleep(left.min(POLL_INTERVAL));
        }
    }
    source.stop(&mut |event| write(writer, &event))?;
    if let Some(kernel) = kernel {
        kernel.stop(&mut |event| write(writer, &event))?;
    }
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// The kernel's events; without them packets are recorded all the same.
fn kernel_events(clock: Clock) -> Option<kernel::Kernel> {
    match kernel::Kernel::open(clock, kernel::Options::default()) {
        Ok(kernel) => {
            for missing in kernel.missing() {
                tracing::warn!(
                    "not recorded: {} ({}: {})",
                    missing.tells,
                    missing.tracepoint,
                    missing.reason
                );
            }
            Some(kernel)
        }
        Err(error) => {
            tracing::warn!("no kernel events are recorded: {:#}", anyhow::Error::from(error));
            None
        }
    }
}

fn header(args: &Record, source: &tc::Tc, clock: &Clock) -> Header {
    let (monotonic, wall) = clock.pair();
    let system = nix::sys::utsname::uname().ok();
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    Header {
        node: host(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        kernel: system.as_ref().map(|system| text(system.release())).unwrap_or_default(),
        tool: format!("capture {}", env!("CARGO_PKG_VERSION")),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        label: args.label,
        clocks: vec![ClockPair { monotonic, wall }],
        interfaces: source.interfaces().map(described).collect(),
        metadata: BTreeMap::from([("attachment".to_owned(), source.attachment().to_owned())]),
        ..Header::default()
    }
}

fn described(interface: &capture::Interface) -> Interface {
    Interface {
        name: interface.name.clone(),
        index: Some(interface.index),
        link_type: interface.link_layer.map(capture::LinkLayer::link_type),
    }
}

fn host() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `recordings/20261121T104200Z-node7.mcap`, its folder made.
fn default_path(now: Timestamp) -> anyhow::Result<PathBuf> {
    let folder = Path::new("recordings");
    std::fs::create_dir_all(folder).context("cannot create the folder recordings")?;
    Ok(folder.join(format!("{}-{}.mcap", utc(now)?, host())))
}

/// ISO 8601 without separators, which file systems take.
fn utc(time: Timestamp) -> anyhow::Result<String> {
    let time = jiff::Timestamp::from_second(time.as_secs()).context("the clock is out of range")?;
    Ok(time.strftime("%Y%m%dT%H%M%SZ").to_string())
}

fn report(
    source: &tc::Tc,
    kernel: Option<&kernel::Kernel>,
    path: &Path,
    summary: &recording::Summary,
) -> anyhow::Result<()> {
    let tc::Counters { seen, packets, lost, unreadable, not_ip, fragments_unmatched } = source.counters()?;
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let each = if packets == 0 { 0.0 } else { summary.bytes as f64 / packets as f64 };
    tracing::info!(
        seen,
        packets,
        lost,
        unreadable,
        not_ip,
        fragments_unmatched,
        bytes = summary.bytes,
        bytes_per_packet = format_args!("{each:.1}"),
        "recorded"
    );
    if let Some(kernel) = kernel {
        let kernel::Counters { seen, events, lost, filtered, unreadable } = kernel.counters()?;
        tracing::info!(seen, events, lost, filtered, unreadable, "kernel events");
    }
    if lost > 0 {
        tracing::warn!(lost, "the ring buffer was full at times: a larger --ring-size keeps more");
    }
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_is_the_utc_time() {
        assert_eq!(utc(Timestamp::from_secs(1_795_257_720)).unwrap(), "20261121T104200Z");
    }

    #[test]
    fn bounds_are_checked() {
        assert!(ring_size("8192").is_ok());
        assert!(ring_size("8191").is_err() && ring_size("2").is_err());
        assert!(seconds("-1").is_err() && seconds("nan").is_err() && seconds("0").is_ok());
    }
}
