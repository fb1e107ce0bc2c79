//! System snapshots to the system columns of a window.
//!
//! A counter's growth over the window `[start, end)` is taken between the last snapshot at or before `start`
//! and the last one at or before `end`: the growth of successive windows then adds up to the growth of the
//! whole, and nothing is counted twice.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use event::{CgroupCpu, ListenQueue, Pod, SystemSnapshot, Timestamp};

use crate::row::Row;
use crate::schema::Feature;

/// `high_io_latency` starts above this, in us.
const HIGH_IO_LATENCY: f64 = 10_000.0;
/// `cpu_contention`, in percent.
const CPU_CONTENTION: f64 = 80.0;
/// `cpu_throttled`, a ratio.
const CPU_THROTTLED: f64 = 0.1;
/// `memory_critical`, in percent.
const MEMORY_CRITICAL: f64 = 90.0;
/// `disk_saturated`, in requests.
const DISK_SATURATED: f64 = 10.0;

const MIB: f64 = 1024.0 * 1024.0;

/// Processes that `process_cpu_top3` names.
const TOP: usize = 3;
/// Processes whose last reading is kept; past it all are forgotten and learned anew.
const KNOWN_PROCESSES: usize = 65_536;

/// Identifies a process: its pid and when it started.
type ProcessId = (u32, u64);

/// A snapshot and what each process used since the one before, in ns of processor time.
struct Taken {
    snapshot: SystemSnapshot,
    busy: Vec<(ProcessId, String, i64)>,
}

/// The snapshots that open windows may still need, in order of their times.
#[derive(Default)]
pub struct System {
    taken: VecDeque<Taken>,
    processes: HashMap<ProcessId, i64>,
}

impl System {
    pub fn push(&mut self, snapshot: &SystemSnapshot) {
        if self.processes.len() > KNOWN_PROCESSES {
            self.processes.clear();
        }
        let mut busy = Vec::new();
        for process in &snapshot.node.processes {
            let (id, used) = ((process.pid, process.start_time), process.cpu.as_nanos());
            // What a process used before it was first seen cannot be told.
            if let Some(before) = self.processes.insert(id, used) {
                busy.push((id, process.name.clone(), (used - before).max(0)));
            }
        }
        let position = self.taken.partition_point(|taken| taken.snapshot.time <= snapshot.time);
        self.taken.insert(position, Taken { snapshot: snapshot.clone(), busy });
    }

    /// Forgets what no window that starts at `start` or later needs.
    pub fn forget_before(&mut self, start: Timestamp) {
        while self.taken.get(1).is_some_and(|next| next.snapshot.time <= start) {
            self.taken.pop_front();
        }
    }

    /// What the snapshots say of a window.
    pub fn window(&self, start: Timestamp, end: Timestamp) -> SystemWindow {
        let up_to = |time| self.taken.partition_point(|taken| taken.snapshot.time <= time);
        let (from, to) = (up_to(start), up_to(end));
        if from == to {
            return SystemWindow::default();
        }
        let last = &self.taken[to - 1].snapshot;
        let first = from.checked_sub(1).map(|place| &self.taken[place].snapshot);
        let mut window = SystemWindow { node: NodeWindow::default(), pods: BTreeMap::new() };
        window.node.measure(first, last);
        window.node.top = top(self.taken.range(from..to), first, last);
        for pod in &last.pods {
            let before = first.and_then(|first| {
                first.pods.iter().find(|other| other.network_namespace == pod.network_namespace)
            });
            let measured = PodWindow::new(before, pod);
            for interface in &pod.interfaces {
                window.pods.insert(*interface, measured);
            }
        }
        window
    }
}

/// What a window's snapshots say of the node and its pods.
#[derive(Clone, Debug, Default)]
pub struct SystemWindow {
    node: NodeWindow,
    /// By the interfaces that lead to them.
    pods: BTreeMap<u32, PodWindow>,
}

#[derive(Clone, Debug, Default)]
struct NodeWindow {
    cpu: Option<f64>,
    memory: Option<f64>,
    memory_available: Option<f64>,
    disks: Option<DiskWindow>,
    oom_kills: Option<u64>,
    top: Option<Arc<str>>,
    listen: Option<ListenQueue>,
    swap: Option<f64>,
    zombies: Option<u64>,
}

