//! The real `lab` against the live kernel: every fault takes, and nothing outlives the lab.

// A test may stop at the first surprise; clippy knows test functions only, not what they share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether this machine can run the lab; says what is missing where it cannot. (Recording is not needed here.)
fn can_run(test: &str) -> bool {
    let output = lab(&["doctor", "--capture", env!("CARGO_BIN_EXE_lab")]).output().unwrap();
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        eprintln!("skipped: {test}: {}", text.lines().next().unwrap_or("lab doctor failed"));
    }
    output.status.success()
}

/// Held by tests of the normal class, which is discarded where the disk is busy, and by those that keep it busy.
static DISK: Mutex<()> = Mutex::new(());

fn disk() -> MutexGuard<'static, ()> {
    DISK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the end; a lab that hangs is killed and fails the test.
fn finish(mut child: Child, limit: Duration) -> Output {
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("still running after {limit:?}: {:?}", child.wait_with_output());
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// Whether the kernel has netem, by a device of a namespace that ends with the question.
fn has_netem(test: &str) -> bool {
    let question = "ip link add dummy0 type dummy && tc qdisc add dev dummy0 root netem delay 1ms";
    let answer = Command::new("unshare").args(["--net", "sh", "-c", question]).output().unwrap();
    if !answer.status.success() {
        eprintln!("skipped: {test}: {}", String::from_utf8_lossy(&answer.stderr).trim().replace('\n', "; "));
    }
    answer.status.success()
}

/// Whether the lab's files are on a disk, and not in memory.
fn has_disk(test: &str) -> bool {
    let device = fs::metadata("/var/tmp").unwrap().dev();
    let disks = fs::read_to_string("/proc/diskstats").unwrap();
    let number = [nix::sys::stat::major(device), nix::sys::stat::minor(device)].map(|part| part.to_string());
    let has_disk =
        disks.lines().any(|line| line.split_whitespace().take(2).eq(number.iter().map(String::as_str)));
    if !has_disk {
        eprintln!("skipped: {test}: /var/tmp is on no disk");
    }
    has_disk
}

macro_rules! every_fault_takes {
    ($($test:ident $fault:literal $mechanism:literal $counter:literal),+ $(,)?) => { $(
        #[test]
        fn $test() {
            if !can_run(stringify!($test)) || ($mechanism == "netem" && !has_netem(stringify!($test))) {
                return;
            }
            if ["none", "random-read", "thrash"].contains(&$mechanism) && !has_disk(stringify!($test)) {
                return;
            }
            let _disk = ["normal", "disk-saturation", "memory-pressure"].contains(&$fault).then(disk);
            let arguments = ["run", "--fault", $fault, "--mechanism", $mechanism, "--duration", "4", "--seed", "5"];
            // Three attempts of some 12 s each.
            let output = finish(lab(&arguments).spawn().unwrap(), Duration::from_secs(90));
            let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{log}");
            assert!(said.contains(concat!($counter, "=")), "{said}");
        }
    )+ };
}

every_fault_takes! {
    normal "normal" "none" "listen_drops",
    cpu_throttling "cpu-throttling" "quota" "nr_throttled",
    cpu_throttling_by_a_sidecar "cpu-throttling" "sidecar" "nr_throttled",
    packet_loss "packet-loss" "random" "nft_dropped",
    packet_loss_by_netem "packet-loss" "netem" "netem_dropped",
    packet_loss_in_bursts "packet-loss" "bursty" "nft_dropped",
    latency_jitter "latency-jitter" "relay" "delay_deviation_us",
    latency_jitter_by_netem "latency-jitter" "netem" "round_trip_deviation_us",
    bufferbloat "latency-jitter" "bufferbloat" "packets_queued",
    syn_flood_with_cookies "syn-flood" "cookies" "syncookies_sent",
    syn_flood_without_cookies "syn-flood" "no-cookies" "listen_drops",
    memory_thrash "memory-pressure" "thrash" "limit_hits",
    memory_kills "memory-pressure" "oom" "oom_kills",
    disk_saturation "disk-saturation" "random-read" "queue_depth_hundredths",
    backlog_overflow "backlog-overflow" "silent" "listen_overflows",
    backlog_overflow_with_resets "backlog-overflow" "abort" "listen_overflows",
    zero_window "zero-window" "slow-reader" "zero_windows",
    connection_churn "connection-churn" "reset" "resets_by_clients",
    dns_without_names "dns-failures" "nxdomain" "nxdomain",
    dns_without_authority "dns-failures" "refused" "refused",
    http_unavailable "http-errors" "503" "status_503",
    http_without_upstream "http-errors" "502" "status_502",
}

/// What a lab started: processes by id and start time, and the network namespaces they are in.
#[derive(Default)]
struct Traces {
    processes: BTreeSet<(u32, u64)>,
    namespaces: BTreeSet<String>,
}

/// Parent and start time, from /proc/PID/stat.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    (fields.first()? != &"Z").then_some(())?;
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn namespace(pid: u32) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/ns/net")).ok()?.to_string_lossy().into_owned())
}

