//! The inputs of `cargo xtask bench replay`: real packets, many times over, each copy between hosts of its own.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::{root, succeed};

/// Captures of many kinds of traffic, all on Ethernet.
const CAPTURES: [&str; 6] = [
    "tls-subjectaltname__input.pcap",
    "206_example_b.pcap",
    "methods.pcap",
    "fix2.pcap",
    "timestamp.pcap",
    "syn_retransmit_with_ts.pcap",
];
/// At least.
const FLOWS: usize = 100_000;
const PACKETS: usize = 2_000_000;
/// Of each committed recording.
const PACKETS_OF_A_RECORDING: usize = 1_000;
/// Bytes captured of each packet.
const SNAP: usize = 96;
/// Length of the input, in us.
const SPAN: u64 = 600_000_000;
/// 2023-11-14, in us of Unix time.
const START: u64 = 1_700_000_000_000_000;

/// Ethernet's header, in front of a packet that was captured without.
const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
/// Where IPv4's addresses stand in a frame.
const ADDRESSES: usize = 26;

/// One packet: when after its source's start in us, what was captured, and its length.
struct Frame {
    time: u64,
    bytes: Vec<u8>,
    length: u32,
}

/// What was made.
pub struct Input {
    pub packets: usize,
    pub flows: usize,
    /// Where its packets come from.
    pub sources: Vec<String>,
}

/// Makes the file that every program reads.
pub fn make(replay: &Path, folder: &Path, path: &Path) -> Result<Input> {
    let (mut frames, mut sources) = (Vec::new(), Vec::new());
    let captures = root().join("../shared/pcaps");
    if captures.is_dir() {
        for name in CAPTURES {
            frames.extend(read(&captures.join(name), usize::MAX)?);
        }
        sources.push(format!("{} captures of ../shared/pcaps", CAPTURES.len()));
    }
    let recordings = recordings()?;
    for recording in &recordings {
        let made = folder.join("recording.pcapng");
        let mut export = std::process::Command::new(replay);
        succeed(export.arg("-qq").arg(recording).arg("--to-pcapng").arg(&made))?;
        frames.extend(read(&made, PACKETS_OF_A_RECORDING)?);
    }
    sources.push(format!("{} committed recordings", recordings.len()));
    ensure!(!frames.is_empty(), "there is no packet to make an input of");
    let flows = frames.iter().map(flow).collect::<HashSet<_>>().len();
    let copies = FLOWS.div_ceil(flows).max(PACKETS.div_ceil(frames.len()));
    ensure!(copies < 1 << 16, "too few packets to make an input of");
    write(&frames, copies, path)?;
    Ok(Input { packets: frames.len() * copies, flows: flows * copies, sources })
}

fn recordings() -> Result<Vec<PathBuf>> {
    let folder = root().join("datasets/recordings");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "mcap"));
    paths.sort();
    Ok(paths)
}

/// The IPv4 packets of a capture, at most so many.
fn read(path: &Path, most: usize) -> Result<Vec<Frame>> {
    let mut reader = dissect::Reader::open(path)?;
    let (mut frames, mut start) = (Vec::new(), None);
    while let Some(record) = reader.advance()? {
        let (Some(time), captured) = (record.time, reader.captured()) else { continue };
        let is_raw = record.link == Some(dissect::LinkType::RAW);
        let mut bytes = if is_raw { ETHERNET.to_vec() } else { Vec::new() };
        bytes.extend_from_slice(captured);
        bytes.truncate(SNAP);
        if bytes.len() < ADDRESSES + 8 || bytes[12..15] != [8, 0, 0x45] {
            continue;
        }
        let micros = u64::try_from(time.as_nanos() / 1000)?;
        let time = micros.saturating_sub(*start.get_or_insert(micros)) % SPAN;
        let extra = if is_raw { ETHERNET.len() } else { 0 };
        frames.push(Frame { time, bytes, length: u32::try_from(record.length + extra)? });
        if frames.len() == most {
            break;
        }
    }
    Ok(frames)
}

