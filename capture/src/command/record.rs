//! `capture record`: this node, live, into a recording.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use capture::combine::{Instant as When, Part, combine};
use capture::control::{Control, Order, Request, socket_of};
use capture::output::{Bounds, Output, Written};
use capture::source::{Source, kernel, system, tc};
use capture::{Clock, POLL_INTERVAL, Selection};
use cli::{Exit, Interrupt};
use event::{Event, Label, Mark, Timestamp};
use recording::{ClockPair, Header, Interface, Reader};

/// Record this node live
///
/// Writes down the metadata of every IP packet that passes the chosen interfaces, in both directions, what the kernel
/// tells of the node's connections (retransmissions, resets, drops, states, round-trip times), and each second the
/// state of the node and its pods. No payload is recorded, no packet is changed or dropped. What could not be recorded is counted, in the recording too.
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

    /// Leave out the kernel's events
    #[arg(long)]
    no_kernel_events: bool,

    /// Room for packets between kernel and recorder, in KiB; a power of two
    #[arg(long, value_name = "KIB", default_value_t = 8192, value_parser = ring_size, help_heading = "Bounds")]
    ring_size: u32,

    /// Begin a new file when one has this size: FILE-00001.mcap and so on
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Bounds")]
    rotate_size: Option<u64>,

    /// Begin a new file when one is this old, as in 1h or 10m
    #[arg(long, value_name = "SPAN", value_parser = span, help_heading = "Bounds")]
    rotate_after: Option<event::Duration>,

    /// Remove the oldest files when all together are larger
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Bounds")]
    retain_size: Option<u64>,

    /// Remove files that ended this long ago
    #[arg(long, value_name = "SPAN", value_parser = span, help_heading = "Bounds")]
    retain_for: Option<event::Duration>,

    /// Black box: only the last SPAN stays on disk, until `capture dump` or SIGUSR1 freezes it into a file of its own
    #[arg(long, value_name = "SPAN", value_parser = span, help_heading = "Bounds",
        conflicts_with_all = ["rotate_size", "rotate_after", "retain_size", "retain_for"])]
    keep: Option<event::Duration>,

    /// Where to listen for `capture mark` and `capture dump` [default: FILE.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Seconds between two snapshots of processor, memory, disks, processes and pods; 0: none
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval, help_heading = "System")]
    system_interval: f64,

    /// Where the node's /proc is; /host/proc inside a container
    #[arg(long, value_name = "PATH", default_value = "/proc", help_heading = "System")]
    proc_root: PathBuf,

    /// Where the node's cgroups are mounted
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/cgroup", help_heading = "System")]
    cgroup_root: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  capture record                               all pods and the uplink, one minute
  capture record eth0 --duration 0             until Ctrl-C
  capture record 'lxc*' eth0 -o node7.mcap     every Cilium pod, and the uplink
  capture record all --label packet-loss       as a labelled example for training
  capture record -d 0 --keep 10m -o box.mcap   a black box: capture dump box.mcap -o incident.mcap
  capture record -d 0 --rotate-after 1h --retain-size 10G -o /var/lib/capture/node.mcap

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

/// `500`, `10K`, `2M`, `1G`: bytes, in powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.find(|letter: char| !letter.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("a number of bytes, or one with K, M, G or T".to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "a number of bytes above 0, or one with K, M, G or T".to_owned())
}

