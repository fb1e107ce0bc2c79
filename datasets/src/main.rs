//! The fault lab: makes real faults between network namespaces, proves them, and records them.

mod campaign;
mod cgroup;
mod check;
mod command;
mod counters;
mod disk;
mod doctor;
mod draw;
mod evidence;
mod fault;
mod load;
mod manifest;
mod node;
mod process;
mod proof;
mod recorder;
mod run;
mod scene;
mod service;
mod topology;
mod witness;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let command = command::Lab::parse();
    command.log.init();
    cli::run(|| command.run())
}
