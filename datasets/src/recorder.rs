//! The recording of a run: the real `capture record` on the server's interface, and what the lab adds to it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::evidence::Evidence;
use crate::fault::Recipe;
use crate::node::Node;
use crate::process::Process;
use crate::run::{Destination, Plan, Stretch};
use crate::topology::SERVER_INTERFACE;

/// Loading kernel programs takes a fraction of a second; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);

pub struct Recorder {
    process: Process,
    raw: tempfile::TempPath,
    file: std::path::PathBuf,
}

impl Recorder {
    /// Records into a file beside the destination until [`Recorder::keep`] makes it the destination.
    pub fn start(server: &Node, to: &Destination) -> Result<Self> {
        let folder = to.file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let raw = tempfile::Builder::new()
            .prefix(".lab-")
            .suffix(".mcap")
            .tempfile_in(folder)
            .with_context(|| format!("cannot write to {}", folder.display()))?
            .into_temp_path();
        let mut capture = Command::new(&to.capture);
        capture.args(["record", SERVER_INTERFACE, "--duration", "0", "--quiet", "-o"]).arg(&raw);
        capture.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = server.spawn("capture record", capture)?;
        await_header(&mut process, &raw)?;
        Ok(Self { process, raw, file: to.file.clone() })
    }

    /// Ends the recording in order.
    pub fn stop(&mut self) -> Result<()> {
        self.process.expect_running()?;
        let status = self.process.stop(Signal::SIGINT, STOP_LIMIT)?;
        if !status.success() {
            bail!("`capture record` ended with {status}");
        }
        Ok(())
    }

    pub fn keep(self, _: &Plan, _: &Recipe, _: Stretch, _: &Evidence, _: u32) -> Result<()> {
        let Self { raw, file, .. } = self;
        raw.persist(&file).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The recorder is at work as soon as its file has a beginning.
fn await_header(process: &mut Process, raw: &Path) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        process.expect_running()?;
        if std::fs::metadata(raw).is_ok_and(|file| file.len() > 0) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("`capture record` wrote nothing within {START_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
