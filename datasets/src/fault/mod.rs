//! The faults, one file each: how it is made, what proves it, and which flows it affects.

mod backlog_overflow;
mod connection_churn;
mod cpu_throttling;
mod crowd;
mod disk_saturation;
mod dns_failures;
mod http_errors;
mod latency_jitter;
mod memory_pressure;
mod netem;
mod normal;
mod packet_loss;
mod syn_flood;
mod zero_window;

use crowd::Crowd;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use event::Fault;
use features::Feature;
use serde::{Deserialize, Serialize};

use crate::draw::Draw;
use crate::evidence::Evidence;
use crate::scene::Scene;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Somebody may notice
    Low,
    /// Users complain
    Medium,
    /// The service is as good as down
    High,
}

impl Severity {
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// The one of three that belongs to this severity.
    pub fn of<T>(self, [low, medium, high]: [T; 3]) -> T {
        match self {
            Self::Low => low,
            Self::Medium => medium,
            Self::High => high,
        }
    }
}

/// How much of which variant of a fault.
pub struct Dose {
    pub severity: Severity,
    /// One of the recipe's mechanisms.
    pub mechanism: &'static str,
    pub draw: Draw,
    /// The fault ends by itself after this time, whatever happens to the lab.
    pub limit: Duration,
}

/// A fault that is on.
pub trait Injection {
    /// Ends the fault, puts back what it changed, and tells what proves that it was there.
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence>;
}

/// All that there is to know about a fault.
pub struct Recipe {
    pub fault: Fault,
    /// Different causes of the same fault; the first is the default.
    pub mechanisms: &'static [&'static str],
    /// Mechanisms that not every kernel has; a campaign leaves them out.
    pub optional: &'static [&'static str],
    /// The flows that the fault affects: `PROTOCOL/ADDRESS:PORT` of the server's side, `*` for any, and after a
    /// `?` a condition on a feature of the row. All other rows of the run carry label 0.
    pub affected: &'static [&'static str],
    /// What each labelled window must show, in one affected row at least: one of these features, from this value
    /// on.
    pub shows: &'static [(Feature, f64)],
    /// Reasons of the kernel's drops by which the lab itself drops packets. Where a network loses packets, the
    /// node is not told: these events are counted and left out of the recording, or a model would learn the lab.
    pub own_drops: &'static [&'static str],
    pub inject: fn(&mut Scene, Dose) -> Result<Box<dyn Injection>>,
}

/// In the order of the faults' numbers.
const RECIPES: [Recipe; Fault::ALL.len()] = [
    normal::RECIPE,
    cpu_throttling::RECIPE,
    packet_loss::RECIPE,
    latency_jitter::RECIPE,
    syn_flood::RECIPE,
    memory_pressure::RECIPE,
    disk_saturation::RECIPE,
    backlog_overflow::RECIPE,
    zero_window::RECIPE,
    connection_churn::RECIPE,
    dns_failures::RECIPE,
    http_errors::RECIPE,
];

impl Recipe {
    pub fn of(fault: Fault) -> &'static Self {
        &RECIPES[fault as usize]
    }

    /// The mechanism of that name, or the first one.
    pub fn mechanism(&self, name: Option<&str>) -> Result<&'static str> {
        let Some(name) = name else { return Ok(self.mechanisms[0]) };
        let all = || self.mechanisms.iter().chain(self.optional);
        match all().find(|mechanism| **mechanism == name) {
            Some(mechanism) => Ok(mechanism),
            None => {
                let names: Vec<&str> = all().copied().collect();
                bail!("{} has no mechanism `{name}`; it has {}", self.fault, names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_recipe_and_a_mechanism() {
        for fault in Fault::ALL {
            assert_eq!(Recipe::of(fault).fault, fault);
            assert!(Recipe::of(fault).mechanism(None).is_ok());
            assert_eq!(Recipe::of(fault).affected.is_empty(), fault == Fault::Normal);
        }
        let error = Recipe::of(Fault::PacketLoss).mechanism(Some("gremlins")).unwrap_err();
        assert!(error.to_string().contains("random, bursty"));
    }
}
