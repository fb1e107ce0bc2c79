//! Files of /proc and the cgroups, below roots that can be those of another mount; what is missing is named once.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Reads small files of the kernel.
#[derive(Debug)]
pub(super) struct Files {
    pub proc_root: PathBuf,
    named: BTreeSet<PathBuf>,
}

impl Files {
    pub fn new(proc_root: PathBuf) -> Self {
        Self { proc_root, named: BTreeSet::new() }
    }

    /// A file below the root of /proc that every node should have.
    pub fn read_proc(&mut self, name: &str) -> Option<String> {
        self.read(&self.proc_root.join(name))
    }

    /// The text of a file; says once that it is missing.
    pub fn read(&mut self, path: &Path) -> Option<String> {
        fs::read_to_string(path).map_err(|error| self.name(path, &error)).ok()
    }

    /// A file of one process: it may be gone at any moment, which is no reason to say anything.
    pub fn read_of_process(&self, pid: u32, name: &str) -> Option<String> {
        fs::read_to_string(self.of_process(pid, name)).ok()
    }

    pub fn of_process(&self, pid: u32, name: &str) -> PathBuf {
        self.proc_root.join(pid.to_string()).join(name)
    }

    fn name(&mut self, path: &Path, error: &io::Error) {
        if self.named.insert(path.to_owned()) {
            tracing::warn!("{}: {error}; what it tells stays empty", path.display());
        }
    }
}

/// The number behind `key` in lines of `key number`.
pub(super) fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok()).flatten()
    })
}

/// The number that is all of a file.
pub(super) fn only_number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The nanoseconds of `some ... total=MICROSECONDS` in a file of PSI.
pub(super) fn stall(text: &str) -> Option<event::Duration> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let total = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))?;
    Some(event::Duration::from_micros(total.parse().ok()?))
}

/// `ListenOverflows` and `ListenDrops` of `/proc/net/netstat`, where a line of names stands before one of values.
pub(super) fn listen_queue(text: &str) -> Option<event::ListenQueue> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |name: &str| {
        let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
        pairs.find(|(other, _)| *other == name)?.1.parse().ok()
    };
    Some(event::ListenQueue { overflows: value("ListenOverflows")?, drops: value("ListenDrops")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::{Duration, ListenQueue};

    #[test]
    fn values_are_found_by_their_names() {
        assert_eq!(number("oom_kill_x 1\noom_kill 7\n", "oom_kill"), Some(7));
        assert_eq!(number("oom_kill\n", "oom_kill"), None);
        let psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 total=9\n";
        assert_eq!(stall(psi), Some(Duration::from_micros(1234)));
        let netstat = "TcpExt: A ListenOverflows ListenDrops\nTcpExt: 5 6 7\nIpExt: B\nIpExt: 1\n";
        assert_eq!(listen_queue(netstat), Some(ListenQueue { overflows: 6, drops: 7 }));
        assert_eq!(listen_queue("IpExt: B\nIpExt: 1\n"), None);
    }

    #[test]
    fn a_missing_file_is_named_once() {
        let mut files = Files::new("/nowhere".into());
        assert_eq!(files.read_proc("stat"), None);
        assert_eq!(files.read_proc("stat"), None);
        assert_eq!(files.named.len(), 1);
    }
}
