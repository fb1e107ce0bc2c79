//! `cargo xtask fuzz`: every fuzz target of the project for a while, on the stable compiler.
//!
//! The parsers are safe Rust: what is looked for are panics, endless loops and memory without end. That needs coverage
//! to steer by, which stable rustc gives, and no address sanitizer, which only nightly has.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};
use cli::Exit;

use crate::workspace::{cargo, root, succeed};

/// Runs the fuzz targets of all crates; fails where one finds something. What they learned stays in target/fuzz
#[derive(clap::Args)]
pub struct Args {
    /// Seconds for each target
    #[arg(long, default_value_t = 120, value_name = "N")]
    seconds: u32,

    /// Run only these targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Coverage that libFuzzer reads, as cargo-fuzz sets it up.
const FLAGS: &str = "--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares -C codegen-units=1 -C debug-assertions -C overflow-checks";
/// Memory that a target may take, in MB: far above what any of the parsers is allowed to keep.
const MEMORY_MB: u32 = 2048;
/// Seconds that one input may take.
const TIMEOUT_S: u32 = 20;

/// A fuzz target.
struct Target {
    name: String,
    krate: PathBuf,
}

impl Target {
    /// The crate that it tests, and its own name.
    fn label(&self) -> String {
        let tested = self.krate.parent().and_then(Path::file_name).unwrap_or_default();
        format!("{}-{}", tested.to_string_lossy(), self.name)
    }
}

pub fn run(args: &Args) -> Result<Exit> {
    let mut targets = targets()?;
    if let Some(unknown) = args.targets.iter().find(|name| targets.iter().all(|target| target.name != **name))
    {
        let known: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no fuzz target {unknown}; there are {}", known.join(", "));
    }
    targets.retain(|target| args.targets.is_empty() || args.targets.contains(&target.name));
    let host = host()?;
    let mut crates: Vec<&PathBuf> = targets.iter().map(|target| &target.krate).collect();
    crates.dedup();
    for krate in crates {
        build(krate, &host)?;
    }
    let programs = root().join("target/fuzz").join(&host).join("release");
    let (failures, waiting) = (Mutex::new(Vec::new()), Mutex::new(VecDeque::from(targets)));
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(target) = waiting.lock().ok().and_then(|mut waiting| waiting.pop_front()) {
                    let outcome = fuzz(&target, &programs, args.seconds);
                    let line = match &outcome {
                        Ok(line) => format!("{}: {line}", target.label()),
                        Err(error) => format!("{}: FOUND {error:#}", target.label()),
                    };
                    let _ = writeln!(std::io::stdout(), "{line}");
                    if outcome.is_err()
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.push(target.label());
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    if failures.is_empty() {
        return Ok(Exit::Done);
    }
    bail!("fuzzing found something in {}; the inputs are in target/fuzz/finds", failures.join(", "))
}

/// Crate by crate, in the order of their names.
fn targets() -> Result<Vec<Target>> {
    let mut crates = Vec::new();
    find_crates(&root(), &mut crates)?;
    crates.sort();
    let mut targets = Vec::new();
    for krate in crates {
        let mut names = Vec::new();
        for path in entries(&krate.join("fuzz_targets"))? {
            if path.extension().is_some_and(|ending| ending == "rs")
                && let Some(name) = path.file_stem()
            {
                names.push(name.to_string_lossy().into_owned());
            }
        }
        names.sort();
        targets.extend(names.into_iter().map(|name| Target { name, krate: krate.clone() }));
    }
    Ok(targets)
}

/// Folders named `fuzz` that hold a crate.
fn find_crates(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !path.is_dir() || name == "target" || name.starts_with('.') {
            continue;
        }
        if name == "fuzz" && path.join("Cargo.toml").is_file() {
            found.push(path);
        } else {
            find_crates(&path, found)?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(failed)?;
    entries.map(|entry| Ok(entry.with_context(failed)?.path())).collect()
}

/// The machine's own target: named, so that build scripts are built without coverage.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc tells no host")?;
    Ok(host.to_owned())
}

fn build(krate: &Path, host: &str) -> Result<()> {
    let mut command = cargo();
    command.current_dir(krate).args([
        "build",
        "--release",
        "--locked",
        "--quiet",
        "--bins",
        "--target",
        host,
    ]);
    command.arg("--target-dir").arg(root().join("target/fuzz")).env("RUSTFLAGS", FLAGS);
    succeed(&mut command)
}

/// Runs one target; gives the last line of its statistics.
fn fuzz(target: &Target, programs: &Path, seconds: u32) -> Result<String> {
    let folder = root().join("target/fuzz");
    let (corpus, finds) =
        (folder.join("corpus").join(target.label()), folder.join("finds").join(target.label()));
    for folder in [&corpus, &finds] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let log_path = folder.join(format!("{}.log", target.label()));
    let log = File::create(&log_path).with_context(|| format!("cannot create {}", log_path.display()))?;
    let mut command = Command::new(programs.join(&target.name));
    command.arg(&corpus);
    // Inputs that get past a header or a checksum, which chance does not find; nothing is written there.
    let seeds = target.krate.join("seeds").join(&target.name);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    command.arg(format!("-artifact_prefix={}/", finds.display()));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-rss_limit_mb={MEMORY_MB}"));
    command.arg(format!("-timeout={TIMEOUT_S}")).arg("-print_final_stats=1");
    let status = command.stderr(log).status().with_context(|| format!("cannot start {}", target.label()))?;
    let text = String::from_utf8_lossy(&fs::read(&log_path)?).into_owned();
    if !status.success() {
        let reason = text.lines().find(|line| line.contains("panicked") || line.contains("ERROR: libFuzzer"));
        bail!("{}; all of it is in {}", reason.unwrap_or("a crash"), log_path.display());
    }
    let stat = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("stat::{name}:")));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or("?").to_owned()
    };
    Ok(format!(
        "{} inputs, {} kept, nothing found",
        stat("number_of_executed_units"),
        stat("new_units_added")
    ))
}
