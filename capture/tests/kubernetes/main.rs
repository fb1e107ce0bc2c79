//! The watch on Kubernetes against a server that speaks its API: names from lists and watches, addresses that are
//! given again, lost places, broken connections.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../hubble/certificates.rs"]
mod certificates;
#[path = "../hubble/log.rs"]
mod log;
mod server;

use std::time::{Duration, Instant};

use capture::Clock;
use capture::source::Source as _;
use capture::source::kubernetes::{Counters, Kubernetes, Options};
use event::{Event, NameOrigin, Naming, Timestamp};
use serde_json::{Value, json};

use certificates::Authority;
use log::said;
use server::{Cluster, TOKEN};

/// Far more than any of it takes, on a machine that is busy too: the pauses between attempts grow up to 30 s.
const LIMIT: Duration = Duration::from_secs(90);

/// A pod that started so many seconds after the test began.
fn pod(name: &str, addresses: &[&str], app: &str, started: i64) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": app, "x": "y"}},
        "spec": {"nodeName": "worker-1", "containers": []},
        "status": {
            "phase": "Running", "startTime": at(started),
            "podIP": addresses.first(), "podIPs": addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()
        }
    })
}

fn service(name: &str, address: &str, app: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-service-{name}"), "creationTimestamp": at(-90)
        },
        "spec": {"clusterIP": address, "clusterIPs": [address], "selector": {"app": app}}
    })
}

/// As the API tells times: whole seconds, rounded down.
fn at(seconds: i64) -> String {
    let now = jiff::Timestamp::now().as_second() + seconds;
    jiff::Timestamp::from_second(now).unwrap().to_string()
}

/// A cluster's server and how to reach it.
struct Served {
    folder: tempfile::TempDir,
    cluster: Cluster,
    authority: Authority,
    pair: certificates::Pair,
    running: Option<server::Running>,
    port: u16,
}

impl Served {
    fn new() -> Self {
        let (cluster, authority) = (Cluster::default(), Authority::new());
        let pair = authority.sign("cluster.test", false);
        let running = cluster.serve(0, &pair);
        let port = running.port;
        Self { folder: tempfile::tempdir().unwrap(), cluster, authority, pair, running: Some(running), port }
    }

    /// As a user of the cluster has it.
    fn kubeconfig(&self) -> Value {
        let authority = self.folder.path().join("ca.pem");
        std::fs::write(&authority, self.authority.pem()).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "tls-server-name": "cluster.test",
                "certificate-authority": authority,
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
        })
    }

    fn config(&self) -> kube::Config {
        let kubeconfig = serde_json::from_value(self.kubeconfig()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let options = kube::config::KubeConfigOptions::default();
        runtime.block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &options)).unwrap()
    }

    fn watch(&self) -> Watch {
        Watch::start(Some(self.config()))
    }
}

/// The watch and what it told.
struct Watch {
    kubernetes: Kubernetes,
    names: Vec<Naming>,
}

