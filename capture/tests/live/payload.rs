//! Messages read from payload, beside what the clients of a real nginx and dnsmasq saw.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use event::{Event, L7Flow, L7Message, L7Type};

use super::namespace::{Namespace, Pair};
use super::pair;
use super::recorder::{Recorder, read};

/// Ends with the value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program in a namespace; nothing, and why, where it is not there.
fn serve(namespace: &Namespace, command: &mut Command) -> Result<Server, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    namespace.enter(|| command.spawn()).map(Server).map_err(|error| format!("needs {name}: {error}"))
}

/// 404 where nothing is, and heads on both sides of 192 bytes.
const NGINX: &str = "
daemon off; master_process off; pid nginx.pid; error_log error.log;
events { worker_connections 64; }
http {
    access_log off;
    server {
        listen 198.18.0.2:8080;
        location /ok { return 200 'fine'; }
        location /slow { return 200 'body-secret'; add_header X-Long aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; }
        location /broken { return 503 'sorry'; }
        location /moved { return 302 /ok?token=secret; }
        location / { return 404 'nothing'; }
    }
}
";

fn nginx(pair: &Pair, folder: &std::path::Path) -> Result<Server, String> {
    std::fs::write(folder.join("nginx.conf"), NGINX).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "error.log"]);
    let server = serve(&pair.right, &mut command)?;
    let end = Instant::now() + Duration::from_secs(20);
    let connect = || TcpStream::connect(pair.right_v4(8080));
    while pair.left.enter(connect).is_err() {
        assert!(Instant::now() < end, "nginx does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

fn dnsmasq(pair: &Pair) -> Result<Server, String> {
    let mut command = Command::new("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
    ]);
    command.args(["--listen-address=198.18.0.2", "--bind-interfaces", "--pid-file="]);
    command.args(["--address=/known.example/198.18.0.9", "--local=/example/"]);
    let server = serve(&pair.right, &mut command)?;
    let end = Instant::now() + Duration::from_secs(20);
    while ask(pair, "known.example", Duration::from_millis(200)).is_none() {
        assert!(Instant::now() < end, "dnsmasq does not answer");
    }
    Ok(server)
}

fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    // The root, type A, class IN.
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The response code that the client saw.
fn ask(pair: &Pair, name: &str, patience: Duration) -> Option<u16> {
    pair.left.enter(|| {
        let socket = UdpSocket::bind("198.18.0.1:0").unwrap();
        socket.connect(pair.right_v4(53)).unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        socket.send(&question(name)).ok()?;
        let mut answer = [0; 512];
        socket.recv(&mut answer).ok().map(|_| u16::from(answer[3] & 15))
    })
}

fn ask_by_tcp(pair: &Pair, name: &str) -> u16 {
    pair.left.enter(|| {
        let mut stream = TcpStream::connect(pair.right_v4(53)).unwrap();
        let question = question(name);
        let length = u16::try_from(question.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &question].concat()).unwrap();
        let mut head = [0; 6];
        stream.read_exact(&mut head).unwrap();
        u16::from(head[5] & 15)
    })
}

