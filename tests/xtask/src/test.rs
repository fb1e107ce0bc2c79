//! `cargo xtask test`: every test of the workspace, counted, with those that could not run named.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use cli::Exit;

use crate::workspace::{cargo, root};

/// Runs every test of the workspace. A test that lacks a right or a tool on this machine says
/// `skipped: NAME: REASON` and counts as skipped, not as passed.
#[derive(clap::Args)]
pub struct Args {
    /// Test only these packages
    #[arg(short, long = "package", value_name = "NAME")]
    packages: Vec<String>,

    /// Fail where a test was skipped, for machines that have everything
    #[arg(long)]
    no_skips: bool,

    /// What to hand to the test programs, such as a part of a test's name
    #[arg(last = true)]
    filter: Vec<String>,
}

/// What the test programs said so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// As libtest counts: a skipped test returned early, and stands among these.
    passed: u64,
    failed: u64,
    ignored: u64,
    /// `name: reason`
    skipped: BTreeSet<String>,
    /// Names of failed tests.
    failures: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let log_path = root().join("target/xtask/test.log");
    let (tally, succeeded) = run_cargo(args, &log_path)?;
    report(&tally, &log_path)?;
    if !succeeded || tally.failed > 0 {
        bail!("tests failed; their output is in {}", log_path.display());
    }
    if args.no_skips && !tally.skipped.is_empty() {
        bail!("{} tests were skipped, and --no-skips was given", tally.skipped.len());
    }
    Ok(Exit::Done)
}

fn run_cargo(args: &Args, log_path: &Path) -> anyhow::Result<(Tally, bool)> {
    let mut command = cargo();
    command.args(["test", "--locked", "--no-fail-fast"]);
    if args.packages.is_empty() {
        command.arg("--workspace");
    }
    for package in &args.packages {
        command.args(["--package", package]);
    }
    // Shown output is where a passing test says that it was skipped.
    command.args(["--", "--show-output"]).args(&args.filter);
    if let Some(folder) = log_path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut log = File::create(log_path).with_context(|| format!("cannot create {}", log_path.display()))?;
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read what cargo test prints")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(log, "{line}").with_context(|| format!("cannot write {}", log_path.display()))?;
        tally.read(&line);
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    Ok((tally, status.success()))
}

impl Tally {
    /// Takes one line of a test program's output.
    pub fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            for part in counts.split(['.', ';']) {
                let mut words = part.split_whitespace();
                let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
                match words.next() {
                    Some("passed") => self.passed += number,
                    Some("failed") => self.failed += number,
                    Some("ignored") => self.ignored += number,
                    _ => {}
                }
            }
        } else if let Some(test) = line.strip_prefix("skipped: ") {
            self.skipped.insert(test.to_owned());
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }
}

impl Tally {
    /// Passed, failed and left out.
    pub fn counts(&self) -> (u64, u64, u64) {
        let skipped = u64::try_from(self.skipped.len()).unwrap_or(u64::MAX);
        (self.passed.saturating_sub(skipped), self.failed, skipped.saturating_add(self.ignored))
    }
}

fn report(tally: &Tally, log_path: &Path) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for name in &tally.failures {
        writeln!(out, "failed: {name}")?;
    }
    for test in &tally.skipped {
        writeln!(out, "skipped: {test}")?;
    }
    if tally.ignored > 0 {
        writeln!(out, "ignored: {} tests marked #[ignore]", tally.ignored)?;
    }
    writeln!(out, "full output: {}", log_path.display())?;
    let (passed, failed, skipped) = tally.counts();
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_test_does_not_count_as_passed() {
        let mut tally = Tally::default();
        for line in [
            "test live::veth ... ok",
            "skipped: live::veth: needs CAP_BPF",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.1s",
            "test cut ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.counts(), (3, 1, 2));
        assert_eq!(tally.failures, ["cut"]);
    }
}
