//! `cargo xtask bench`: what the programs cost and give beside their peers, as tables for the guide.

mod capture;
mod infer;
mod measure;
mod replay;
mod train;
mod wire;

use cli::Exit;

pub use capture::{Flood, flood};

/// Figures are medians of interleaved runs, ratios come from runs side by side, and the machine is named.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Packets by `capture record`: kernel time, throughput, loss, processor time, bytes on disk, memory
    Capture(capture::Args),
    /// Verdicts by `infer`: delay from fault to webhook, false alarms, processor time, memory
    Infer(infer::Args),
    /// Features by `replay` beside libpcap, softflowd and nfstream: processor time, wall time, memory
    Replay(replay::Args),
    /// Models by `train`: fitting and predicting beside scikit-learn
    Train(train::Args),
}

pub fn run(bench: &Bench) -> anyhow::Result<Exit> {
    match bench {
        Bench::Capture(args) => capture::run(args),
        Bench::Infer(args) => infer::run(args),
        Bench::Replay(args) => replay::run(args),
        Bench::Train(args) => train::run(args),
    }
}
