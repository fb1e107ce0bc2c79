//! The program on recordings made here, in a temporary directory.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod program;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use event::{
    Direction, Duration, Endpoint, Event, FiveTuple, Fragment, Label, Mark, Node, Packet, Protocol,
    SystemSnapshot, Tcp, TcpFlags, Timestamp,
};
use features::schema::Profile;
use features::{Closing, Config, Engine};
use program::{replay, replay_in};
use recording::{Header, Options, Writer};

const START: i64 = 1_700_000_000;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_secs(START) + Duration::from_millis(milliseconds)
}

fn packet(milliseconds: i64, arrival: i64, client: u16, sequence: u32) -> Packet {
    let source = Endpoint::new("198.18.0.2".parse().unwrap(), client);
    let destination = Endpoint::new("198.18.1.2".parse().unwrap(), 443);
    let flags = TcpFlags::ACK;
    Packet {
        time: at(milliseconds),
        arrival: at(arrival),
        interface: 0,
        direction: Direction::Ingress,
        tap: event::Tap::Unknown,
        five_tuple: FiveTuple::new(source, destination, Protocol::TCP),
        l3_length: 1500,
        payload_length: 1460,
        ttl: 64,
        fragment: Fragment::Whole,
        gso_segments: 1,
        gso_size: 0,
        tcp: Some(Tcp { sequence, acknowledgement: 1, window: 500, flags, ..Tcp::default() }),
    }
}

/// Twenty seconds of packets, of which some are told of late, with snapshots every second and a mark.
fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for step in 0..2_000u32 {
        let time = i64::from(step) * 10;
        let late = if step % 97 == 0 { 3_000 } else { 1 };
        let client = u16::try_from(40_000 + step % 7).unwrap();
        events.push(Event::Packet(packet(time, time + late, client, 1 + step / 7 * 1460)));
        if step % 100 == 0 {
            let node = Node { zombies: Some(u64::from(step)), ..Node::default() };
            let (time, arrival) = (at(time), at(time + 2));
            events.push(Event::System(Box::new(SystemSnapshot { time, arrival, node, pods: Vec::new() })));
        }
    }
    let (time, arrival, note) = (at(10_000), at(10_000), String::new());
    events.push(Event::Mark(Mark { time, arrival, label: Some(Label(2)), note }));
    events.sort_by_key(Event::arrival);
    events
}

fn write(path: &Path, label: Option<Label>, events: &[Event]) {
    let header = Header { node: "test".into(), label, ..Header::default() };
    let mut writer = Writer::create(path, &header, Options::default()).unwrap();
    events.iter().for_each(|event| writer.write(event).unwrap());
    writer.finish().unwrap();
}

/// The rows of a live run, as CSV: the engine fed event by event as they arrive.
fn live(events: &[Event], lateness: Duration) -> Vec<u8> {
    let closing = Closing::Live { lateness };
    let config =
        Config { window: Duration::from_secs(5), closing, label: Some(Label(7)), ..Config::default() };
    let mut engine = Engine::new(config);
    let mut text = Vec::new();
    let mut csv = replay::Csv::new(&mut text, Profile::Full).unwrap();
    for event in events {
        engine.push(event);
        while let Some(window) = engine.next_closed() {
            csv.write(&window).unwrap();
        }
    }
    engine.finish();
    while let Some(window) = engine.next_closed() {
        csv.write(&window).unwrap();
    }
    csv.finish().unwrap();
    text
}

#[test]
fn as_live_gives_the_live_runs_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    let events = events();
    write(&path, Some(Label(7)), &events);
    let path = path.to_str().unwrap();
    for lateness in ["0", "1", "2", "10"] {
        let want = live(&events, Duration::from_secs(lateness.parse().unwrap()));
        for threads in ["1", "2"] {
            let run = replay(&[path, "--as-live", "--lateness", lateness, "--threads", threads]);
            assert_eq!(run.code, 0, "{}", run.stderr);
            assert_eq!(String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&want), "{lateness} s");
        }
    }
    // What a live run had to leave out, a patient one counts.
    let (patient, live) = (replay(&[path]), replay(&[path, "--as-live", "--lateness", "1"]));
    assert_eq!(patient.sum("packet_count"), 2_000.0);
    assert!(live.sum("packet_count") < 2_000.0);
    assert!(live.stderr.contains("too late for their window"), "{}", live.stderr);
}

