//! The whole daemon in a network namespace: real packets, a real receiver, a policy that enforces.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event::Source;
use infer::notify::{SigningKeys, Verifier};

use crate::binary::{infer, lines, stderr};
use crate::fixture;
use crate::receiver::{Answer, Receiver, Request};

const INSIDE: &str = "FAULTLINE_TEST_INSIDE";
const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Runs the test of this name again in a network namespace of its own; true where this is that run. A machine
/// without the rights skips it.
fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let ip = |args: &[&str]| {
        Command::new("ip").args(args).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    let namespace = format!("infer-{}-{}", std::process::id(), name.len());
    if !ip(&["netns", "add", &namespace]) {
        eprintln!("skipped: live::{name}: network namespaces need root and ip");
        return false;
    }
    let up = ip(&["-n", &namespace, "link", "set", "lo", "up"]);
    let output = Command::new("ip")
        .args(["netns", "exec", &namespace])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("live::{name}"), "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    ip(&["netns", "delete", &namespace]);
    let text = String::from_utf8_lossy(&output.stderr);
    eprint!("{text}");
    assert!(up && output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stdout));
    false
}

/// A daemon that is told to stop at the end.
struct Daemon(Option<Child>);

impl Daemon {
    fn stop(mut self) -> std::process::Output {
        let child = self.0.take().unwrap();
        signal(&child, "TERM");
        child.wait_with_output().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap().success()
    );
}

/// Connections to a port for a while, 20 ms apart; a port where nobody listens answers with RST.
fn connect(port: u16, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let _ = TcpStream::connect(("127.0.0.1", port));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port where somebody accepts and closes.
fn open_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    port
}

fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text)
}

/// What a listener is sent of the verdicts until the daemon ends, or the first 4 MB.
fn listen_in(port: u16) -> JoinHandle<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /v1/verdicts HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // The daemon may end in the midst of it.
        let _ = stream.take(4_000_000).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether the daemon could attach; says so where it could not for want of rights.