impl Watch {
    fn start(cluster: Option<kube::Config>) -> Self {
        let options = Options { node: "worker-1".to_owned(), cluster };
        let kubernetes = Kubernetes::start(options, Clock::start().unwrap()).unwrap();
        Self { kubernetes, names: Vec::new() }
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: {:?} {:#?}", self.kubernetes.counters(), self.names);
            let names = &mut self.names;
            self.kubernetes.poll(&mut |event| names.push(named(event))).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `namespace/pod/service` that an address has by what was told until now; empty where it has none.
    fn name(&self, address: &str) -> String {
        let address: std::net::IpAddr = address.parse().unwrap();
        let last = self.names.iter().rfind(|naming| naming.address == address);
        last.map_or_else(String::new, |naming| {
            let workload = &naming.workload;
            format!("{}/{}/{}", workload.namespace, workload.pod, workload.service)
        })
    }

    fn until_name(&mut self, address: &str, name: &str) {
        self.until(name, |watch| watch.name(address) == name);
    }

    fn stop(mut self) -> (Vec<Naming>, Counters) {
        let names = &mut self.names;
        self.kubernetes.stop(&mut |event| names.push(named(event))).unwrap();
        let counters = self.kubernetes.counters();
        (self.names, counters)
    }
}

fn named(event: Event) -> Naming {
    match event {
        Event::Naming(naming) => *naming,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pods_and_services_name_their_addresses() {
    let served = Served::new();
    let cluster = &served.cluster;
    cluster.apply("pods", pod("cart-1", &["10.1.0.7", "fd00::7"], "cart", -60));
    cluster.apply("services", service("cart", "10.96.0.7", "cart"));
    cluster.apply("services", service("cart-headless", "None", "cart"));
    // On another node, without an address yet, on the host's network, done.
    let mut other = pod("other", &["10.1.9.9"], "cart", -60);
    other["spec"]["nodeName"] = "worker-2".into();
    let mut on_host = pod("proxy", &["192.0.2.1"], "proxy", -60);
    on_host["spec"]["hostNetwork"] = true.into();
    let mut done = pod("job", &["10.1.0.8"], "job", -60);
    done["status"]["phase"] = "Succeeded".into();
    for pod in [other, on_host, done, pod("pending", &[], "cart", -60)] {
        cluster.apply("pods", pod);
    }
    let begin = std::time::SystemTime::now();
    let mut watch = served.watch();
    watch.until_name("10.1.0.7", "shop/cart-1/cart");
    watch.until_name("10.96.0.7", "shop//cart");
    assert_eq!(watch.name("fd00::7"), "shop/cart-1/cart");
    // One that comes later holds from its own start on.
    cluster.apply("pods", pod("cart-2", &["10.1.0.9"], "cart", 0));
    watch.until_name("10.1.0.9", "shop/cart-2/cart");
    cluster.delete("services", "cart");
    watch.until_name("10.96.0.7", "//");
    watch.until_name("10.1.0.9", "shop/cart-2/cart-headless");
    let (names, counters) = watch.stop();
    assert_eq!((counters.pods, counters.services, counters.host_network), (5, 1, 1), "{counters:?}");
    for address in ["10.1.9.9", "192.0.2.1", "10.1.0.8"] {
        assert!(!names.iter().any(|naming| naming.address.to_string() == address), "{address}");
    }
    let begin = Timestamp::from_nanos(
        begin.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap(),
    );
    let first = &names[0];
    assert!(first.time >= begin - event::Duration::from_secs(1) && first.time <= first.arrival, "{first:?}");
    assert_eq!(first.workload.pod_origin, Some(NameOrigin::Kubernetes));
    let requests = cluster.requests();
    assert!(
        requests.iter().any(|request| request.contains("fieldSelector=spec.nodeName%3Dworker-1")),
        "{requests:?}"
    );
    assert!(
        requests
            .iter()
            .all(|request| request.starts_with("/api/v1/pods?") || request.starts_with("/api/v1/services?"))
    );
}

#[test]
fn an_address_that_is_given_again_is_nobodys_in_between() {
    let served = Served::new();
    let cluster = &served.cluster;
    cluster.apply("pods", pod("one", &["10.1.0.7"], "a", -60));
    let mut watch = served.watch();
    watch.until_name("10.1.0.7", "shop/one/");
    // The next one has the address while the first one still ends.
    cluster.apply("pods", pod("two", &["10.1.0.7"], "b", 1));
    watch.until_name("10.1.0.7", "//");
    cluster.delete("pods", "one");
    watch.until_name("10.1.0.7", "shop/two/");
    // This one started before the one before it was seen to go.
    cluster.delete("pods", "two");
    watch.until_name("10.1.0.7", "//");
    cluster.apply("pods", pod("three", &["10.1.0.7"], "c", -1));
    watch.until_name("10.1.0.7", "shop/three/");
    let (names, counters) = watch.stop();
    let told: Vec<&str> = names.iter().map(|naming| naming.workload.pod.as_str()).collect();
    assert_eq!(told, ["one", "", "two", "", "three"]);
    assert!(names.windows(2).all(|pair| pair[0].time <= pair[1].time), "{names:#?}");
    assert_eq!((counters.addresses, counters.shared), (1, 0));
}

#[test]
fn several_on_one_address_name_nobody() {
    let served = Served::new();
    for name in ["one", "two"] {
        served.cluster.apply("pods", pod(name, &["10.1.0.7"], name, -60));
    }
    served.cluster.apply("pods", pod("lone", &["10.1.0.8"], "lone", -60));
    let mut watch = served.watch();
    watch.until_name("10.1.0.8", "shop/lone/");
    assert_eq!(watch.name("10.1.0.7"), "");
    let (_, counters) = watch.stop();
    assert_eq!((counters.addresses, counters.shared), (1, 1));
}

#[test]
fn a_lost_place_and_a_broken_connection_lose_no_name() {
    let served = Served::new();
    let cluster = &served.cluster;
    cluster.apply("pods", pod("one", &["10.1.0.1"], "a", -60));
    let mut watch = served.watch();
    watch.until_name("10.1.0.1", "shop/one/");
    // Bookmarks move the place on and change nothing.
    cluster.bookmark("pods");
    cluster.apply("pods", pod("two", &["10.1.0.2"], "a", 0));
    watch.until_name("10.1.0.2", "shop/two/");
    // The connection breaks in the middle of an event, and the history is gone when it is back.
    cluster.delete("pods", "one");
    cluster.apply("pods", pod("three", &["10.1.0.3"], "a", 0));
    cluster.expire();
    cluster.cut();
    watch.until_name("10.1.0.3", "shop/three/");
    watch.until_name("10.1.0.1", "//");
    // A connection that breaks is resumed where it was: no list is needed.
    cluster.cut();
    std::thread::sleep(Duration::from_millis(50));
    cluster.apply("pods", pod("four", &["10.1.0.4"], "a", 0));
    watch.until_name("10.1.0.4", "shop/four/");
    let (names, _) = watch.stop();
    let two = names.iter().filter(|naming| naming.workload.pod == "two").count();
    assert_eq!(two, 1, "what did not change is not told again");
}

#[test]
fn a_server_that_goes_is_found_again() {
    let mut served = Served::new();
    served.cluster.apply("pods", pod("one", &["10.1.0.1"], "a", -60));
    let mut watch = served.watch();
    watch.until_name("10.1.0.1", "shop/one/");
    drop(served.running.take());
    served.cluster.apply("pods", pod("two", &["10.1.0.2"], "a", 0));
    std::thread::sleep(Duration::from_millis(500));
    served.running = Some(served.cluster.serve(served.port, &served.pair));
    watch.until_name("10.1.0.2", "shop/two/");
    watch.stop();
}

#[test]
fn an_account_that_may_not_is_told_and_goes_on_when_it_may() {
    let served = Served::new();
    served.cluster.apply("pods", pod("one", &["10.1.0.1"], "a", -60));
    served.cluster.forbid(true);
    let text = said(|log| {
        let mut watch = served.watch();
        watch.until("the refusal", |_| log.text().contains("forbidden: this account may not list it"));
        served.cluster.forbid(false);
        watch.until_name("10.1.0.1", "shop/one/");
        watch.stop();
    });
    assert!(text.contains("the rest goes on, and it is tried again"), "{text}");
}

#[test]
fn a_node_of_another_name_is_told() {
    let served = Served::new();
    let text = said(|log| {
        let mut watch = served.watch();
        watch.until("the warning", |_| log.text().contains("no pod runs on a node of the name worker-1"));
        watch.stop();
    });
    assert!(text.contains("--kube-node or NODE_NAME"), "{text}");
}

/// `capture record` on loopback with these variables, until the log says so; nothing where nobody may record here.
fn record(test: &str, variables: &[(&str, &str)], until: &str) -> Option<(String, Vec<Event>)> {
    let missing = capture::missing_capabilities();
    if !missing.is_empty() {
        eprintln!("skipped: {test}: recording needs {missing:?}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, log) = (folder.path().join("a.mcap"), folder.path().join("log"));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_capture"))
        .args([
            "record",
            "lo",
            "-d",
            "0",
            "--system-interval",
            "0",
            "--kube",
            "--kube-node",
            "worker-1",
            "-o",
        ])
        .arg(&file)
        .env("HOME", folder.path())
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .envs(variables.iter().copied())
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let end = Instant::now() + LIMIT;
    let text = || std::fs::read_to_string(&log).unwrap();
    while !text().contains(until) && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "{}", text());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
    let is_done = child.wait().unwrap().success();
    if text().contains("BPF") && !is_done {
        eprintln!("skipped: {test}: {}", text().trim());
        return None;
    }
    assert!(is_done, "{}", text());
    let mut reader = recording::Reader::open(&file).unwrap();
    let events = reader.events().map(Result::unwrap).collect();
    Some((text(), events))
}

#[test]
fn record_takes_names_by_the_kubeconfig() {
    let test = "record_takes_names_by_the_kubeconfig";
    let served = Served::new();
    served.cluster.apply("pods", pod("one", &["10.1.0.1"], "a", -60));
    let config = served.folder.path().join("config");
    std::fs::write(&config, served.kubeconfig().to_string()).unwrap();
    let variables = [("KUBECONFIG", config.to_str().unwrap())];
    let Some((log, events)) = record(test, &variables, "pods=1") else { return };
    let names: Vec<&Naming> = events
        .iter()
        .filter_map(|event| if let Event::Naming(naming) = event { Some(naming.as_ref()) } else { None })
        .collect();
    assert_eq!(names.len(), 1, "{log}");
    assert_eq!((names[0].address.to_string().as_str(), names[0].workload.pod.as_str()), ("10.1.0.1", "one"));
    assert!(log.contains("Kubernetes pods=1 services=0 addresses=1"), "{log}");
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn record_without_a_cluster_says_so_in_one_line_and_goes_on() {
    let test = "record_without_a_cluster_says_so_in_one_line_and_goes_on";
    let Some((log, _)) = record(test, &[], "no names from Kubernetes") else { return };
    assert_eq!(log.lines().filter(|line| line.contains("no names from Kubernetes")).count(), 1, "{log}");
    assert!(log.contains("the rest goes on") && log.contains("recorded"), "{log}");
}
