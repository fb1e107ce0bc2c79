//! Where the project is, and how its commands are started.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The folder of the workspace's Cargo.toml.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or_else(|| here.to_owned(), Path::to_owned)
}

/// The cargo that runs this, started in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    command
}

/// The programs, and their packages.
const PROGRAMS: [&str; 5] = ["capture", "replay", "train", "infer", "lab"];

/// Builds the programs as they are now; the folder that holds them: beside this one, wherever cargo put it.
///
/// # Errors
/// Where they cannot be built.
pub fn programs() -> anyhow::Result<PathBuf> {
    let mut command = cargo();
    // The profile of the tests: fast enough, and built once for all. All five together, since fewer of them would
    // need other features of what they share, and that would be built again.
    command.args(["build", "--locked", "--quiet"]);
    for program in PROGRAMS {
        command.args(["--package", program]);
    }
    succeed(&mut command)?;
    let this = env::current_exe().context("this program has no path")?;
    Ok(this.parent().context("this program is in no folder")?.to_owned())
}

/// Prints a line of what was asked for.
pub fn say(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").context("cannot write to stdout")
}

/// Runs a command to its end.
///
/// # Errors
/// Where it cannot be started or does not succeed; the error names it.
pub fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
