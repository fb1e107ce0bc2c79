//! `capture import`: captures made elsewhere become a recording.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use cli::{Exit, Interrupt};
use dissect::Capture;
use event::{Event, Label, Loss, LossCause, Packet, Source, Timestamp};
use recording::{Header, Interface, Options, Writer};

/// Turn pcap and pcapng files into a recording
///
/// Several files become one recording, merged by time. Files may be packed with gzip or zstd. Payload is not
/// kept. What cannot be used is counted by reason on stderr.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capture import trace.pcap -o trace.mcap
  tcpdump -w - port 80 | capture import - -o trace.mcap
  capture import eth0.pcapng.gz eth1.pcapng.gz --label packet-loss -o both.mcap")]
pub struct Import {
    /// Captures to read; - is standard input
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,

    /// The recording to write; it must not exist yet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// The label of all that is in it: a number, or a fault's name
    #[arg(long, value_name = "LABEL")]
    label: Option<Label>,

    /// Which packet of a tunnel (VXLAN, Geneve, GRE, IP in IP) counts
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    tunnel: Tunnel,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Tunnel {
    /// The innermost: the connections that ran through it
    #[default]
    Inner,
    /// The outermost: the tunnel itself
    Outer,
}

impl From<Tunnel> for dissect::Tunnel {
    fn from(tunnel: Tunnel) -> Self {
        match tunnel {
            Tunnel::Inner => Self::Inner,
            Tunnel::Outer => Self::Outer,
        }
    }
}

impl Import {
    pub fn run(&self) -> anyhow::Result<Exit> {
        let interrupt = Interrupt::install().context("cannot listen for signals")?;
        let mut inputs = self.open()?;
        let mut writer = self.create(&mut inputs)?;
        let mut is_interrupted = false;
        while let Some(input) = earliest(&mut inputs) {
            if interrupt.is_raised() {
                is_interrupted = true;
                break;
            }
            input.pass_on(&mut writer)?;
        }
        for input in &inputs {
            input.write_losses(&mut writer)?;
            tracing::info!("{}: {}", input.capture.name(), input.capture.counts());
        }
        let summary = writer.finish()?;
        let packets = summary.counts.get(Source::Packets);
        tracing::info!("{}: {packets} packets in {} bytes", self.output.display(), summary.bytes);
        if is_interrupted {
            bail!("interrupted: {} holds the packets up to here and is whole", self.output.display());
        }
        Ok(if inputs.iter().any(|input| input.is_damaged) { Exit::Damaged } else { Exit::Done })
    }

    /// Opens all before anything is written, each at its first packet.
    fn open(&self) -> anyhow::Result<Vec<Input>> {
        let open = |path: &PathBuf| {
            let mut input = Input::new(Capture::open(path, self.tunnel.into())?);
            input.step();
            Ok(input)
        };
        self.inputs.iter().map(open).collect()
    }

    fn create(&self, inputs: &mut [Input]) -> anyhow::Result<Writer> {
        let names: Vec<&str> = inputs.iter().map(|input| input.capture.name()).collect();
        let header = Header {
            tool: concat!("capture ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            label: self.label,
            metadata: [("imported_from".to_owned(), names.join(" "))].into(),
            ..Header::default()
        };
        // What is imported is safe elsewhere: chunks need not end early.
        let options = Options { flush_after: None, ..Options::default() };
        let mut writer = Writer::create(&self.output, &header, options)?;
        for input in inputs {
            input.add_interfaces(&mut writer)?;
        }
        Ok(writer)
    }
}

/// The input whose next packet is the earliest, the first named of equals.
fn earliest(inputs: &mut [Input]) -> Option<&mut Input> {
    inputs
        .iter_mut()
        .filter(|input| input.next.is_some())
        .min_by_key(|input| input.next.map(|next| next.time))
}

/// One capture, and what of it goes into the recording.
struct Input {
    capture: Capture,
    next: Option<Packet>,
    /// The recording's interface for each of the capture's, with the times of its first and last packet.
    interfaces: Vec<(u32, Option<(Timestamp, Timestamp)>)>,
    is_damaged: bool,
}

impl Input {
    fn new(capture: Capture) -> Self {
        Self { capture, next: None, interfaces: Vec::new(), is_damaged: false }
    }

    fn step(&mut self) {
        self.next = match self.capture.next() {
            Ok(seen) => seen.map(|seen| seen.packet),
            Err(damage) => {
                tracing::error!("{damage}");
                self.is_damaged = true;
                None
            }
        };
    }

    fn pass_on(&mut self, writer: &mut Writer) -> anyhow::Result<()> {
        let Some(mut packet) = self.next else { return Ok(()) };
        self.add_interfaces(writer)?;
        if let Some((place, span)) = self.interfaces.get_mut(packet.interface as usize) {
            packet.interface = *place;
            let (first, last) = span.unwrap_or((packet.time, packet.time));
            *span = Some((first.min(packet.time), last.max(packet.time)));
        }
        writer.write_packet(&packet)?;
        self.step();
        Ok(())
    }

    /// A pcapng file may describe interfaces at any point.
    fn add_interfaces(&mut self, writer: &mut Writer) -> anyhow::Result<()> {
        for found in self.capture.interfaces().iter().skip(self.interfaces.len()) {
            let (name, link_type) = (found.name.clone(), Some(found.link.0));
            let place = writer.add_interface(&Interface { name, index: None, link_type })?;
            self.interfaces.push((place, None));
        }
        Ok(())
    }

    /// What the capturing side says it lost.
    fn write_losses(&self, writer: &mut Writer) -> anyhow::Result<()> {
        for (found, (place, span)) in self.capture.interfaces().iter().zip(&self.interfaces) {
            let Some((first, last)) = *span else { continue };
            if found.lost > 0 {
                writer.write(&Event::Loss(Loss {
                    first,
                    last,
                    arrival: last,
                    source: Source::Packets,
                    cause: LossCause::Upstream,
                    interface: Some(*place),
                    count: found.lost,
                }))?;
            }
        }
        Ok(())
    }
}