fn span(text: &str) -> Result<event::Duration, String> {
    let span: Result<jiff::SignedDuration, _> = text.parse();
    match span.ok().and_then(|span| i64::try_from(span.as_nanos()).ok()) {
        Some(nanos) if nanos >= 1_000_000_000 => Ok(event::Duration::from_nanos(nanos)),
        _ => Err("a span of a second or more, such as 30s, 10m or 1h30m".to_owned()),
    }
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds == 0.0 || (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0, or a number of seconds from 0.1 to 3600".to_owned()),
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
    let source = tc::Tc::open(&selection, clock, options)?;
    let kernel = if args.no_kernel_events { None } else { kernel_events(clock) };
    let path = match &args.output {
        Some(path) => path.clone(),
        None => default_path(clock.now())?,
    };
    let header = header(args, &source, &clock);
    let output = Output::create(&path, header, recording::Options::default(), args.bounds())?;
    let names: Vec<&str> = source.interfaces().map(|interface| interface.name.as_str()).collect();
    tracing::info!(path = %path.display(), by = source.attachment(), "recording {}", names.join(", "));

    let end = (args.duration > 0.0).then(|| Instant::now() + Duration::from_secs_f64(args.duration));
    let mut recorder = Recorder::new(args, source, kernel, output, path, clock)?;
    let recorded = recorder.record(&interrupt, end);
    // Closed in any case: what was recorded until a failure stays readable.
    let written = recorder.output.finish(clock.now());
    let dumped =
        recorder.dumps.into_iter().map(|dump| dump.join().unwrap_or(false)).fold(true, |all, one| all & one);
    recorded?;
    report(&recorder.source, recorder.kernel.as_ref(), &written?)?;
    anyhow::ensure!(dumped, "a dump failed");
    Ok(Exit::Done)
}

impl Record {
    fn bounds(&self) -> Bounds {
        match self.keep {
            Some(span) => Bounds::black_box(span),
            None => Bounds {
                piece_bytes: self.rotate_size,
                piece_span: self.rotate_after,
                keep_bytes: self.retain_size,
                keep_span: self.retain_for,
            },
        }
    }
}

/// The sources, the output, and who may give orders.
struct Recorder {
    source: tc::Tc,
    kernel: Option<kernel::Kernel>,
    system: Option<system::System>,
    output: Output,
    path: PathBuf,
    clock: Clock,
    /// Interfaces that the output has.
    interfaces: usize,
    control: Option<Control>,
    dump_asked: Arc<AtomicBool>,
    keep: Option<event::Duration>,
    /// Threads that write dumps; whether they could.
    dumps: Vec<JoinHandle<bool>>,
    live: Live,
}

/// Tells how the recording goes: each second on a terminal, else a line each minute.
struct Live {
    bar: indicatif::ProgressBar,
    told_at: Instant,
    told: tc::Counters,
}

impl Live {
    fn new() -> Self {
        Self { bar: cli::counter(0, "recording"), told_at: Instant::now(), told: tc::Counters::default() }
    }

    fn tell(&mut self, source: &tc::Tc, output: &Output) -> anyhow::Result<()> {
        let span = self.told_at.elapsed();
        if span < Duration::from_secs(if self.bar.is_hidden() { 60 } else { 1 }) {
            return Ok(());
        }
        let counters = source.counters()?;
        let (bytes, events) = output.progress();
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let (rate, each) = (
            (counters.packets - self.told.packets) as f64 / span.as_secs_f64(),
            bytes as f64 / events.max(1) as f64,
        );
        let text = format!(
            "{rate:.0} packets/s, {} lost, {events} events, {bytes} bytes on disk, {each:.1} per event",
            counters.lost
        );
        if self.bar.is_hidden() {
            tracing::info!("{text}");
        } else {
            self.bar.set_message(text);
            self.bar.set_position(counters.packets);
        }
        (self.told_at, self.told) = (Instant::now(), counters);
        Ok(())
    }
}

impl Recorder {
    fn new(
        args: &Record,
        source: tc::Tc,
        kernel: Option<kernel::Kernel>,
        output: Output,
        path: PathBuf,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let socket = args.socket.clone().unwrap_or_else(|| socket_of(&path));
        let control = Control::listen(&socket)
            .map_err(|error| {
                tracing::warn!("{}: {error}: marks and dumps cannot be asked for", socket.display())
            })
            .ok();
        let dump_asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&dump_asked))
            .context("cannot listen to SIGUSR1")?;
        let mut recorder = Self {
            interfaces: source.interfaces().count(),
            system: args.system(clock)?,
            source,
            kernel,
            output,
            path,
            clock,
            control,
            dump_asked,
            keep: args.keep,
            dumps: Vec::new(),
            live: Live::new(),
        };
        recorder.place_interfaces();
        Ok(recorder)
    }

    /// Polls until the end or the interrupt, then stops and takes what is left.
    fn record(&mut self, interrupt: &Interrupt, end: Option<Instant>) -> anyhow::Result<()> {
        while !interrupt.is_raised() && end.is_none_or(|end| Instant::now() < end) {
            let count = self.poll()?;
            self.follow_interfaces()?;
            self.obey()?;
            self.output.tick(self.clock.now())?;
            self.live.tell(&self.source, &self.output)?;
            if count == 0 {
                let left = end.map_or(POLL_INTERVAL, |end| end.saturating_duration_since(Instant::now()));
                std::thread::sleep(left.min(POLL_INTERVAL));
            }
        }
        self.live.bar.finish_and_clear();
        self.take_from(|source, take| source.stop(take).map(|()| 0)).map(drop)
    }

    /// Writes down what the sources have; how much it was.
    fn poll(&mut self) -> anyhow::Result<usize> {
        self.take_from(|source, take| source.poll(take))
    }

    /// Asks every source for its events and writes them down, up to the first that cannot be written.
    fn take_from(
        &mut self,
        ask: impl Fn(&mut dyn Source, &mut dyn FnMut(Event)) -> Result<usize, capture::source::Error>,
    ) -> anyhow::Result<usize> {
        let Self { source, kernel, system, output, .. } = self;
        let mut sources: Vec<&mut dyn Source> = vec![source];
        sources.extend(kernel.as_mut().map(|kernel| kernel as &mut dyn Source));
        sources.extend(system.as_mut().map(|system| system as &mut dyn Source));
        let mut failure = None;
        let mut take = |event: Event| {
            if failure.is_none() {
                failure = output.write(&event).err();
            }
        };
        let taken = sources.into_iter().map(|source| ask(source, &mut take)).sum::<Result<usize, _>>()?;
        failure.map_or(Ok(taken), |failure| Err(failure.into()))
    }

    /// Adds interfaces that appeared, before the first packet that names them.
    fn follow_interfaces(&mut self) -> anyhow::Result<()> {
        let fresh: Vec<Interface> = self.source.interfaces().skip(self.interfaces).map(described).collect();
        for interface in &fresh {
            self.output.add_interface(interface)?;
            self.interfaces += 1;
        }
        if !fresh.is_empty() {
            self.place_interfaces();
        }
        Ok(())
    }

    fn place_interfaces(&mut self) {
        if let Some(system) = &mut self.system {
            system.set_places(self.source.interfaces().map(|interface| interface.index).zip(0..));
        }
    }

    /// Does what was asked for since the last time.
    fn obey(&mut self) -> anyhow::Result<()> {
        if self.dump_asked.swap(false, Ordering::Relaxed) {
            let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
            let path = self.path.with_file_name(format!("{stem}-dump-{}.mcap", utc(self.clock.now())?));
            self.dump(path, None)?;
        }
        let Some(request) = self.control.as_ref().and_then(Control::poll) else { return Ok(()) };
        match request.order.clone() {
            Order::Mark { label, note } => {
                let time = self.clock.now();
                let mark = Mark { time, arrival: time, label: label.map(Label), note };
                self.output.write(&Event::Mark(mark))?;
                request.answer(Ok(format!("marked at {time}")));
            }
            Order::Dump { path } => self.dump(path, Some(request))?,
        }
        Ok(())
    }

    /// Writes the black box into a file of its own, by a thread: the packets do not wait.
    fn dump(&mut self, path: PathBuf, request: Option<Request>) -> anyhow::Result<()> {
        if !self.output.has_pieces() {
            tracing::warn!("asked for a dump, but there is no black box: start the recorder with --keep");
            if let Some(request) = request {
                request.answer(Err("it has no black box: start it with --keep".to_owned()));
            }
            return Ok(());
        }
        let now = self.clock.now();
        // Opened here, so that a piece that goes meanwhile can still be read.
        let readers: Result<Vec<Reader>, _> =
            self.output.pieces_until(now)?.iter().map(|piece| Reader::open(&piece.path)).collect();
        let keep = self.keep.unwrap_or(event::Duration::ZERO);
        let from = self.keep.map(|_| When::At(Timestamp::from_nanos(now.as_nanos() - keep.as_nanos())));
        let part = Part { from, ..Part::default() };
        let write = move || {
            let combined = readers.and_then(|mut readers| combine(&mut readers, &path, &part));
            let answer = match &combined {
                Ok(combined) => Ok(format!("{}: {}", path.display(), combined.summary.counts)),
                Err(error) => Err(error.to_string()),
            };
            match &answer {
                Ok(done) => tracing::info!("dumped {done}"),
                Err(error) => tracing::error!("the dump failed: {error}"),
            }
            let is_done = answer.is_ok();
            if let Some(request) = request {
                request.answer(answer);
            }
            is_done
        };
        let thread = std::thread::Builder::new().name("dump".to_owned()).spawn(write);
        self.dumps.push(thread.context("cannot start a thread")?);
        Ok(())
    }
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

