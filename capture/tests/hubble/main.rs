//! The client of Hubble against a server that speaks its protocol: transports, faults, losses.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod certificates;
mod log;
mod server;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use capture::Clock;
use capture::source::Source as _;
use capture::source::hubble::{Address, Counters, Hubble, Options, Timing, Tls};
use event::{Event, L7Flow, L7Message, Loss, LossCause};
use hubble::proto::{GetFlowsResponse, NodeStatus, Timestamp};

use certificates::Authority;
use log::said;
use server::{Agent, Running, ServerTls, flow, lost};

/// Far more than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(60);

fn timing() -> Timing {
    Timing {
        backoff: Duration::from_millis(20),
        longest_backoff: Duration::from_millis(100),
        check: Duration::from_millis(300),
        answer: Duration::from_secs(2),
    }
}

/// A client and what it handed over.
struct Client {
    hubble: Hubble,
    flows: Vec<L7Flow>,
    losses: Vec<Loss>,
    notes: Vec<String>,
}

impl Client {
    fn start(address: Address, tls: Tls) -> Self {
        Self::with(Options { timing: timing(), ..Options::new(address, tls) })
    }

    fn with(options: Options) -> Self {
        let hubble = Hubble::start(options, Clock::start().unwrap()).unwrap();
        Self { hubble, flows: Vec::new(), losses: Vec::new(), notes: Vec::new() }
    }

    fn poll(&mut self) {
        let Self { hubble, flows, losses, notes } = self;
        hubble.poll(&mut |event| sort(event, flows, losses, notes)).unwrap();
    }

    /// Polls until it is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: {:?}, {} flows", self.hubble.counters(), self.flows.len());
            self.poll();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn until_flows(&mut self, count: usize) {
        self.until("flows", |client| client.flows.len() >= count);
    }

    fn until_connected(&mut self, times: u64) {
        self.until("connections", |client| client.hubble.counters().connections >= times);
    }

    /// Stops it; what it handed over accounts for all that came.
    fn stop(&mut self) -> Counters {
        let Self { hubble, flows, losses, notes } = self;
        hubble.stop(&mut |event| sort(event, flows, losses, notes)).unwrap();
        let counters = hubble.counters();
        let messages = counters.messages;
        assert_eq!(
            counters.received,
            counters.undecodable + counters.repeated + messages.read,
            "{counters:?}"
        );
        counters
    }

    /// The numbers of the flows, each of which came once.
    fn numbers(&self) -> BTreeSet<u64> {
        let number = |flow: &L7Flow| flow.uuid.strip_prefix("uuid-").unwrap().parse().unwrap();
        let numbers: BTreeSet<u64> = self.flows.iter().map(number).collect();
        assert_eq!(numbers.len(), self.flows.len(), "none twice");
        numbers
    }
}

fn sort(event: Event, flows: &mut Vec<L7Flow>, losses: &mut Vec<Loss>, notes: &mut Vec<String>) {
    match event {
        Event::L7(flow) => flows.push(*flow),
        Event::Loss(loss) => losses.push(loss),
        Event::Mark(mark) => {
            assert_eq!(mark.label, None);
            notes.push(mark.note);
        }
        other => panic!("{other:?}"),
    }
}

/// Now, by the wall clock, as an agent stamps its flows.
fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap(),
        nanos: i32::try_from(now.subsec_nanos()).unwrap(),
    }
}

fn push(agent: &Agent, numbers: std::ops::Range<u64>) {
    numbers.for_each(|number| agent.push(&flow(number, now())));
}

fn unix(folder: &Path) -> (std::path::PathBuf, Address) {
    let path = folder.join("hubble.sock");
    (path.clone(), Address::Unix(path))
}

fn tcp(port: u16, tls: bool) -> Address {
    Address::Tcp { host: "127.0.0.1".to_owned(), port, tls }
}

/// Sends flows both before and after the client follows, and expects those after it.
fn follows(agent: &Agent, address: Address, tls: Tls) {
    push(agent, 900_000..900_010);
    std::thread::sleep(Duration::from_millis(20));
    let mut client = Client::start(address, tls);
    client.until_connected(1);
    push(agent, 0..500);
    client.until_flows(500);
    let counters = client.stop();
    assert_eq!(client.numbers(), (0..500).collect());
    assert_eq!((counters.received, counters.events, counters.connections), (500, 500, 1));
    assert_eq!(client.losses, []);
    let flow = &client.flows[7];
    // The agent's time, ours, and what the proxy measured.
    assert!(flow.arrival >= flow.time - event::Duration::from_secs(1));
    assert_ne!(flow.arrival, flow.time);
    assert_eq!(flow.latency, Some(event::Duration::from_micros(1500)));
    let L7Message::Http(http) = &flow.message else { panic!("{flow:?}") };
    assert_eq!((http.status, http.path.as_str()), (Some(200), "/item/7"));
    assert!(!format!("{:?}", client.flows).contains("secret"));
}

