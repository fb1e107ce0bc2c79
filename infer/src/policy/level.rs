//! How far a policy goes, and how grave a fault is.

use event::{Fault, Label};
use serde::{Deserialize, Serialize};

/// How far it goes; each includes what stands before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Tells what it would do, and asks for nothing.
    #[default]
    DryRun,
    /// Asks for an action after a person has agreed.
    Approve,
    /// Asks for actions.
    Enforce,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::DryRun => "dry-run",
            Self::Approve => "approve",
            Self::Enforce => "enforce",
        }
    }
}

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Warning,
    Critical,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// What is usual: critical where requests of most clients fail, or soon will.
    pub fn usual(label: Label) -> Self {
        match label.fault() {
            Some(
                Fault::SynFlood
                | Fault::MemoryPressure
                | Fault::DiskSaturation
                | Fault::BacklogOverflow
                | Fault::DnsFailures
                | Fault::HttpErrors,
            ) => Self::Critical,
            _ => Self::Warning,
        }
    }
}
