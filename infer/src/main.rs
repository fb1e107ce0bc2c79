//! `infer`: run a model on what a node sees, and call for repair.

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = infer::Cli::read();
    cli.log.init();
    cli::run(|| infer::execute(&cli))
}
