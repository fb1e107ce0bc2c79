//! `capture record`: this node, live, into a recording.

mod arguments;
mod dump;
mod edit;
mod live;
mod path;
mod recorder;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use capture::anonymize::Anonymizer;
use capture::output::{Bounds, Output, Written};
use capture::source::tc;
use capture::watch::{Watch, WatchArgs};
use capture::{Clock, Sample, Selection, rights};
use cli::{Exit, Interrupt};
use event::{Label, NameMap};
use recording::Header;

use arguments::{seconds, size, span};
use edit::Edit;
use recorder::Recorder;

/// Record this node live
///
/// Writes down the metadata of every IP packet that passes the chosen interfaces, in both directions, what the kernel
/// tells of the node's connections (retransmissions, resets, drops, states, round-trip times), and each second the
/// state of the node and its pods. No payload is recorded, no packet is changed or dropped. What could not be
/// recorded is counted, in the recording too.
///
/// The path of the recording is printed on stdout when it is complete. Needs root, or CAP_BPF, CAP_NET_ADMIN
/// and CAP_PERFMON (and CAP_SYS_PTRACE for what pods tell); what it does not need any more it drops once it has
/// attached.
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

    /// Record one in N flows: all packets of both directions, and every other event of the flow, or nothing; a hash in
    /// the kernel decides, the same at every node. What is of no flow is recorded
    #[arg(long, value_name = "1/N", default_value_t = Sample::ALL, help_heading = "Content")]
    sample: Sample,

    /// Replace addresses before anything is written, by others that share prefixes as they do (Crypto-PAn), also in
    /// names and notes; KEYFILE has 32 bytes or 64 hexadecimal digits
    #[arg(long, value_name = "KEYFILE", help_heading = "Content")]
    anonymize: Option<PathBuf>,

    /// Names of addresses, written into the recording for flows that nothing else names: lines of
    /// `ADDRESS[/BITS] namespace=NAME pod=NAME service=NAME`, each of which may be left out
    #[arg(long, value_name = "FILE", conflicts_with = "anonymize", help_heading = "Content")]
    names: Option<PathBuf>,

    /// Keep times to the nanosecond, not to the microsecond; takes about half as much again on disk
    #[arg(long, help_heading = "Content")]
    nanoseconds: bool,

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

    /// Go on as this user, by name or number, once everything is attached; the folder of the recording has to be
    /// writable by that user
    #[arg(long, value_name = "USER", help_heading = "Rights")]
    user: Option<String>,

    #[command(flatten)]
    watch: WatchArgs,
}

const EXAMPLES: &str = "\
Examples:
  capture record                               all pods and the uplink, one minute
  capture record eth0 --duration 0             until Ctrl-C
  capture record 'lxc*' eth0 -o node7.mcap     every Cilium pod, and the uplink
  capture record all --label packet-loss       as a labelled example for training
  capture record -d 0 --keep 10m -o box.mcap   a black box: capture dump box.mcap -o incident.mcap
  capture record all --l7 dns,http             with DNS answers and HTTP codes, read from payload
  capture record -d 0 --hubble                 with Hubble's flows, from the node's socket
  sudo capture record -d 0 --user recorder -o /var/lib/capture/node.mcap
  capture record lxc* --sample 1/100 --anonymize key -o share.mcap
  capture record -d 0 --rotate-after 1h --retain-size 10G -o /var/lib/capture/node.mcap

Exit codes:
  0  done
  1  failed: a right or a kernel feature is missing, or the disk is full
  2  wrong usage";

