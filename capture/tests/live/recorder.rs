//! `capture record` as a program, in a namespace, writing into a folder of its own.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use event::Event;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use recording::{Header, Reader};

use super::namespace::Namespace;

/// A recorder that runs, writing `live.mcap`. Ended with the value.
pub struct Recorder {
    pub folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Recorder {
    /// Starts it with arguments separated by blanks, in a folder that belongs to `owner`; returns once it records.
    pub fn start(namespace: &Namespace, owner: &str, arguments: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let user = User::from_name(owner).unwrap().unwrap();
        chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_capture"));
        command.args(["record", "--duration", "0", "--output"]).arg(folder.path().join("live.mcap"));
        command.args(arguments.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut recorder = Self { folder, child: Some(namespace.enter(|| command.spawn().unwrap())) };
        let socket = recorder.folder.path().join("live.mcap.sock");
        let started = Instant::now();
        while !socket.exists() {
            let ended = recorder.child.as_mut().unwrap().try_wait().unwrap().is_some();
            if ended || started.elapsed() > Duration::from_secs(20) {
                panic!("{:?}", recorder.child.take().unwrap().wait_with_output());
            }
            thread::sleep(Duration::from_millis(20));
        }
        // It polls, and its other threads run.
        thread::sleep(Duration::from_millis(200));
        recorder
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed())
    }

    /// The values of a line of every thread's status.
    pub fn status(&self, key: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let value = |task: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
            line.unwrap().to_owned()
        };
        tasks.map(value).collect()
    }

    /// Ends it as an operator would.
    pub fn stop(&mut self) -> Output {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        self.child.take().unwrap().wait_with_output().unwrap()
    }

    /// The recordings in the folder, oldest first.
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "mcap")).collect();
        files.sort();
        files
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A whole recording.
pub fn read(path: &Path) -> (Header, Vec<Event>) {
    let mut reader = Reader::open(path).unwrap();
    let events = reader.events().map(Result::unwrap).collect();
    assert!(reader.report().is_whole(), "{:?}", reader.report());
    (reader.header().clone(), events)
}

pub fn uid(name: &str) -> Uid {
    User::from_name(name).unwrap().unwrap().uid
}