impl Record {
    fn system(&self, clock: Clock) -> anyhow::Result<Option<system::System>> {
        if self.system_interval == 0.0 {
            return Ok(None);
        }
        let options = system::Options {
            interval: Duration::from_secs_f64(self.system_interval),
            proc_root: self.proc_root.clone(),
            cgroup_root: self.cgroup_root.clone(),
        };
        Ok(Some(system::System::start(options, clock)?))
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

fn report(source: &tc::Tc, kernel: Option<&kernel::Kernel>, written: &Written) -> anyhow::Result<()> {
    let tc::Counters { seen, packets, lost, unreadable, not_ip, fragments_unmatched } = source.counters()?;
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let each = if packets == 0 { 0.0 } else { written.bytes as f64 / packets as f64 };
    tracing::info!(
        seen,
        packets,
        lost,
        unreadable,
        not_ip,
        fragments_unmatched,
        events = written.events,
        bytes = written.bytes,
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
    if written.removed > 0 {
        tracing::info!(removed = written.removed, "files were removed by --keep or --retain");
    }
    let mut stdout = std::io::stdout().lock();
    for piece in &written.pieces {
        writeln!(stdout, "{}", piece.path.display())?;
    }
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
        assert_eq!((size("500"), size("2M"), size("1GiB")), (Ok(500), Ok(2 << 20), Ok(1 << 30)));
        assert!(size("0").is_err() && size("2X").is_err() && size("99999999999T").is_err());
        assert_eq!(span("10m"), Ok(event::Duration::from_secs(600)));
        assert!(span("0s").is_err() && span("ten").is_err());
        assert!(seconds("-1").is_err() && seconds("nan").is_err() && seconds("0").is_ok());
    }
}