/// Growth over all physical disks.
#[derive(Clone, Copy, Debug, Default)]
struct DiskWindow {
    read_bytes: u64,
    write_bytes: u64,
    reads: u64,
    writes: u64,
    read_ms: u64,
    write_ms: u64,
    queue_depth: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct PodWindow {
    cpu: CgroupCpu,
    memory: Option<f64>,
    oom_kills: Option<u64>,
    listen: Option<ListenQueue>,
}

impl NodeWindow {
    fn measure(&mut self, first: Option<&SystemSnapshot>, last: &SystemSnapshot) {
        if let Some(memory) = last.node.memory {
            self.memory = percent(memory.total.saturating_sub(memory.available), memory.total);
            self.memory_available = Some(memory.available as f64 / MIB);
            let used = memory.swap_total.saturating_sub(memory.swap_free);
            self.swap = Some(percent(used, memory.swap_total).unwrap_or(0.0));
        }
        self.zombies = last.node.zombies;
        let Some(first) = first else { return };
        if let (Some(before), Some(after)) = (first.node.cpu, last.node.cpu) {
            let total = after.total.saturating_sub(before.total);
            let idle = after.idle.saturating_sub(before.idle).min(total);
            self.cpu = percent(total - idle, total);
        }
        self.disks = DiskWindow::new(first, last);
        self.oom_kills = growth(first.node.oom_kills, last.node.oom_kills);
        self.listen = listen_growth(first.node.listen_queue, last.node.listen_queue);
    }
}

impl DiskWindow {
    fn new(first: &SystemSnapshot, last: &SystemSnapshot) -> Option<Self> {
        let elapsed = (last.time - first.time).as_millis_f64();
        let mut sum = Self::default();
        let mut is_measured = false;
        for disk in &last.node.disks {
            let Some(before) = first.node.disks.iter().find(|before| before.name == disk.name) else {
                continue;
            };
            is_measured = true;
            sum.read_bytes += disk.read_bytes.saturating_sub(before.read_bytes);
            sum.write_bytes += disk.write_bytes.saturating_sub(before.write_bytes);
            sum.reads += disk.reads.saturating_sub(before.reads);
            sum.writes += disk.writes.saturating_sub(before.writes);
            sum.read_ms += milliseconds(disk.read_time - before.read_time);
            sum.write_ms += milliseconds(disk.write_time - before.write_time);
            let weighted = (disk.weighted_time - before.weighted_time).as_millis_f64().max(0.0);
            sum.queue_depth = sum.queue_depth.max(weighted / elapsed);
        }
        is_measured.then_some(sum)
    }

    /// Mean time of an operation in us; 0 where there were none.
    fn latency(&self) -> f64 {
        let operations = self.reads + self.writes;
        if operations == 0 { 0.0 } else { (self.read_ms + self.write_ms) as f64 * 1000.0 / operations as f64 }
    }
}

impl PodWindow {
    fn new(before: Option<&Pod>, pod: &Pod) -> Self {
        let mut window = Self::default();
        if let Some(memory) = pod.memory {
            window.memory = memory.limit.and_then(|limit| percent(memory.working_set, limit));
        }
        let Some(before) = before else { return window };
        if let (Some(first), Some(last)) = (before.cpu, pod.cpu) {
            window.cpu.periods = last.periods.saturating_sub(first.periods);
            window.cpu.throttled = last.throttled.saturating_sub(first.throttled);
            window.cpu.throttled_time =
                (last.throttled_time - first.throttled_time).max(event::Duration::ZERO);
        }
        let kills = |pod: &Pod| pod.memory.and_then(|memory| memory.oom_kills);
        window.oom_kills = growth(kills(before), kills(pod));
        window.listen = listen_growth(before.listen_queue, pod.listen_queue);
        window
    }
}

impl SystemWindow {
    /// Fills the system columns of a row of the flow whose primary tap is `interface`; `oom_events` is the
    /// number of OOM kills that a probe saw, where there was one.
    pub fn fill(&self, row: &mut Row, interface: Option<u32>, oom_events: Option<u64>) {
        let pod = interface.and_then(|interface| self.pods.get(&interface)).copied();
        self.fill_node(row);
        self.fill_disks(row);
        let pod_memory = pod.and_then(|pod| pod.memory);
        let memory = match (pod_memory, self.node.memory) {
            (Some(pod), Some(node)) => Some(pod.max(node)),
            (pod, node) => pod.or(node),
        };
        row[Feature::MemoryUsagePercent] = memory.into();
        row[Feature::MemoryCritical] = memory.map(|memory| memory > MEMORY_CRITICAL).into();
        let counted = pod.and_then(|pod| pod.oom_kills).or(self.node.oom_kills);
        row[Feature::OomKills] = counted.max(oom_events).into();
        let listen = pod.and_then(|pod| pod.listen).or(self.node.listen);
        row[Feature::TcpListenOverflows] = listen.map(|listen| listen.overflows).into();
        row[Feature::TcpListenDrops] = listen.map(|listen| listen.drops).into();
        fill_throttling(row, pod.unwrap_or_default().cpu);
    }

