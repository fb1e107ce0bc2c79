//! `cargo bench -p replay --bench replay`: processor time of `replay` beside its peers on one input of millions of
//! packets and 100,000 flows, made from the captures next to the repository by giving each copy addresses of its
//! own.
//!
//! Peers run where they are installed: softflowd and tshark from Debian, nfstream from PyPI (its Python named by
//! NFSTREAM_PYTHON). Each is run three times; the middle one counts.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may stop, and prints its table")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Captures of many kinds of traffic, all on Ethernet.
const SOURCES: [&str; 6] = [
    "tls-subjectaltname__input.pcap",
    "206_example_b.pcap",
    "methods.pcap",
    "fix2.pcap",
    "timestamp.pcap",
    "syn_retransmit_with_ts.pcap",
];
const FLOWS: usize = 100_000;
/// Bytes captured of each packet.
const SNAP: usize = 96;
/// Length of the input, in us.
const SPAN: u64 = 600_000_000;
const RUNS: usize = 3;

/// One packet: when after its capture's start in us, what was captured, and its length.
struct Frame {
    time: u64,
    bytes: Vec<u8>,
    length: u32,
}

fn frames(folder: &Path) -> Vec<Frame> {
    let mut frames = Vec::new();
    for name in SOURCES {
        let mut reader = dissect::Reader::open(&folder.join(name)).unwrap();
        let mut start = None;
        while let Ok(Some(record)) = reader.advance() {
            let (Some(time), captured) = (record.time, reader.captured()) else { continue };
            let micros = u64::try_from(time.as_nanos() / 1000).unwrap();
            let time = micros.saturating_sub(*start.get_or_insert(micros)) % SPAN;
            if captured.len() >= 34 && captured[12..14] == [8, 0] {
                let bytes = captured[..captured.len().min(SNAP)].to_vec();
                frames.push(Frame { time, bytes, length: u32::try_from(record.length).unwrap() });
            }
        }
    }
    frames
}

/// Ports and addresses, the same for both directions.
fn flow(frame: &Frame) -> [Vec<u8>; 2] {
    let bytes = &frame.bytes;
    let port = |at: usize| bytes.get(at..at + 2).unwrap_or_default();
    let mut ends = [[&bytes[26..30], port(34)].concat(), [&bytes[30..34], port(36)].concat()];
    ends.sort();
    ends
}

/// Writes the input; gives its packets.
fn make(folder: &Path, path: &Path) -> usize {
    let frames = frames(folder);
    let flows = frames.iter().map(flow).collect::<std::collections::HashSet<_>>().len();
    let copies = FLOWS.div_ceil(flows);
    let mut order: Vec<(u64, u32, usize)> = Vec::with_capacity(copies * frames.len());
    for copy in 0..u32::try_from(copies).unwrap() {
        let offset = SPAN / copies as u64 * u64::from(copy);
        order.extend(frames.iter().enumerate().map(|(at, frame)| (frame.time + offset, copy, at)));
    }
    order.sort_unstable();
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let header: [u32; 6] = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 96, 1];
    header.iter().for_each(|word| file.write_all(&word.to_le_bytes()).unwrap());
    for (time, copy, at) in &order {
        let frame = &frames[*at];
        let mut bytes = frame.bytes.clone();
        for (place, byte) in [(27, 1), (28, 0), (31, 1), (32, 0)] {
            bytes[place] ^= copy.to_le_bytes()[byte];
        }
        let time = 1_700_000_000_000_000 + time;
        let words = [time / 1_000_000, time % 1_000_000, bytes.len() as u64, frame.length.into()];
        for word in words {
            file.write_all(&u32::try_from(word).unwrap().to_le_bytes()).unwrap();
        }
        file.write_all(&bytes).unwrap();
    }
    file.flush().unwrap();
    order.len()
}

/// User and system time of the middle of several runs, in seconds; nothing where the program is not there.
fn measure(program: &str, args: &[&str]) -> Option<f64> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let mut command = Command::new("bash");
        command.args(["-c", "TIMEFORMAT='%U %S'; time \"$0\" \"$@\" >/dev/null 2>&1", program]).args(args);
        let output = command.stdout(Stdio::null()).output().ok().filter(|output| output.status.success())?;
        let text = String::from_utf8(output.stderr).unwrap();
        times.push(text.split_whitespace().map(|part| part.parse::<f64>().unwrap()).sum());
    }
    times.sort_by(f64::total_cmp);
    Some(times[RUNS / 2])
}

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    if !folder.is_dir() {
        println!("skipped: bench replay: ../shared/pcaps is absent");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("bench.pcap");
    let packets = make(&folder, &path);
    let input = path.to_str().unwrap();
    let replay = env!("CARGO_BIN_EXE_replay");
    let nfstream = "import sys; from nfstream import NFStreamer\n\
                    for flow in NFStreamer(source=sys.argv[1], statistical_analysis=True, n_dissections=0, \
                    n_meters=1): pass";
    let python = std::env::var("NFSTREAM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    println!("{packets} packets, {FLOWS} flows; processor seconds, median of {RUNS} runs");
    println!("| program | s | million packets per s |\n|---|---|---|");
    for (name, program, args) in [
        ("replay, one thread", replay, vec!["--threads", "1", input]),
        ("replay, one thread, without L7", replay, vec!["--threads", "1", "--no-l7", input]),
        ("replay, two threads", replay, vec!["--threads", "2", input]),
        ("tcpdump -r, counting", "tcpdump", vec!["--count", "-r", input]),
        ("softflowd", "softflowd", vec!["-d", "-m", "200000", "-r", input]),
        ("nfstream", &python, vec!["-c", nfstream, input]),
    ] {
        match measure(program, &args) {
            Some(seconds) => println!("| {name} | {seconds:.2} | {:.2} |", packets as f64 / seconds / 1e6),
            None => println!("| {name} | not installed | |"),
        }
    }
}
