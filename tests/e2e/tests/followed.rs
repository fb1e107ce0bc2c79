//! Rows of a node that is being recorded, on a real kernel: those of the engine beside the recorder are those of the
//! recording, and those of a recording that is followed while its files follow each other.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[allow(dead_code, reason = "the recorder's own tests use the rest")]
#[path = "../../../capture/tests/live/namespace.rs"]
mod namespace;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use capture::watch::WatchArgs;
use capture::{Clock, Pace, Sample, Selection};
use clap::Parser as _;
use features::schema::Profile;
use features::{Closing, Config, Engine};
use namespace::Pair;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What `capture record` takes.
#[derive(clap::Parser)]
struct Asked {
    #[command(flatten)]
    watch: WatchArgs,
}

/// Two namespaces, or nothing after saying what is missing.
fn pair(test: &str) -> Option<Pair> {
    if let Some(reason) = namespace::missing() {
        eprintln!("skipped: {test}: {reason}");
        return None;
    }
    Some(Pair::new())
}

/// A program of the workspace, which `cargo test --workspace` builds.
fn program(test: &str, name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join(name);
    if !path.exists() {
        eprintln!("skipped: {test}: {} is not built: cargo build -p {name}", path.display());
        return None;
    }
    Some(path)
}

/// Ends the talk, also where a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Serves HTTP in `right` and asks it from `left`, a connection every 20 ms and a datagram beside it, until `is_over`.
fn talk(pair: &Pair, is_over: &AtomicBool) {
    let (web, dns) = (pair.right_v4(80), pair.right_v4(9_999));
    thread::scope(|scope| {
        scope.spawn(|| pair.right.enter(|| serve(web, is_over)));
        scope.spawn(|| pair.left.enter(|| ask(web, dns, is_over)));
    });
}

fn serve(address: SocketAddr, is_over: &AtomicBool) {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    while !is_over.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    }
}

fn ask(web: SocketAddr, dns: SocketAddr, is_over: &AtomicBool) {
    let socket = UdpSocket::bind("198.18.0.1:0").unwrap();
    while !is_over.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect_timeout(&web, Duration::from_secs(1)) {
            let _ = stream.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
            let _ = stream.read(&mut [0; 512]);
        }
        let _ = socket.send_to(b"question", dns);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Records what `right` sees for a while, the engine beside the writer; the rows of the engine.
fn record_beside_engine(pair: &Pair, path: &Path, span: Duration) -> Vec<u8> {
    let asked = Asked::parse_from(["test", "--system-interval", "0.2", "--l7", "http"]);
    let closing = Closing::Live { lateness: event::Duration::from_secs(1) };
    let window = event::Duration::from_secs(1);
    let mut engine = Engine::new(Config { window, closing, ..Config::default() });
    let mut text = Vec::new();
    let mut csv = replay::Csv::new(&mut text, Profile::Full).unwrap();
    pair.right.enter(|| {
        let selection = Selection::parse(&["right0"]).unwrap();
        let mut watch = asked.watch.attach(&selection, Sample::ALL, Clock::start().unwrap()).unwrap();
        let options = recording::Options::default();
        let mut writer = recording::Writer::create(path, &watch.header("test".to_owned()), options).unwrap();
        asked.watch.start(&mut watch).unwrap();
        let mut take = |event: &event::Event| {
            writer.write(event).unwrap();
            engine.push(event);
            while let Some(window) = engine.next_closed() {
                csv.write(&window).unwrap();
            }
        };
        let started = Instant::now();
        while started.elapsed() < span {
            watch.poll(&mut |event| take(&event)).unwrap();
            thread::sleep(Pace::SHORTEST);
        }
        watch.stop(&mut |event| take(&event)).unwrap();
        writer.finish().unwrap();
    });
    engine.finish();
    while let Some(window) = engine.next_closed() {
        csv.write(&window).unwrap();
    }
    csv.finish().unwrap();
    text
}

fn run(program: &Path, arguments: &[&str], files: &[PathBuf]) -> Output {
    let output = Command::new(program).args(arguments).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_recording_gives_the_rows_of_the_live_run_that_wrote_it() {
    const NAME: &str = "a_recording_gives_the_rows_of_the_live_run_that_wrote_it";
    let (Some(pair), Some(replay)) = (pair(NAME), program(NAME, "replay")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.mcap");
    let is_over = AtomicBool::new(false);
    let live = thread::scope(|scope| {
        scope.spawn(|| talk(&pair, &is_over));
        let _over = Over(&is_over);
        record_beside_engine(&pair, &path, Duration::from_secs(6))
    });
    let live = String::from_utf8(live).unwrap();
    assert!(live.lines().count() > 100 && live.contains(",200,GET,/a,"), "{live}");
    for threads in ["1", "2"] {
        let arguments = ["--as-live", "--window", "1", "--lateness", "1", "--threads", threads];
        let rows = run(&replay, &arguments, std::slice::from_ref(&path));
        assert!(
            rows.stdout == live.as_bytes(),
            "{threads} threads: {}",
            String::from_utf8_lossy(&rows.stderr)
        );
    }
}

/// Ended with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "mcap")).collect();
    files.sort();
    files
}

#[test]
fn a_recorder_that_begins_new_files_is_followed() {
    const NAME: &str = "a_recorder_that_begins_new_files_is_followed";
    let (Some(capture), Some(replay)) = (program(NAME, "capture"), program(NAME, "replay")) else { return };
    let Some(pair) = pair(NAME) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.mcap");
    let mut command = Command::new(capture);
    command.args(["record", "right0", "--duration", "0", "--rotate-after", "3s", "--output"]).arg(&path);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut recorder = Running(pair.right.enter(|| command.spawn().unwrap()));
    let started = Instant::now();
    while files(folder.path()).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(120), "{:?}", recorder.0.try_wait());
        thread::sleep(Duration::from_millis(20));
    }
    let is_over = AtomicBool::new(false);
    let (followed, said) = thread::scope(|scope| {
        scope.spawn(|| talk(&pair, &is_over));
        let over = Over(&is_over);
        let mut command = Command::new(&replay);
        command.args(["--follow", "--window", "1", "--lateness", "1"]).arg(&path);
        let mut follower = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let mut output = BufReader::new(follower.0.stdout.take().unwrap());
        let mut text = String::new();
        // Rows come while it is recorded, over two changes of the file.
        while files(folder.path()).len() < 3 {
            output.read_line(&mut text).unwrap();
        }
        assert!(text.lines().count() > 1, "{text}");
        drop(over);
        kill(Pid::from_raw(recorder.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(recorder.0.wait().unwrap().success());
        output.read_to_string(&mut text).unwrap();
        let mut said = String::new();
        follower.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(follower.0.wait().unwrap().success(), "{said}");
        (text, said)
    });
    let files = files(folder.path());
    assert!(files.len() >= 3 && said.contains("no file follows it"), "{files:?} {said}");
    let rows = run(&replay, &["--as-live", "--window", "1", "--lateness", "1"], &files);
    assert!(followed.as_bytes() == rows.stdout, "{said}");
}
