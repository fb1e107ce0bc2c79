//! MODEL -> VERDICT -> WEBHOOK: the features of each flow and window are judged by a model, the verdicts of many
//! windows make an incident, a policy decides what is done about it, and receivers are told.
//!
//! The way of the data is the list of the modules. Up to the notification everything runs in event time and is
//! a function of the input alone; the wall clock begins with the delivery.

mod args;
mod run;

mod source;

mod pipeline;

mod classify;
pub mod verdict;

pub mod incident;

pub mod policy;

pub mod notify;

pub mod deliver;
mod receivers;

mod time;

pub use args::Cli;
pub use run::run;
