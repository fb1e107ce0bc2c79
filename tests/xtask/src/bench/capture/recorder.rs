//! A recorder at work on right0: `capture record` or tcpdump, and what it took.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use super::Stage;
use crate::bench::measure::{Taken, taken, wait_for};
use crate::bench::wire::{End, Wire, output};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nothing,
    Capture,
    Tcpdump,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Capture, Self::Tcpdump];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Capture => "capture record",
            Self::Tcpdump => "tcpdump -s 96 -w",
        }
    }
}

/// Ends with the value, and its file with it.
pub struct Recorder {
    kind: Kind,
    child: Option<Child>,
    pid: u32,
    file: PathBuf,
    log: PathBuf,
    /// Processor time when it began to record.
    started: Usage,
}

/// What a recorder had used and recorded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Seconds of all its threads, and of them those outside the kernel.
    pub processor: f64,
    pub user: f64,
    /// Most memory that was resident, in bytes.
    pub memory: u64,
    pub packets: u64,
    /// Packets that it saw and has no record of.
    pub lost: u64,
    pub bytes: u64,
}

impl Recorder {
    /// Starts one and waits until it records; none for [`Kind::Nothing`].
    pub fn start(stage: &Stage, wire: &Wire, kind: Kind) -> anyhow::Result<Option<Self>> {
        let file = stage.folder.join("recorded");
        let log = stage.folder.join("recorder.log");
        let _ = fs::remove_file(&file);
        let mut command = match kind {
            Kind::Nothing => return Ok(None),
            Kind::Capture => {
                let mut command = wire.command(End::Right, &stage.programs.join("capture"));
                command.args(["record", "right0", "--duration", "0", "--output"]).arg(&file);
                command
            }
            Kind::Tcpdump => {
                let mut command = wire.command(End::Right, Path::new("tcpdump"));
                // The ring of the other: 8 MiB.
                command.args(["-i", "right0", "-s", "96", "-n", "-B", "8192", "-w"]).arg(&file);
                command
            }
        };
        let stderr = fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn();
        let child = child.with_context(|| format!("cannot start {command:?}"))?;
        // nsenter becomes the program.
        let mut recorder =
            Self { kind, pid: child.id(), child: Some(child), file, log, started: Usage::default() };
        if let Some(child) = &mut recorder.child {
            // Both name their interface when they record.
            wait_for(child, &recorder.log, &["recording right0", "listening on right0"])
                .with_context(|| format!("{} does not record", kind.name()))?;
        }
        recorder.started = recorder.usage()?;
        Ok(Some(recorder))
    }

    /// What it has used until now.
    fn usage(&self) -> anyhow::Result<Usage> {
        let Taken { processor, user, memory } = taken(self.pid)?;
        Ok(Usage { processor, user, memory, ..Usage::default() })
    }

    /// Ends it; what it used while it recorded.
    pub fn stop(mut self, stage: &Stage) -> anyhow::Result<Usage> {
        let mut usage = self.usage()?;
        usage.processor -= self.started.processor;
        usage.user -= self.started.user;
        output(Command::new("kill").args(["-TERM", &self.pid.to_string()]))?;
        let mut child = self.child.take().context("it runs")?;
        let status = child.wait().context("cannot wait for the recorder")?;
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        ensure!(status.success(), "{} ended with {status}: {said}", self.kind.name());
        usage.bytes = fs::metadata(&self.file).map(|file| file.len()).unwrap_or(0);
        (usage.packets, usage.lost) = match self.kind {
            Kind::Capture => counts(stage, &self.file)?,
            // "123 packets captured", "0 packets dropped by kernel"
            _ => (number_before(&said, " packets captured")?, number_before(&said, " packets dropped")?),
        };
        Ok(usage)
    }
}

/// Packets and lost packets by `capture info`.
pub fn counts(stage: &Stage, file: &Path) -> anyhow::Result<(u64, u64)> {
    let text = output(Command::new(stage.programs.join("capture")).arg("info").arg(file).arg("--json"))?;
    let info: serde_json::Value = serde_json::from_str(&text).context("capture info prints no JSON")?;
    let channels = info["channels"].as_array().context("no list of channels")?;
    let packets = channels.iter().find(|channel| channel["name"] == "packets");
    let packets = packets.and_then(|channel| channel["events"].as_u64()).context("no count of packets")?;
    let losses = info["losses"].as_array().context("no list of losses")?;
    let is_packets = |loss: &&serde_json::Value| loss["source"] == "packets";
    Ok((packets, losses.iter().filter(is_packets).filter_map(|loss| loss["count"].as_u64()).sum()))
}

fn number_before(text: &str, what: &str) -> anyhow::Result<u64> {
    let line =
        text.lines().find(|line| line.contains(what)).with_context(|| format!("no `{what}`: {text}"))?;
    line.split_whitespace().next().and_then(|word| word.parse().ok()).context("no number")
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(&self.file);
    }
}
