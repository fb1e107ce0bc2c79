//! MODEL -> VERDICT -> WEBHOOK: the features of each flow and window are judged by a model, the verdicts of many
//! windows make an incident, a policy decides what is done about it, and receivers are told.
//!
//! The way of the data is the list of the modules. Up to the notification everything runs in event time and is
//! a function of the input alone; the wall clock begins with the delivery.

mod args;
mod backtest;
mod commands;
mod run;

mod live;
mod source;

pub mod pipeline;

pub mod classify;
pub mod verdict;

pub mod incident;

pub mod policy;

pub mod notify;

pub mod deliver;
mod receivers;

pub mod audit;
mod observe;
mod sink;

mod time;

pub use args::Cli;

/// Does what the command line says.
///
/// # Errors
/// What kept it from doing so.
pub fn execute(cli: &Cli) -> anyhow::Result<cli::Exit> {
    use args::Command;
    match &cli.command {
        None => run::run(&cli.run),
        Some(Command::Policy(command)) => commands::policy(command),
        Some(Command::Backtest(args)) => backtest::backtest(args),
        Some(Command::Dlq(command)) => commands::dlq(command),
        Some(Command::Webhook(command)) => commands::webhook(command),
        Some(Command::Audit(command)) => commands::audit(command),
    }
}
