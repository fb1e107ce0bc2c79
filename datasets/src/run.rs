//! One run from beginning to end: a fresh scene, background load, a fault, its proof, and the recording.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use cli::Interrupt;
use event::{Fault, Timestamp};

use crate::draw::Draw;
use crate::evidence::Evidence;
use crate::fault::{Dose, Recipe, Severity};
use crate::load::{Load, Workload};
use crate::proof::Proof;
use crate::recorder::Recorder;
use crate::scene::Scene;
use crate::topology::Congestion;
use crate::witness::Witness;

/// Before the fault: the load runs in, and the recording has some rows of label 0.
const WARM_UP: Duration = Duration::from_secs(3);
/// Faults begin on a multiple of this in Unix time, so that no window of that length (the default one), or of
/// a divisor of it, is half normal and half faulty.
const WINDOW: Duration = Duration::from_secs(5);
/// A run that does not take is repeated with the same plan; the machine may have been busy.
const ATTEMPTS: u32 = 3;
/// Clients and faults end by themselves this long after the planned end.
const GRACE: Duration = Duration::from_secs(20);

/// What is to be run; everything else follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub fault: Fault,
    pub severity: Severity,
    pub mechanism: &'static str,
    pub seed: u64,
    pub workload: Workload,
    pub congestion: Congestion,
    /// Of the labelled stretch.
    pub duration: Duration,
}

/// What came of it.
pub struct Outcome {
    pub evidence: Evidence,
    /// Runs until one took, that one included.
    pub attempts: u32,
}

/// The raw recording of an attempt, where one was asked for, and when its fault began.
type Recorded = Option<(Recorder, Timestamp)>;

/// Who watches a run.
#[derive(Default)]
pub struct Witnesses {
    pub recording: Option<Destination>,
    /// A shell command that runs on the router.
    pub command: Option<String>,
    /// How long load and command go on when the fault has ended, which no recording holds.
    pub after: Duration,
}

/// Where the recording goes and what makes it.
pub struct Destination {
    pub file: PathBuf,
    pub capture: PathBuf,
}

impl Plan {
    /// Runs it until the fault has taken.
    pub fn run(&self, witnesses: &Witnesses, interrupt: &Interrupt) -> Result<Outcome> {
        for attempts in 1..=ATTEMPTS {
            let (evidence, recording) = self.attempt(witnesses, interrupt)?;
            let outcome = Outcome { evidence, attempts };
            if outcome.evidence.holds() {
                if let Some((recorder, began)) = recording {
                    let until =
                        began + event::Duration::from_millis(i64::try_from(self.duration.as_millis())?);
                    recorder.keep(Proof::new(self, &outcome), began..until)?;
                }
                return Ok(outcome);
            }
            tracing::warn!(
                "attempt {attempts} of {ATTEMPTS} is discarded: {}: {}",
                self.fault,
                outcome.evidence
            );
        }
        bail!("{} did not take in {ATTEMPTS} attempts (mechanism {})", self.fault, self.mechanism)
    }

    fn attempt(&self, witnesses: &Witnesses, interrupt: &Interrupt) -> Result<(Evidence, Recorded)> {
        let recipe = Recipe::of(self.fault);
        let limit = WARM_UP + WINDOW + self.duration + witnesses.after + GRACE;
        let mut scene = Scene::set(self.congestion, limit).context("cannot set the scene")?;
        let load = Load::start(&scene.topology.client, self.workload, self.seed, limit)?;
        let router = &scene.topology.router;
        let mut witness =
            witnesses.command.as_deref().map(|line| Witness::start(router, line)).transpose()?;
        let mut recorder = witnesses.recording.as_ref().map(|to| Recorder::start(router, to)).transpose()?;
        sleep_until(Instant::now() + WARM_UP, interrupt)?;
        let (start, began) = next_window();
        sleep_until(start, interrupt)?;

        let dose = Dose {
            severity: self.severity,
            mechanism: self.mechanism,
            draw: Draw::new(self.seed, self.fault.name()),
            limit: self.duration + GRACE,
        };
        let (served, failed) = load.counts();
        let end = start + self.duration;
        let injection =
            (recipe.inject)(&mut scene, dose).with_context(|| format!("cannot inject {}", self.fault))?;
        tracing::info!("{} begins", self.fault);
        sleep_until(end, interrupt)?;
        // The recording is cut off here: what drains after a fault is neither normal nor the fault.
        if let Some(recorder) = &mut recorder {
            recorder.stop()?;
        }
        let mut evidence = injection.end(&mut scene)?;
        let (served, failed) = (load.counts().0 - served, load.counts().1 - failed);
        evidence.note("exchanges_completed", served);
        evidence.note("exchanges_failed", failed);
        tracing::info!("{} has ended after {} s", self.fault, self.duration.as_secs());
        sleep_until(Instant::now() + witnesses.after, interrupt)?;
        if let Some(witness) = &mut witness {
            witness.stop();
        }
        load.finish()?;
        Ok((evidence, recorder.map(|recorder| (recorder, began))))
    }
}

/// The next multiple of the window's length in Unix time, by both clocks.
fn next_window() -> (Instant, Timestamp) {
    let (instant, since) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let seconds = (since.as_secs() / WINDOW.as_secs() + 1) * WINDOW.as_secs();
    let left = Duration::from_secs(seconds).saturating_sub(since);
    (instant + left, Timestamp::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

fn sleep_until(wake: Instant, interrupt: &Interrupt) -> Result<()> {
    loop {
        if interrupt.is_raised() {
            bail!("interrupted: the run is discarded and its namespaces are removed");
        }
        let left = wake.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(20)));
    }
}
