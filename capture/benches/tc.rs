//! What the TC programs cost per packet, beside one that only reserves and submits a record: `cargo bench -p
//! capture --bench tc`. By BPF_PROG_TEST_RUN, as root; medians of the rounds, ratios from the same round.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::io::Write as _;

use aya::maps::{MapData, RingBuf};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use etherparse::{PacketBuilder, TcpOptionElement};

/// Runs of a program in a round: fewer than records that fit into the ring buffer.
const REPEAT: u32 = 100_000;
const RING: u32 = 16 << 20;
const ROUNDS: usize = 41;

fn main() {
    let mut loader = EbpfLoader::new();
    let mut ebpf = loader.map_max_entries("PACKETS", RING).load(capture::OBJECT).unwrap();
    let mut ring = RingBuf::try_from(ebpf.take_map("PACKETS").unwrap()).unwrap();
    let mut out = std::io::stdout().lock();
    writeln!(out, "| packet | reserve and submit, ns | the same with the time, ns | TC program, ns | ratio | ratio with the time |\n\
         |---|---|---|---|---|---|").unwrap();
    for (name, bytes) in packets() {
        let mut columns: [Vec<f64>; 5] = Default::default();
        for _ in 0..ROUNDS {
            let [bare, timed, full] = ["tc_bare", "tc_bare_timed", "tc_ingress"]
                .map(|program| run(&mut ebpf, &mut ring, program, &bytes));
            for (column, value) in columns.iter_mut().zip([bare, timed, full, full / bare, full / timed]) {
                column.push(value);
            }
        }
        let [bare, timed, full, ratio, ratio_timed] = columns.map(median);
        writeln!(out, "| {name} | {bare:.0} | {timed:.0} | {full:.0} | {ratio:.2} | {ratio_timed:.2} |")
            .unwrap();
    }
}

/// Nanoseconds a run.
fn run(ebpf: &mut Ebpf, ring: &mut RingBuf<MapData>, name: &str, bytes: &[u8]) -> f64 {
    let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
    if program.fd().is_err() {
        program.load().unwrap();
    }
    let options = TestRunOptions { data_in: Some(bytes), repeat: REPEAT, ..TestRunOptions::default() };
    let result = program.test_run(options).unwrap();
    let mut records = 0;
    while ring.next().is_some() {
        records += 1;
    }
    assert_eq!(records, REPEAT, "the ring buffer holds a round");
    result.duration.as_secs_f64() * 1e9
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
            "TCP SYN, IPv4",
            built(&|to| {
                let step = ipv4().tcp(40_000, 443, 1, 512).syn().options(&handshake).unwrap();
                step.write(to, &[]).unwrap();
            }),
        ),
        ("UDP, IPv4, 64 bytes", built(&|to| ipv4().udp(40_000, 53).write(to, &[0; 22]).unwrap())),
    ]
}
