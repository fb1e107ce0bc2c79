//! Real captures against what tshark says of them, file by file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use dissect::{Capture, Tunnel};
use event::{Fragment, Packet, Protocol, TcpFlags};
use serde_json::Value;

/// Captures that stand beside the repository, with tshark's counts; not part of it.
fn captures(test: &str) -> Option<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pcaps");
    match File::open(folder.join("truth.json")) {
        Ok(file) => Some((folder, serde_json::from_reader(file).expect("truth.json is JSON"))),
        Err(error) => {
            eprintln!("skipped: {test}: no captures at {}: {error}", folder.display());
            None
        }
    }
}

const FLAGS: [(&str, TcpFlags); 9] = [
    ("FIN", TcpFlags::FIN),
    ("RST", TcpFlags::RST),
    ("PSH", TcpFlags::PSH),
    ("ACK", TcpFlags::ACK),
    ("URG", TcpFlags::URG),
    ("ECE", TcpFlags::ECE),
    ("CWR", TcpFlags::CWR),
    ("AE_NS", TcpFlags::AE),
    ("SYN_ACK", TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0)),
];

/// Where our count is not tshark's, and why: file, count, ours, tshark's.
const EXPLAINED: [(&str, &str, u64, u64); 5] = [
    // tshark's field ip.frag_offset knows IPv4 alone; these are IPv6 fragments.
    ("denial6-6.pcap", "ip_fragments", 39_812, 0),
    // First fragments of 8 bytes: tshark sees TCP where reassembly ends and finds two of the four readable
    // (packets 626 and 939); we count the first fragments, which have ports and no whole TCP header.
    ("ip_fragmented_garbage.pcap", "tcp_packets", 4, 2),
    ("ip_fragmented_garbage.pcap", "tcp_payload_bytes", 0, 19_924),
    // Custom blocks (1, 3 and 8) are records to tshark, but no packets; and it gives them the time 0.
    ("test102.pcapng", "packets", 5, 8),
    ("test102.pcapng", "timestamps_backwards", 0, 3),
];

#[test]
fn packets_and_flags_are_tsharks() {
    let Some((folder, truth)) = captures("packets_and_flags_are_tsharks") else { return };
    let mut differences = Vec::new();
    for (file, truth) in truth.as_object().unwrap().iter().filter(|(name, _)| *name != "_meta") {
        let mut capture = Capture::open(&folder.join(file), Tunnel::Inner).unwrap();
        let mut found: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
        let damage = loop {
            match capture.next() {
                Ok(Some(seen)) => {
                    let packet = seen.packet;
                    let mut add = |name, count| *found.entry(name).or_default() += count;
                    add("ip_fragments", u64::from(packet.fragment != Fragment::Whole));
                    if packet.five_tuple.protocol.0 == 6 && packet.fragment != Fragment::Later {
                        add("tcp_packets", 1);
                        add("tcp_payload_bytes", packet.payload_length.into());
                    }
                    if let Some(tcp) = packet.tcp {
                        for (name, flags) in FLAGS {
                            add(name, u64::from(tcp.flags.contains(flags)));
                        }
                        add(
                            "SYN",
                            u64::from(
                                tcp.flags.contains(TcpFlags::SYN) && !tcp.flags.contains(TcpFlags::ACK),
                            ),
                        );
                    }
                }
                Ok(None) => break None,
                Err(damage) => break Some(damage),
            }
        };
        let counts = capture.counts();
        assert_eq!(counts.read, counts.used + counts.skipped.total());
        found.insert("packets", counts.read);
        found.insert("timestamps_backwards", counts.clock_steps_back);
        assert_eq!(damage.is_some(), truth["tshark_error"] != serde_json::json!([]), "{file}: {damage:?}");
        for (name, found) in found {
            let said = truth[name].as_u64().unwrap();
            if said != found && !EXPLAINED.contains(&(file.as_str(), name, found, said)) {
                differences.push(format!("{file}: {name}: {found}, tshark {said}"));
            }
        }
    }
    assert_eq!(differences, Vec::<String>::new());
}

/// What is compared packet by packet, the innermost header of each kind.
const FIELDS: [&str; 18] = [
    "frame.number",
    "frame.time_epoch",
    "ip.ttl",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "tcp.seq_raw",
    "tcp.flags",
    "tcp.window_size_value",
    "tcp.len",
    "tcp.options.wscale.shift",
    "tcp.options.timestamp.tsval",
    "tcp.options.timestamp.tsecr",
];

