//! What holds for the whole node.

use event::{CpuTimes, Disk, Duration, Memory, Node, Pressure};
use procfs_core::FromRead as _;

use super::files::{Files, listen_queue, number, stall};
use super::process::Processes;

/// Bytes of a sector in /proc/diskstats, whatever the disk's own are.
const SECTOR: u64 = 512;

pub(super) fn read(files: &mut Files, processes: &Processes) -> Node {
    Node {
        cpu: files.read_proc("stat").and_then(|text| cpu(&text)),
        memory: files.read_proc("meminfo").and_then(|text| memory(&text)),
        disks: files.read_proc("diskstats").map(|text| disks(&text)).unwrap_or_default(),
        // The namespace of the first process is the node's, even where this process has one of its own.
        listen_queue: files.read_proc("1/net/netstat").and_then(|text| listen_queue(&text)),
        pressure: Pressure {
            cpu: files.read_proc("pressure/cpu").and_then(|text| stall(&text)),
            memory: files.read_proc("pressure/memory").and_then(|text| stall(&text)),
            io: files.read_proc("pressure/io").and_then(|text| stall(&text)),
        },
        oom_kills: files.read_proc("vmstat").and_then(|text| number(&text, "oom_kill")),
        zombies: Some(processes.zombies()),
        processes: processes.busiest(),
    }
}

/// user nice system idle iowait irq softirq steal: guest time, which follows, is part of user and nice.
fn cpu(text: &str) -> Option<CpuTimes> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let total = times.iter().take(8).sum();
    Some(CpuTimes { total, idle: times.get(3)? + times.get(4)? })
}

fn memory(text: &str) -> Option<Memory> {
    let memory = procfs_core::Meminfo::from_read(text.as_bytes()).ok()?;
    Some(Memory {
        total: memory.mem_total,
        available: memory.mem_available?,
        swap_total: memory.swap_total,
        swap_free: memory.swap_free,
    })
}

/// Physical disks, whole.
fn disks(text: &str) -> Vec<Disk> {
    let Ok(stats) = procfs_core::DiskStats::from_read(text.as_bytes()) else { return Vec::new() };
    let names: Vec<&str> = stats.0.iter().map(|stat| stat.name.as_str()).collect();
    let is_physical = |name: &str| {
        !["loop", "ram", "zram", "dm-", "md"].iter().any(|kind| name.starts_with(kind))
            && !names.iter().any(|disk| is_partition(name, disk))
    };
    let millis = |count: u64| Duration::from_millis(i64::try_from(count).unwrap_or(i64::MAX));
    let disk = |stat: &procfs_core::DiskStat| Disk {
        name: stat.name.clone(),
        reads: stat.reads,
        read_bytes: stat.sectors_read.saturating_mul(SECTOR),
        read_time: millis(stat.time_reading),
        writes: stat.writes,
        write_bytes: stat.sectors_written.saturating_mul(SECTOR),
        write_time: millis(stat.time_writing),
        in_flight: stat.in_progress,
        weighted_time: millis(stat.weighted_time_in_progress),
    };
    stats.0.iter().filter(|stat| is_physical(&stat.name)).map(disk).collect()
}

/// `sda1` of `sda`, `nvme0n1p2` of `nvme0n1`: a disk whose name ends in a digit takes a `p`.
fn is_partition(name: &str, disk: &str) -> bool {
    let Some(rest) = name.strip_prefix(disk) else { return false };
    let number =
        if disk.ends_with(|last: char| last.is_ascii_digit()) { rest.strip_prefix('p') } else { Some(rest) };
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_time_counts_once() {
        let text = "cpu  100 20 30 400 50 6 7 8 90 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(cpu(text), Some(CpuTimes { total: 621, idle: 450 }));
        assert_eq!(cpu("cpu  1 2\n"), None);
    }

    #[test]
    fn partitions_and_made_up_disks_are_left_out() {
        let line = |name: &str| format!("8 0 {name} 1 2 3 4 5 6 7 8 9 10 11 0 0 0 0 0 0\n");
        let names =
            ["sda", "sda1", "sdaa", "nvme0n1", "nvme0n1p2", "nvme0n10", "loop0", "dm-0", "md127", "zram0"];
        let found = disks(&names.map(line).concat());
        let found_names: Vec<&str> = found.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(found_names, ["sda", "sdaa", "nvme0n1", "nvme0n10"]);
        assert_eq!(found[0].read_bytes, 3 * 512);
        assert_eq!(found[0].write_time, Duration::from_millis(8));
        assert_eq!((found[0].in_flight, found[0].weighted_time), (9, Duration::from_millis(11)));
    }

    #[test]
    fn this_node_has_all_of_it() {
        let mut files = Files::new("/proc".into());
        let node = read(&mut files, &Processes::new());
        assert!(node.cpu.is_some_and(|cpu| cpu.total > cpu.idle));
        assert!(node.memory.is_some_and(|memory| memory.total > memory.available));
        assert!(node.listen_queue.is_some() && node.oom_kills.is_some());
    }
}