fn attached(daemon: &mut Daemon, port: u16, name: &str) -> bool {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let child = daemon.0.as_mut().unwrap();
        if child.try_wait().unwrap().is_some() {
            let output = daemon.0.take().unwrap().wait_with_output().unwrap();
            eprintln!("skipped: live::{name}: {}", stderr(&output).trim().replace('\n', " "));
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() && get(port, "GET", "/readyz", "", "").0 == 200 {
            return true;
        }
        assert!(Instant::now() < end, "the daemon is not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn kinds(requests: &[Request], port: u16) -> Vec<String> {
    let target = format!("endpoint/127.0.0.1:{port}/6");
    let events = requests.iter().map(Request::json).filter(|event| event["subject"] == target.as_str());
    events
        .map(|event| event["type"].as_str().unwrap().trim_start_matches("io.faultline.").to_owned())
        .collect()
}

/// Those of them that ask for an action or propose one. On a busy machine a restart takes windows without data, which
/// are told as such.
fn actions(requests: &[Request], port: u16) -> Vec<String> {
    kinds(requests, port).into_iter().filter(|kind| kind.starts_with("action.")).collect()
}

/// Waits until so many messages about the port's endpoint came.
fn wait_for(receiver: &Receiver, port: u16, count: usize) {
    let end = Instant::now() + Duration::from_secs(60);
    while kinds(&receiver.requests(), port).len() < count {
        assert!(Instant::now() < end, "{:?}", kinds(&receiver.requests(), port));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Events of a recording by source.
fn recorded(path: &Path) -> BTreeMap<Source, usize> {
    let mut counts = BTreeMap::new();
    for event in recording::Reader::open(path).unwrap().events() {
        *counts.entry(event.unwrap().source()).or_default() += 1;
    }
    counts
}

struct Scene {
    folder: tempfile::TempDir,
    receiver: Receiver,
    http: u16,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), KEY).unwrap();
        std::fs::write(folder.path().join("token"), "0123456789abcdef\n").unwrap();
        fixture::quick_model(folder.path());
        Self { folder, receiver: Receiver::start(|_| Answer::Status(200)), http: closed_port() }
    }

    fn policy(&self, mode: &str) {
        let text = format!(
            "mode = \"{mode}\"\n[incident]\nenter_windows = 2\nof_windows = 3\nleave_windows = 2\n\
             [actions]\nhosts = true\n[receivers.ops]\nurl = \"{}\"\nsecrets.files = [\"key\"]\n\
             [[routes]]\nfaults = [\"connection-churn\"]\nreceivers = [\"ops\"]\naction = \"restart\"\n",
            self.receiver.url
        );
        std::fs::write(self.folder.path().join("policy.toml"), text).unwrap();
    }

    fn start(&self) -> Daemon {
        let child = infer(self.folder.path())
            .args([
                "--model",
                "model.flm",
                "--iface",
                "lo",
                "--policy",
                "policy.toml",
                "--state-dir",
                "state",
            ])
            .args(["--lateness", "500ms", "--audit", "audit.jsonl", "--token-file", "token"])
            .args(["--node", "n1", "--listen", &format!("127.0.0.1:{}", self.http)])
            .args(["--record", &format!("run{}.mcap", self.receiver.requests().len())])
            // A pipe that nobody reads would fill up and hold the daemon.
            .stdout(std::fs::File::create(self.folder.path().join("verdicts.jsonl")).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Daemon(Some(child))
    }
}

#[test]
fn a_fault_is_seen_acted_on_and_seen_to_end() {
    const NAME: &str = "a_fault_is_seen_acted_on_and_seen_to_end";
    if !inside(NAME) {
        return;
    }
    let scene = Scene::new();
    scene.policy("enforce");
    let mut daemon = scene.start();
    if !attached(&mut daemon, scene.http, NAME) {
        return;
    }
    let verdicts = listen_in(scene.http);
    let (good, bad) = (open_port(), closed_port());
    connect(good, Duration::from_secs(2));
    let begin = Instant::now();
    connect(bad, Duration::from_secs(4));
    wait_for(&scene.receiver, bad, 1);
    let first = |request: &&Request| !kinds(std::slice::from_ref(*request), bad).is_empty();
    let delay = scene.receiver.requests().iter().find(first).unwrap().at - begin;
    // Somebody still asks, and is answered: data, and no fault.
    let listener = TcpListener::bind(("127.0.0.1", bad)).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    connect(bad, Duration::from_secs(4));
    wait_for(&scene.receiver, bad, 2);
    let (status, metrics) = get(scene.http, "GET", "/metrics", "", "");
    assert_eq!(status, 200);
    for line in [
        "faultline_infer_changes_total{name=\"fired\"}",
        "faultline_infer_incidents{name=\"firing\"}",
        "faultline_infer_attempts_total{receiver=\"ops\",status=\"200\"}",
        "faultline_infer_queue_messages{receiver=\"ops\"}",
        "faultline_infer_model_age_seconds{model=\"decision-tree\",hash=\"",
        "faultline_infer_rows_per_second",
        "faultline_infer_lag_seconds",
        "faultline_infer_judging_seconds_bucket",
        "faultline_infer_loss_ratio",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let output = daemon.stop();
    assert!(output.status.success(), "{}", stderr(&output));
    let told = verdicts.join().unwrap();
    assert!(told.contains("event: verdict\ndata: {\"window\":"), "{told}");
    assert!(told.contains("\"fault\":\"connection-churn\""), "{told}");
    let requests = scene.receiver.requests();
    assert_eq!(kinds(&requests, bad), ["action.requested", "incident.resolved"], "{}", stderr(&output));
    eprintln!("timeline: action {:.1} s after the first refused connection", delay.as_secs_f64());
    let request = requests.iter().find(first).unwrap();
    let now = request.headers["webhook-timestamp"].parse().unwrap();
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    assert!(Verifier::new(SigningKeys::parse([KEY]).unwrap()).verify(header, &request.body, now).is_ok());
    let event = request.json();
    assert_eq!(event["data"]["mode"], "enforce");
    assert_eq!(event["data"]["action"]["name"], "restart");
    assert!(event["data"]["action"]["expires"].is_string());
    // Every source is in the recording, and it gives the same verdicts, byte for byte.
    let counts = recorded(&scene.folder.path().join("run0.mcap"));
    let sources = [Source::Packets, Source::Kernel, Source::System];
    assert!(sources.iter().all(|source| counts.contains_key(source)), "{counts:?}");
    let replayed = infer(scene.folder.path())
        .args(["--model", "model.flm", "--from", "run0.mcap", "--lateness", "500ms"])
        .output()
        .unwrap();
    assert!(replayed.status.success(), "{}", stderr(&replayed));
    assert!(lines(&replayed).len() > 100);
    let live = std::fs::read(scene.folder.path().join("verdicts.jsonl")).unwrap();
    assert!(replayed.stdout == live, "live and replayed verdicts differ");
    let audit = infer(scene.folder.path()).args(["audit", "verify", "audit.jsonl"]).output().unwrap();
    assert!(audit.status.success(), "{}", stderr(&audit));
}

#[test]
fn an_action_waits_for_a_person_and_a_restart_forgets_nothing() {
    const NAME: &str = "an_action_waits_for_a_person_and_a_restart_forgets_nothing";
    if !inside(NAME) {
        return;
    }
    let scene = Scene::new();
    scene.policy("approve");
    let mut daemon = scene.start();
    if !attached(&mut daemon, scene.http, NAME) {
        return;
    }
    let bad = closed_port();
    let quiet = Arc::new(AtomicBool::new(false));
    let noise = std::thread::spawn({
        let quiet = Arc::clone(&quiet);
        move || {
            let end = Instant::now() + Duration::from_secs(60);
            while !quiet.load(Ordering::Relaxed) && Instant::now() < end {
                connect(bad, Duration::from_millis(200));
            }
        }
    });
    wait_for(&scene.receiver, bad, 1);
    assert_eq!(kinds(&scene.receiver.requests(), bad), ["action.proposed"]);
    // An invalid policy is refused, and the old one stays.
    let good = std::fs::read(scene.folder.path().join("policy.toml")).unwrap();
    std::fs::write(scene.folder.path().join("policy.toml"), "mode = \"all in\"").unwrap();
    signal(daemon.0.as_ref().unwrap(), "HUP");
    // Killed in the midst: the next one goes on, and does not tell again what was told.
    std::thread::sleep(Duration::from_secs(2));
    drop(daemon);
    std::fs::write(scene.folder.path().join("policy.toml"), good).unwrap();
    let mut daemon = scene.start();
    assert!(attached(&mut daemon, scene.http, NAME));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(actions(&scene.receiver.requests(), bad), ["action.proposed"], "told again after the restart");
    let (_, state) = get(scene.http, "GET", "/v1/incidents", "", "");
    let state: serde_json::Value = serde_json::from_str(state.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let proposals = state["proposals"].as_object().unwrap();
    let is_ours = |proposal: &serde_json::Value| proposal["target"]["port"] == bad;
    let key = proposals.iter().find(|(_, proposal)| is_ours(proposal)).unwrap().0.clone();
    let path = format!("/v1/actions/{key}/approve");
    assert_eq!(get(scene.http, "POST", &path, "wrong", "").0, 401);
    assert_eq!(get(scene.http, "POST", "/v1/actions/act_0/approve", "0123456789abcdef", "").0, 404);
    let (status, text) = get(scene.http, "POST", &path, "0123456789abcdef", "");
    assert!(status == 200 && text.contains("requested"), "{text}");
    let before = kinds(&scene.receiver.requests(), bad).len();
    if actions(&scene.receiver.requests(), bad).len() < 2 {
        wait_for(&scene.receiver, bad, before + 1);
    }
    assert_eq!(actions(&scene.receiver.requests(), bad), ["action.proposed", "action.requested"]);
    assert_eq!(get(scene.http, "POST", &path, "0123456789abcdef", "").0, 404, "approved twice");
    let target = format!("endpoint/127.0.0.1:{bad}/6");
    assert_eq!(get(scene.http, "POST", "/v1/quarantine/clear", "0123456789abcdef", &target).0, 200);
    quiet.store(true, Ordering::Relaxed);
    noise.join().unwrap();
    let output = daemon.stop();
    assert!(output.status.success(), "{}", stderr(&output));
    let audit = std::fs::read_to_string(scene.folder.path().join("audit.jsonl")).unwrap();
    for part in ["\"taken\":false", "all in", "\"kind\":\"approval\"", "\"kind\":\"cleared\""] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
}

/// The capabilities in force of a process, as the kernel's mask.
fn capabilities(daemon: &Daemon) -> u64 {
    let status = format!("/proc/{}/status", daemon.0.as_ref().unwrap().id());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn a_watch_keeps_the_last_minutes_and_few_rights() {
    const NAME: &str = "a_watch_keeps_the_last_minutes_and_few_rights";
    if !inside(NAME) {
        return;
    }
    let scene = Scene::new();
    let child = infer(scene.folder.path())
        .args(["--model", "model.flm", "--iface", "lo", "--lateness", "100ms", "--print", "none"])
        .args(["--record", "box.mcap", "--keep", "10s", "--system-interval", "0.2"])
        .args(["--webhook", &scene.receiver.url, "--listen", &format!("127.0.0.1:{}", scene.http)])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut daemon = Daemon(Some(child));
    if !attached(&mut daemon, scene.http, NAME) {
        return;
    }
    // CAP_NET_ADMIN (12), CAP_SYS_PTRACE (19), CAP_BPF (39), and for files of others CAP_DAC_OVERRIDE (1).
    let allowed = 1u64 << 12 | 1 << 19 | 1 << 39 | 1 << 1;
    assert_eq!(capabilities(&daemon) & !allowed, 0, "{:x}", capabilities(&daemon));
    let bad = closed_port();
    connect(bad, Duration::from_secs(14));
    let output = daemon.stop();
    assert!(output.status.success(), "{}", stderr(&output));
    let files: Vec<String> = std::fs::read_dir(scene.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("box-"))
        .collect();
    assert!((9..=13).contains(&files.len()), "{files:?}");
    assert!(!files.contains(&"box-00001.mcap".to_owned()), "{files:?}");
    // What the message names held what was seen then.
    let fired = scene.receiver.requests().iter().map(Request::json).next().unwrap();
    let file = fired["data"]["recording"]["file"].as_str().unwrap();
    assert!(file.starts_with("box-0000"), "{file}");
}
