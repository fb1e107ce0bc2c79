//! What is done about each change: who is told, whether an action is asked for, and if not, why.

use std::collections::{BTreeMap, BTreeSet};

use event::{Duration, Label, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Ledger, Mode, Policy, Refusal, Severity};
use crate::incident::{Change, Event, Incident, State, Target};

/// What becomes of the action that a route names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionState {
    /// It is asked for, and not to be carried out after this.
    Requested {
        expires: Timestamp,
    },
    /// It waits for a person.
    Proposed,
    /// It would be asked for, if the mode were another.
    WouldRequest,
    Refused(Refusal),
}

/// One change on one route.
#[derive(Clone, Debug)]
pub struct Decision {
    pub change: Change,
    pub incident: Incident,
    pub severity: Severity,
    pub mode: Mode,
    /// Place of the route in the policy.
    pub route: usize,
    /// Name of the action, its idempotency key, and what becomes of it.
    pub action: Option<(String, String, ActionState)>,
    /// 0 when it is told first; counts reminders.
    pub repetition: u32,
}

/// An action that waits for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    pub action: String,
    pub incident: String,
    pub target: Target,
    #[serde(with = "crate::verdict::label")]
    pub label: Label,
    route: usize,
}

/// When a route last told of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    at_ns: i64,
    repetition: u32,
}

/// What a decider remembers over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    ledger: Ledger,
    /// By incident, then by route.
    told: BTreeMap<String, BTreeMap<usize, Told>>,
    proposals: BTreeMap<String, Proposal>,
}

/// Decides, by a policy.
pub struct Decider {
    policy: Policy,
    /// Goes no further than this, whatever the policy says.
    limit: Mode,
    /// Targets that are this program or its receivers.
    own: BTreeSet<String>,
    memory: Memory,
}

impl Decider {
    pub fn new(policy: Policy, limit: Mode, own: BTreeSet<String>) -> Self {
        Self { policy, limit, own, memory: Memory::default() }
    }

    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Another policy from now on. The ledger stays, and so does what was told.
    pub fn set_policy(&mut self, policy: Policy) {
        // Proposals name places in the old file; a person is asked again when the incident fires again.
        self.memory.proposals.clear();
        self.policy = policy;
    }

    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    pub fn restore(&mut self, memory: Memory) {
        self.memory = memory;
    }

    pub const fn proposals(&self) -> &BTreeMap<String, Proposal> {
        &self.memory.proposals
    }

    /// Ends the quarantine of a target; false where there was none.
    pub fn clear(&mut self, target: &str) -> bool {
        self.memory.ledger.clear(target)
    }

