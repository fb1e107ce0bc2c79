//! Where a recording goes by default.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use capture::watch::host;
use event::Timestamp;

/// `recordings/20261121T104200Z-node7.mcap`, its folder made.
pub(super) fn default_path(now: Timestamp) -> anyhow::Result<PathBuf> {
    let folder = Path::new("recordings");
    std::fs::create_dir_all(folder).context("cannot create the folder recordings")?;
    Ok(folder.join(format!("{}-{}.mcap", utc(now)?, host())))
}

/// ISO 8601 without separators, which file systems take.
pub(super) fn utc(time: Timestamp) -> anyhow::Result<String> {
    let time = jiff::Timestamp::from_second(time.as_secs()).context("the clock is out of range")?;
    Ok(time.strftime("%Y%m%dT%H%M%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_is_the_utc_time() {
        assert_eq!(utc(Timestamp::from_secs(1_795_257_720)).unwrap(), "20261121T104200Z");
    }
}
