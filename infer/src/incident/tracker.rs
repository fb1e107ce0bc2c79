//! Every target and fault that is not normal, window after window, and what changed.

use std::collections::BTreeMap;

use event::{Duration, Label, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::condition::HISTORY;
use super::{Condition, IncidentSettings, Observation, Storm, StormChange, StormSettings, Tally, Target};
use crate::time;
use crate::verdict::Finding;

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Some votes, not enough to say so.
    Pending,
    Firing,
    Resolved,
    /// It holds, and nothing is to be done about it: see [`Suppression`].
    Suppressed,
    /// It held when the data ended.
    Stale,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Firing, Self::Resolved, Self::Suppressed, Self::Stale];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Suppressed => "suppressed",
            Self::Stale => "stale",
        }
    }
}

/// Why nothing is to be done about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suppression {
    /// It comes and goes too often.
    Flapping,
    /// The node has a fault that explains those of its pods.
    Inhibited,
    /// Too many targets are faulty at once.
    Storm,
}

impl Suppression {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flapping => "flapping",
            Self::Inhibited => "inhibited",
            Self::Storm => "storm",
        }
    }
}

/// A fault that entered at a target and has not left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Unique; the same for every message about this incident.
    pub id: String,
    /// The same for every incident of this fault at this target of this node.
    pub fingerprint: String,
    pub node: String,
    pub target: Target,
    #[serde(with = "crate::verdict::label")]
    pub label: Label,
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suppression: Option<Suppression>,
    /// End of the window in which it entered, and of that in which its state last changed.
    #[serde(with = "time::rfc3339")]
    pub opened: Timestamp,
    #[serde(with = "time::rfc3339")]
    pub changed: Timestamp,
    /// Counts the changes; rises by one with each.
    pub sequence: u32,
    /// The strongest row of the latest window that voted for it.
    pub finding: Finding,
    /// Rows that named the fault, and rows with an answer, in that window.
    pub rows: u64,
    pub answered: u64,
}

/// What happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is firing for the first time.
    Fired,
    /// It is firing again after it was stale or suppressed.
    Resumed,
    Suppressed,
    Stale,
    Resolved,
    /// It was stale for so long that nobody waits for it any more.
    Forgotten,
}

impl Change {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Resumed => "resumed",
            Self::Suppressed => "suppressed",
            Self::Stale => "stale",
            Self::Resolved => "resolved",
            Self::Forgotten => "forgotten",
        }
    }
}

/// Something to tell, or at least to write down.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Incident {
        change: Change,
        /// Whether it fired, then or before; what never fired need not be reported as over.
        announced: bool,
        incident: Box<Incident>,
    },
    Storm {
        change: StormChange,
        at: Timestamp,
        targets: usize,
        faulty: usize,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Case {
    condition: Condition,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    incident: Option<Incident>,
    announced: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    latest: Option<(Finding, u64, u64)>,
}

/// What a tracker remembers, to be kept over a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    cases: Vec<(Target, u16, Case)>,
    storm: Storm,
    last_ns: Option<i64>,
}

/// The memory of all targets of one node.
#[derive(Debug)]
pub struct Tracker {
    node: String,
    length: Duration,
    settings: IncidentSettings,
    storm_settings: StormSettings,
    cases: BTreeMap<(Target, Label), Case>,
    storm: Storm,
    /// Start of the latest window that was taken.
    last: Option<Timestamp>,
}

impl Tracker {
    /// A tracker of windows of `length` on the node of that name.
    pub fn new(
        node: impl Into<String>,
        length: Duration,
        settings: IncidentSettings,
        storm_settings: StormSettings,
    ) -> Self {
        let (cases, storm) = (BTreeMap::new(), Storm::default());
        Self { node: node.into(), length, settings, storm_settings, cases, storm, last: None }
    }

    /// Other thresholds from the next window on; what is remembered stays.
    pub fn set_settings(&mut self, settings: IncidentSettings, storm_settings: StormSettings) {
        self.settings = settings;
        self.storm_settings = storm_settings;
    }