/// The same line from our reading.
fn line(number: u64, packet: &Packet) -> String {
    let (source, destination) = (packet.five_tuple.source, packet.five_tuple.destination);
    let is_v4 = source.address.is_ipv4();
    let is_first = packet.fragment != Fragment::Later;
    let only = |shown: bool, text: String| if shown { text } else { String::new() };
    let (is_tcp, is_udp) = (
        packet.five_tuple.protocol == Protocol::TCP && is_first,
        packet.five_tuple.protocol == Protocol::UDP && is_first,
    );
    let tcp = |show: fn(&event::Tcp) -> String| packet.tcp.as_ref().map(show).unwrap_or_default();
    [
        number.to_string(),
        packet.time.to_string(),
        only(is_v4, packet.ttl.to_string()),
        only(is_v4, source.address.to_string()),
        only(is_v4, destination.address.to_string()),
        only(!is_v4, source.address.to_string()),
        only(!is_v4, destination.address.to_string()),
        only(is_tcp, source.port.to_string()),
        only(is_tcp, destination.port.to_string()),
        only(is_udp, source.port.to_string()),
        only(is_udp, destination.port.to_string()),
        tcp(|tcp| tcp.sequence.to_string()),
        tcp(|tcp| format!("{:#06x}", tcp.flags.0)),
        tcp(|tcp| tcp.window.to_string()),
        only(packet.tcp.is_some(), packet.payload_length.to_string()),
        tcp(|tcp| tcp.window_scale.map(|shift| shift.to_string()).unwrap_or_default()),
        tcp(|tcp| tcp.timestamps.map(|(value, _)| value.to_string()).unwrap_or_default()),
        tcp(|tcp| tcp.timestamps.map(|(_, echo)| echo.to_string()).unwrap_or_default()),
    ]
    .join("\t")
}

fn tshark_lines(file: &Path) -> std::io::Result<Vec<String>> {
    let fields = FIELDS.iter().flat_map(|field| ["-e", field]);
    let output = Command::new("tshark")
        .args([
            "-n",
            "-o",
            "ip.defragment:FALSE",
            "-o",
            "ipv6.defragment:FALSE",
            "-E",
            "occurrence=l",
            "-T",
            "fields",
        ])
        .args(fields)
        .arg("-r")
        .arg(file)
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

#[test]
fn each_packet_is_tsharks() {
    const TEST: &str = "each_packet_is_tsharks";
    let Some((folder, truth)) = captures(TEST) else { return };
    if let Err(error) = Command::new("tshark").arg("--version").output() {
        eprintln!("skipped: {TEST}: tshark: {error}");
        return;
    }
    let mut compared = 0;
    // test102 has custom blocks, which tshark counts as packets: its numbers are others.
    for file in
        truth.as_object().unwrap().keys().filter(|name| !["_meta", "test102.pcapng"].contains(&name.as_str()))
    {
        let file = folder.join(file);
        let theirs = tshark_lines(&file).unwrap();
        let mut capture = Capture::open(&file, Tunnel::Inner).unwrap();
        while let Ok(Some(seen)) = capture.next() {
            // tshark shows the packet that an ICMP error quotes in the same fields.
            let is_icmp = [Protocol::ICMP, Protocol::ICMPV6].contains(&seen.packet.five_tuple.protocol);
            if is_icmp && seen.packet.fragment != Fragment::Later {
                continue;
            }
            let index = usize::try_from(seen.number).unwrap() - 1;
            let (ours, said) = (line(seen.number, &seen.packet), &theirs[index]);
            let mut fields: Vec<&str> = said.split('\t').collect();
            if seen.packet.five_tuple.protocol == Protocol::TCP {
                // The ports of the VXLAN tunnel around it.
                fields[9..11].fill("");
            }
            if seen.packet.fragment == Fragment::First && seen.packet.tcp.is_none() {
                // Of a first fragment that ends within the TCP header tshark shows what there is.
                fields[11..].fill("");
            }
            if fields[1].is_empty() {
                // A packet block without a time.
                fields[1] = "0.000000000";
            }
            let theirs = fields.join("\t");
            assert_eq!(ours, theirs, "{}", file.display());
            compared += 1;
        }
    }
    assert!(compared > 10_000, "{compared} packets compared");
}
