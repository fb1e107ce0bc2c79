//! Logs on stderr, for people or for machines.

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text each.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The logging flags; flatten them into a binary's arguments and call [`LogArgs::init`] first thing.
#[derive(Clone, Debug, Default, Args)]
pub struct LogArgs {
    /// How log lines on stderr are written
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = "Logging")]
    pub log_format: LogFormat,

    /// Log less (-q: warnings and errors only; -qq: errors only)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Logging")]
    pub quiet: u8,

    /// Log more (-v: debug, -vv: trace); RUST_LOG overrides both
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet",
          help_heading = "Logging")]
    pub verbose: u8,
}

impl LogArgs {
    /// Sends the program's log lines to stderr from now on.
    pub fn init(&self) {
        let level = match (self.quiet, self.verbose) {
            (0, 0) => "info",
            (1, _) => "warn",
            (2.., _) => "error",
            (_, 1) => "debug",
            (_, 2..) => "trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        // A second call in one process (a test) leaves the first in force.
        let _ = match self.log_format {
            LogFormat::Json => lines.json().flatten_event(true).try_init(),
            LogFormat::Text => {
                lines.with_target(false).without_time().with_ansi(io::stderr().is_terminal()).try_init()
            }
        };
    }
}
