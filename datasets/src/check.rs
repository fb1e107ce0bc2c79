//! Lint of labels: does every labelled window show what its class must show, and no normal one a fault?

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use event::{Fault, Label};
use features::{AFFECTED_KEY, Affected, Config, Engine, Feature, Row, Value};
use recording::{Item, Reader};

use crate::fault::Recipe;
use crate::proof::Proof;

/// What no normal row may show: events that do not happen by chance.
const NEVER_NORMAL: [(Feature, f64); 4] = [
    (Feature::HttpStatusCode, 500.0),
    (Feature::DnsResponseCode, 1.0),
    (Feature::TcpListenOverflows, 1.0),
    (Feature::OomKills, 1.0),
];

/// What was found in one recording, window by window (5 s).
#[derive(Debug)]
pub struct Findings {
    file: PathBuf,
    fault: Fault,
    pub rows: u64,
    pub affected_rows: u64,
    /// Windows that carry the fault's label.
    labelled: u64,
    /// Those of them in which an affected row shows the fault.
    showing: u64,
    /// Those in which nothing that would show it was measured.
    unmeasured: u64,
    pub contradictions: Vec<String>,
}

/// Looks at one recording of the lab.
pub fn check(path: &Path) -> Result<Findings> {
    let mut reader = Reader::open(path)?;
    let proof = Proof::from_header(reader.header(), path)?;
    let affected: Affected =
        proof.affected.join(" ").parse().with_context(|| format!("{}: {AFFECTED_KEY}", path.display()))?;
    let mut engine = Engine::new(Config { label: reader.header().label, ..Config::default() });
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Packets(packets) => engine.push_packets(packets),
            Item::Event(event) => engine.push(&event),
        }
    }
    engine.finish();
    let mut findings = Findings {
        file: path.to_owned(),
        fault: proof.fault,
        rows: 0,
        affected_rows: 0,
        labelled: 0,
        showing: 0,
        unmeasured: 0,
        contradictions: Vec::new(),
    };
    while let Some(window) = engine.next_closed() {
        findings.take(&window.rows().collect::<Vec<_>>(), &affected);
    }
    findings.conclude();
    Ok(findings)
}

impl Findings {
    fn take(&mut self, rows: &[Row], affected: &Affected) {
        let is_labelled =
            rows.first().is_some_and(|row| row.label.is_some_and(|label| label != Label::NORMAL));
        self.rows += rows.len() as u64;
        if is_labelled {
            let touched: Vec<&Row> = rows.iter().filter(|row| affected.matches(row)).collect();
            self.take_labelled(&touched);
        } else {
            self.take_normal(rows);
        }
    }

    fn take_labelled(&mut self, rows: &[&Row]) {
        self.labelled += 1;
        self.affected_rows += rows.len() as u64;
        let shows = Recipe::of(self.fault).shows;
        let cells =
            || rows.iter().flat_map(|row| shows.iter().map(|&(feature, least)| (&row[feature], least)));
        if cells().any(|(value, least)| reaches(value, least)) {
            self.showing += 1;
        } else if cells().all(|(value, _)| *value == Value::Empty) {
            self.unmeasured += 1;
        }
    }

    fn take_normal(&mut self, rows: &[Row]) {
        for row in rows {
            for (feature, least) in NEVER_NORMAL {
                if reaches(&row[feature], least) {
                    let (value, name) = (&row[feature], feature.name());
                    self.contradictions.push(format!("normal row {} has {name} = {value}", row.five_tuple));
                }
            }
        }
    }

    fn conclude(&mut self) {
        let silent = self.labelled - self.showing - self.unmeasured;
        if silent > 0 {
            let (fault, labelled) = (self.fault, self.labelled);
            let features: Vec<String> = Recipe::of(fault)
                .shows
                .iter()
                .map(|(feature, least)| format!("{} >= {least}", feature.name()))
                .collect();
            self.contradictions.push(format!(
                "{silent} of {labelled} windows labelled {fault} show no {}",
                features.join(" or ")
            ));
        }
    }
}

fn reaches(value: &Value, least: f64) -> bool {
    match value {
        Value::Unsigned(number) => *number as f64 >= least,
        Value::Signed(number) => *number as f64 >= least,
        Value::Float(number) => *number >= least,
        Value::Bool(_) | Value::Empty | Value::Name(_) | Value::Text(_) => false,
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, rows, affected_rows, labelled, showing, unmeasured, .. } = self;
        write!(
            f,
            "{}: {fault}: {rows} rows, {affected_rows} affected; {labelled} labelled windows: {showing} show it, \
             {unmeasured} not measured, {} contradict",
            self.file.display(),
            labelled - showing - unmeasured
        )
    }
}
