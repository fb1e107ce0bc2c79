//! What a recording costs: bytes per packet on disk, and processor time per packet to write and to read.
//!
//! `cargo bench -p recording -- FILE...` takes captures (pcap, pcapng) and recordings; without any it takes those of
//! ../shared/pcaps where that folder stands beside the repository.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_possible_truncation)] // It stops at the first surprise.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dissect::{Capture, Tunnel};
use event::{Duration, Event, Packet};
use recording::{Header, Item, Options, Reader, Writer};

/// Each figure is the median of this many runs.
const RUNS: usize = 9;

fn main() {
    let named: Vec<PathBuf> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).map(PathBuf::from).collect();
    let files = if named.is_empty() { shared() } else { named };
    let packets: Vec<Packet> = files.iter().flat_map(|file| packets_of(file)).collect();
    if packets.is_empty() {
        eprintln!("skipped: bench recording: no captures were named and ../shared/pcaps is not there");
        return;
    }
    println!("{} packets of {} captures\n", packets.len(), files.len());
    println!(
        "level  batch  bytes/packet  write ns/packet  read ns/packet  size of a packet {}",
        size_of::<Packet>()
    );
    for level in [1, 3, 6, 9] {
        measure(&packets, Options { level, ..options() });
    }
    for batch in [4096, 16_384, 65_536] {
        measure(&packets, Options { batch, ..options() });
    }
    // As live: what a crash can cost is written out by time.
    for seconds in [1, 2, 5] {
        println!("chunks of {seconds} s:");
        measure(&packets, Options { flush_after: Some(Duration::from_secs(seconds)), ..options() });
    }
    println!();
    columns(&write(&packets, options()));
}

fn options() -> Options {
    Options { flush_after: None, ..Options::default() }
}

fn shared() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pcaps");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"));
    files.sort();
    files
}

fn packets_of(file: &Path) -> Vec<Packet> {
    if file.extension().is_some_and(|kind| kind == "mcap") {
        let mut reader = Reader::open(file).unwrap();
        let events: Vec<Event> = reader.events().map(Result::unwrap).collect();
        return events
            .into_iter()
            .filter_map(|event| match event {
                Event::Packet(packet) => Some(packet),
                _ => None,
            })
            .collect();
    }
    let mut capture = Capture::open(file, Tunnel::Inner).unwrap();
    let mut packets = Vec::new();
    // A damaged capture counts as far as it goes.
    while let Ok(Some(seen)) = capture.next() {
        packets.push(seen.packet);
    }
    packets
}

/// Processor time of this thread, in nanoseconds.
fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn median(run: impl Fn()) -> u64 {
    let mut times: Vec<u64> = (0..RUNS)
        .map(|_| {
            let start = processor_time();
            run();
            processor_time() - start
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2]
}

/// Collects a stream in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write(packets: &[Packet], options: Options) -> Vec<u8> {
    let memory = Memory::default();
    let mut writer =
        Writer::to_stream(Box::new(memory.clone()), "memory", &Header::default(), options).unwrap();
    for packet in packets {
        writer.write_packet(packet).unwrap();
    }
    writer.finish().unwrap();
    std::mem::take(&mut memory.0.lock().unwrap())
}

fn read(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(Box::new(Cursor::new(bytes.to_vec())), "memory").unwrap();
    let mut count = 0;
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Packets(packets) = item {
            count += std::hint::black_box(packets).len();
        }
    }
    count
}

fn measure(packets: &[Packet], options: Options) {
    let bytes = write(packets, options);
    assert_eq!(read(&bytes), packets.len());
    let count = packets.len() as f64;
    let writing = median(|| drop(std::hint::black_box(write(packets, options)))) as f64 / count;
    let reading = median(|| assert_eq!(read(&bytes), packets.len())) as f64 / count;
    let size = bytes.len() as f64 / count;
    println!("{:5}  {:5}  {size:12.3}  {writing:15.1}  {reading:14.1}", options.level, options.batch);
}

/// What each column weighs, before compression and when it is compressed alone.
fn columns(bytes: &[u8]) {
    let mut columns: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut count = 0;
    for message in mcap::MessageStream::new(bytes).unwrap() {
        let message = message.unwrap();
        let mut rest = &message.data[..];
        while !rest.is_empty() {
            let key = varint(&mut rest);
            let value = varint(&mut rest);
            if key & 7 == 2 {
                let (column, after) = rest.split_at(value as usize);
                columns.entry(key >> 3).or_default().extend_from_slice(column);
                rest = after;
            } else if key >> 3 == 1 {
                count += value;
            }
        }
    }
    println!("column  bytes/packet  compressed alone");
    for (number, column) in &columns {
        let packed = zstd::bulk::compress(column, 3).unwrap();
        let per = |bytes: usize| bytes as f64 / count as f64;
        println!("{number:6}  {:12.3}  {:16.3}", per(column.len()), per(packed.len()));
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    value
}
