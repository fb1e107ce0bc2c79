//! `capture info` and `capture verify` as users run them: whole recordings, cut ones, and other files.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use event::{Event, Fault, Loss, LossCause, Mark, Source, Timestamp};
use recording::{Header, Interface, Options, Writer};

fn capture(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_capture")).current_dir(folder).args(arguments).output().unwrap()
}

/// Two losses of one kind in chunks of their own, and a mark between them. Returns the end of the first chunk.
fn record(path: &Path) -> usize {
    let header = Header {
        node: "node-a".to_owned(),
        label: Some(Fault::PacketLoss.into()),
        interfaces: vec![Interface { name: "eth0".to_owned(), index: Some(2), link_type: Some(1) }],
        ..Header::default()
    };
    let mut writer = Writer::create(path, &header, Options::default()).unwrap();
    let loss = |second| {
        let time = Timestamp::from_secs(second);
        Event::Loss(Loss {
            first: time,
            last: time,
            arrival: time,
            source: Source::Packets,
            cause: LossCause::RingFull,
            interface: Some(0),
            count: 5,
        })
    };
    writer.write(&loss(100)).unwrap();
    writer.flush().unwrap();
    let end = usize::try_from(writer.bytes_written()).unwrap();
    let time = Timestamp::from_secs(110);
    let mark = Mark { time, arrival: time, label: Some(Fault::SynFlood.into()), note: "begins".to_owned() };
    writer.write(&Event::Mark(mark)).unwrap();
    writer.write(&loss(120)).unwrap();
    writer.add_metadata(BTreeMap::from([("injected".to_owned(), "17".to_owned())])).unwrap();
    writer.finish().unwrap();
    end
}

#[test]
fn a_whole_recording_is_shown_with_all_that_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    record(&folder.path().join("a.mcap"));
    let output = capture(folder.path(), &["info", "a.mcap"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "node        node-a",
        "label       packet-loss (2)",
        "1970-01-01T00:01:40.000000Z to 1970-01-01T00:02:00.000000Z, 20.000 s",
        "whole       yes",
        "0 eth0, index 2, link type 1",
        "10 packets, ring full at eth0, 1970-01-01T00:01:40.000000Z to 1970-01-01T00:02:00.000000Z",
        "1970-01-01T00:01:50.000000Z syn-flood (4) begins",
        "injected = 17",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    let output = capture(folder.path(), &["info", "--json", "a.mcap"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["channels"][5]["events"], 2);
    assert_eq!(json["losses"][0]["count"], 10);
    assert_eq!(json["marks"][0]["label"]["name"], "syn-flood");
    assert_eq!(json["is_whole"], true);
    let output = capture(folder.path(), &["verify", "a.mcap"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
}

#[test]
fn a_cut_recording_is_shown_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mcap");
    let end = record(&path);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..end + 20]).unwrap();
    for arguments in [&["info", "--json", "a.mcap"], &["verify", "a.mcap", "a.mcap"]] {
        let output = capture(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(3));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(&format!("cut at byte {end}, last event at 100.000000000")), "{told}");
    }
    let output = capture(folder.path(), &["info", "--json", "a.mcap"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["channels"][5]["events"], 1);
    assert_eq!(json["is_whole"], false);
}

#[test]
fn other_files_are_named_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "no recording at all").unwrap();
    for (file, reason) in [("a.txt", "not an MCAP file"), ("none.mcap", "cannot be opened")] {
        let output = capture(folder.path(), &["info", file]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(file) && told.contains(reason), "{told}");
    }
}