    /// What to keep over a restart.
    pub fn snapshot(&self) -> Snapshot {
        let cases = self.cases.iter();
        Snapshot {
            cases: cases.map(|((target, label), case)| (target.clone(), label.0, case.clone())).collect(),
            storm: self.storm.clone(),
            last_ns: self.last.map(Timestamp::as_nanos),
        }
    }

    /// Goes on where another run stopped. The windows between are windows without data.
    pub fn restore(&mut self, snapshot: Snapshot) {
        let cases = snapshot.cases.into_iter();
        self.cases = cases.map(|(target, label, case)| ((target, Label(label)), case)).collect();
        self.storm = snapshot.storm;
        self.last = snapshot.last_ns.map(Timestamp::from_nanos);
    }

    /// The incidents that are not over, and what may become one (pending), the node's first.
    pub fn current(&self) -> impl Iterator<Item = (&Target, Label, State, Option<&Incident>)> {
        self.cases.iter().map(|((target, label), case)| {
            let state = case.incident.as_ref().map_or(State::Pending, |incident| incident.state);
            (target, *label, state, case.incident.as_ref())
        })
    }

    pub const fn storm(&self) -> &Storm {
        &self.storm
    }

    /// Takes a window, and tells what changed. Windows come in order; those that are missing between count as
    /// windows without data. A window that lies far in the past (a clock was set back over a restart) begins
    /// a new count.
    pub fn window(&mut self, tally: &Tally) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(last) = self.last {
            let ahead = (tally.window - last).as_nanos() / self.length.as_nanos();
            if ahead <= 0 && ahead.unsigned_abs() <= HISTORY as u64 {
                // It was judged before the restart.
                return events;
            }
            let remembered = i64::from(self.settings.forget_windows) + 1;
            for missing in ahead.saturating_sub(remembered).max(1)..ahead {
                let window = last + Duration::from_nanos(missing * self.length.as_nanos());
                self.step(&Tally::new(window), true, &mut events);
            }
        }
        self.step(tally, false, &mut events);
        self.last = Some(tally.window);
        events
    }

    /// Takes one window. Of a window that was missed (a restart, most often) nothing is told: by now it is no news
    /// that there was no data then.
    fn step(&mut self, tally: &Tally, is_missed: bool, events: &mut Vec<Event>) {
        let at = tally.window + self.length;
        for (target, label, fault) in tally.votes(&self.settings) {
            let case = self.cases.entry((target.clone(), label)).or_insert_with(Case::new);
            let answered = tally.targets.get(target).map_or(0, |target| target.answered);
            case.latest = fault.strongest.clone().map(|finding| (finding, fault.rows, answered));
        }
        self.observe_storm(tally, at, events);
        // The node comes first in the order of targets, so that its faults are known before its pods'.
        let mut node_fault = false;
        for ((target, label), case) in &mut self.cases {
            let observation = tally.observation(target, *label, &self.settings);
            case.condition.observe(observation, &self.settings);
            let suppression = if case.condition.is_flapping() {
                Some(Suppression::Flapping)
            } else if *target != Target::Node && node_fault {
                Some(Suppression::Inhibited)
            } else if self.storm.is_active() {
                Some(Suppression::Storm)
            } else {
                None
            };
            let name = Name { node: &self.node, target, label: *label };
            if is_missed && case.condition.missing() < self.settings.forget_windows {
                continue;
            }
            case.settle(&name, observation, suppression, at, &self.settings, events);
            node_fault |= *target == Target::Node && case.is_firing();
        }
        self.cases.retain(|_, case| case.incident.is_some() || !case.condition.is_blank());
    }

    fn observe_storm(&mut self, tally: &Tally, at: Timestamp, events: &mut Vec<Event>) {
        if tally.is_lossy(&self.settings) {
            return;
        }
        let targets = tally.targets.keys().filter(|target| **target != Target::Node).count();
        let mut faulty: Vec<&Target> = tally
            .votes(&self.settings)
            .map(|vote| vote.0)
            .filter(|target| **target != Target::Node)
            .collect();
        faulty.dedup();
        let faulty = faulty.len();
        if let Some(change) = self.storm.observe(targets, faulty, &self.storm_settings) {
            events.push(Event::Storm { change, at, targets, faulty });
        }
    }
}

