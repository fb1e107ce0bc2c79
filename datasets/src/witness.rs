//! A command of the user's that runs where the recorder does, and sees a whole run.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::node::Node;
use crate::process::Process;

/// Then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);

pub struct Witness {
    line: String,
    process: Process,
}

impl Witness {
    /// What it prints goes where the lab's own output goes.
    pub fn start(router: &Node, line: &str) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line).stdin(Stdio::null());
        Ok(Self { line: line.to_owned(), process: router.spawn(line, shell)? })
    }

    /// Ends it as Ctrl-C would. How it ends is its own affair, and is said.
    pub fn stop(&mut self) {
        match self.process.stop_group(Signal::SIGINT, STOP_LIMIT) {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!("`{}` ended with {status}", self.line),
            Err(error) => tracing::warn!("killed: {error:#}"),
        }
    }
}
