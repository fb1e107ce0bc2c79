//! A node of the lab, or a pod on one: network, mount and host-name namespaces of its own, and what runs in them.
//! A node has a process namespace, too; its pods share it.
//!
//! The namespaces have no names in the file system. They live as long as the node's first process, which the
//! kernel kills with the lab (even where the lab itself is killed outright), and with it everything that was
//! started in the node. So nothing is left to be swept.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process::Process;

type Job = Box<dyn FnOnce() + Send>;

/// No command that sets a node up takes longer than this.
const COMMAND_LIMIT: Duration = Duration::from_secs(15);

pub struct Node {
    name: &'static str,
    network: File,
    /// Process 1 of the node. Declared before the keeper: it dies first, and all other processes with it.
    init: Process,
    keeper: Keeper,
}

/// The thread that lives in the node's namespaces; what it starts is born there.
struct Keeper {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// A machine.
    pub fn new(name: &'static str) -> Result<Self> {
        Self::start(name, None)
    }

    /// A pod of this machine: its processes are the machine's, too, and end with it.
    pub fn pod(&self, name: &'static str) -> Result<Self> {
        let path = format!("/proc/{}/ns/pid", self.init.id());
        let processes = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        Self::start(name, Some(processes))
    }

    fn start(name: &'static str, processes: Option<File>) -> Result<Self> {
        let keeper = Keeper::start(name)?;
        let (init, network) = keeper
            .call(move || {
                enter_new_namespaces(name, processes)?;
                let network = File::open("/proc/thread-self/ns/net")?;
                anyhow::Ok((Process::spawn("init", first_process())?, network))
            })?
            .with_context(|| format!("cannot create the namespaces of node `{name}` (this needs root)"))?;
        Ok(Self { name, network, init, keeper })
    }

    /// Gives the node a /proc that shows its own processes only, as on a machine of its own.
    pub fn mount_proc(&self) -> Result<()> {
        self.run("mount -t proc proc /proc").map(drop)
    }

    /// Runs a short command to its end and returns what it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        self.finish(line, command, "")
    }

    /// Feeds a ruleset to `nft -f -`.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]);
        self.finish("nft -f -", command, ruleset).map(drop)
    }

    fn finish(&self, line: &str, mut command: Command, input: &str) -> Result<String> {
        let name = self.name;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = self.spawn(line, command)?;
        let output =
            process.finish(input, COMMAND_LIMIT).with_context(|| format!("node `{name}`: `{line}`"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("node `{name}`: `{line}` ended with {}: {}", output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a process that lives until its guard is dropped, or the node.
    pub fn spawn(&self, what: &str, command: Command) -> Result<Process> {
        let what_owned = what.to_owned();
        self.keeper
            .call(move || Process::spawn(&what_owned, command))?
            .with_context(|| format!("node `{}`: cannot start `{what}`", self.name))
    }

    /// Starts a thread of this process in the node's network.
    pub fn thread<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<io::Result<T>>> {
        let network = self.network.try_clone().context("cannot duplicate a namespace's descriptor")?;
        thread::Builder::new()
            .name(what.to_owned())
            .spawn(move || {
                setns(network.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            })
            .with_context(|| format!("cannot start thread `{what}`"))
    }

    /// Sets a network setting of this node, by its path below /proc/sys/net.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let (file, text) = (format!("/proc/sys/net/{path}"), value.to_owned());
        let name = self.name;
        let target = file.clone();
        self.keeper
            .call(move || fs::write(target, text))?
            .with_context(|| format!("node `{name}`: cannot write {value} to {file}"))
    }

    /// The process that the others descend from.
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// A path by which processes outside the node find its network.
    pub fn network_path(&self) -> String {
        format!("/proc/{}/ns/net", self.init.id())
    }

    /// The text of a file below /proc/net, as the node's processes see it.
    pub fn proc_net(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/net/{file}", self.init.id());
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

impl Keeper {
    fn start(name: &str) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let thread = thread::Builder::new()
            .name(format!("keeper of {name}"))
            .spawn(move || inbox.into_iter().for_each(|job| job()))
            .context("cannot start a node's thread")?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    fn call<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (reply, result) = mpsc::channel();
        let job: Job = Box::new(move || drop(reply.send(work())));
        let gone = "a node's thread has ended";
        self.jobs.as_ref().context(gone)?.send(job).ok().context(gone)?;
        result.recv().context(gone)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            // A panic in a job has been reported by the call that waited for it.
            let _ = thread.join();
        }
    }
}

/// Moves the calling thread into fresh namespaces. Its children go into the process namespace: that one, or a
/// fresh one.
fn enter_new_namespaces(name: &str, processes: Option<File>) -> Result<()> {
    match processes {
        Some(processes) => setns(processes, CloneFlags::CLONE_NEWPID)?,
        None => unshare(CloneFlags::CLONE_NEWPID)?,
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS)?;
    nix::unistd::sethostname(name)?;
    // Mounts made here stay here. /sys is left alone: remounted, it would hide bpffs and tracefs.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Sleeps for as long as the node lives, reaps orphans (the kernel does where SIGCHLD is ignored), and is
/// killed by the kernel when its parent thread, the keeper, ends.
fn first_process() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "env", "--ignore-signal=CHLD", "sleep", "infinity"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
