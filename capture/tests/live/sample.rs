//! A sample keeps or leaves out whole flows, and counts what it leaves out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use capture::Sample;
use capture::source::tc::Options;
use event::{Event, FiveTuple, Fragment, KernelEvent, Source};

use super::recorder::{Recorder, read};
use super::{observe, pair};

/// Sockets that send one question each, and get an answer.
const FLOWS: usize = 200;

/// Questions of `size` bytes from as many ports, answered by one.
fn ask(pair: &super::Pair, to: SocketAddr, size: usize) {
    let server = pair.right.enter(|| UdpSocket::bind(to).unwrap());
    let clients: Vec<UdpSocket> = pair.left.enter(|| {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        (0..FLOWS).map(|_| UdpSocket::bind(any).unwrap()).collect()
    });
    let mut bytes = vec![0x5a; size];
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for client in clients {
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.send_to(&vec![0x5a; size], to).unwrap();
        let (length, from) = server.recv_from(&mut bytes).unwrap();
        assert_eq!(length, size);
        server.send_to(&bytes, from).unwrap();
        client.recv(&mut bytes).unwrap();
    }
}

#[test]
fn whole_flows_are_kept_and_the_others_counted() {
    const TEST: &str = "whole_flows_are_kept_and_the_others_counted";
    let _flood = crate::flood();
    let Some(pair) = pair(TEST) else { return };
    let sample: Sample = "1/4".parse().unwrap();
    let options = Options { sample: sample.get(), ..Options::default() };
    // Whole datagrams and three fragments each; both versions of IP.
    for (to, size) in [
        (pair.right_v4(7301), 100),
        (pair.right_v4(7302), 4000),
        (pair.right_v6(7303), 100),
        (pair.right_v6(7304), 4000),
    ] {
        let (told, counters) =
            observe(&pair.right, &["right0"], options, |_, _| ask(&pair, to, size)).unwrap();
        assert_eq!((counters.lost, counters.unreadable), (0, 0));
        let each = if size > 1500 { 3 } else { 1 };
        // Neighbours are told apart: ICMPv6 is a flow as well.
        let of_port = |tuple: FiveTuple| [tuple.source.port, tuple.destination.port].contains(&to.port());
        let mut flows: BTreeMap<FiveTuple, usize> = BTreeMap::new();
        for packet in told.packets.iter().filter(|packet| of_port(packet.five_tuple)) {
            assert!(sample.keeps(packet.five_tuple), "{packet:?}");
            *flows.entry(packet.five_tuple.canonical()).or_default() += 1;
        }
        assert!(flows.values().all(|packets| *packets == 2 * each), "{flows:?}");
        assert!((25..=80).contains(&flows.len()), "{} of {FLOWS} flows", flows.len());
        assert!(counters.not_sampled >= ((FLOWS - flows.len()) * 2 * each) as u64, "{counters:?}");
        if each > 1 {
            assert!(told.packets.iter().any(|packet| packet.fragment == Fragment::Later));
        }
    }
}

#[test]
fn a_sampled_recording_says_so_and_has_the_events_of_its_flows_alone() {
    const TEST: &str = "a_sampled_recording_says_so_and_has_the_events_of_its_flows_alone";
    let _flood = crate::flood();
    let Some(pair) = pair(TEST) else { return };
    let mut recorder = Recorder::start(&pair.right, "root", "--sample 1/3 right0");
    // Refused connections: resets, drops and states of 90 flows.
    for _ in 0..90 {
        pair.left.enter(|| std::net::TcpStream::connect(pair.right_v4(7305))).unwrap_err();
    }
    std::thread::sleep(Duration::from_millis(300));
    let output = recorder.stop();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let file = recorder.folder.path().join("live.mcap");
    let (header, events) = read(&file);
    assert_eq!(header.sample, Some(3));
    let sample: Sample = "1/3".parse().unwrap();
    let kernel: Vec<&KernelEvent> = events
        .iter()
        .filter_map(|event| match event {
            Event::Kernel(event) => Some(event),
            _ => None,
        })
        .collect();
    assert!(kernel.iter().all(|event| event.five_tuple.is_none_or(|tuple| sample.keeps(tuple))));
    let flows = |source| -> BTreeSet<FiveTuple> {
        let tuple = |event: &Event| match event {
            Event::Packet(packet) => Some(packet.five_tuple),
            Event::Kernel(event) => event.five_tuple,
            _ => None,
        };
        let fits = |tuple: &FiveTuple| [tuple.source.port, tuple.destination.port].contains(&7305);
        let of_source = events.iter().filter(|event| event.source() == source);
        of_source.filter_map(tuple).filter(fits).map(FiveTuple::canonical).collect()
    };
    let kept = flows(Source::Packets);
    assert!((10..=55).contains(&kept.len()), "{}", kept.len());
    if !kernel.is_empty() {
        assert_eq!(flows(Source::Kernel), kept);
    }
    // The account stands in the recording, and it adds up.
    let count = |key: &str| header.metadata[key].parse::<u64>().unwrap();
    let parts = ["recorded", "lost", "unreadable", "not_ip", "not_sampled"];
    let sum: u64 = parts.iter().map(|part| count(&format!("packets_{part}"))).sum();
    assert_eq!(count("packets_seen"), sum);
    assert!(count("packets_not_sampled") >= 2 * (90 - kept.len() as u64));
    let info =
        std::process::Command::new(env!("CARGO_BIN_EXE_capture")).arg("info").arg(&file).output().unwrap();
    assert!(String::from_utf8(info.stdout).unwrap().contains("1/3 of the flows"));
}