#[test]
fn follows_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let _server = agent.serve_unix(&path);
    follows(&agent, address, Tls::default());
    let request = &agent.requests()[0];
    let types: Vec<i32> = request.whitelist.iter().map(|filter| filter.event_type[0].r#type).collect();
    assert_eq!((request.follow, request.number, types), (true, 0, vec![129, 1, 5]));
}

#[test]
fn follows_over_tcp() {
    let agent = Agent::new();
    let server = agent.serve_tcp(0, None);
    follows(&agent, tcp(server.port, false), Tls::default());
}

/// Files of a client's, as HUBBLE_TLS_* name them.
fn tls_files(folder: &Path, authority: &Authority, pair: &certificates::Pair) -> Tls {
    let path = |name: &str| folder.join(name);
    std::fs::write(path("ca.crt"), authority.pem()).unwrap();
    std::fs::write(path("client.crt"), &pair.0).unwrap();
    std::fs::write(path("client.key"), &pair.1).unwrap();
    Tls {
        allow_insecure: false,
        ca_files: vec![path("ca.crt")],
        client: Some((path("client.crt"), path("client.key"))),
        server_name: Some(SERVER_NAME.to_owned()),
    }
}

const SERVER_NAME: &str = "node-1.default.hubble-grpc.cilium.io";

fn mutual_tls(agent: &Agent, port: u16, authority: &Authority, has_expired: bool) -> Running {
    let identity = authority.sign(SERVER_NAME, has_expired);
    agent.serve_tcp(port, Some(ServerTls { identity, client_authority: Some(authority.pem()) }))
}

#[test]
fn follows_over_mutual_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (agent, authority) = (Agent::new(), Authority::new());
    let server = mutual_tls(&agent, 0, &authority, false);
    let tls = tls_files(folder.path(), &authority, &authority.sign("client", false));
    follows(&agent, tcp(server.port, true), tls);
}

#[test]
fn any_certificate_will_do_where_that_is_asked_for() {
    let (agent, authority) = (Agent::new(), Authority::new());
    let identity = authority.sign("somebody.else", true);
    let server = agent.serve_tcp(0, Some(ServerTls { identity, client_authority: None }));
    follows(&agent, tcp(server.port, true), Tls { allow_insecure: true, ..Tls::default() });
}

/// What the log says while a client meets this server, until it has said it.
fn complaint(address: Address, tls: Tls, part: &str) -> String {
    said(|log| {
        let mut client = Client::start(address, tls);
        client.until(part, |_| log.text().contains(part));
        std::thread::sleep(Duration::from_millis(300));
        client.stop();
        assert_eq!(client.flows, []);
    })
}

#[test]
fn an_expired_certificate_is_named_and_a_new_one_is_taken_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (agent, authority) = (Agent::new(), Authority::new());
    let server = mutual_tls(&agent, 0, &authority, true);
    let port = server.port;
    let tls = tls_files(folder.path(), &authority, &authority.sign("client", false));
    let said = complaint(tcp(port, true), tls.clone(), "has expired");
    assert!(said.contains("the server's certificate has expired: it has to be renewed there"), "{said}");
    assert_eq!(said.lines().count(), 1, "said once: {said}");

    let mut client = Client::start(tcp(port, true), tls);
    drop(server);
    // The server is back with a certificate that holds; the client's own was exchanged meanwhile.
    let server = mutual_tls(&agent, port, &authority, false);
    client.until_connected(1);
    push(&agent, 0..10);
    client.until_flows(10);
    tls_files(folder.path(), &authority, &authority.sign("client", true));
    agent.end_streams(None);
    drop(server);
    let _server = mutual_tls(&agent, port, &authority, false);
    push(&agent, 10..20);
    std::thread::sleep(Duration::from_millis(500));
    client.poll();
    assert_eq!(client.flows.len(), 10, "an expired certificate of ours is refused");
    tls_files(folder.path(), &authority, &authority.sign("client", false));
    client.until_flows(20);
    client.stop();
    assert_eq!(client.numbers(), (0..20).collect());
}

