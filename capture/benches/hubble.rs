//! What Hubble's client costs: `cargo bench -p capture --bench hubble`. A server of the tests, in a process of its
//! own, sends flows over a Unix socket: 20,000 a second, then as fast as they are taken. Counted is the processor time
//! of this process, which does what a recorder does with them before it writes: follow, decode, convert, hand over.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]
#![allow(dead_code, reason = "the tests use more of the server")]

#[path = "../tests/hubble/server.rs"]
mod server;

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use capture::Clock;
use capture::source::Source as _;
use capture::source::hubble::{Address, Counters, Hubble, Options, Tls};
use hubble::proto::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use server::Agent;

/// Flows a second that the client has to stand, on half a core.
const RATE: u64 = 20_000;
const FLOWS: u64 = 10 * RATE;
const ROUNDS: usize = 3;
/// Set in the server's process: its socket, and flows a second (0: as fast as they are taken).
const SERVE: &str = "HUBBLE_BENCH_SERVE";
/// No round takes as long.
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    if let Some(order) = std::env::var_os(SERVE) {
        let order = order.into_string().unwrap();
        let (rate, socket) = order.split_once(' ').unwrap();
        return serve(Path::new(socket), rate.parse().unwrap());
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| flows/s asked | flows/s come | flows | processor, us per flow | cores | flows/s on half a core | dropped |\n\
         |---|---|---|---|---|---|---|"
    )
    .unwrap();
    for rate in [RATE, 0] {
        let mut rounds: Vec<Round> = (0..ROUNDS).map(|_| Round::run(rate)).collect();
        rounds.sort_by(|a, b| a.processor.total_cmp(&b.processor));
        let Round { processor, wall, counters } = &rounds[ROUNDS / 2];
        let asked = if rate == 0 { "as fast as taken".to_owned() } else { rate.to_string() };
        let each = processor / FLOWS as f64;
        writeln!(
            out,
            "| {asked} | {:.0} | {FLOWS} | {:.2} | {:.3} | {:.0} | {} |",
            FLOWS as f64 / wall,
            each * 1e6,
            processor / wall,
            0.5 / each,
            counters.dropped
        )
        .unwrap();
    }
}

/// Seconds of processor and wall time, and what became of the flows.
struct Round {
    processor: f64,
    wall: f64,
    counters: Counters,
}

impl Round {
    fn run(rate: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("hubble.sock");
        let server = Server::start(&socket, rate);
        while !socket.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut client =
            Hubble::start(Options::new(Address::Unix(socket), Tls::default()), Clock::start().unwrap())
                .unwrap();
        while client.counters().received == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (begun, before) = (Instant::now(), processor_time());
        while client.counters().received < FLOWS {
            assert!(begun.elapsed() < LIMIT, "{:?}", client.counters());
            client.poll(&mut |event| drop(std::hint::black_box(event))).unwrap();
            std::thread::sleep(capture::Pace::SHORTEST);
        }
        let (processor, wall) = (processor_time() - before, begun.elapsed().as_secs_f64());
        client.stop(&mut |_| {}).unwrap();
        drop(server);
        Self { processor, wall, counters: client.counters() }
    }
}

/// Seconds that this process has run, in its own code and in the kernel's.
fn processor_time() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()].map(|time| time.num_microseconds() as f64 / 1e6).iter().sum()
}

struct Server(Child);

impl Server {
    fn start(socket: &Path, rate: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self(command.env(SERVE, format!("{rate} {}", socket.display())).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended at its limit.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// Sends the flows once somebody asks for them, and then stays until it is stopped.
fn serve(socket: &Path, rate: u64) {
    let begun = Instant::now();
    let agent = Agent::new().with_capacity(usize::MAX);
    let _server = agent.serve_unix(socket);
    while agent.requests().is_empty() && begun.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (start, mut sent) = (Instant::now(), 0);
    while sent < FLOWS {
        let due = if rate == 0 {
            FLOWS
        } else {
            u64::try_from(start.elapsed().as_micros()).unwrap() * rate / 1_000_000
        };
        (sent..due.min(FLOWS)).for_each(|number| agent.push(&server::flow(number, now())));
        sent = due.min(FLOWS);
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(LIMIT.saturating_sub(begun.elapsed()));
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp { seconds: now.as_secs().cast_signed(), nanos: now.subsec_nanos().cast_signed() }
}
