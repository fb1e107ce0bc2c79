//! What every Faultline binary does the same way on a command line: logs, exit codes, signals, progress.
//!
//! stdout is for data alone; everything else goes to stderr. A reader that closes the pipe ends the program
//! quietly.

mod exit;
mod interrupt;
mod log;
mod progress;

pub use exit::{Exit, run};
pub use interrupt::Interrupt;
pub use log::{LogArgs, LogFormat};
pub use progress::{counter, of_bytes};

/// The text on exit codes that stands at the end of every binary's help.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  the input is damaged: it was read as far as it goes, and what is missing is said on stderr";
