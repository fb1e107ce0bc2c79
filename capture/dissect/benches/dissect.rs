//! What a packet costs from file bytes to [`event::Packet`]: `cargo bench -p dissect`.
//! Prints nanoseconds of this thread's CPU time per packet, the median of the rounds.

use std::hint::black_box;
use std::io::{Cursor, Read};

use dissect::{Capture, Tunnel};
use etherparse::PacketBuilder;

const PACKETS: u32 = 1_000_000;
const ROUNDS: usize = 7;

/// A frame as the data part of a bulk transfer has it, cut at 96 bytes as `tcpdump -s 96` does.
fn frame(number: u32, payload: usize) -> (Vec<u8>, usize) {
    let host = |side: u8| [198, 18, side, u8::try_from(number % 250).unwrap_or_default()];
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(host(0), host(1), 64)
        .tcp(40_000 + u16::try_from(number % 1000).unwrap_or_default(), 443, number, 65_000)
        .ack(number)
        .options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
        .expect("12 bytes of options fit");
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![0; payload]).expect("a vector takes all");
    let length = bytes.len();
    bytes.truncate(96);
    (bytes, length)
}

fn pcap() -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 96, 1].map(u32::to_le_bytes).concat();
    for number in 0..PACKETS {
        let (bytes, length) = frame(number, if number % 3 == 0 { 0 } else { 1448 });
        let lengths = [u32::try_from(bytes.len()), u32::try_from(length)].map(Result::unwrap_or_default);
        let words = [1_700_000_000 + number / 100_000, number % 100_000 * 10, lengths[0], lengths[1]];
        file.extend(words.map(u32::to_le_bytes).concat());
        file.extend(bytes);
    }
    file
}

/// Of the calling thread, in nanoseconds.
fn cpu_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps schedstat");
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("its first field is run time")
}

fn measure(name: &str, file: &[u8], open: impl Fn(Box<dyn Read + Send>) -> Capture) {
    let mut rounds: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let input = Box::new(Cursor::new(file.to_vec()));
            let start = cpu_time();
            let mut capture = open(input);
            while let Some(seen) = capture.next().expect("the file is whole") {
                black_box(seen);
            }
            assert_eq!(capture.counts().used, u64::from(PACKETS));
            cpu_time() - start
        })
        .collect();
    rounds.sort_unstable();
    eprintln!("{name}: {:.1} ns a packet", rounds[ROUNDS / 2] as f64 / f64::from(PACKETS));
}

fn main() {
    let file = pcap();
    let open = |input| Capture::new(input, "bench", Tunnel::Inner).expect("the header is whole");
    measure("pcap", &file, open);
    let packed = zstd::encode_all(file.as_slice(), 3).expect("a slice can be read");
    measure("pcap, zstd", &packed, open);
}
