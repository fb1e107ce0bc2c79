//! The bounds of what is done: a ledger of what was asked for, and whether one more is allowed.

use std::collections::{BTreeMap, VecDeque};

use event::{Duration, Label, Timestamp};
use serde::{Deserialize, Serialize};

use super::ActionBounds;
use crate::incident::Target;
use crate::time;

const HOUR: Duration = Duration::from_secs(3600);

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("too many targets are faulty at once")]
    Storm,
    #[error("the target is infer itself, or one of its receivers")]
    Oneself,
    #[error("the target is on the deny list")]
    TargetDenied,
    #[error("namespace {0} is on the deny list")]
    NamespaceDenied(String),
    #[error("namespace {0} is not among those where something may be done")]
    NamespaceNotAllowed(String),
    #[error("the target is no pod, and `hosts` is not allowed")]
    NoPod,
    #[error("in quarantine after {0} attempts, until it is cleared")]
    Quarantined(u32),
    #[error("left alone until {}", time::to_rfc3339(*.0))]
    Cooldown(Timestamp),
    #[error("{0} actions for this workload within an hour are enough")]
    WorkloadCap(u32),
    #[error("{0} actions on this node within an hour are enough")]
    NodeCap(u32),
}

impl Refusal {
    /// A short name for counters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Storm => "storm",
            Self::Oneself => "self",
            Self::TargetDenied => "target-denied",
            Self::NamespaceDenied(_) => "namespace-denied",
            Self::NamespaceNotAllowed(_) => "namespace-not-allowed",
            Self::NoPod => "no-pod",
            Self::Quarantined(_) => "quarantined",
            Self::Cooldown(_) => "cooldown",
            Self::WorkloadCap(_) => "workload-cap",
            Self::NodeCap(_) => "node-cap",
        }
    }
}

/// What was asked for about one target and fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    attempts: u32,
    last_ns: i64,
}

/// What was asked for, as far back as a bound looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// By target and label.
    records: Vec<((Target, u16), Record)>,
    /// Times of the last hour, by workload, and on the node.
    workloads: BTreeMap<String, VecDeque<i64>>,
    node: VecDeque<i64>,
}

impl Ledger {
    /// Whether an action about a target may be asked for at `at`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        target: &Target,
        label: Label,
        at: Timestamp,
        bounds: &ActionBounds,
    ) -> Result<(), Refusal> {
        check_target(target, bounds)?;
        let record = self.record(target, label, at, bounds);
        if record.attempts >= bounds.attempts {
            return Err(Refusal::Quarantined(record.attempts));
        }
        if record.attempts > 0 {
            let until = Timestamp::from_nanos(record.last_ns) + cooldown(bounds, record.attempts);
            if at < until {
                return Err(Refusal::Cooldown(until));
            }
        }
        let recent = |times: &VecDeque<i64>| {
            times.iter().filter(|time| at - Timestamp::from_nanos(**time) < HOUR).count()
        };
        let workload = self.workloads.get(&target.workload()).map_or(0, recent);
        if workload >= bounds.per_workload_per_hour as usize {
            return Err(Refusal::WorkloadCap(bounds.per_workload_per_hour));
        }
        if recent(&self.node) >= bounds.per_node_per_hour as usize {
            return Err(Refusal::NodeCap(bounds.per_node_per_hour));
        }
        Ok(())
    }

    /// Writes down that an action was asked for.
    pub fn charge(&mut self, target: &Target, label: Label, at: Timestamp, bounds: &ActionBounds) {
        let attempts = self.record(target, label, at, bounds).attempts + 1;
        let record = Record { attempts, last_ns: at.as_nanos() };
        match self.place(target, label) {
            Ok(place) => self.records[place].1 = record,
            Err(place) => self.records.insert(place, ((target.clone(), label.0), record)),
        }
        let old = |time: &i64| at - Timestamp::from_nanos(*time) >= HOUR;
        let workload = self.workloads.entry(target.workload()).or_default();
        workload.push_back(at.as_nanos());
        self.node.push_back(at.as_nanos());
        self.node.retain(|time| !old(time));
        self.workloads.retain(|_, times| {
            times.retain(|time| !old(time));
            !times.is_empty()
        });
    }

    /// Ends the quarantine of a target, for every fault; false where there was none.
    pub fn clear(&mut self, target: &str) -> bool {
        let before = self.records.len();
        self.records.retain(|((known, _), _)| known.to_string() != target);
        self.records.len() < before
    }

    fn place(&self, target: &Target, label: Label) -> Result<usize, usize> {
        self.records.binary_search_by(|((known, number), _)| (known, number).cmp(&(target, &label.0)))
    }

    fn record(&self, target: &Target, label: Label, at: Timestamp, bounds: &ActionBounds) -> Record {
        let Ok(place) = self.place(target, label) else { return Record::default() };
        let record = self.records[place].1;
        let idle = at - Timestamp::from_nanos(record.last_ns);
        let is_old = record.attempts < bounds.attempts && idle >= span(bounds.forget);
        if is_old { Record::default() } else { record }
    }
}

