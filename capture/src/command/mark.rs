//! `capture mark` and `capture dump`: orders to a recorder that runs.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use capture::control::{Order, send, socket_of};
use clap::Args;
use cli::Exit;
use event::Label;

/// Label what a running recorder sees from now on, or leave it a note
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capture mark trace.mcap --label packet-loss --note 'dropping 5 %'
  capture mark trace.mcap --label normal
  capture mark --socket /run/faultline/recorder.sock --note 'deployed v2'")]
pub struct Mark {
    #[command(flatten)]
    recorder: Recorder,

    /// A number, or a fault's name; without it the label stays as it is
    #[arg(long, value_name = "LABEL", required_unless_present = "note")]
    label: Option<Label>,

    /// What to remember of this moment
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

/// Freeze what a running recorder's black box holds into a recording of its own
///
/// For recorders started with --keep. SIGUSR1 does the same and chooses the name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capture dump box.mcap -o incident-42.mcap")]
pub struct Dump {
    #[command(flatten)]
    recorder: Recorder,

    /// The recording to write; it must not exist yet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Debug, Args)]
struct Recorder {
    /// The recording as it was named to capture record; its socket is FILE.sock
    #[arg(value_name = "FILE", required_unless_present = "socket", conflicts_with = "socket")]
    recording: Option<PathBuf>,

    /// The recorder's socket, where it was started with one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Recorder {
    fn send(&self, order: &Order) -> anyhow::Result<Exit> {
        let named = || self.recording.as_deref().map(socket_of);
        let socket = self.socket.clone().or_else(named).unwrap_or_default();
        let answer = send(&socket, order)
            .with_context(|| format!("{}: the recorder did not do it", socket.display()))?;
        tracing::info!("{answer}");
        Ok(Exit::Done)
    }
}

impl Mark {
    pub fn run(&self) -> anyhow::Result<Exit> {
        self.recorder.send(&Order::mark(self.label, self.note.clone()))
    }
}

impl Dump {
    pub fn run(&self) -> anyhow::Result<Exit> {
        let folder = std::env::current_dir().context("the current folder cannot be found")?;
        // The recorder may run in another.
        let path = if self.output.is_absolute() {
            self.output.clone()
        } else {
            folder.join(Path::new(&self.output))
        };
        self.recorder.send(&Order::Dump { path })
    }
}