impl Record {
    pub fn run(&self) -> anyhow::Result<Exit> {
        let selection = Selection::parse(&self.interfaces)?;
        let interrupt = Interrupt::install().context("cannot listen to signals")?;
        let clock = Clock::start().context("cannot read the clocks")?;
        let clock = if self.nanoseconds { clock.in_nanoseconds() } else { clock };
        // Before rights are dropped: it is the user's who started this.
        let anonymizer = self.anonymize.as_deref().map(Anonymizer::of_key_file).transpose()?;
        let names = self.names()?;
        let mut watch = self.watch.attach(&selection, self.sample, clock)?;
        self.drop_rights()?;
        let path = match &self.output {
            Some(path) => path.clone(),
            None => path::default_path(clock.now())?,
        };
        let tool = format!("capture {}", env!("CARGO_PKG_VERSION"));
        let mut header = Header { label: self.label, ..watch.header(tool) };
        header.metadata.extend(names.map(|names| (event::NAMES_KEY.to_owned(), names)));
        let mut edit = Edit::new(self.sample, anonymizer);
        edit.header(&mut header);
        let created = Output::create(&path, header, recording::Options::default(), self.bounds());
        let output = match &self.user {
            Some(user) => created.with_context(|| format!("as the user {user}"))?,
            None => created?,
        };
        self.watch.start(&mut watch)?;
        let source = watch.packets();
        let names: Vec<&str> = source.interfaces().map(|interface| interface.name.as_str()).collect();
        tracing::info!(path = %path.display(), by = source.attachment(), "recording {}", names.join(", "));

        let end = (self.duration > 0.0).then(|| Instant::now() + Duration::from_secs_f64(self.duration));
        let mut recorder = Recorder::new(self, watch, output, edit, path)?;
        let recorded = recorder.record(&interrupt, end);
        // Closed in any case: what was recorded until a failure stays readable.
        let written = match (&recorded, account(recorder.watch.packets())) {
            (Ok(()), Ok(account)) => recorder.output.finish_with(clock.now(), account),
            _ => recorder.output.finish(clock.now()),
        };
        let dumped = recorder.dumps.join();
        if recorder.unwritten > 0 {
            tracing::warn!(unwritten = recorder.unwritten, "events came that could not be written any more");
        }
        let reported = written
            .map_err(anyhow::Error::from)
            .and_then(|written| report(&recorder.watch, &recorder.edit, &written));
        recorded.and(reported)?;
        anyhow::ensure!(dumped, "a dump failed");
        Ok(Exit::Done)
    }

    /// The text of the file of names, which is as it should be.
    fn names(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.names else { return Ok(None) };
        let failed = || format!("cannot read {}", path.display());
        let text = std::fs::read_to_string(path).with_context(failed)?;
        text.parse::<NameMap>().with_context(|| path.display().to_string())?;
        Ok(Some(text))
    }

    /// Everything is attached: what is not needed any more goes, before there are threads.
    fn drop_rights(&self) -> anyhow::Result<()> {
        let folder = self.output.as_deref().map_or(Some(Path::new("recordings")), Path::parent);
        let needs = rights::Needs {
            processes: self.watch.reads_processes(),
            folder: folder.unwrap_or(Path::new("/")).to_owned(),
        };
        let user = self.user.as_deref().map(rights::user).transpose()?;
        let kept = rights::keep_only(&needs, user.as_ref())?;
        let names: Vec<String> = kept.iter().map(ToString::to_string).collect();
        tracing::debug!(user = self.user, "rights kept: {}", names.join(", "));
        Ok(())
    }

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

/// What became of every packet that the programs saw: the first number is the sum of the others.
fn account(source: &tc::Tc) -> anyhow::Result<BTreeMap<String, String>> {
    let tc::Counters { seen, packets, lost, unreadable, not_ip, not_sampled, .. } = source.counters()?;
    let counts = [
        ("seen", seen),
        ("recorded", packets),
        ("lost", lost),
        ("unreadable", unreadable),
        ("not_ip", not_ip),
        ("not_sampled", not_sampled),
    ];
    Ok(counts.into_iter().map(|(name, count)| (format!("packets_{name}"), count.to_string())).collect())
}

fn report(watch: &Watch, edit: &Edit, written: &Written) -> anyhow::Result<()> {
    let counters = watch.packets().counters()?;
    let tc::Counters { seen, packets, lost, unreadable, not_ip, not_sampled, fragments_unmatched } = counters;
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let each = if packets == 0 { 0.0 } else { written.bytes as f64 / packets as f64 };
    tracing::info!(
        seen,
        packets,
        lost,
        unreadable,
        not_ip,
        not_sampled,
        fragments_unmatched,
        events = written.events,
        bytes = written.bytes,
        bytes_per_packet = format_args!("{each:.1}"),
        "recorded"
    );
    watch.report()?;
    if edit.left_out() > 0 {
        tracing::info!(
            left_out = edit.left_out(),
            "kernel and L7 events of flows that the sample leaves out"
        );
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