    fn fill_node(&self, row: &mut Row) {
        let node = &self.node;
        row[Feature::CpuUsagePercent] = node.cpu.into();
        row[Feature::CpuContention] = node.cpu.map(|cpu| cpu > CPU_CONTENTION).into();
        row[Feature::MemoryAvailableMb] = node.memory_available.into();
        row[Feature::ProcessCpuTop3] = node.top.clone().into();
        row[Feature::SwapUsagePercent] = node.swap.into();
        row[Feature::ZombieProcesses] = node.zombies.into();
    }

    fn fill_disks(&self, row: &mut Row) {
        let Some(disks) = self.node.disks else { return };
        row[Feature::DiskReadBytes] = disks.read_bytes.into();
        row[Feature::DiskWriteBytes] = disks.write_bytes.into();
        row[Feature::DiskReadCount] = disks.reads.into();
        row[Feature::DiskWriteCount] = disks.writes.into();
        row[Feature::DiskReadTimeMs] = disks.read_ms.into();
        row[Feature::DiskWriteTimeMs] = disks.write_ms.into();
        row[Feature::DiskAvgLatencyUs] = disks.latency().into();
        row[Feature::DiskQueueDepth] = disks.queue_depth.into();
        row[Feature::HighIoLatency] = (disks.latency() > HIGH_IO_LATENCY).into();
        row[Feature::DiskSaturated] = (disks.queue_depth > DISK_SATURATED).into();
    }
}

/// These columns are never empty: where no limit is known to be set, nothing was throttled.
fn fill_throttling(row: &mut Row, cpu: CgroupCpu) {
    let ratio = if cpu.periods == 0 { 0.0 } else { cpu.throttled as f64 / cpu.periods as f64 };
    row[Feature::CpuNrPeriods] = cpu.periods.into();
    row[Feature::CpuNrThrottled] = cpu.throttled.into();
    row[Feature::CpuThrottledTimeMs] = cpu.throttled_time.as_millis_f64().into();
    row[Feature::CpuThrottleRatio] = ratio.into();
    row[Feature::CpuThrottled] = (ratio > CPU_THROTTLED).into();
}

/// `name(percent of one core)` of the busiest processes, largest first.
fn top<'a>(
    taken: impl Iterator<Item = &'a Taken>,
    first: Option<&SystemSnapshot>,
    last: &SystemSnapshot,
) -> Option<Arc<str>> {
    let elapsed = (last.time - first?.time).as_nanos() as f64;
    let mut used: BTreeMap<ProcessId, (&str, i64)> = BTreeMap::new();
    for (id, name, nanos) in taken.flat_map(|taken| &taken.busy) {
        let entry = used.entry(*id).or_insert((name, 0));
        entry.1 += nanos;
    }
    let mut busiest: Vec<(i64, &str)> = used.into_values().map(|(name, nanos)| (nanos, name)).collect();
    busiest.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let mut text = String::new();
    for (nanos, name) in busiest.into_iter().take(TOP).filter(|(nanos, _)| *nanos > 0) {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}({:.1})", nanos as f64 / elapsed * 100.0);
    }
    Some(text.into())
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// A counter that went back was begun anew.
fn growth(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?))
}

fn listen_growth(before: Option<ListenQueue>, after: Option<ListenQueue>) -> Option<ListenQueue> {
    let (before, after) = (before?, after?);
    Some(ListenQueue {
        overflows: after.overflows.saturating_sub(before.overflows),
        drops: after.drops.saturating_sub(before.drops),
    })
}

fn milliseconds(time: event::Duration) -> u64 {
    u64::try_from(time.as_nanos() / 1_000_000).unwrap_or(0)
}