#[test]
fn what_is_wrong_with_tls_is_said_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (agent, authority) = (Agent::new(), Authority::new());
    let server = mutual_tls(&agent, 0, &authority, false);
    let tls = || tls_files(folder.path(), &authority, &authority.sign("client", false));
    let address = || tcp(server.port, true);
    let good = tls();
    let without = |change: fn(&mut Tls)| {
        let mut tls = good.clone();
        change(&mut tls);
        tls
    };
    let said = complaint(address(), without(|tls| tls.server_name = None), "failed");
    assert!(said.contains("HUBBLE_TLS_SERVER_NAME"), "{said}");
    let said = complaint(address(), without(|tls| tls.client = None), "Hubble");
    assert!(said.contains("HUBBLE_TLS_CLIENT_CERT_FILE"), "{said}");
    let said = complaint(address(), without(|tls| tls.ca_files[0].set_file_name("none")), "none");
    assert!(said.contains("none holds no usable PEM"), "{said}");
    let expired = tls_files(folder.path(), &authority, &authority.sign("client", true));
    let said = complaint(address(), expired, "Hubble");
    assert!(said.contains("our certificate has expired"), "{said}");
    let other = tls_files(folder.path(), &Authority::new(), &authority.sign("client", false));
    let said = complaint(address(), other, "failed");
    assert!(said.contains("HUBBLE_TLS_CA_CERT_FILES"), "{said}");
    let plain = agent.serve_tcp(0, None);
    let said = complaint(tcp(plain.port, true), tls(), "failed");
    assert!(said.contains("does the server speak TLS?"), "{said}");
}

#[test]
fn no_hubble_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_, address) = unix(folder.path());
    let said = complaint(address, Tls::default(), "no flows of Hubble's");
    assert!(said.contains("the rest goes on, and it is tried again"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn streams_that_end_are_resumed_and_nothing_comes_twice_or_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let mut server = agent.serve_unix(&path);
    let mut client = Client::start(address, Tls::default());
    client.until_connected(1);
    for round in 0..9 {
        push(&agent, round * 100..round * 100 + 60);
        match round % 3 {
            0 => agent.end_streams(None),
            1 => agent.end_streams(Some(tonic::Code::Unavailable)),
            _ => {
                drop(server);
                server = agent.serve_unix(&path);
            }
        }
        // Some come while the client is away.
        push(&agent, round * 100 + 60..round * 100 + 100);
        client.until_connected(round + 2);
    }
    client.until_flows(900);
    let counters = client.stop();
    assert_eq!(client.numbers(), (0..900).collect());
    assert!(counters.repeated > 0, "the overlap is asked for: {counters:?}");
    assert_eq!(client.losses, [], "nothing is missing");
}

#[test]
fn a_stream_that_ends_before_its_first_flow_is_begun_again_from_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let mut client = Client::start(address, Tls::default());
    // The client runs, the server does not yet.
    std::thread::sleep(Duration::from_millis(50));
    push(&agent, 0..10);
    let _server = agent.serve_unix(&path);
    client.until_flows(10);
    client.stop();
    assert_eq!(client.numbers(), (0..10).collect());
}

#[test]
fn servers_without_uuids_are_resumed_too() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let _server = agent.serve_unix(&path);
    let mut client = Client::start(address, Tls::default());
    client.until_connected(1);
    let old = |number| {
        let mut message = flow(number, now());
        message.flow.as_mut().unwrap().uuid.clear();
        message
    };
    (0..50).for_each(|number| agent.push(&old(number)));
    client.until_flows(50);
    agent.end_streams(None);
    (50..100).for_each(|number| agent.push(&old(number)));
    client.until_flows(100);
    client.until_connected(2);
    std::thread::sleep(Duration::from_millis(200));
    client.poll();
    assert_eq!(client.flows.len(), 100);
    assert!(client.stop().repeated > 0);
}

#[test]
fn an_agent_that_restarts_leaves_a_gap_that_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let server = agent.serve_unix(&path);
    let mut client = Client::start(address, Tls::default());
    client.until_connected(1);
    push(&agent, 0..10);
    client.until_flows(10);
    drop(server);
    push(&agent, 10..20);
    agent.restart();
    let _server = agent.serve_unix(&path);
    client.until_connected(2);
    push(&agent, 20..30);
    client.until_flows(20);
    client.stop();
    assert_eq!(client.numbers(), (0..10).chain(20..30).collect());
    let [gap] = &client.losses[..] else { panic!("{:?}", client.losses) };
    assert_eq!((gap.cause, gap.count), (LossCause::Disconnected, 0));
    assert_eq!((gap.first, gap.last), (client.flows[9].time, client.flows[10].time));
}