struct Name<'a> {
    node: &'a str,
    target: &'a Target,
    label: Label,
}

impl Case {
    fn new() -> Self {
        Self { condition: Condition::default(), incident: None, announced: false, latest: None }
    }

    fn is_firing(&self) -> bool {
        self.incident.as_ref().is_some_and(|incident| incident.state == State::Firing)
    }

    /// Brings the incident in line with the condition, and tells what changed.
    fn settle(
        &mut self,
        name: &Name<'_>,
        observation: Observation,
        suppression: Option<Suppression>,
        at: Timestamp,
        settings: &IncidentSettings,
        events: &mut Vec<Event>,
    ) {
        let forgotten = self.condition.missing() >= settings.forget_windows;
        let (state, suppression) = match (self.condition.holds(), observation) {
            (false, _) => (State::Resolved, None),
            (true, Observation::NoData) => (State::Stale, None),
            (true, _) if suppression.is_some() => (State::Suppressed, suppression),
            (true, _) => (State::Firing, None),
        };
        if self.condition.holds() && self.incident.is_none() {
            self.incident = self.latest.as_ref().map(|latest| name.open(latest, at));
        }
        let Some(incident) = &mut self.incident else { return };
        if let Some((finding, rows, answered)) = &self.latest {
            incident.finding.clone_from(finding);
            (incident.rows, incident.answered) = (*rows, *answered);
        }
        let change = match state {
            _ if forgotten => Change::Forgotten,
            State::Firing if self.announced => Change::Resumed,
            State::Firing => Change::Fired,
            State::Suppressed => Change::Suppressed,
            State::Stale => Change::Stale,
            State::Resolved | State::Pending => Change::Resolved,
        };
        let same = (incident.state, incident.suppression) == (state, suppression);
        if same && !forgotten {
            return;
        }
        (incident.state, incident.suppression) = (state, suppression);
        incident.changed = at;
        incident.sequence += 1;
        self.announced |= change == Change::Fired;
        let (announced, incident) = (self.announced, Box::new(incident.clone()));
        events.push(Event::Incident { change, announced, incident });
        if matches!(change, Change::Resolved | Change::Forgotten) {
            self.incident = None;
            self.announced = false;
        }
        if change == Change::Forgotten {
            self.condition = Condition::default();
        }
    }
}