/// Protocol, addresses and ports, the same for both directions.
fn flow(frame: &Frame) -> (u8, [Vec<u8>; 2]) {
    let bytes = &frame.bytes;
    let port = |at: usize| bytes.get(at..at + 2).unwrap_or_default();
    let mut ends = [[&bytes[26..30], port(34)].concat(), [&bytes[30..34], port(36)].concat()];
    ends.sort();
    (bytes[23], ends)
}

/// The copies follow each other, evenly over the time; each changes two bytes of both addresses.
fn write(frames: &[Frame], copies: usize, path: &Path) -> Result<()> {
    let mut order: Vec<(u64, u16, usize)> = Vec::with_capacity(copies * frames.len());
    for copy in 0..u16::try_from(copies)? {
        let offset = SPAN / copies as u64 * u64::from(copy);
        order.extend(frames.iter().enumerate().map(|(at, frame)| (frame.time + offset, copy, at)));
    }
    order.sort_unstable();
    let mut file = Pcap::create(path)?;
    for (time, copy, at) in order {
        let mut bytes = frames[at].bytes.clone();
        let [high, low] = copy.to_be_bytes();
        for (place, byte) in [(27, high), (28, low), (31, high), (32, low)] {
            bytes[place] ^= byte;
        }
        file.write(time, &bytes, frames[at].length)?;
    }
    file.finish()
}

/// The same packets as a recording.
pub fn record(pcap: &Path, path: &Path) -> Result<()> {
    // An older file would be in its way.
    let _ = std::fs::remove_file(path);
    let options = recording::Options { flush_after: None, ..recording::Options::default() };
    let mut writer = recording::Writer::create(path, &recording::Header::default(), options)?;
    let mut capture = dissect::Capture::open(pcap, dissect::Tunnel::Inner)?;
    while let Some(seen) = capture.next()? {
        writer.write_packet(&seen.packet)?;
    }
    writer.finish()?;
    Ok(())
}

/// A pcap file.
struct Pcap(BufWriter<File>);

impl Pcap {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let header: [u32; 6] = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 96, 1];
        header.iter().try_for_each(|word| file.write_all(&word.to_le_bytes()))?;
        Ok(Self(file))
    }

    /// `time` in us after the start.
    fn write(&mut self, time: u64, bytes: &[u8], length: u32) -> Result<()> {
        let time = START + time;
        for word in [time / 1_000_000, time % 1_000_000, bytes.len() as u64, length.into()] {
            self.0.write_all(&u32::try_from(word)?.to_le_bytes())?;
        }
        Ok(self.0.write_all(bytes)?)
    }

    fn finish(mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }
}

/// Segments of so many connections in turn, each with data one way and its acknowledgement the other; how many
/// bytes of the file hold the first half of them.
pub fn make_flows(path: &Path, flows: u32, packets: u32) -> Result<u64> {
    const PAYLOAD: u32 = 100;
    let mut frame = ETHERNET.to_vec();
    frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend([10, 0, 0, 0, 198, 18, 0, 1]);
    frame.extend([0, 0, 1, 187, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let mut file = Pcap::create(path)?;
    for number in 0..packets {
        let (flow, turn) = (number % flows, number / flows);
        let (is_data, step) = (turn % 2 == 0, turn / 2);
        let length = 40 + if is_data { PAYLOAD } else { 0 };
        let client = [&[10][..], &flow.to_be_bytes()[1..]].concat();
        let server = [198, 18, 0, 1];
        let (from, to) = if is_data { (&client[..], &server[..]) } else { (&server[..], &client[..]) };
        let (sport, dport) = if is_data { (40_000_u16, 443_u16) } else { (443, 40_000) };
        let (sequence, ack) = if is_data { (step * PAYLOAD, 1) } else { (1, (step + 1) * PAYLOAD) };
        frame[16..18].copy_from_slice(&u16::try_from(length)?.to_be_bytes());
        frame[26..30].copy_from_slice(from);
        frame[30..34].copy_from_slice(to);
        frame[34..36].copy_from_slice(&sport.to_be_bytes());
        frame[36..38].copy_from_slice(&dport.to_be_bytes());
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        frame[42..46].copy_from_slice(&ack.to_be_bytes());
        file.write(u64::from(number) * 10, &frame, length + 14)?;
    }
    file.finish()?;
    Ok(24 + u64::from(packets / 2) * (16 + frame.len() as u64))
}
