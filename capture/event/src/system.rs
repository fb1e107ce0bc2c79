//! The state of node and pods at one instant. Counters are cumulative as the kernel keeps them; whoever
//! reads two snapshots takes the difference. An absent value was not there to be read.

use crate::{Duration, Timestamp};

/// One reading of the node and its pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SystemSnapshot {
    pub time: Timestamp,
    pub arrival: Timestamp,
    pub node: Node,
    pub pods: Vec<Pod>,
}

/// What holds for the whole node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub cpu: Option<CpuTimes>,
    pub memory: Option<Memory>,
    /// Physical disks only: no loop, ram, zram, dm, md or partitions.
    pub disks: Vec<Disk>,
    pub listen_queue: Option<ListenQueue>,
    pub pressure: Pressure,
    /// oom_kill of /proc/vmstat.
    pub oom_kills: Option<u64>,
    /// Processes in state Z.
    pub zombies: Option<u64>,
    /// The processes that used the processor since the last snapshot, busiest first.
    pub processes: Vec<Process>,
}

/// The first line of /proc/stat, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// Sum of all states; guest time is part of user time and counts once.
    pub total: u64,
    /// idle + iowait
    pub idle: u64,
}

/// /proc/meminfo, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub available: u64,
    pub swap_total: u64,
    pub swap_free: u64,
}

/// One line of /proc/diskstats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub name: String,
    pub reads: u64,
    pub read_bytes: u64,
    pub read_time: Duration,
    pub writes: u64,
    pub write_bytes: u64,
    pub write_time: Duration,
    pub in_flight: u64,
    /// Time weighted by the requests in flight (the last of the classic eleven fields).
    pub weighted_time: Duration,
}

/// TcpExt of a network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenQueue {
    pub overflows: u64,
    pub drops: u64,
}

/// `some` stall time of cpu, memory and io since boot (PSI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub cpu: Option<Duration>,
    pub memory: Option<Duration>,
    pub io: Option<Duration>,
}

/// One process's use of the processor since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks after boot: tells a reused pid from the same process.
    pub start_time: u64,
    pub name: String,
    pub cpu: Duration,
}

/// cpu.stat of a cgroup that has a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupCpu {
    pub periods: u64,
    pub throttled: u64,
    pub throttled_time: Duration,
}

/// Memory of a cgroup, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupMemory {
    /// Usage without inactive file pages.
    pub working_set: u64,
    /// Absent where none is set.
    pub limit: Option<u64>,
    pub oom_kills: Option<u64>,
}

/// A pod, or a plain host's network namespace with the cgroups of its processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Indices into the interface table of the interfaces that lead to it.
    pub interfaces: Vec<u32>,
    /// Inode of its network namespace.
    pub network_namespace: u64,
    /// The pod's uid in Kubernetes; empty on a plain host.
    pub uid: String,
    pub container_ids: Vec<String>,
    /// Summed over its containers.
    pub cpu: Option<CgroupCpu>,
    pub memory: Option<CgroupMemory>,
    pub listen_queue: Option<ListenQueue>,
    pub pressure: Pressure,
}
