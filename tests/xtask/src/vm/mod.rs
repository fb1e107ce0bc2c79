//! `cargo xtask vm`: the live tests in a guest with Debian's kernel, for what this host's kernel lacks
//! (clsact without TCX, cgroup v2 controllers, netem, older tracepoint layouts).

mod image;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use cli::Exit;

use crate::test::Tally;
use crate::workspace::{cargo, root};
use image::Image;

/// Boots Debian's kernel under QEMU (software emulation, no network) and runs the live tests there as root.
/// Emulated time spoils latencies: it is for features of the kernel, not for measurements.
#[derive(clap::Args)]
pub struct Args {
    /// The packages whose integration tests run in the guest
    #[arg(short, long = "package", value_name = "NAME", default_values_t = ["capture".to_owned()])]
    packages: Vec<String>,

    /// Run this shell command in the guest instead of tests; the project's programs are on its PATH
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,

    /// The Debian package that holds the kernel
    #[arg(long, value_name = "PACKAGE", default_value = "linux-image-cloud-amd64")]
    kernel: String,

    /// End the guest after this many minutes
    #[arg(long, value_name = "N", default_value_t = 30)]
    minutes: u64,

    /// What to hand to the test programs, such as a part of a test's name
    #[arg(last = true)]
    filter: Vec<String>,
}

/// What the guest needs besides its kernel, and the Debian package that brings it.
const TOOLS: [(&str, &str); 14] = [
    ("bash", "bash"),
    ("dash", "dash"),
    // Busybox has all of these, but they know less, and its shell prefers its own to real ones.
    ("sh", "dash"),
    ("env", "coreutils"),
    ("sleep", "coreutils"),
    ("timeout", "coreutils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("modprobe", "kmod"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// The guest says this, and a status, when what it ran has ended.
const ENDED: &str = "@@ended ";

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    require_tools()?;
    let folder = root().join("target/vm");
    let mut image = Image::new(&folder, &args.kernel)?;
    for (tool, _) in TOOLS.iter().filter(|(tool, _)| !["qemu-system-x86_64", "busybox"].contains(tool)) {
        image.add_program(&which(tool)?)?;
    }
    // Tests that need one of these are skipped without it.
    for tool in ["tc", "ping", "ss", "nginx", "dnsmasq", "fio", "stress-ng", "mount"] {
        if let Ok(path) = which(tool) {
            image.add_program(&path)?;
        }
    }
    let programs = build(&args.packages)?;
    for program in &programs {
        image.add_program(&program.path)?;
    }
    let script = match &args.command {
        Some(command) => format!("({command}) 2>&1\necho '{ENDED}'$?\n"),
        None => test_script(&programs, &args.filter),
    };
    let initrd = image.finish(&script)?;
    let mut guest = boot(&image.kernel, &initrd)?;
    let outcome = follow(&mut guest, Duration::from_secs(args.minutes * 60));
    // A guest that is still there ran out of time.
    let _ = guest.kill();
    let _ = guest.wait();
    let (tally, failures) = outcome?;
    if args.command.is_none() {
        let (passed, failed, skipped) = tally.counts();
        ensure!(passed + failed + skipped > 0, "no test ran in the guest");
        writeln!(std::io::stdout(), "guest: {passed} passed, {failed} failed, {skipped} skipped")?;
    }
    ensure!(failures == 0, "{failures} programs failed in the guest");
    Ok(Exit::Done)
}

fn require_tools() -> anyhow::Result<()> {
    let mut missing: Vec<&str> =
        TOOLS.iter().filter(|(tool, _)| which(tool).is_err()).map(|(_, package)| *package).collect();
    missing.dedup();
    if !missing.is_empty() {
        bail!("the guest needs packages that are not installed: apt-get install -y {}", missing.join(" "));
    }
    Ok(())
}

fn which(tool: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(tool))
        .find(|file| file.is_file())
        .with_context(|| format!("{tool} is not on the PATH"))
}

/// A program that cargo built, and whether it is a test.
struct Program {
    path: PathBuf,
    is_test: bool,
}

/// Builds the packages' programs and integration tests.
fn build(packages: &[String]) -> anyhow::Result<Vec<Program>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--locked", "--tests", "--bins", "--message-format", "json"]);
    for package in packages {
        command.args(["--package", package]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo test --no-run")?;
    ensure!(output.status.success(), "cargo test --no-run ended with {}", output.status);
    let mut programs = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: serde_json::Value =
            serde_json::from_slice(line).context("cargo's message is no JSON")?;
        let Some(path) = message["executable"].as_str() else { continue };
        let is_test = message["profile"]["test"].as_bool().unwrap_or(false);
        // Unit tests of a program run on the host as well as anywhere.
        if !is_test || message["target"]["kind"][0] == "test" {
            programs.push(Program { path: path.into(), is_test });
        }
    }
    Ok(programs)
}

fn test_script(programs: &[Program], filter: &[String]) -> String {
    let filter = filter.join(" ");
    let tests = programs.iter().filter(|program| program.is_test);
    tests
        .map(|test| {
            let path = test.path.display();
            format!("echo '@@test {path}'\n{path} --test-threads=1 --show-output {filter} 2>&1\necho '{ENDED}'$?\n")
        })
        .collect()
}

fn boot(kernel: &Path, initrd: &Path) -> anyhow::Result<Child> {
    // Half of the memory is there for the image: programs and tests with their debug information.
    Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4096"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1 psi=1 tsc=unstable"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")
}

/// Prints what the guest says until it powers off, and counts its tests and the programs that failed.
fn follow(guest: &mut Child, limit: Duration) -> anyhow::Result<(Tally, usize)> {
    let console = guest.stdout.take().context("the guest has no console")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let (mut tally, mut ended, mut failures) = (Tally::default(), 0, 0);
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(status) = line.strip_prefix(ENDED) {
                    ended += 1;
                    failures += usize::from(status.trim() != "0");
                } else {
                    tally.read(&line);
                    writeln!(std::io::stdout(), "{line}")?;
                }
            }
            Err(RecvTimeoutError::Timeout) => bail!("the guest was still busy after {} s", limit.as_secs()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    ensure!(ended > 0, "the guest ended before it ran anything: its console above says why");
    Ok((tally, failures))
}
