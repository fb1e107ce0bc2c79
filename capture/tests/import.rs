//! `capture import` as users run it: the real binary, in a temporary directory.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use event::{Event, Label, Packet};
use recording::Reader;

fn capture(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_capture")).current_dir(folder).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// An Ethernet, IPv4, UDP packet to `port`.
fn frame(port: u16) -> Vec<u8> {
    let ip = [0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    let udp = [40_000, port, 12, 0].map(u16::to_be_bytes).concat();
    [[2; 12].as_slice(), &[8, 0], &ip, &udp, b"data"].concat()
}

/// One packet for each second given, to the port of that number.
fn pcap(seconds: &[u16]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
    for second in seconds {
        let bytes = frame(*second);
        let length = u32::try_from(bytes.len()).unwrap();
        file.extend([u32::from(*second), 0, length, length].map(u32::to_le_bytes).concat());
        file.extend(bytes);
    }
    file
}

fn packets(path: &Path) -> (Reader, Vec<Packet>) {
    let mut reader = Reader::open(path).unwrap();
    let packets = reader
        .events()
        .filter_map(|event| match event.unwrap() {
            Event::Packet(packet) => Some(packet),
            // One of the captures says what its capturing side lost; many hold application messages.
            Event::Loss(_) | Event::L7(_) => None,
            other => panic!("{other:?}"),
        })
        .collect();
    (reader, packets)
}

fn ports(packets: &[Packet]) -> Vec<u16> {
    packets.iter().map(|packet| packet.five_tuple.destination.port).collect()
}

#[test]
fn several_captures_become_one_recording_in_the_order_of_time() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.pcap"), pcap(&[1, 4, 3, 9])).unwrap();
    std::fs::write(folder.path().join("b.pcap"), pcap(&[2, 5])).unwrap();
    let output =
        capture(folder.path(), &["import", "a.pcap", "b.pcap", "--label", "packet-loss", "-o", "ab.mcap"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), ""), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("a.pcap: 4 packets read, 4 used, 0 skipped; 1 clock steps back"));
    let (reader, packets) = packets(&folder.path().join("ab.mcap"));
    // A file's own order is kept where its clock stepped back.
    assert_eq!(ports(&packets), [1, 2, 4, 3, 5, 9]);
    assert_eq!(packets.iter().map(|packet| packet.interface).collect::<Vec<_>>(), [0, 1, 0, 0, 1, 0]);
    assert_eq!(reader.header().label, Some(Label(2)));
    assert_eq!(reader.header().interfaces.len(), 2);
}

#[test]
fn damage_costs_what_comes_after_it_and_nothing_before() {
    let folder = tempfile::tempdir().unwrap();
    let whole = pcap(&[1, 2, 3]);
    std::fs::write(folder.path().join("cut.pcap"), &whole[..whole.len() - 5]).unwrap();
    std::fs::write(folder.path().join("whole.pcap"), pcap(&[7])).unwrap();
    let output = capture(folder.path(), &["import", "cut.pcap", "whole.pcap", "-o", "out.mcap"]);
    assert_eq!(output.status.code(), Some(3));
    let message = text(&output.stderr);
    assert!(message.contains("cut.pcap: cut in mid-packet: 62 bytes are needed, 57 are there"), "{message}");
    assert!(message.contains("(in the record at byte 148, after packet 2)"), "{message}");
    let (reader, packets) = packets(&folder.path().join("out.mcap"));
    assert_eq!(ports(&packets), [1, 2, 7]);
    assert!(reader.report().is_whole(), "the recording itself is whole");
}

#[test]
fn standard_input_is_a_capture_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_capture"))
        .current_dir(folder.path())
        .args(["import", "-", "-o", "out.mcap"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&pcap(&[5, 6])).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(ports(&packets(&folder.path().join("out.mcap")).1), [5, 6]);
}

