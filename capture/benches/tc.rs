//! What the TC programs cost per packet, beside one that only reserves and submits a record in the kernel's ring
//! buffer: `cargo bench -p capture --bench tc`. By BPF_PROG_TEST_RUN, as root; medians of the rounds, ratios from the
//! same round. `BENCH_OBJECT` names another object than the embedded one, such as target/ebpf/capture.o.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::io::Write as _;

use aya::maps::{Array, RingBuf};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use etherparse::{PacketBuilder, TcpOptionElement};

static YARDSTICK: &[u8] = aya::include_bytes_aligned!("../bpf/yardstick.o");

/// Runs of a program in a round: fewer than records that fit between kernel and reader.
const REPEAT: u32 = 100_000;
const RING: u32 = 16 << 20;
const CAPACITY: u32 = 1 << 17;
const ROUNDS: usize = 41;

fn main() {
    let mut yardstick = EbpfLoader::new().map_max_entries("PACKETS", RING).load(YARDSTICK).unwrap();
    let mut programs = load();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| packet | no program, ns | reserve and submit, ns | the same with the time, ns | TC program, ns | ratio | \
         ratio with the time |\n|---|---|---|---|---|---|---|"
    )
    .unwrap();
    for (name, bytes) in packets() {
        let mut columns: [Vec<f64>; 6] = Default::default();
        for _ in 0..ROUNDS {
            let nothing = run(&mut yardstick, "nothing", &bytes);
            let [bare, timed] = ["reserve_and_submit", "reserve_and_submit_time"].map(|program| {
                let duration = run(&mut yardstick, program, &bytes);
                assert_eq!(drain(&mut yardstick), REPEAT, "the ring buffer holds a round");
                duration
            });
            let full = run(&mut programs, "tc_ingress", &bytes);
            assert_eq!(read(&mut programs), u64::from(REPEAT), "the ring holds a round");
            for (column, value) in
                columns.iter_mut().zip([nothing, bare, timed, full, full / bare, full / timed])
            {
                column.push(value);
            }
        }
        let [nothing, bare, timed, full, ratio, ratio_timed] = columns.map(median);
        writeln!(
            out,
            "| {name} | {nothing:.0} | {bare:.0} | {timed:.0} | {full:.0} | {ratio:.2} | {ratio_timed:.2} |"
        )
        .unwrap();
    }
}

/// The programs of `capture`, with rings that hold a round.
fn load() -> Ebpf {
    let object = std::env::var_os("BENCH_OBJECT").map(|path| std::fs::read(path).unwrap());
    let processors = u32::try_from(aya::util::nr_cpus().unwrap()).unwrap();
    EbpfLoader::new()
        .map_max_entries("RINGS", processors)
        .map_max_entries("SLOTS", processors * CAPACITY)
        .override_global("CAPACITY", &CAPACITY, true)
        .override_global("IN_ORDER", &u32::from(cfg!(target_arch = "x86_64")), true)
        .load(object.as_deref().unwrap_or(capture::OBJECT))
        .unwrap()
}

/// Nanoseconds a run.
fn run(ebpf: &mut Ebpf, name: &str, bytes: &[u8]) -> f64 {
    let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
    if program.fd().is_err() {
        program.load().unwrap();
    }
    let options = TestRunOptions { data_in: Some(bytes), repeat: REPEAT, ..TestRunOptions::default() };
    program.test_run(options).unwrap().duration.as_secs_f64() * 1e9
}
/// Takes the records out of the ring buffer; how many there were.
fn drain(yardstick: &mut Ebpf) -> u32 {
    let mut ring = RingBuf::try_from(yardstick.map_mut("PACKETS").unwrap()).unwrap();
    let mut records = 0;
    while ring.next().is_some() {
        records += 1;
    }
    records
}

/// Takes the records out of the rings; how many there were.
fn read(programs: &mut Ebpf) -> u64 {
    /// Places of the ends in `wire::Ring`.
    const HEAD: usize = 0;
    const TAIL: usize = 8;
    let mut rings: Array<_, [u64; size_of::<wire::Ring>() / 8]> =
        Array::try_from(programs.map_mut("RINGS").unwrap()).unwrap();
    let mut records = 0;
    for index in 0..rings.len() {
        let mut ring = rings.get(&index, 0).unwrap();
        records += ring[HEAD] - ring[TAIL];
        ring[TAIL] = ring[HEAD];
        rings.set(index, ring, 0).unwrap();
    }
    records
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ipv4 = || ethernet().ipv4([198, 18, 0, 1], [198, 18, 0, 2], 64);
    let timestamps =
        [TcpOptionElement::Noop, TcpOptionElement::Noop, TcpOptionElement::Timestamp(0x0102_0304, 1)];
    let handshake = [
        TcpOptionElement::MaximumSegmentSize(1460),
        TcpOptionElement::SelectiveAcknowledgementPermitted,
        TcpOptionElement::Timestamp(1, 0),
        TcpOptionElement::Noop,
        TcpOptionElement::WindowScale(7),
    ];
    // As macOS orders them.
    let other_handshake = [
        TcpOptionElement::MaximumSegmentSize(1460),
        TcpOptionElement::Noop,
        TcpOptionElement::WindowScale(6),
        TcpOptionElement::Noop,
        TcpOptionElement::Noop,
        TcpOptionElement::Timestamp(1, 0),
        TcpOptionElement::SelectiveAcknowledgementPermitted,
    ];
    let gap = [
        TcpOptionElement::Noop,
        TcpOptionElement::Noop,
        TcpOptionElement::Timestamp(0x0102_0304, 1),
        TcpOptionElement::Noop,
        TcpOptionElement::Noop,
        TcpOptionElement::SelectiveAcknowledgement((3000, 4448), [None; 3]),
    ];
    let built = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        bytes
    };
    vec![
        (
            "TCP data, IPv4, timestamps",
            built(&|to| {
                let step = ipv4().tcp(40_000, 443, 1, 512).ack(2).options(&timestamps).unwrap();
                step.write(to, &[0; 1448]).unwrap();
            }),
        ),
        (
            "TCP data, IPv6, timestamps",
            built(&|to| {
                let step = ethernet().ipv6([0x20; 16], [0x21; 16], 64).tcp(40_000, 443, 1, 512).ack(2);
                step.options(&timestamps).unwrap().write(to, &[0; 1428]).unwrap();
            }),
        ),
        (
            "TCP SYN of Linux, IPv4",
            built(&|to| {
                let step = ipv4().tcp(40_000, 443, 1, 512).syn().options(&handshake).unwrap();
                step.write(to, &[]).unwrap();
            }),
        ),
        (
            "TCP SYN of macOS, IPv4",
            built(&|to| {
                let step = ipv4().tcp(40_000, 443, 1, 512).syn().options(&other_handshake).unwrap();
                step.write(to, &[]).unwrap();
            }),
        ),
        (
            "TCP acknowledgement of a gap, IPv4",
            built(&|to| {
                let step = ipv4().tcp(40_000, 443, 1, 512).ack(2).options(&gap).unwrap();
                step.write(to, &[]).unwrap();
            }),
        ),
        ("UDP, IPv4, 64 bytes", built(&|to| ipv4().udp(40_000, 53).write(to, &[0; 22]).unwrap())),
    ]
}
