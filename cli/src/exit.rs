//! How a run ends, and the exit code that says so.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// How a run ended, short of failing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    #[default]
    Done,
    /// The output is valid, but the input was damaged: what is missing was said on stderr.
    Damaged,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Damaged => Self::from(3),
        }
    }
}

/// The exit code for what `main` did. A failure is told in one line on stderr, causes included; a broken pipe
/// is a reader that has seen enough, and no failure. (clap itself ends a run with wrong usage, with code 2.)
pub fn run(work: impl FnOnce() -> anyhow::Result<Exit>) -> ExitCode {
    match work() {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Where stderr is gone too, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_broken_pipe_is_found_below_its_context() {
        let pipe = std::io::Error::from(ErrorKind::BrokenPipe);
        let wrapped = Err::<(), _>(pipe).context("cannot write rows to stdout").unwrap_err();
        assert!(is_broken_pipe(&wrapped));
        let other = std::io::Error::from(ErrorKind::StorageFull);
        assert!(!is_broken_pipe(&anyhow::Error::from(other)));
    }
}
