//! Pods: the network namespaces of the node's containers, the interfaces that lead to them, and their cgroups.
//!
//! The interface of a pod is found without asking any container runtime: the kernel says which namespace the
//! other end of an interface is in, and /proc says which processes are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsFd as _;

use event::{CgroupCpu, CgroupMemory, Duration, Pod, Pressure};

use super::cgroup::{Group, Hierarchies, container_id, pod_uid};
use super::files::{Files, listen_queue};
use super::process::{Processes, namespace};
use crate::link;

/// The processes of a namespace.
#[derive(Default)]
struct Inhabitants {
    pids: Vec<u32>,
    groups: BTreeSet<Group>,
}

/// The pods, by the inode of their namespace. Their interfaces are given by the kernel's indices.
pub(super) fn read(files: &Files, processes: &Processes, hierarchies: &Hierarchies) -> Vec<Pod> {
    let outlets = link::outlets().unwrap_or_default();
    inhabited(files, processes, hierarchies)
        .into_iter()
        .map(|(namespace, inhabitants)| pod(files, namespace, &inhabitants, &outlets))
        .collect()
}

/// The namespaces other than the node's and our own.
fn inhabited(files: &Files, processes: &Processes, hierarchies: &Hierarchies) -> BTreeMap<u64, Inhabitants> {
    let not_pods = [1, std::process::id()].map(|pid| namespace(files, pid).unwrap_or(0));
    let mut inhabited: BTreeMap<u64, Inhabitants> = BTreeMap::new();
    for (pid, process) in &processes.by_pid {
        if process.namespace == 0 || not_pods.contains(&process.namespace) {
            continue;
        }
        let inhabitants = inhabited.entry(process.namespace).or_default();
        inhabitants.pids.push(*pid);
        let group = hierarchies.group(&process.cgroups);
        if !group.is_empty() {
            inhabitants.groups.insert(group);
        }
    }
    inhabited
}

fn pod(files: &Files, namespace: u64, inhabitants: &Inhabitants, outlets: &BTreeMap<i32, Vec<u32>>) -> Pod {
    let Inhabitants { pids, groups } = inhabitants;
    let read = |name: &str| pids.iter().find_map(|pid| files.read_of_process(*pid, name));
    let id = pids.iter().find_map(|pid| {
        let file = File::open(files.of_process(*pid, "ns/net")).ok()?;
        link::namespace_id(file.as_fd()).ok().flatten()
    });
    let paths = || groups.iter().flat_map(Group::paths);
    let containers: BTreeSet<String> = paths().filter_map(container_id).collect();
    Pod {
        interfaces: id.and_then(|id| outlets.get(&id)).cloned().unwrap_or_default(),
        network_namespace: namespace,
        uid: paths().find_map(pod_uid).unwrap_or_default(),
        container_ids: containers.into_iter().collect(),
        cpu: groups.iter().filter_map(Group::cpu).reduce(add_cpu),
        memory: groups.iter().filter_map(Group::memory).reduce(add_memory),
        listen_queue: read("net/netstat").and_then(|text| listen_queue(&text)),
        pressure: groups.iter().map(Group::pressure).fold(Pressure::default(), add_pressure),
    }
}

fn add_cpu(a: CgroupCpu, b: CgroupCpu) -> CgroupCpu {
    CgroupCpu {
        periods: a.periods.saturating_add(b.periods),
        throttled: a.throttled.saturating_add(b.throttled),
        throttled_time: a.throttled_time + b.throttled_time,
    }
}

/// A pod has a limit where all its containers have one.
fn add_memory(a: CgroupMemory, b: CgroupMemory) -> CgroupMemory {
    CgroupMemory {
        working_set: a.working_set.saturating_add(b.working_set),
        limit: a.limit.zip(b.limit).map(|(a, b)| a.saturating_add(b)),
        oom_kills: add(a.oom_kills, b.oom_kills, u64::saturating_add),
    }
}

fn add_pressure(a: Pressure, b: Pressure) -> Pressure {
    let sum = |a: Option<Duration>, b| add(a, b, |a, b| a + b);
    Pressure { cpu: sum(a.cpu, b.cpu), memory: sum(a.memory, b.memory), io: sum(a.io, b.io) }
}

/// The sum of those that are there.
fn add<T>(a: Option<T>, b: Option<T>, sum: impl Fn(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(sum(a, b)),
        (a, b) => a.or(b),
    }
}