fn check_target(target: &Target, bounds: &ActionBounds) -> Result<(), Refusal> {
    if bounds.deny_targets.iter().any(|denied| *denied == target.to_string()) {
        return Err(Refusal::TargetDenied);
    }
    let Target::Pod { namespace, .. } = target else {
        return if bounds.hosts { Ok(()) } else { Err(Refusal::NoPod) };
    };
    if bounds.deny_namespaces.contains(namespace) {
        return Err(Refusal::NamespaceDenied(namespace.clone()));
    }
    if !bounds.namespaces.iter().any(|allowed| allowed == "*" || allowed == namespace) {
        return Err(Refusal::NamespaceNotAllowed(namespace.clone()));
    }
    Ok(())
}

/// Doubles with each attempt.
fn cooldown(bounds: &ActionBounds, attempts: u32) -> Duration {
    span(bounds.cooldown.saturating_mul(1 << attempts.saturating_sub(1).min(16)))
}

fn span(duration: std::time::Duration) -> Duration {
    Duration::from_nanos(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use event::Fault;
    use proptest::prelude::*;

    use super::*;

    fn bounds() -> ActionBounds {
        ActionBounds { namespaces: vec!["*".to_owned()], ..ActionBounds::default() }
    }

    fn pod(name: &str) -> Target {
        Target::Pod { namespace: "shop".to_owned(), pod: name.to_owned() }
    }

    const LOSS: Label = Label(Fault::PacketLoss as u16);

    #[test]
    fn cooldown_doubles_and_quarantine_lasts_until_it_is_cleared() {
        let (mut ledger, bounds) = (Ledger::default(), ActionBounds { attempts: 3, ..bounds() });
        let at = |minute: i64| Timestamp::from_secs(minute * 60);
        let web = pod("web-0");
        let ask = |ledger: &mut Ledger, minute: i64| {
            let answer = ledger.check(&web, LOSS, at(minute), &bounds);
            if answer.is_ok() {
                ledger.charge(&web, LOSS, at(minute), &bounds);
            }
            answer
        };
        assert_eq!(ask(&mut ledger, 0), Ok(()));
        assert_eq!(ask(&mut ledger, 9), Err(Refusal::Cooldown(at(10))));
        assert_eq!(ask(&mut ledger, 10), Ok(()));
        assert_eq!(ask(&mut ledger, 29), Err(Refusal::Cooldown(at(30))));
        assert_eq!(ask(&mut ledger, 61), Ok(()));
        assert_eq!(ask(&mut ledger, 10_000), Err(Refusal::Quarantined(3)));
        assert!(ledger.clear("pod/shop/web-0") && !ledger.clear("pod/shop/web-0"));
        assert_eq!(ask(&mut ledger, 10_000), Ok(()));
    }

    #[test]
    fn nothing_is_done_where_it_is_not_allowed() {
        let ledger = Ledger::default();
        let check = |target: &Target, bounds: &ActionBounds| {
            ledger.check(target, LOSS, Timestamp::UNIX_EPOCH, bounds)
        };
        let system = Target::Pod { namespace: "kube-system".to_owned(), pod: "dns".to_owned() };
        assert_eq!(check(&system, &bounds()), Err(Refusal::NamespaceDenied("kube-system".to_owned())));
        assert_eq!(
            check(&pod("web-0"), &ActionBounds::default()),
            Err(Refusal::NamespaceNotAllowed("shop".to_owned()))
        );
        assert_eq!(check(&Target::Node, &bounds()), Err(Refusal::NoPod));
        assert_eq!(check(&Target::Node, &ActionBounds { hosts: true, ..bounds() }), Ok(()));
        let denied = ActionBounds { deny_targets: vec!["pod/shop/web-0".to_owned()], ..bounds() };
        assert_eq!(check(&pod("web-0"), &denied), Err(Refusal::TargetDenied));
    }

    proptest! {
        /// Whatever is asked for and when: within any hour neither cap is exceeded, and no target is acted on
        /// during its cooldown or beyond its attempts.
        #[test]
        fn no_bound_is_ever_exceeded(
            asks in prop::collection::vec((0usize..6, 0i64..1800), 1..200),
            per_workload in 1u32..4, per_node in 1u32..8, attempts in 1u32..4,
        ) {
            let bounds = ActionBounds {
                per_workload_per_hour: per_workload, per_node_per_hour: per_node, attempts, ..bounds()
            };
            // Two pods of one workload each, so that the cap of the workload is met.
            let pods: Vec<Target> = (0..6).map(|place| pod(&format!("w{}-{}", place / 2, place % 2))).collect();
            let mut ledger = Ledger::default();
            let mut done: Vec<(i64, usize)> = Vec::new();
            let mut now = 0;
            for (place, pause) in asks {
                now += pause;
                let at = Timestamp::from_secs(now);
                if ledger.check(&pods[place], LOSS, at, &bounds).is_ok() {
                    ledger.charge(&pods[place], LOSS, at, &bounds);
                    if let Some((last, _)) = done.iter().rev().find(|(_, other)| *other == place) {
                        prop_assert!(now - last >= 600, "acted during the cooldown");
                    }
                    done.push((now, place));
                }
                let recent = |fits: &dyn Fn(usize) -> bool| {
                    done.iter().filter(|(time, place)| now - time < 3600 && fits(*place)).count()
                };
                prop_assert!(recent(&|_| true) <= per_node as usize);
                prop_assert!(recent(&|other| other / 2 == place / 2) <= per_workload as usize);
            }
            let quarantined = ledger.records.iter().filter(|(_, record)| record.attempts > attempts).count();
            prop_assert_eq!(quarantined, 0);
        }
    }
}
