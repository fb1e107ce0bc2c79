//! `replay`: recordings and captures to rows of features.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = replay::args::Args::parse();
    args.log.init();
    cli::run(|| replay::run(&args))
}
