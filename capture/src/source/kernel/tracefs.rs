//! Where the kernel describes its tracepoints.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Runs `work` where tracefs can be read. Where nobody has mounted it, a thread does so for itself alone: no
/// other process sees it.
pub fn with_tracefs<T: Send>(work: impl FnOnce(&Path) -> T + Send) -> io::Result<T> {
    if let Some(mounted) = PLACES.map(PathBuf::from).into_iter().find(|place| place.join("events").is_dir()) {
        return Ok(work(&mounted));
    }
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            // What is mounted here stays here.
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            let [place, _] = PLACES;
            mount(Some("tracefs"), place, Some("tracefs"), MsFlags::empty(), None::<&str>)?;
            Ok(work(Path::new(place)))
        });
        done.join().map_err(|_| io::Error::other("the thread that reads tracefs ended"))?
    })
}
