//! `capture merge`, `cut` and `recover` as users run them.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::process::{Command, Output};

use event::{
    Direction, Endpoint, Event, FiveTuple, Fragment, KernelEvent, KernelEventKind, Label, Mark, Naming,
    Packet, Protocol, Timestamp, Workload,
};
use recording::{Header, Interface, Options, Reader, Writer};

fn capture(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_capture")).current_dir(folder).args(arguments).output().unwrap()
}

fn tuple(port: u16) -> FiveTuple {
    let end = |address: &str, port| Endpoint::new(address.parse().unwrap(), port);
    FiveTuple::new(end("198.18.0.2", port), end("198.18.1.2", 80), Protocol::UDP)
}

fn packet(second: i64, port: u16, interface: u32) -> Event {
    let time = Timestamp::from_secs(second);
    Event::Packet(Packet {
        time,
        arrival: time,
        interface,
        direction: Direction::Ingress,
        tap: event::Tap::Unknown,
        five_tuple: if second % 2 == 0 { tuple(port) } else { tuple(port).reversed() },
        l3_length: 100,
        payload_length: 72,
        ttl: 64,
        fragment: Fragment::Whole,
        gso_segments: 1,
        gso_size: 0,
        tcp: None,
    })
}

fn mark(second: i64, label: u16) -> Event {
    let time = Timestamp::from_secs(second);
    Event::Mark(Mark { time, arrival: time, label: Some(Label(label)), note: String::new() })
}

/// A recording of one node with these interfaces.
fn record(path: &Path, node: &str, interfaces: &[&str], events: &[Event]) {
    let interface = |name: &&str| Interface { name: (*name).to_owned(), ..Interface::default() };
    let header = Header {
        node: node.to_owned(),
        interfaces: interfaces.iter().map(interface).collect(),
        ..Header::default()
    };
    let mut writer = Writer::create(path, &header, Options::default()).unwrap();
    events.iter().for_each(|event| writer.write(event).unwrap());
    writer.finish().unwrap();
}

fn read(path: &Path) -> (Header, Vec<Event>) {
    let mut reader = Reader::open(path).unwrap();
    let events = reader.events().map(Result::unwrap).collect();
    assert!(reader.report().is_whole());
    (reader.header().clone(), events)
}

fn names(header: &Header) -> Vec<&str> {
    header.interfaces.iter().map(|interface| interface.name.as_str()).collect()
}

