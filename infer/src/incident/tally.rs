//! One window's rows, counted per target and fault.

use std::collections::BTreeMap;
use std::net::IpAddr;

use event::{Label, Protocol, Timestamp};

use super::{IncidentSettings, Observation, Target};
use crate::verdict::{Answer, Finding, Verdict};

/// What the rows of one window said.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Start of the window.
    pub window: Timestamp,
    /// Packets of the window that were seen, and that are known to be lost.
    pub packets: u64,
    pub lost: u64,
    pub targets: BTreeMap<Target, TargetTally>,
}

/// What the rows said of one target.
#[derive(Clone, Debug, Default)]
pub struct TargetTally {
    pub rows: u64,
    /// Rows whose verdict was not `unknown`.
    pub answered: u64,
    pub faults: BTreeMap<Label, FaultTally>,
}

/// The rows that named one fault.
#[derive(Clone, Debug, Default)]
pub struct FaultTally {
    pub rows: u64,
    /// Sums over those rows, in the order of the rows.
    pub confidence: f64,
    pub margin: f64,
    /// The row of the highest confidence, the first of equals.
    pub strongest: Option<Finding>,
    /// Its place among the window's verdicts.
    pub place: usize,
}

impl Tally {
    pub fn new(window: Timestamp) -> Self {
        Self { window, ..Self::default() }
    }

    /// Counts a verdict. Every row is data for the target that it belongs to and for the node; where it names a
    /// fault, it votes at the target that the fault concerns.
    pub fn add(&mut self, place: usize, verdict: &Verdict) {
        let pod = verdict.pod();
        let server: (IpAddr, u16, Protocol) = verdict.server();
        let home = Target::of(Label::NORMAL, pod, server);
        let answered = u64::from(!matches!(verdict.answer, Answer::Unknown(_)));
        for target in [Some(Target::Node), (home != Target::Node).then_some(home)].into_iter().flatten() {
            let tally = self.targets.entry(target).or_default();
            tally.rows += 1;
            tally.answered += answered;
        }
        if verdict.answer != Answer::Fault {
            return;
        }
        let target = Target::of(verdict.label, pod, server);
        let fault = self.targets.entry(target).or_default().faults.entry(verdict.label).or_default();
        fault.rows += 1;
        fault.confidence += f64::from(verdict.confidence);
        fault.margin += f64::from(verdict.margin());
        if fault.strongest.as_ref().is_none_or(|best| verdict.confidence > best.confidence) {
            fault.strongest = Some(verdict.finding());
            fault.place = place;
        }
    }

    /// Whether more of the window was lost than can be judged by the rest.
    pub fn is_lossy(&self, settings: &IncidentSettings) -> bool {
        self.lost as f64 > settings.max_loss * (self.lost + self.packets) as f64
    }

    /// What the window says about a fault at a target.
    pub fn observation(&self, target: &Target, label: Label, settings: &IncidentSettings) -> Observation {
        let Some(tally) = self.targets.get(target) else { return Observation::NoData };
        if self.is_lossy(settings) {
            return Observation::NoData;
        }
        if tally.answered == 0 {
            return Observation::Unknown;
        }
        match tally.faults.get(&label).and_then(|fault| fault.vote(tally.answered, settings)) {
            Some(vote) => vote,
            None => Observation::Clear,
        }
    }

    /// Every target and fault that this window votes for.
    pub fn votes<'a>(
        &'a self,
        settings: &'a IncidentSettings,
    ) -> impl Iterator<Item = (&'a Target, Label, &'a FaultTally)> {
        let lossy = self.is_lossy(settings);
        self.targets.iter().filter(move |_| !lossy).flat_map(move |(target, tally)| {
            tally
                .faults
                .iter()
                .filter(move |(_, fault)| fault.vote(tally.answered, settings).is_some())
                .map(move |(label, fault)| (target, *label, fault))
        })
    }
}

impl FaultTally {
    fn vote(&self, answered: u64, settings: &IncidentSettings) -> Option<Observation> {
        let rows = self.rows as f64;
        let (confidence, margin) = (self.confidence / rows, self.margin / rows);
        let votes = rows >= settings.quorum * answered as f64 && confidence >= settings.leave_confidence;
        votes.then_some(Observation::Vote { confidence, margin, rows: self.rows })
    }
}
