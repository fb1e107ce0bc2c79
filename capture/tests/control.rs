//! A live recorder takes orders: marks while it runs, and dumps of its black box. In a namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use event::{Event, Label, Source};
use recording::{Header, Reader};

fn capture(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_capture")).current_dir(folder).args(arguments).output().unwrap()
}

/// A recorder of a loopback interface that nobody else uses, and that pings itself. Ended at the end.
struct Recorder(Child);

impl Recorder {
    fn start(folder: &Path, options: &str) -> Self {
        let script = format!(
            "ip link set lo up && (while sleep 0.05; do echo x > /dev/udp/127.0.0.1/9; done) & \
             exec {} record lo --duration 0 {options}",
            env!("CARGO_BIN_EXE_capture")
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "--kill-child", "--pid", "--fork", "--mount-proc", "bash", "-c", &script]);
        Self(command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Whether it listens; otherwise what it said.
    fn wait_for(&mut self, socket: &Path) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(30);
        while !socket.exists() {
            if self.0.try_wait().unwrap().is_some() || Instant::now() > end {
                let mut told = String::new();
                let _ = self.0.kill();
                std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut told).unwrap();
                return Err(told.lines().last().unwrap_or_default().to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(path: &Path) -> (Header, Vec<Event>, bool) {
    let mut reader = Reader::open(path).unwrap();
    let events = reader.events().map(Result::unwrap).collect();
    (reader.header().clone(), events, reader.report().is_whole())
}

#[test]
fn a_black_box_is_marked_and_dumped_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(folder.path(), "--keep 20s --system-interval 0.2 -o box.mcap");
    if let Err(told) = recorder.wait_for(&folder.path().join("box.mcap.sock")) {
        eprintln!("skipped: a_black_box_is_marked_and_dumped_while_it_runs: {told}");
        return;
    }
    // Over the end of a piece, which is two seconds long.
    std::thread::sleep(Duration::from_millis(2500));
    let output = capture(folder.path(), &["mark", "box.mcap", "--label", "syn-flood", "--note", "it begins"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    std::thread::sleep(Duration::from_millis(300));
    let output = capture(folder.path(), &["dump", "box.mcap", "-o", "incident.mcap"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (header, events, is_whole) = read(&folder.path().join("incident.mcap"));
    assert!(is_whole);
    assert_eq!(header.interfaces[0].name, "lo");
    let count = |source| events.iter().filter(|event| event.source() == source).count();
    assert!(count(Source::Packets) >= 20 && count(Source::System) >= 5, "{} events", events.len());
    let marks: Vec<&Event> = events.iter().filter(|event| event.source() == Source::Marks).collect();
    let [Event::Mark(mark)] = marks[..] else { panic!("{marks:?}") };
    assert_eq!((mark.label, mark.note.as_str()), (Some(Label(4)), "it begins"));
    let output = capture(folder.path(), &["dump", "box.mcap", "-o", "incident.mcap"]);
    assert_eq!(output.status.code(), Some(1), "a file that is there is not written over: {output:?}");
    assert!(std::fs::read_dir(folder.path()).unwrap().count() >= 4);
}