#[test]
fn a_ring_that_was_overwritten_while_away_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new().with_capacity(20);
    let server = agent.serve_unix(&path);
    let mut client = Client::start(address, Tls::default());
    client.until_connected(1);
    push(&agent, 0..10);
    client.until_flows(10);
    drop(server);
    push(&agent, 10..100);
    let _server = agent.serve_unix(&path);
    client.until_flows(30);
    client.stop();
    assert_eq!(client.numbers(), (0..10).chain(80..100).collect());
    let [gap] = &client.losses[..] else { panic!("{:?}", client.losses) };
    assert_eq!((gap.cause, gap.count), (LossCause::UpstreamRing, 0));
}

#[test]
fn a_server_that_falls_silent_is_left_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let _server = agent.serve_unix(&path);
    let mut options = Options::new(address, Tls::default());
    options.timing = Timing { answer: Duration::from_millis(300), ..timing() };
    let mut client = Client::with(options);
    client.until_connected(1);
    push(&agent, 0..5);
    client.until_flows(5);
    agent.hang(true);
    // The stream stands open; the check finds that nobody answers.
    std::thread::sleep(Duration::from_millis(1200));
    agent.hang(false);
    client.until_connected(2);
    push(&agent, 5..10);
    client.until_flows(10);
    client.stop();
    assert_eq!(client.numbers(), (0..10).collect());
}

#[test]
fn a_flood_of_losses_is_counted_by_where_they_happened() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new().with_capacity(usize::MAX);
    let _server = agent.serve_unix(&path);
    let mut client =
        Client::with(Options { queue: 50_000, timing: timing(), ..Options::new(address, Tls::default()) });
    client.until_connected(1);
    for round in 0..5000 {
        for source in 0..4 {
            agent.push(&lost(source, u64::from(source.unsigned_abs()) + 1));
        }
        agent.push(&flow(round, now()));
    }
    client.until_flows(5000);
    let counters = client.stop();
    assert_eq!(client.numbers(), (0..5000).collect());
    let hubble::Lost { kernel, queue, ring, elsewhere } = counters.messages.lost;
    assert_eq!((elsewhere, kernel, queue, ring), (5000, 10_000, 15_000, 20_000));
    let told = |cause| client.losses.iter().filter(|loss| loss.cause == cause).map(|loss| loss.count).sum();
    let told: [u64; 4] = [
        told(LossCause::Upstream),
        told(LossCause::UpstreamKernel),
        told(LossCause::UpstreamQueue),
        told(LossCause::UpstreamRing),
    ];
    assert_eq!(told, [5000, 10_000, 15_000, 20_000]);
}

#[test]
fn a_recorder_that_does_not_come_costs_flows_and_not_memory() {
    const SENT: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new().with_capacity(usize::MAX);
    let _server = agent.serve_unix(&path);
    let mut client =
        Client::with(Options { queue: 1000, timing: timing(), ..Options::new(address, Tls::default()) });
    client.until_connected(1);
    push(&agent, 0..SENT);
    // Nobody polls: the stream is read on all the same.
    let end = Instant::now() + LIMIT;
    while client.hubble.counters().received < SENT {
        assert!(Instant::now() < end, "{:?}", client.hubble.counters());
        std::thread::sleep(Duration::from_millis(10));
    }
    let counters = client.stop();
    assert_eq!((counters.events, counters.dropped), (1000, SENT - 1000));
    assert_eq!(client.numbers(), (0..1000).collect(), "the oldest are kept, in order");
    let [loss] = &client.losses[..] else { panic!("{:?}", client.losses) };
    assert_eq!((loss.cause, loss.count), (LossCause::QueueFull, SENT - 1000));
    assert!(loss.first >= client.flows[999].time && loss.first < loss.last);
}

#[test]
fn a_message_that_cannot_be_decoded_does_not_end_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let _server = agent.serve_unix(&path);
    let mut client = Client::start(address, Tls::default());
    client.until_connected(1);
    push(&agent, 0..3);
    // A flow whose length runs past its end, and a field that is of a newer version.
    agent.push_bytes(vec![0x0a, 0x7f, 1], None);
    agent.push_bytes(vec![0x82, 0x7d, 0], None);
    push(&agent, 3..6);
    client.until_flows(6);
    let counters = client.stop();
    assert_eq!((counters.undecodable, counters.connections), (1, 1));
    assert_eq!(counters.messages.skipped(hubble::Skip::UnknownKind), 1);
}

