//! What Hubble's client costs per flow: `cargo bench -p capture --bench hubble`. A server of the tests sends flows
//! over a Unix socket as fast as they are taken; counted is the processor time of the client's thread alone, and
//! the queue is emptied as a recorder empties it.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]
#![allow(dead_code, reason = "the tests use more of the server")]

#[path = "../tests/hubble/server.rs"]
mod server;

use std::io::Write as _;

use capture::Clock;
use capture::source::Source as _;
use capture::source::hubble::{Address, Hubble, Options, Tls};
use hubble::proto::Timestamp;
use server::Agent;

const FLOWS: u64 = 200_000;
const ROUNDS: usize = 5;

fn main() {
    let mut out = std::io::stdout().lock();
    writeln!(out, "| flows | processor time of the client, us per flow | flows/s on half a core | wall, s | dropped |\n|---|---|---|---|---|")
        .unwrap();
    let mut rounds: Vec<(f64, f64, u64)> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (processor, wall, dropped) = rounds[ROUNDS / 2];
    let each = processor * 1e6 / FLOWS as f64;
    writeln!(out, "| {FLOWS} | {each:.2} | {:.0} | {wall:.2} | {dropped} |", 0.5e6 / each).unwrap();
}

/// Seconds of processor and wall time, and flows that found the queue full.
fn round() -> (f64, f64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hubble.sock");
    let agent = Agent::new().with_capacity(usize::MAX);
    let _server = agent.serve_unix(&path);
    let clock = Clock::start().unwrap();
    let mut client = Hubble::start(Options::new(Address::Unix(path), Tls::default()), clock).unwrap();
    let time = Timestamp { seconds: clock.now().as_secs() + 1, nanos: 0 };
    let begun = std::time::Instant::now();
    (0..FLOWS).for_each(|number| agent.push(&server::flow(number, time)));
    while client.counters().received < FLOWS {
        client.poll(&mut |_| {}).unwrap();
        std::thread::sleep(capture::POLL_INTERVAL);
    }
    let (processor, wall) = (thread_time("hubble"), begun.elapsed().as_secs_f64());
    client.stop(&mut |_| {}).unwrap();
    (processor, wall, client.counters().dropped)
}

/// Seconds that the thread of this name has run.
fn thread_time(name: &str) -> f64 {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let folder = task.unwrap().path();
        if std::fs::read_to_string(folder.join("comm")).unwrap().trim() == name {
            let text = std::fs::read_to_string(folder.join("schedstat")).unwrap();
            return text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9;
        }
    }
    panic!("no thread is named {name}");
}
