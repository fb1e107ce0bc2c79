//! System snapshots.

use event::{
    CgroupCpu, CgroupMemory, CpuTimes, Disk, Duration, ListenQueue, Memory, Node, Pod, Pressure, Process,
    SystemSnapshot,
};

use super::proto::{self, system};
use super::{BadMessage, nanos, times};

impl From<&SystemSnapshot> for proto::System {
    fn from(snapshot: &SystemSnapshot) -> Self {
        let node = &snapshot.node;
        Self {
            stamp: None,
            cpu: node.cpu.map(|CpuTimes { total, idle }| system::CpuTimes { total, idle }),
            memory: node.memory.map(|Memory { total, available, swap_total, swap_free }| system::Memory {
                total,
                available,
                swap_total,
                swap_free,
            }),
            disks: node.disks.iter().map(disk).collect(),
            listen_queue: node.listen_queue.map(listen_queue),
            pressure: pressure(node.pressure),
            oom_kills: node.oom_kills,
            zombies: node.zombies,
            processes: node.processes.iter().map(process).collect(),
            pods: snapshot.pods.iter().map(pod).collect(),
        }
    }
}

fn disk(disk: &Disk) -> system::Disk {
    system::Disk {
        name: disk.name.clone(),
        reads: disk.reads,
        read_bytes: disk.read_bytes,
        read_time: nanos(disk.read_time),
        writes: disk.writes,
        write_bytes: disk.write_bytes,
        write_time: nanos(disk.write_time),
        in_flight: disk.in_flight,
        weighted_time: nanos(disk.weighted_time),
    }
}

fn listen_queue(ListenQueue { overflows, drops }: ListenQueue) -> system::ListenQueue {
    system::ListenQueue { overflows, drops }
}

/// Absent where nothing of it could be read.
fn pressure(pressure: Pressure) -> Option<system::Pressure> {
    let Pressure { cpu, memory, io } = pressure;
    (pressure != Pressure::default()).then(|| system::Pressure {
        cpu: cpu.map(nanos),
        memory: memory.map(nanos),
        io: io.map(nanos),
    })
}

fn process(process: &Process) -> system::Process {
    system::Process {
        pid: process.pid,
        start_time: process.start_time,
        name: process.name.clone(),
        cpu: nanos(process.cpu),
    }
}

fn pod(pod: &Pod) -> system::Pod {
    system::Pod {
        interfaces: pod.interfaces.clone(),
        network_namespace: pod.network_namespace,
        uid: pod.uid.clone(),
        container_ids: pod.container_ids.clone(),
        cpu: pod.cpu.map(|cpu| system::CgroupCpu {
            periods: cpu.periods,
            throttled: cpu.throttled,
            throttled_time: nanos(cpu.throttled_time),
        }),
        memory: pod.memory.map(|memory| system::CgroupMemory {
            working_set: memory.working_set,
            limit: memory.limit,
            oom_kills: memory.oom_kills,
        }),
        listen_queue: pod.listen_queue.map(listen_queue),
        pressure: pressure(pod.pressure),
    }
}

pub(super) fn decode(message: proto::System) -> Result<SystemSnapshot, BadMessage> {
    let (time, arrival) = times(message.stamp)?;
    let node = Node {
        cpu: message.cpu.map(|system::CpuTimes { total, idle }| CpuTimes { total, idle }),
        memory: message.memory.map(|system::Memory { total, available, swap_total, swap_free }| Memory {
            total,
            available,
            swap_total,
            swap_free,
        }),
        disks: message.disks.into_iter().map(decode_disk).collect(),
        listen_queue: message.listen_queue.map(decode_listen_queue),
        pressure: decode_pressure(message.pressure),
        oom_kills: message.oom_kills,
        zombies: message.zombies,
        processes: message.processes.into_iter().map(decode_process).collect(),
    };
    Ok(SystemSnapshot { time, arrival, node, pods: message.pods.into_iter().map(decode_pod).collect() })
}

fn decode_disk(disk: system::Disk) -> Disk {
    Disk {
        name: disk.name,
        reads: disk.reads,
        read_bytes: disk.read_bytes,
        read_time: Duration::from_nanos(disk.read_time),
        writes: disk.writes,
        write_bytes: disk.write_bytes,
        write_time: Duration::from_nanos(disk.write_time),
        in_flight: disk.in_flight,
        weighted_time: Duration::from_nanos(disk.weighted_time),
    }
}

fn decode_listen_queue(system::ListenQueue { overflows, drops }: system::ListenQueue) -> ListenQueue {
    ListenQueue { overflows, drops }
}

fn decode_pressure(pressure: Option<system::Pressure>) -> Pressure {
    let system::Pressure { cpu, memory, io } = pressure.unwrap_or_default();
    Pressure {
        cpu: cpu.map(Duration::from_nanos),
        memory: memory.map(Duration::from_nanos),
        io: io.map(Duration::from_nanos),
    }
}

fn decode_process(process: system::Process) -> Process {
    Process {
        pid: process.pid,
        start_time: process.start_time,
        name: process.name,
        cpu: Duration::from_nanos(process.cpu),
    }
}

fn decode_pod(pod: system::Pod) -> Pod {
    Pod {
        interfaces: pod.interfaces,
        network_namespace: pod.network_namespace,
        uid: pod.uid,
        container_ids: pod.container_ids,
        cpu: pod.cpu.map(|cpu| CgroupCpu {
            periods: cpu.periods,
            throttled: cpu.throttled,
            throttled_time: Duration::from_nanos(cpu.throttled_time),
        }),
        memory: pod.memory.map(|memory| CgroupMemory {
            working_set: memory.working_set,
            limit: memory.limit,
            oom_kills: memory.oom_kills,
        }),
        listen_queue: pod.listen_queue.map(decode_listen_queue),
        pressure: decode_pressure(pod.pressure),
    }
}