#[test]
fn a_nodes_status_becomes_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let _server = agent.serve_unix(&path);
    let mut client = Client::start(address, Tls::default());
    client.until_connected(1);
    let names = vec!["node-2".to_owned(), "node-3".to_owned()];
    let status = NodeStatus { state_change: 2, node_names: names, message: "no route".to_owned() };
    agent.push(&GetFlowsResponse { node_status: Some(status), ..GetFlowsResponse::default() });
    client.until("note", |client| !client.notes.is_empty());
    assert_eq!(client.notes, ["hubble: node-2, node-3 unavailable: no route"]);
}

#[test]
fn redaction_leaves_codes_and_takes_names() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let _server = agent.serve_unix(&path);
    let options = Options { redact: true, timing: timing(), ..Options::new(address, Tls::default()) };
    let mut client = Client::with(options);
    client.until_connected(1);
    push(&agent, 0..1);
    client.until_flows(1);
    let L7Message::Http(http) = &client.flows[0].message else { panic!() };
    assert_eq!((http.status, http.path.as_str()), (Some(200), ""));
}

/// `capture record` on loopback for as long as `meanwhile` takes: its log and its events. Nothing where this machine
/// lets nobody record.
fn record(
    test: &str,
    arguments: &[&str],
    server: &str,
    meanwhile: impl FnOnce(),
) -> Option<(String, Vec<Event>)> {
    let missing = capture::missing_capabilities();
    if !missing.is_empty() {
        eprintln!("skipped: {test}: recording needs {missing:?}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.mcap");
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_capture"))
        .args(["record", "lo", "--duration", "0", "--system-interval", "0", "-o"])
        .arg(&file)
        .args(arguments)
        .env("HUBBLE_SERVER", server)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + LIMIT;
    while !file.metadata().is_ok_and(|file| file.len() > 0) {
        assert!(Instant::now() < end, "no recording begins");
        std::thread::sleep(Duration::from_millis(20));
    }
    meanwhile();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    if log.contains("BPF") && !output.status.success() {
        eprintln!("skipped: {test}: {}", log.trim());
        return None;
    }
    assert!(output.status.success(), "{log}");
    let mut reader = recording::Reader::open(&file).unwrap();
    let events = reader.events().map(Result::unwrap).collect();
    assert!(reader.report().is_whole());
    Some((log, events))
}

#[test]
fn record_takes_hubbles_flows_beside_the_packets() {
    let folder = tempfile::tempdir().unwrap();
    let (path, address) = unix(folder.path());
    let agent = Agent::new();
    let _server = agent.serve_unix(&path);
    let meanwhile = || {
        let end = Instant::now() + LIMIT;
        while agent.requests().is_empty() {
            assert!(Instant::now() < end, "nobody asks for flows");
            std::thread::sleep(Duration::from_millis(20));
        }
        push(&agent, 0..100);
        agent.push(&lost(1, 7));
        agent.push(&flow(100, now()));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10 {
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    let test = "record_takes_hubbles_flows_beside_the_packets";
    let Some((log, events)) = record(test, &["--hubble"], &address.to_string(), meanwhile) else { return };
    let flows = events.iter().filter(|event| matches!(event, Event::L7(_))).count();
    assert_eq!(flows, 101, "{log}");
    assert!(events.iter().any(|event| matches!(event, Event::Packet(_))));
    let is_lost =
        |event: &Event| matches!(event, Event::Loss(loss) if loss.cause == LossCause::UpstreamKernel);
    assert_eq!(events.iter().filter(|event| is_lost(event)).count(), 1);
    assert!(log.contains("Hubble lost 7 events in the kernel's ring"), "{log}");
}

#[test]
fn record_without_hubble_says_so_in_one_line_and_goes_on() {
    let test = "record_without_hubble_says_so_in_one_line_and_goes_on";
    let meanwhile = || std::thread::sleep(Duration::from_secs(2));
    let arguments = ["--hubble", "unix:///nonexistent/hubble.sock"];
    let Some((log, _)) = record(test, &arguments, "", meanwhile) else { return };
    assert_eq!(log.lines().filter(|line| line.contains("no flows of Hubble's")).count(), 1, "{log}");
    assert!(log.contains("recorded"), "{log}");
}
