//! A disk that fills up: the writer says so, and what was written is a whole recording.

#![allow(clippy::unwrap_used)] // Helpers of tests may stop at the first surprise.

mod arbitrary;

use std::path::Path;
use std::process::Command;

use event::Event;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use recording::{End, Error, Options, Reader, Writer};

/// A small disk of its own, unmounted at the end.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_a_whole_recording() {
    let Some(disk) = Disk::mount("10m") else {
        eprintln!("skipped: a_full_disk_leaves_a_whole_recording: a small tmpfs cannot be mounted");
        return;
    };
    let mut runner = TestRunner::deterministic();
    let path = disk.path().join("a.mcap");
    let header = arbitrary::header().new_tree(&mut runner).unwrap().current();
    let mut writer = Writer::create(&path, &header, Options { level: 1, ..Options::default() }).unwrap();
    let mut written: Vec<Event> = Vec::new();
    let error = 'full: loop {
        for event in arbitrary::events(300).new_tree(&mut runner).unwrap().current() {
            match writer.write(&event) {
                Ok(()) => written.push(event),
                Err(error) => break 'full error,
            }
        }
        writer.flush().unwrap();
        assert!(writer.bytes_written() < 10 << 20, "the disk has more space than it should");
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    let summary = writer.finish().unwrap();
    assert_eq!(summary.counts.total(), written.len() as u64);
    let mut reader = Reader::open(&path).unwrap();
    let read: Vec<Event> = reader.events().map(Result::unwrap).collect();
    assert!(read == written);
    assert_eq!(reader.report().end, Some(End::Complete));
}
