//! `capture`: writes down what a node saw.

mod command;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = command::Arguments::parse();
    arguments.log.init();
    cli::run(|| arguments.command.run())
}
