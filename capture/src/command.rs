//! The command line: one file per subcommand.

mod cut;
mod doctor;
mod import;
mod info;
mod mark;
mod merge;
mod record;
mod recover;
mod verify;

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
    Record(Box<record::Record>),
    Import(import::Import),
    Info(info::Info),
    Verify(verify::Verify),
    Recover(recover::Recover),
    Cut(cut::Cut),
    Merge(merge::Merge),
    Mark(mark::Mark),
    Dump(mark::Dump),
    Doctor(doctor::Doctor),
}

impl Command {
    pub fn run(&self) -> anyhow::Result<Exit> {
        match self {
            Self::Import(import) => import.run(),
            Self::Info(info) => info.run(),
            Self::Verify(verify) => verify.run(),
            Self::Recover(recover) => recover.run(),
            Self::Cut(cut) => cut.run(),
            Self::Merge(merge) => merge.run(),
            Self::Mark(mark) => mark.run(),
            Self::Dump(dump) => dump.run(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Record(record) => record.run(),
        }
    }
}