#[test]
fn pieces_of_one_node_come_together_and_nodes_keep_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    record(&path("a.mcap"), "a", &["eth0"], &[packet(1, 1, 0), packet(5, 1, 0)]);
    record(&path("b.mcap"), "a", &["eth1", "eth0"], &[packet(2, 2, 0), packet(4, 2, 1)]);
    record(&path("c.mcap"), "c", &["eth0"], &[packet(3, 3, 0)]);
    let output = capture(folder.path(), &["merge", "a.mcap", "b.mcap", "-o", "ab.mcap"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (header, events) = read(&path("ab.mcap"));
    assert_eq!((header.node.as_str(), names(&header)), ("a", vec!["eth0", "eth1"]));
    assert_eq!(events, [packet(1, 1, 0), packet(2, 2, 1), packet(4, 2, 0), packet(5, 1, 0)]);

    let output = capture(folder.path(), &["merge", "a.mcap", "c.mcap", "-o", "ac.mcap"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (header, events) = read(&path("ac.mcap"));
    assert_eq!((header.node.as_str(), names(&header)), ("a, c", vec!["a/eth0", "c/eth0"]));
    assert_eq!(events, [packet(1, 1, 0), packet(3, 3, 1), packet(5, 1, 0)]);
    // What is there is never written over.
    let output = capture(folder.path(), &["merge", "a.mcap", "-o", "ac.mcap"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(read(&path("ac.mcap")).1.len(), 3);
}

#[test]
fn a_cut_begins_with_the_names_that_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let name = |second: i64, arrival: i64, pod: &str| {
        let workload = Workload { pod: pod.to_owned(), ..Workload::default() };
        let (time, arrival) = (Timestamp::from_secs(second), Timestamp::from_secs(arrival));
        Event::Naming(Box::new(Naming { time, arrival, address: [198, 18, 0, 2].into(), workload }))
    };
    let events = [
        name(10, 10, "gone"),
        name(11, 11, "here"),
        packet(12, 1, 0),
        packet(14, 1, 0),
        name(15, 15, "next"),
    ];
    record(&path("a.mcap"), "a", &["eth0"], &events);
    let output = capture(folder.path(), &["cut", "a.mcap", "--from", "13", "-o", "cut.mcap"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(read(&path("cut.mcap")).1, [name(13, 14, "here"), packet(14, 1, 0), name(15, 15, "next")]);
}

#[test]
fn a_cut_keeps_the_stretch_the_flow_and_the_label() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let drop_of = |five_tuple| {
        let time = Timestamp::from_secs(16);
        let kind = KernelEventKind::Drop { reason: "NO_SOCKET".to_owned() };
        Event::Kernel(KernelEvent { time, arrival: time, five_tuple, kind, count: 1 })
    };
    let kernel = [drop_of(Some(tuple(1))), drop_of(Some(tuple(2))), drop_of(None)];
    let mut events = vec![packet(10, 1, 0), mark(12, 4)];
    events.extend([packet(14, 1, 0), packet(15, 2, 0)]);
    events.extend(kernel.clone());
    events.extend([packet(17, 1, 0), packet(20, 1, 0), mark(21, 0)]);
    record(&path("a.mcap"), "a", &["eth0"], &events);

    let output = capture(
        folder.path(),
        &["cut", "a.mcap", "--from", "+3s", "--to", "1970-01-01T00:00:20Z", "-o", "b.mcap"],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (header, found) = read(&path("b.mcap"));
    assert_eq!(header.label, Some(Label(4)));
    assert_eq!(found, events[2..8]);

    let output = capture(
        folder.path(),
        &["cut", "a.mcap", "--flow", "198.18.1.2:80->198.18.0.2:2:17", "-o", "c.mcap"],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let [_, of_flow, of_none] = kernel;
    assert_eq!(read(&path("c.mcap")).1, [mark(12, 4), packet(15, 2, 0), of_flow, of_none, mark(21, 0)]);
    for (option, value) in [("--from", "noon"), ("--flow", "web")] {
        let output = capture(folder.path(), &["cut", "a.mcap", option, value, "-o", "d.mcap"]);
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn what_a_recording_says_of_itself_is_said_before_its_events() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, affected) in [("a.mcap", "udp/198.18.1.2:53"), ("b.mcap", "tcp/198.18.1.2:80")] {
        let pairs = [("lab.affected", affected), ("lab.workload", "web")];
        let metadata = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let header = Header { metadata, ..Header::default() };
        let mut writer = Writer::create(path(name), &header, Options::default()).unwrap();
        writer.write(&mark(1, 4)).unwrap();
        writer.finish().unwrap();
    }
    let said = |name: &str| Reader::open(path(name)).unwrap().header().metadata.clone();
    assert_eq!(capture(folder.path(), &["cut", "a.mcap", "-o", "cut.mcap"]).status.code(), Some(0));
    assert_eq!(said("cut.mcap")["lab.affected"], "udp/198.18.1.2:53");
    // What is true of one alone is not said of all.
    let merge = ["merge", "a.mcap", "b.mcap", "-o", "merged.mcap"];
    assert_eq!(capture(folder.path(), &merge).status.code(), Some(0));
    let merged = said("merged.mcap");
    assert_eq!(merged["lab.workload"], "web");
    assert!(!merged.contains_key("lab.affected"), "{merged:?}");
    assert_eq!(merged["lab.affected of b.mcap"], "tcp/198.18.1.2:80");
}

#[test]
fn what_is_left_of_a_damaged_recording_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let events: Vec<Event> = (0..300).map(|second| packet(second, 1, 0)).collect();
    record(&path("a.mcap"), "a", &["eth0"], &events);
    let bytes = std::fs::read(path("a.mcap")).unwrap();
    std::fs::write(path("cut.mcap"), &bytes[..bytes.len() / 3]).unwrap();
    let output = capture(folder.path(), &["recover", "cut.mcap", "-o", "saved.mcap"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let (header, saved) = read(&path("saved.mcap"));
    assert!(!saved.is_empty() && saved.len() < 300);
    assert_eq!(saved, events[..saved.len()]);
    assert!(header.metadata["missing from cut.mcap"].contains("cut at byte"), "{header:?}");
}