/// Requests on one connection; the codes that the client saw.
fn get(to: SocketAddr, paths: &[&str]) -> Vec<u16> {
    let mut stream = TcpStream::connect(to).unwrap();
    let mut codes = Vec::new();
    for path in paths {
        let request = format!(
            "GET {path}?token=secret HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer secret\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        let head = String::from_utf8(text).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        stream.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
        codes.push(head[9..12].parse().unwrap());
    }
    codes
}

/// How often each outcome was seen.
type Outcomes = BTreeMap<(String, u16), u32>;

fn outcomes(flows: &[L7Flow]) -> (Outcomes, Outcomes) {
    let (mut http, mut dns) = (Outcomes::new(), Outcomes::new());
    for flow in flows.iter().filter(|flow| flow.kind == L7Type::Response) {
        match &flow.message {
            L7Message::Http(message) => {
                *http.entry((message.path.clone(), message.status.unwrap())).or_default() += 1;
            }
            L7Message::Dns(message) => {
                *dns.entry((message.query.clone(), message.rcode.unwrap())).or_default() += 1;
            }
            other => panic!("{other:?}"),
        }
        let latency = flow.latency.expect("each has its request").as_nanos();
        assert!((0..10_000_000_000).contains(&latency), "{flow:?}");
        assert!(flow.arrival >= flow.time);
    }
    (http, dns)
}

fn messages(events: &[Event]) -> Vec<L7Flow> {
    let flow = |event: &Event| match event {
        Event::L7(flow) => Some((**flow).clone()),
        _ => None,
    };
    events.iter().filter_map(flow).collect()
}

fn record_exchanges(test: &str, arguments: &str) -> Option<(Vec<L7Flow>, Outcomes, Outcomes, String)> {
    let pair = pair(test)?;
    let folder = tempfile::tempdir().unwrap();
    let servers = nginx(&pair, folder.path()).and_then(|nginx| Ok((nginx, dnsmasq(&pair)?)));
    let _servers = match servers {
        Ok(servers) => servers,
        Err(reason) => {
            eprintln!("skipped: {test}: {reason}");
            return None;
        }
    };
    let mut recorder = Recorder::start(&pair.right, "root", arguments);
    let (mut http, mut dns) = (Outcomes::new(), Outcomes::new());
    let to = pair.right_v4(8080);
    for round in 0..20 {
        let paths = ["/ok", "/broken", "/slow", "/nowhere", "/moved", "/ok"];
        let paths = &paths[..1 + round % paths.len()];
        let codes = pair.left.enter(|| get(to, paths));
        for (path, code) in paths.iter().zip(codes) {
            *http.entry(((*path).to_owned(), code)).or_default() += 1;
        }
        for name in ["known.example", "unknown.example", "elsewhere.test"] {
            let rcode = ask(&pair, name, Duration::from_secs(5)).expect("an answer");
            *dns.entry((name.to_owned(), rcode)).or_default() += 1;
        }
        let rcode = ask_by_tcp(&pair, "missing.example");
        *dns.entry(("missing.example".to_owned(), rcode)).or_default() += 1;
    }
    thread::sleep(Duration::from_millis(300));
    let output = recorder.stop();
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    let (_, events) = read(&recorder.files()[0]);
    Some((messages(&events), http, dns, log))
}

#[test]
fn codes_read_from_payload_are_those_that_the_clients_saw() {
    const TEST: &str = "codes_read_from_payload_are_those_that_the_clients_saw";
    // Both directions of loopback and of the pair: a message seen at several taps is told once.
    let arguments = "right0 lo --l7 dns,http --snap 192 --system-interval 0 --no-kernel-events";
    let Some((flows, http, dns, log)) = record_exchanges(TEST, arguments) else { return };
    assert_eq!(outcomes(&flows), (http.clone(), dns.clone()), "{log}");
    let codes: Vec<u16> = http.keys().map(|(_, code)| *code).collect();
    assert!([200, 302, 404, 503].iter().all(|code| codes.contains(code)), "{codes:?}");
    let rcodes: Vec<u16> = dns.keys().map(|(_, code)| *code).collect();
    assert!([0, 3, 5].iter().all(|code| rcodes.contains(code)), "{rcodes:?}");
    assert!(!format!("{flows:?}").contains("secret"), "no query string, header value or body");
    assert!(log.contains("application messages"), "{log}");
    assert!(log.contains("lost=0"), "{log}");
}

#[test]
fn redacted_messages_keep_their_codes_alone() {
    const TEST: &str = "redacted_messages_keep_their_codes_alone";
    let arguments = "right0 --l7 dns,http --redact --system-interval 0 --no-kernel-events";
    let Some((flows, http, dns, _)) = record_exchanges(TEST, arguments) else { return };
    let without_names = |outcomes: &Outcomes| {
        let mut codes = Outcomes::new();
        for ((_, code), count) in outcomes {
            *codes.entry((String::new(), *code)).or_default() += count;
        }
        codes
    };
    assert_eq!(outcomes(&flows), (without_names(&http), without_names(&dns)));
}

#[test]
fn only_the_protocols_asked_for_are_read() {
    const TEST: &str = "only_the_protocols_asked_for_are_read";
    let arguments = "right0 --l7 dns --system-interval 0 --no-kernel-events";
    let Some((flows, _, dns, _)) = record_exchanges(TEST, arguments) else { return };
    assert_eq!(outcomes(&flows), (Outcomes::new(), dns));
}

#[test]
fn payload_is_not_read_unless_that_is_asked_for() {
    const TEST: &str = "payload_is_not_read_unless_that_is_asked_for";
    let arguments = "right0 --system-interval 0 --no-kernel-events";
    let Some((flows, _, _, log)) = record_exchanges(TEST, arguments) else { return };
    assert_eq!(flows, []);
    assert!(!log.contains("application messages"), "{log}");
}
