//! A child process that does not outlive its guard.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How often a wait looks whether the process has ended.
const POLL: Duration = Duration::from_millis(5);

pub struct Process {
    what: String,
    child: Child,
}

impl Process {
    /// In a process group of its own: a terminal's Ctrl-C is for the lab, which then stops the rest in order.
    pub fn spawn(what: &str, mut command: Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.process_group(0).spawn().with_context(|| format!("cannot run `{program}`"))?;
        Ok(Self { what: what.to_owned(), child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its stdin, where it was started with a pipe for it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("a process id out of range")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("cannot send {signal} to `{}`", self.what))
    }

    /// An error where the process, which should still be running, has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let mut said = String::new();
                if let Some(mut pipe) = self.child.stderr.take() {
                    pipe.read_to_string(&mut said).ok();
                }
                bail!("`{}` ended early with {status}: {}", self.what, said.trim())
            }
        }
    }

    /// Asks the process to end, and waits for it; one that does not listen is killed and an error.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            self.signal(signal)?;
        }
        self.wait(limit)
    }

    /// [`Process::stop`] for a shell and all that it started.
    pub fn stop_group(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            let id = i32::try_from(self.child.id()).context("a process id out of range")?;
            killpg(Pid::from_raw(id), signal)
                .with_context(|| format!("cannot send {signal} to `{}`", self.what))?;
        }
        self.wait(limit)
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("`{}` did not end within {limit:?}", self.what);
            }
            thread::sleep(POLL);
        }
    }

    /// Feeds `input`, waits for the end and returns what was printed. For commands that print less than a
    /// pipe holds (64 KiB): output is read after the end.
    pub fn finish(mut self, input: &str, limit: Duration) -> Result<Output> {
        if let Some(mut stdin) = self.child.stdin.take() {
            stdin.write_all(input.as_bytes()).context("cannot write to its stdin")?;
        }
        let status = self.wait(limit)?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_end(&mut stdout)?;
        }
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_end(&mut stderr)?;
        }
        Ok(Output { status, stdout, stderr })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
