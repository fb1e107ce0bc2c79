//! The command line: one file per subcommand.

mod import;

use clap::{Parser, Subcommand};
use cli::{Exit, LogArgs};

/// Write down what a node saw, in one recording
#[derive(Debug, Parser)]
#[command(version, after_help = cli::EXIT_CODES)]
pub struct Arguments {
    #[command(flatten)]
    pub log: LogArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Import(import::Import),
}

impl Command {
    pub fn run(&self) -> anyhow::Result<Exit> {
        match self {
            Self::Import(import) => import.run(),
        }
    }
}
