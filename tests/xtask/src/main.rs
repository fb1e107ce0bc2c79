//! `cargo xtask`: what a developer of Faultline runs.

mod bench;
mod demo;
mod ebpf;
mod fuzz;
mod models;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// The project's own tasks
#[derive(Parser)]
#[command(name = "cargo xtask", after_help = cli::EXIT_CODES)]
enum Task {
    /// Measure the programs beside their peers
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Show the whole way from recording to webhook
    Demo(demo::Args),
    /// Rebuild the kernel programs that capture embeds, or check that they are what their sources give
    Ebpf(ebpf::Args),
    /// Run the fuzz targets of every parser for a while
    Fuzz(fuzz::Args),
    /// Fit the committed models again, from the committed recordings
    Models(models::Args),
    /// Run all tests, and say which were left out for want of what
    Test(test::Args),
    /// Run the live tests in a guest with Debian's kernel
    Vm(vm::Args),
    /// Part of the benchmark of capture
    #[command(hide = true)]
    Flood(bench::Flood),
    /// Part of the demo's live round
    #[command(hide = true)]
    Receive(demo::Receive),
}

fn main() -> ExitCode {
    cli::run(|| match Task::parse() {
        Task::Bench(bench) => bench::run(&bench),
        Task::Demo(args) => demo::run(&args),
        Task::Ebpf(args) => ebpf::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Models(args) => models::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Flood(args) => bench::flood(&args),
        Task::Receive(args) => demo::receive(&args),
    })
}
