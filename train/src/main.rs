//! `train`: feature rows in, model file out.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = train::Args::parse();
    args.log.init();
    cli::run(|| train::run(&args))
}