/// Everything below `root` in the tree of processes.
fn traces(root: u32) -> Traces {
    let mut found = Traces::default();
    let mut family = BTreeSet::from([root]);
    let own = namespace(root);
    // Three generations are enough: lab, shell or nginx, worker.
    for _ in 0..4 {
        for pid in pids() {
            if let Some((parent, started)) = stat(pid)
                && family.contains(&parent)
            {
                family.insert(pid);
                found.processes.insert((pid, started));
                found.namespaces.extend(namespace(pid).filter(|namespace| Some(namespace) != own.as_ref()));
            }
        }
    }
    found
}

/// Starts a lab and lets it run into the middle of a fault, then ends it by `signal`.
fn end_in_the_middle(signal: Signal) -> (u32, Output, Traces) {
    let child = lab(&["run", "--fault", "memory-pressure", "--duration", "60"]).spawn().unwrap();
    let pid = child.id();
    // Warm-up and alignment take at most 9 s.
    thread::sleep(Duration::from_secs(11));
    let traces = traces(pid);
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    (pid, finish(child, Duration::from_secs(20)), traces)
}

fn assert_gone(traces: &Traces) {
    assert!(traces.namespaces.len() >= 3, "a lab has three nodes: {:?}", traces.namespaces);
    assert!(traces.processes.len() >= 6, "a lab has servers: {:?}", traces.processes);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let living =
            traces.processes.iter().filter(|(pid, started)| stat(*pid).is_some_and(|s| s.1 == *started));
        let living: Vec<_> = living.collect();
        let inhabited =
            pids().into_iter().filter_map(namespace).find(|name| traces.namespaces.contains(name));
        if living.is_empty() && inhabited.is_none() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {living:?} in {inhabited:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Control groups and directories of that lab.
fn belongings(pid: u32) -> Vec<String> {
    let name = format!("faultline-lab-{pid}");
    let mut found = Vec::new();
    let mut folders =
        vec![(Path::new("/sys/fs/cgroup").to_owned(), 0), (Path::new("/var/tmp").to_owned(), 4)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                found.push(entry.path().display().to_string());
            } else if depth < 4 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

#[test]
fn ctrl_c_leaves_nothing() {
    if !can_run("ctrl_c_leaves_nothing") {
        return;
    }
    let (pid, output, traces) = end_in_the_middle(Signal::SIGINT);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    assert_gone(&traces);
    assert_eq!(belongings(pid), Vec::<String>::new());
}

#[test]
fn a_killed_lab_leaves_no_process_and_the_next_one_sweeps_the_rest() {
    if !can_run("a_killed_lab_leaves_no_process_and_the_next_one_sweeps_the_rest") {
        return;
    }
    let (pid, _, traces) = end_in_the_middle(Signal::SIGKILL);
    assert_gone(&traces);
    let _disk = disk();
    // Control groups and files stay, until the next lab, which may be another test's.
    let output =
        finish(lab(&["run", "--fault", "0", "--duration", "1"]).spawn().unwrap(), Duration::from_secs(60));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(belongings(pid), Vec::<String>::new());
}

#[test]
fn a_command_sees_the_run_from_the_server() {
    if !can_run("a_command_sees_the_run_from_the_server") {
        return;
    }
    let _disk = disk();
    let command = "hostname; trap 'echo interrupted; exit 0' INT; while :; do sleep 0.1; done";
    let arguments = ["run", "--fault", "0", "--duration", "1", "--with", command];
    let output = finish(lab(&arguments).spawn().unwrap(), Duration::from_secs(60));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(said.starts_with("router\ninterrupted\n"), "{said}");
}

#[test]
fn what_cannot_be_run_is_refused_with_a_remedy() {
    let refused = |arguments: &[&str]| {
        let output = lab(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = refused(&["run", "--fault", "gremlins"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("packet-loss"), "{text}");
    let (code, text) = refused(&["run", "--fault", "packet-loss", "--mechanism", "gremlins"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("random, bursty"), "{text}");
    let (code, text) = refused(&["run", "--fault", "0", "-o", "x.mcap", "--capture", "/nonexistent/capture"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("/nonexistent/capture") && text.contains("--capture"), "{text}");
}
