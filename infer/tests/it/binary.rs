//! The binary in a temporary directory.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::fixture::{self, Script};

/// A directory with a recording and a model.
pub struct Bench {
    pub folder: TempDir,
    pub recording: PathBuf,
    pub model: PathBuf,
}

impl Bench {
    pub fn new(script: &Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let recording = folder.path().join("run.mcap");
        script.record(&recording);
        let model = fixture::model(folder.path());
        Self { folder, recording, model }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `infer` over the recording with the model.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = infer(self.path());
        command.arg("--model").arg(&self.model).arg("--from").arg(&self.recording).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// The binary, in a directory.
pub fn infer(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.current_dir(folder).env_remove("RUST_LOG");
    command
}

/// The lines of standard output as JSON.
pub fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