#[test]
fn the_newest_recording_is_the_default_and_carries_its_label() {
    let directory = tempfile::tempdir().unwrap();
    let none = replay_in(directory.path(), &[]);
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("recordings/"), "{}", none.stderr);
    std::fs::create_dir(directory.path().join("recordings")).unwrap();
    let (old, new) =
        (directory.path().join("recordings/old.mcap"), directory.path().join("recordings/new.mcap"));
    write(&old, Some(Label(1)), &events()[..100]);
    write(&new, Some(Label(7)), &events());
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::open(&old).unwrap().set_modified(hour_ago).unwrap();
    let run = replay_in(directory.path(), &["--window", "5"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let labels: Vec<&str> = run.column("anomaly_label").collect();
    // The mark at 10 s changes the label; before it the recording's own holds.
    assert_eq!(labels, [["7"; 14], ["2"; 14]].concat());
    let other = replay_in(directory.path(), &["--label", "packet-loss"]);
    assert!(other.column("anomaly_label").all(|label| label == "2"));
}

#[test]
fn a_cut_recording_gives_what_was_whole_and_exit_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    write(&path, None, &events());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
    let run = replay(&[path.to_str().unwrap()]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.sum("packet_count") > 100.0);
    assert!(run.stderr.contains("a.mcap") && run.stderr.contains("cut at byte"), "{}", run.stderr);
}

#[test]
fn unlabelled_rows_have_an_empty_label() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    let packets: Vec<Event> =
        events().into_iter().filter(|event| matches!(event, Event::Packet(_))).collect();
    write(&path, None, &packets);
    let run = replay(&[path.to_str().unwrap()]);
    assert!(run.column("anomaly_label").all(str::is_empty));
}

#[test]
fn the_ancestors_columns_come_in_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    write(&path, None, &events());
    let run = replay(&[path.to_str().unwrap(), "--profile", "72"]);
    let header = String::from_utf8_lossy(&run.stdout).lines().next().unwrap().to_owned();
    assert_eq!(header, Profile::Ancestor72.header());
    assert_eq!(run.sum("packet_count"), 2_000.0);
}

#[test]
fn what_is_no_capture_is_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "not a capture").unwrap();
    let run = replay(&[path.to_str().unwrap()]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("notes.txt"), "{}", run.stderr);
    let absent = replay(&["absent.pcap"]);
    assert_eq!(absent.code, 1);
    assert!(absent.stderr.contains("absent.pcap"), "{}", absent.stderr);
    assert_eq!(replay(&["--window", "0"]).code, 2);
}