#[test]
fn what_cannot_be_read_or_written_is_said_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.pcap"), pcap(&[1])).unwrap();
    std::fs::write(folder.path().join("rows.csv"), "timestamp,flow_id\n").unwrap();
    std::fs::write(folder.path().join("there.mcap"), "precious").unwrap();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["import", "good.pcap", "rows.csv", "-o", "out.mcap"], 1, "rows.csv is no pcap or pcapng file"),
        (&["import", "good.pcap", "none.pcap", "-o", "out.mcap"], 1, "cannot open none.pcap: No such file"),
        (&["import", "good.pcap", "-o", "there.mcap"], 1, "there.mcap"),
        (&["import", "good.pcap", "-o", "out.mcap", "--label", "bad"], 2, "neither a number from 0 to 65535"),
    ];
    for (arguments, code, expected) in cases {
        let output = capture(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
    assert!(!folder.path().join("out.mcap").exists());
    assert_eq!(std::fs::read(folder.path().join("there.mcap")).unwrap(), b"precious");
}

/// Every capture of the collection beside the repository, imported and read back packet for packet.
#[test]
fn recordings_hold_what_the_captures_held() {
    const TEST: &str = "recordings_hold_what_the_captures_held";
    let collection = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    let Ok(entries) = std::fs::read_dir(&collection) else {
        eprintln!("skipped: {TEST}: no captures at {}", collection.display());
        return;
    };
    let is_capture = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng");
    let folder = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for path in entries.map(|entry| entry.unwrap().path()).filter(is_capture) {
        let mut source = dissect::Capture::open(&path, dissect::Tunnel::Inner).unwrap();
        let mut expected = Vec::new();
        let is_damaged = loop {
            match source.next() {
                Ok(Some(seen)) => expected.push(seen.packet),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        let name = format!("{}.mcap", path.file_name().unwrap().to_str().unwrap());
        let output = capture(folder.path(), &["import", path.to_str().unwrap(), "-o", &name]);
        assert_eq!(output.status.code(), Some(if is_damaged { 3 } else { 0 }), "{}", text(&output.stderr));
        let (_, packets) = packets(&folder.path().join(&name));
        assert_eq!(packets, expected, "{}", path.display());
        compared += 1;
    }
    assert_eq!(compared, 40);
}

#[test]
fn flows_of_hubble_stand_between_the_packets_of_their_time() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.pcap"), pcap(&[1, 3])).unwrap();
    let flow = |second: u8| {
        format!(
            r#"{{"flow":{{"time":"1970-01-01T00:00:0{second}Z","verdict":"FORWARDED","l4":{{"TCP":{{"source_port":9,"destination_port":80}}}},
            "IP":{{"source":"198.18.0.1","destination":"198.18.0.2"}},"l7":{{"type":"REQUEST","http":{{"method":"GET","url":"/secret"}}}}}}}}"#
        )
        .replace('\n', "")
    };
    let lines = [flow(2), "{\"flow\": 7}".to_owned(), "level=info msg=hello".to_owned(), flow(4)].join("\n");
    std::fs::write(folder.path().join("flows.jsonl"), lines).unwrap();
    let output = capture(
        folder.path(),
        &["import", "a.pcap", "--hubble", "flows.jsonl", "--redact", "-o", "out.mcap"],
    );
    assert_eq!(output.status.code(), Some(3), "a bad line is damage: {}", text(&output.stderr));
    assert!(text(&output.stderr).contains("flows.jsonl: line 2: "), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("4 lines, 1 bad, 1 of other kinds; 2 messages read, 2 used"));
    let mut reader = Reader::open(folder.path().join("out.mcap")).unwrap();
    let events: Vec<Event> = reader.events().map(Result::unwrap).collect();
    let seconds: Vec<_> = events.iter().map(|event| (event.source(), event.time().as_secs())).collect();
    let (packets, l7) = (event::Source::Packets, event::Source::L7);
    assert_eq!(seconds, [(packets, 1), (l7, 2), (packets, 3), (l7, 4)]);
    assert!(!format!("{events:?}").contains("secret"));
    let alone = capture(folder.path(), &["import", "--hubble", "flows.jsonl", "-o", "alone.mcap"]);
    assert_eq!(alone.status.code(), Some(3));
}

/// DNS over UDP, whose payload the capture holds.
#[test]
fn application_messages_are_read_from_payload_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let query =
        [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], b"\x07example\x03com\0".as_slice(), &[0, 1, 0, 1]].concat();
    let udp = [40_000, 53, u16::try_from(8 + query.len()).unwrap(), 0].map(u16::to_be_bytes).concat();
    let length = u16::try_from(20 + udp.len() + query.len()).unwrap().to_be_bytes();
    let ip = [0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    let bytes = [[2; 12].as_slice(), &[8, 0], &ip, &udp, &query].concat();
    let size = u32::try_from(bytes.len()).unwrap();
    let header = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1, 5, 0, size, size].map(u32::to_le_bytes).concat();
    std::fs::write(folder.path().join("dns.pcap"), [header, bytes].concat()).unwrap();
    for (flags, expected) in
        [(&[][..], 2), (&["--l7", "dns,http"], 2), (&["--l7", "http"], 1), (&["--l7", "none"], 1)]
    {
        let name = format!("out{}.mcap", flags.concat());
        let output = capture(folder.path(), &[&["import", "dns.pcap", "-o", &name], flags].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let mut reader = Reader::open(folder.path().join(&name)).unwrap();
        assert_eq!(reader.events().count(), expected, "{flags:?}");
    }
}

#[test]
fn addresses_are_replaced_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.pcap"), pcap(&[1, 2])).unwrap();
    std::fs::write(folder.path().join("key"), [7; 32]).unwrap();
    assert!(capture(folder.path(), &["import", "a.pcap", "-o", "plain.mcap"]).status.success());
    let output = capture(folder.path(), &["import", "a.pcap", "--anonymize", "key", "-o", "other.mcap"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (_, plain) = packets(&folder.path().join("plain.mcap"));
    let (reader, other) = packets(&folder.path().join("other.mcap"));
    assert!(reader.header().anonymized && plain.len() == other.len());
    for (plain, other) in plain.iter().zip(&other) {
        assert_ne!(plain.five_tuple.source.address, other.five_tuple.source.address);
        assert_eq!(plain.five_tuple.source.port, other.five_tuple.source.port);
    }
    // Without a key nothing is written.
    let output = capture(folder.path(), &["import", "a.pcap", "--anonymize", "none", "-o", "no.mcap"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!folder.path().join("no.mcap").exists());
}
