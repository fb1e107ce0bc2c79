//! System snapshots of a live namespace: its interface, its cgroup and its sockets are found by the kernel alone.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use capture::Clock;
use capture::source::{Source as _, system};
use event::{Event, Pod};

/// A namespace with a process in it, joined to ours by a pair of interfaces. Everything goes at the end.
struct Namespace {
    name: String,
    outlet: String,
    inhabitant: Option<Child>,
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Namespace {
    fn new() -> Option<Self> {
        let number = std::process::id();
        let (name, outlet) = (format!("flsys{number}"), format!("fls{number}"));
        let namespace = Self { name: name.clone(), outlet: outlet.clone(), inhabitant: None };
        let is_made = ip(&["netns", "add", &name])
            && ip(&["link", "add", &outlet, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        is_made.then_some(namespace)
    }

    fn settle(&mut self) -> u32 {
        let mut sleep = Command::new("ip");
        sleep.args(["netns", "exec", &self.name, "sleep", "60"]);
        self.inhabitant = Some(sleep.spawn().unwrap());
        let index = std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", self.outlet)).unwrap();
        index.trim().parse().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(inhabitant) = &mut self.inhabitant {
            let _ = inhabitant.kill();
            let _ = inhabitant.wait();
        }
        ip(&["link", "del", &self.outlet]);
        ip(&["netns", "del", &self.name]);
    }
}

#[test]
fn a_namespace_is_found_by_its_interface() {
    let Some(mut namespace) = Namespace::new() else {
        eprintln!("skipped: a_namespace_is_found_by_its_interface: no rights to make network namespaces");
        return;
    };
    let index = namespace.settle();
    let options = system::Options { interval: Duration::from_millis(100), ..system::Options::default() };
    let mut system = system::System::start(options, Clock::start().unwrap()).unwrap();
    system.set_places([(index, 7)]);
    let mut found: Option<Pod> = None;
    let end = Instant::now() + Duration::from_secs(30);
    while found.is_none() && Instant::now() < end {
        system
            .poll(&mut |event| {
                if let Event::System(snapshot) = event {
                    found = found.take().or(snapshot.pods.into_iter().find(|pod| pod.interfaces == [7]));
                }
            })
            .unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let pod = found.expect("the namespace is in a snapshot");
    let inhabitant = namespace.inhabitant.as_ref().unwrap().id();
    let link = std::fs::read_link(format!("/proc/{inhabitant}/ns/net")).unwrap();
    assert_eq!(link.to_string_lossy(), format!("net:[{}]", pod.network_namespace));
    assert_eq!(pod.listen_queue.map(|queue| queue.overflows), Some(0));
    assert_eq!((pod.uid.as_str(), pod.container_ids.len()), ("", 0));
}