/// Runs `replay -` with these bytes as its standard input.
fn piped(bytes: &[u8]) -> Vec<u8> {
    let mut replay = Command::new(env!("CARGO_BIN_EXE_replay"));
    let replay = replay.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = replay.spawn().unwrap();
    // The rows are fewer than a pipe holds: it never waits for its output to be taken.
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn packed_files_and_standard_input_give_the_same_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    write(&path("a.mcap"), None, &events());
    let made = replay(&[path("a.mcap").to_str().unwrap(), "--to-pcapng", path("a.pcapng").to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let capture = std::fs::read(path("a.pcapng")).unwrap();
    let want = replay(&[path("a.pcapng").to_str().unwrap()]);
    assert!(want.rows().count() > 8, "{}", want.stderr);

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&capture).unwrap();
    for (name, bytes) in [
        ("a.pcapng.gz", gzip.finish().unwrap()),
        ("a.pcapng.zst", zstd::encode_all(capture.as_slice(), 3).unwrap()),
        // What a file holds is told by its bytes, not by its name.
        ("b.pcapng", zstd::encode_all(capture.as_slice(), 3).unwrap()),
    ] {
        std::fs::write(path(name), &bytes).unwrap();
        let run = replay(&[path(name).to_str().unwrap()]);
        assert_eq!((run.code, run.stdout), (0, want.stdout.clone()), "{name}: {}", run.stderr);
        assert_eq!(piped(&bytes), want.stdout, "{name} from standard input");
    }
    assert_eq!(piped(&capture), want.stdout);
    let recording = replay(&[path("a.mcap").to_str().unwrap()]);
    assert_eq!(piped(&std::fs::read(path("a.mcap")).unwrap()), recording.stdout);
}

/// `replay --follow` at work, whose first rows have come.
struct Followed {
    child: Child,
    output: BufReader<ChildStdout>,
    text: String,
}

impl Followed {
    fn start(path: &Path) -> Self {
        let mut replay = Command::new(env!("CARGO_BIN_EXE_replay"));
        replay.arg("--follow").arg(path).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = replay.spawn().unwrap();
        let (mut output, mut text) = (BufReader::new(child.stdout.take().unwrap()), String::new());
        for _ in 0..8 {
            output.read_line(&mut text).unwrap();
        }
        Self { child, output, text }
    }

    /// All rows, and what it said, when it has ended well.
    fn end(mut self) -> (String, String) {
        self.output.read_to_string(&mut self.text).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        (self.text, said)
    }
}

/// The rows of a recording that is followed while it is written, slower than it is read.
#[test]
fn a_recording_that_is_being_written_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    let header = Header { node: "test".into(), ..Header::default() };
    let options = Options { batch: 64, ..Options::default() };
    let mut writer = Writer::create(&path, &header, options).unwrap();
    let events = events();
    let (first, rest) = events.split_at(1_200);
    first.iter().for_each(|event| writer.write(event).unwrap());
    writer.flush().unwrap();
    // The first window's rows come while the file has no end.
    let followed = Followed::start(&path);
    rest.iter().for_each(|event| writer.write(event).unwrap());
    writer.finish().unwrap();
    let (text, _) = followed.end();
    let whole = replay(&[path.to_str().unwrap(), "--as-live"]);
    assert_eq!(text, String::from_utf8_lossy(&whole.stdout));
}

/// A recorder that begins a new file now and then: the rows are those of one file that holds everything.
#[test]
fn files_that_follow_each_other_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let events = events();
    write(&path("whole.mcap"), None, &events);
    let want = replay(&[path("whole.mcap").to_str().unwrap(), "--as-live"]);
    let (first, rest) = events.split_at(1_200);
    let (second, third) = rest.split_at(400);
    write(&path("a-00001.mcap"), None, first);
    // It has read the first file, and waits for the next.
    let followed = Followed::start(&path("a.mcap"));
    // The label in force stands in each file, as the recorder writes it.
    write(&path("a-00002.mcap"), Some(Label(2)), second);
    write(&path("a-00003.mcap"), Some(Label(2)), third);
    let (text, said) = followed.end();
    assert_eq!(text, String::from_utf8_lossy(&want.stdout));
    assert!(said.contains("going on with") && said.contains("a-00003.mcap has ended, and no file"), "{said}");
    assert_eq!(said.matches(" read, ").count(), 3, "a line for each file: {said}");
}

#[test]
fn following_ends_with_ctrl_c_and_gives_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    let mut writer = Writer::create(&path, &Header::default(), Options::default()).unwrap();
    events().iter().for_each(|event| writer.write(event).unwrap());
    writer.flush().unwrap();
    let followed = Followed::start(&path);
    let text = followed.text.clone();
    let id = followed.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let (all, _) = followed.end();
    let rest = all.strip_prefix(&text).unwrap();
    writer.finish().unwrap();
    // How far it had read is chance; the windows that were closed are whole, and so is the last line.
    let whole = replay(&[path.to_str().unwrap(), "--as-live"]);
    assert!(String::from_utf8_lossy(&whole.stdout).starts_with(&text));
    assert!(rest.is_empty() || rest.ends_with('\n'));
}