    /// Decides on the changes of a window that ends at `at`, and on reminders about what still fires.
    pub fn decide<'i>(
        &mut self,
        events: &[Event],
        current: impl IntoIterator<Item = &'i Incident>,
        at: Timestamp,
        is_storm: bool,
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for event in events {
            let Event::Incident { change, announced: true, incident } = event else { continue };
            for route in self.policy.routes_of(incident.label, incident.target.namespace()) {
                decisions.push(self.decide_one(*change, incident, route, at, is_storm));
            }
            if matches!(change, Change::Resolved | Change::Forgotten) {
                self.memory.told.remove(&incident.id);
                self.memory.proposals.retain(|_, proposal| proposal.incident != incident.id);
            }
        }
        for incident in current {
            if incident.state == State::Firing {
                self.remind(incident, at, &mut decisions);
            }
        }
        decisions
    }

    fn decide_one(
        &mut self,
        change: Change,
        incident: &Incident,
        route: usize,
        at: Timestamp,
        is_storm: bool,
    ) -> Decision {
        let mode = self.mode_of(route);
        let action = match (&self.policy.routes[route].action, change) {
            // Once, when it fires: never on a timer, and not again after it was stale or suppressed.
            (Some(name), Change::Fired) => {
                let (name, key) = (name.clone(), key_of(&incident.id, name));
                let state = self.act(&name, &key, incident, route, at, is_storm);
                Some((name, key, state))
            }
            _ => None,
        };
        let told = self.memory.told.entry(incident.id.clone()).or_default();
        told.insert(route, Told { at_ns: at.as_nanos(), repetition: 0 });
        let severity = self.policy.severity_of(incident.label);
        Decision { change, incident: incident.clone(), severity, mode, route, action, repetition: 0 }
    }

    fn mode_of(&self, route: usize) -> Mode {
        self.policy.mode_of(&self.policy.routes[route]).min(self.limit)
    }

    /// Whether the action is asked for. In dry-run too the ledger is charged, so that it tells what enforcing
    /// would have done, caps and cooldowns included.
    fn act(
        &mut self,
        name: &str,
        key: &str,
        incident: &Incident,
        route: usize,
        at: Timestamp,
        is_storm: bool,
    ) -> ActionState {
        if let Err(refusal) = self.check(&incident.target, incident.label, at, is_storm) {
            return ActionState::Refused(refusal);
        }
        let mode = self.mode_of(route);
        if mode == Mode::Approve {
            let proposal = Proposal {
                action: name.to_owned(),
                incident: incident.id.clone(),
                target: incident.target.clone(),
                label: incident.label,
                route,
            };
            self.memory.proposals.insert(key.to_owned(), proposal);
            return ActionState::Proposed;
        }
        self.memory.ledger.charge(&incident.target, incident.label, at, &self.policy.actions);
        match mode {
            Mode::DryRun => ActionState::WouldRequest,
            Mode::Approve | Mode::Enforce => ActionState::Requested { expires: self.expiry(at) },
        }
    }

    fn check(&self, target: &Target, label: Label, at: Timestamp, is_storm: bool) -> Result<(), Refusal> {
        if is_storm {
            return Err(Refusal::Storm);
        }
        if self.own.contains(&target.to_string()) {
            return Err(Refusal::Oneself);
        }
        self.memory.ledger.check(target, label, at, &self.policy.actions)
    }

    fn expiry(&self, at: Timestamp) -> Timestamp {
        at + Duration::from_nanos(i64::try_from(self.policy.actions.expires.as_nanos()).unwrap_or(i64::MAX))
    }

    /// A person agreed to a proposal at `at`; the bounds hold now as they would have then. Nothing where there is
    /// no such proposal, or its incident is over.
    pub fn approve<'i>(
        &mut self,
        key: &str,
        current: impl IntoIterator<Item = &'i Incident>,
        at: Timestamp,
        is_storm: bool,
    ) -> Option<Decision> {
        let proposal = self.memory.proposals.get(key)?.clone();
        let incident = current
            .into_iter()
            .find(|incident| incident.id == proposal.incident && incident.state == State::Firing)?;
        self.memory.proposals.remove(key);
        let state = match self.check(&incident.target, incident.label, at, is_storm) {
            Err(refusal) => ActionState::Refused(refusal),
            Ok(()) => {
                self.memory.ledger.charge(&incident.target, incident.label, at, &self.policy.actions);
                ActionState::Requested { expires: self.expiry(at) }
            }
        };
        Some(Decision {
            change: Change::Fired,
            incident: incident.clone(),
            severity: self.policy.severity_of(incident.label),
            mode: Mode::Approve,
            route: proposal.route,
            action: Some((proposal.action, key.to_owned(), state)),
            repetition: 0,
        })
    }

    fn remind(&mut self, incident: &Incident, at: Timestamp, decisions: &mut Vec<Decision>) {
        let Some(told) = self.memory.told.get_mut(&incident.id) else { return };
        for (route, told) in told {
            let Some(repeat) = self.policy.routes.get(*route).and_then(|route| route.repeat) else {
                continue;
            };
            let since = (at - Timestamp::from_nanos(told.at_ns)).as_nanos();
            if u128::try_from(since).unwrap_or_default() < repeat.as_nanos() {
                continue;
            }
            *told = Told { at_ns: at.as_nanos(), repetition: told.repetition + 1 };
            decisions.push(Decision {
                change: Change::Fired,
                incident: incident.clone(),
                severity: self.policy.severity_of(incident.label),
                mode: self.policy.mode_of(&self.policy.routes[*route]).min(self.limit),
                route: *route,
                action: None,
                repetition: told.repetition,
            });
        }
    }
}

/// The same for every message that asks for this action about this incident.
fn key_of(incident: &str, action: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(incident.as_bytes());
    hash.update([0]);
    hash.update(action.as_bytes());
    let hex: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("act_{hex}")
}

#[cfg(test)]
mod tests {
    use event::Fault;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{ActionBounds, ReceiverSettings, Route};
    use crate::verdict::{Finding, Judge};

    fn incident(number: u32, target: &Target, state: State) -> Incident {
        Incident {
            id: format!("incident-{number}"),
            fingerprint: String::new(),
            node: "n1".to_owned(),
            target: target.clone(),
            label: Fault::PacketLoss.into(),
            state,
            suppression: None,
            opened: Timestamp::UNIX_EPOCH,
            changed: Timestamp::UNIX_EPOCH,
            sequence: 1,
            finding: Finding {
                window: Timestamp::UNIX_EPOCH,
                flow_id: String::new(),
                flow: String::new(),
                confidence: 0.9,
                runner_up: Label::NORMAL,
                runner_up_confidence: 0.1,
                judge: Judge { name: String::new(), hash: String::new() },
                features: Vec::new(),
            },
            rows: 3,
            answered: 3,
        }
    }

    fn policy(mode: Mode) -> Policy {
        Policy {
            mode,
            actions: ActionBounds { namespaces: vec!["*".to_owned()], ..ActionBounds::default() },
            receivers: [("ops".to_owned(), ReceiverSettings::default())].into(),
            routes: vec![Route {
                receivers: vec!["ops".to_owned()],
                action: Some("restart".to_owned()),
                repeat: Some(std::time::Duration::from_secs(3600)),
                ..Route::default()
            }],
            ..Policy::default()
        }
    }

    fn decider(mode: Mode) -> Decider {
        Decider::new(policy(mode), Mode::Enforce, BTreeSet::new())
    }

