//! What the kernel counts of the disk that holds the documents.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// One line of /proc/diskstats; times in ms.
pub struct Disk {
    read: Instant,
    busy: u64,
    weighted: u64,
    pub in_flight: u64,
}

impl Disk {
    /// The disk that a folder is on.
    pub fn of(folder: &Path) -> Result<Self> {
        let device = fs::metadata(folder)?.dev();
        let number = [nix::sys::stat::major(device), nix::sys::stat::minor(device)].map(|n| n.to_string());
        let statistics = fs::read_to_string("/proc/diskstats").context("cannot read /proc/diskstats")?;
        let line = statistics.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = line.into_iter().find(|fields| fields.get(..2).is_some_and(|found| found == number));
        let line = line.with_context(|| format!("{} is on no block device", folder.display()))?;
        let field = |place: usize| line.get(place).and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Self { read: Instant::now(), in_flight: field(11), busy: field(12), weighted: field(13) })
    }

    /// Requests that waited or were served, on the mean, in hundredths.
    pub fn mean_queue_since(&self, before: &Self) -> u64 {
        (self.weighted - before.weighted) * 100 / self.elapsed_ms(before)
    }

    /// Percent of the time in which there was a request.
    pub fn busy_since(&self, before: &Self) -> u64 {
        (self.busy - before.busy) * 100 / self.elapsed_ms(before)
    }

    fn elapsed_ms(&self, before: &Self) -> u64 {
        u64::try_from((self.read - before.read).as_millis()).unwrap_or(u64::MAX).max(1)
    }
}
