//! What the recording says of itself, and where it goes by default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use capture::Clock;
use capture::source::tc;
use event::Timestamp;
use recording::{ClockPair, Header, Interface};

use super::Record;

pub(super) fn header(args: &Record, source: &tc::Tc, clock: &Clock) -> Header {
    let (monotonic, wall) = clock.pair();
    let system = nix::sys::utsname::uname().ok();
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    Header {
        node: host(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        kernel: system.as_ref().map(|system| text(system.release())).unwrap_or_default(),
        tool: format!("capture {}", env!("CARGO_PKG_VERSION")),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        label: args.label,
        clocks: vec![ClockPair { monotonic, wall }],
        interfaces: source.interfaces().map(described).collect(),
        metadata: BTreeMap::from([("attachment".to_owned(), source.attachment().to_owned())]),
        ..Header::default()
    }
}

pub(super) fn described(interface: &capture::Interface) -> Interface {
    Interface {
        name: interface.name.clone(),
        index: Some(interface.index),
        link_type: interface.link_layer.map(capture::LinkLayer::link_type),
    }
}

fn host() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

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