    fn pod(number: usize) -> Target {
        Target::Pod { namespace: "shop".to_owned(), pod: format!("web{number}-0") }
    }

    fn event(change: Change, incident: &Incident) -> Event {
        Event::Incident { change, announced: true, incident: Box::new(incident.clone()) }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_secs(minute * 60)
    }

    fn state(decision: &Decision) -> Option<&ActionState> {
        decision.action.as_ref().map(|(_, _, state)| state)
    }

    #[test]
    fn an_action_is_asked_for_once_and_reminders_ask_for_nothing() {
        let mut decider = decider(Mode::Enforce);
        let firing = incident(1, &pod(1), State::Firing);
        let first = decider.decide(&[event(Change::Fired, &firing)], [&firing], at(0), false);
        assert_eq!(first.len(), 1);
        assert_eq!(state(&first[0]), Some(&ActionState::Requested { expires: at(5) }));
        assert!(decider.decide(&[], [&firing], at(59), false).is_empty());
        let reminder = decider.decide(&[], [&firing], at(60), false);
        assert_eq!((reminder.len(), reminder[0].repetition, state(&reminder[0])), (1, 1, None));
        let resumed = decider.decide(&[event(Change::Resumed, &firing)], [&firing], at(61), false);
        assert_eq!(state(&resumed[0]), None);
    }

    #[test]
    fn a_storm_or_ones_own_target_stops_actions() {
        let own = [pod(1).to_string()].into();
        let mut decider = Decider::new(policy(Mode::Enforce), Mode::Enforce, own);
        let mut ask = |target: &Target, is_storm| {
            let firing = incident(1, target, State::Firing);
            let decisions = decider.decide(&[event(Change::Fired, &firing)], [&firing], at(0), is_storm);
            state(&decisions[0]).cloned()
        };
        assert_eq!(ask(&pod(1), false), Some(ActionState::Refused(Refusal::Oneself)));
        assert_eq!(ask(&pod(2), true), Some(ActionState::Refused(Refusal::Storm)));
    }

    #[test]
    fn an_approved_action_is_asked_for_while_the_incident_fires() {
        let mut decider = decider(Mode::Approve);
        let firing = incident(1, &pod(1), State::Firing);
        let first = decider.decide(&[event(Change::Fired, &firing)], [&firing], at(0), false);
        assert_eq!(state(&first[0]), Some(&ActionState::Proposed));
        let key = first[0].action.as_ref().unwrap().1.clone();
        assert!(decider.approve("act_other", [&firing], at(1), false).is_none());
        let approved = decider.approve(&key, [&firing], at(1), false).unwrap();
        assert_eq!(state(&approved), Some(&ActionState::Requested { expires: at(6) }));
        assert!(decider.approve(&key, [&firing], at(2), false).is_none(), "approved twice");
        let second = incident(2, &pod(2), State::Firing);
        let proposed = decider.decide(&[event(Change::Fired, &second)], [&second], at(0), false);
        let key = proposed[0].action.as_ref().unwrap().1.clone();
        let over = incident(2, &pod(2), State::Resolved);
        decider.decide(&[event(Change::Resolved, &over)], [], at(3), false);
        assert!(decider.approve(&key, [&over], at(4), false).is_none());
    }

    #[test]
    fn a_recording_is_never_acted_on() {
        let mut decider = Decider::new(policy(Mode::Enforce), Mode::DryRun, BTreeSet::new());
        let firing = incident(1, &pod(1), State::Firing);
        let decisions = decider.decide(&[event(Change::Fired, &firing)], [&firing], at(0), false);
        assert_eq!(state(&decisions[0]), Some(&ActionState::WouldRequest));
    }

    proptest! {
        /// In dry-run nothing is ever asked for; in any mode no more than the node's cap within an hour.
        #[test]
        fn it_never_acts_in_dry_run_nor_beyond_the_caps(
            mode in prop_oneof![Just(Mode::DryRun), Just(Mode::Approve), Just(Mode::Enforce)],
            steps in prop::collection::vec((0usize..8, 0i64..20, any::<bool>(), any::<bool>()), 1..120),
        ) {
            let mut decider = decider(mode);
            let (mut minute, mut asked) = (0, Vec::new());
            for (number, (place, pause, is_storm, approves)) in steps.into_iter().enumerate() {
                minute += pause;
                let firing = incident(u32::try_from(number).unwrap(), &pod(place), State::Firing);
                let mut decisions =
                    decider.decide(&[event(Change::Fired, &firing)], [&firing], at(minute), is_storm);
                if approves {
                    let keys: Vec<String> = decider.proposals().keys().cloned().collect();
                    decisions.extend(keys.iter().filter_map(|key| {
                        decider.approve(key, [&firing], at(minute), is_storm)
                    }));
                }
                for decision in &decisions {
                    if matches!(state(decision), Some(ActionState::Requested { .. })) {
                        prop_assert!(mode != Mode::DryRun && !is_storm);
                        asked.push(minute);
                    }
                }
                let recent = asked.iter().filter(|then| minute - **then < 60).count();
                prop_assert!(recent <= decider.policy().actions.per_node_per_hour as usize);
            }
        }
    }
}