impl Name<'_> {
    fn open(&self, latest: &(Finding, u64, u64), at: Timestamp) -> Incident {
        let fingerprint = self.fingerprint();
        let (finding, rows, answered) = latest.clone();
        Incident {
            id: format!("{fingerprint}-{}", at.as_nanos() / 1_000_000),
            fingerprint,
            node: self.node.to_owned(),
            target: self.target.clone(),
            label: self.label,
            // Not yet told to anybody: the first change follows at once.
            state: State::Pending,
            suppression: None,
            opened: at,
            changed: at,
            sequence: 0,
            finding,
            rows,
            answered,
        }
    }

    /// The first 64 bits of a SHA-256 over node, target and fault.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.node, &self.target.to_string(), &self.label.to_string()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use event::{Endpoint, Fault, FiveTuple, Protocol};
    use proptest::prelude::*;

    use super::*;
    use crate::verdict::{Answer, Judge, Verdict};

    const LENGTH: Duration = Duration::from_secs(5);

    fn verdict(window: i64, server: &str, fault: Fault, confidence: f32) -> Verdict {
        let client = Endpoint::new("198.18.0.2".parse().unwrap(), 40000);
        let server = Endpoint::new(server.parse().unwrap(), 80);
        Verdict {
            window: Timestamp::from_secs(window * 5),
            length: LENGTH,
            flow_id: "00000000".to_owned(),
            five_tuple: FiveTuple::new(client, server, Protocol::TCP),
            workload: None,
            answer: if fault == Fault::Normal { Answer::Normal } else { Answer::Fault },
            label: fault.into(),
            confidence,
            runner_up: Label::NORMAL,
            runner_up_confidence: 1.0 - confidence,
            judge: Arc::new(Judge { name: "test".to_owned(), hash: String::new() }),
            evidence: Vec::new(),
        }
    }

    /// A window in which each server has three rows of its fault.
    fn tally(window: i64, servers: &[(&str, Fault)]) -> Tally {
        let mut tally = Tally::new(Timestamp::from_secs(window * 5));
        tally.packets = 1000;
        for (server, fault) in servers {
            for place in 0..3 {
                tally.add(place, &verdict(window, server, *fault, 0.95));
            }
        }
        tally
    }

    fn tracker() -> Tracker {
        Tracker::new("n1", LENGTH, IncidentSettings::default(), StormSettings::default())
    }

    fn changes(events: &[Event]) -> Vec<(String, Change)> {
        let change = |event: &Event| match event {
            Event::Incident { change, incident, .. } => {
                Some((format!("{} {}", incident.label, incident.target), *change))
            }
            Event::Storm { .. } => None,
        };
        events.iter().filter_map(change).collect()
    }

    const A: &str = "198.18.1.2";
    const B: &str = "198.18.1.3";

    #[test]
    fn an_incident_fires_once_and_resolves_once() {
        let mut tracker = tracker();
        let mut seen = Vec::new();
        for window in 0..20 {
            let fault = if (2..8).contains(&window) { Fault::PacketLoss } else { Fault::Normal };
            for (what, change) in changes(&tracker.window(&tally(window, &[(A, fault), (B, Fault::Normal)])))
            {
                seen.push((window, what, change));
            }
        }
        let what = "packet-loss endpoint/198.18.1.2:80/6".to_owned();
        assert_eq!(seen, [(4, what.clone(), Change::Fired), (13, what, Change::Resolved)]);
    }

    #[test]
    fn without_data_an_incident_is_stale_and_never_resolved() {
        let mut tracker = tracker();
        for window in 0..3 {
            tracker.window(&tally(window, &[(A, Fault::PacketLoss)]));
        }
        let mut events = Vec::new();
        for window in 3..30 {
            events.extend(tracker.window(&tally(window, &[])));
        }
        events.extend(tracker.window(&tally(30, &[(A, Fault::PacketLoss)])));
        let kinds: Vec<Change> = changes(&events).into_iter().map(|(_, change)| change).collect();
        assert_eq!(kinds, [Change::Stale, Change::Resumed]);
    }

    #[test]
    fn windows_that_were_missed_are_no_news_unless_they_are_too_many() {
        let mut tracker = tracker();
        for window in 0..3 {
            tracker.window(&tally(window, &[(A, Fault::PacketLoss)]));
        }
        assert_eq!(tracker.window(&tally(30, &[(A, Fault::PacketLoss)])), []);
        let events = tracker.window(&tally(1000, &[(A, Fault::PacketLoss)]));
        let kinds: Vec<Change> = changes(&events).into_iter().map(|(_, change)| change).collect();
        assert_eq!(kinds, [Change::Forgotten]);
    }

    #[test]
    fn a_window_with_much_loss_says_nothing() {
        let mut tracker = tracker();
        for window in 0..10 {
            let mut lossy = tally(window, &[(A, Fault::PacketLoss)]);
            lossy.lost = 11;
            assert_eq!(tracker.window(&lossy), []);
        }
        let mut enough = Vec::new();
        for window in 10..13 {
            let mut whole = tally(window, &[(A, Fault::PacketLoss)]);
            whole.lost = 10;
            enough.extend(changes(&tracker.window(&whole)));
        }
        assert_eq!(enough.len(), 1);
    }

    #[test]
    fn a_fault_of_the_node_inhibits_those_of_its_targets() {
        let mut tracker = tracker();
        let mut seen = Vec::new();
        for window in 0..4 {
            let mut both = tally(window, &[(A, Fault::DiskSaturation), (B, Fault::HttpErrors)]);
            both.packets = 10;
            seen.extend(tracker.window(&both));
        }
        let expected = [
            ("disk-saturation node".to_owned(), Change::Fired),
            ("http-errors endpoint/198.18.1.3:80/6".to_owned(), Change::Suppressed),
        ];
        assert_eq!(changes(&seen), expected);
        let Event::Incident { announced, incident, .. } = &seen[1] else { panic!("{seen:?}") };
        assert_eq!((*announced, incident.suppression), (false, Some(Suppression::Inhibited)));
    }

    #[test]
    fn a_storm_is_one_event_and_suppresses_the_rest() {
        let mut tracker = tracker();
        let servers: Vec<String> = (1..=12).map(|host| format!("198.18.1.{host}")).collect();
        let stormy: Vec<(&str, Fault)> =
            servers.iter().map(|server| (server.as_str(), Fault::PacketLoss)).collect();
        let mut events = Vec::new();
        for window in 0..5 {
            events.extend(tracker.window(&tally(window, &stormy)));
        }
        let storms = events.iter().filter(|event| matches!(event, Event::Storm { .. })).count();
        assert_eq!(storms, 1);
        assert!(changes(&events).iter().all(|(_, change)| *change == Change::Suppressed));
    }

    #[test]
    fn a_restart_goes_on_without_firing_again() {
        let mut before = tracker();
        let mut first = Vec::new();
        for window in 0..4 {
            first.extend(changes(&before.window(&tally(window, &[(A, Fault::PacketLoss)]))));
        }
        assert_eq!(first.len(), 1);
        let kept = serde_json::to_string(&before.snapshot()).unwrap();
        let mut after = tracker();
        after.restore(serde_json::from_str(&kept).unwrap());
        assert_eq!(after.window(&tally(3, &[(A, Fault::PacketLoss)])), []);
        assert_eq!(after.window(&tally(4, &[(A, Fault::PacketLoss)])), []);
        assert_eq!(after.current().count(), 1);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_the_work() {
        let mut tracker = tracker();
        tracker.window(&tally(1_000_000, &[(A, Fault::Normal)]));
        let mut seen = Vec::new();
        for window in 0..3 {
            seen.extend(changes(&tracker.window(&tally(window, &[(A, Fault::PacketLoss)]))));
        }
        assert_eq!(seen.len(), 1);
    }

    fn fault() -> impl Strategy<Value = Option<Fault>> {
        prop_oneof![
            2 => Just(Some(Fault::Normal)),
            3 => Just(Some(Fault::PacketLoss)),
            1 => Just(Some(Fault::DiskSaturation)),
            1 => Just(None),
        ]
    }

    proptest! {
        /// Whatever comes: an incident fires before anything else that is announced, resolves only on a window
        /// in which its target had data, and its changes are numbered without a gap.
        #[test]
        fn incidents_have_one_life(
            windows in prop::collection::vec((fault(), fault(), 1i64..4), 1..120),
        ) {
            let mut tracker = tracker();
            let mut lives: BTreeMap<String, (u32, bool)> = BTreeMap::new();
            let mut now = 0;
            for (a, b, ahead) in windows {
                now += ahead;
                let servers: Vec<(&str, Fault)> =
                    [(A, a), (B, b)].into_iter().filter_map(|(server, fault)| Some((server, fault?))).collect();
                let tally = tally(now, &servers);
                for event in tracker.window(&tally) {
                    let Event::Incident { change, announced, incident } = event else { continue };
                    let life = lives.entry(incident.id.clone()).or_default();
                    prop_assert_eq!(incident.sequence, life.0 + 1);
                    life.0 = incident.sequence;
                    match change {
                        Change::Fired => {
                            prop_assert!(!life.1);
                            life.1 = true;
                        }
                        Change::Resumed => prop_assert!(life.1),
                        Change::Resolved => {
                            prop_assert!(tally.targets.contains_key(&incident.target), "resolved without data");
                        }
                        _ => {}
                    }
                    prop_assert_eq!(announced, life.1);
                }
            }
        }
    }
}
