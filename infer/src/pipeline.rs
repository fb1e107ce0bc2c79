//! EVENTS -> ROWS -> VERDICTS -> INCIDENTS, one window after the other, in event time alone.

use std::collections::BTreeMap;

use event::{Duration, Event, Label, Mark, Packet, Source, Timestamp};
use features::{ClosedWindow, Closing, Config, Coverage, Engine, Row};
use rayon::prelude::*;

use crate::classify::Classifier;
use crate::incident::{self, Tally, Tracker};
use crate::verdict::{Answer, Verdict};

/// What the pipeline is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long after its end a window is kept open for what arrives late.
    pub lateness: Duration,
    /// Rows of a window that are explained at most: the strongest of each target and fault.
    pub explained: usize,
    /// Flows remembered at once.
    pub max_flows: usize,
}

/// Rows that are judged at once: a tree passes over all of them while it is in the cache.
const BLOCK: usize = 64;

/// A window's packets, seen and lost.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    packets: u64,
    lost: u64,
}

/// One judged window.
pub struct Judgement {
    pub window: Timestamp,
    /// In the order of the rows.
    pub verdicts: Vec<Verdict>,
    /// What changed, in the order in which it is to be told.
    pub events: Vec<incident::Event>,
    /// Inputs of some of the rows, as many as [`Pipeline::sample`] asks for, one row after the other.
    pub sample: Vec<f32>,
    /// Share of the packets that were lost, 0 to 1.
    pub loss: f64,
    /// The label that somebody gave to the window.
    pub label: Option<Label>,
    /// What became of the application and kernel events since the judgement before this one.
    pub coverage: Coverage,
}

/// From events to what changed.
pub struct Pipeline {
    engine: Engine,
    /// The first one that knows an answer decides.
    classifiers: Vec<Classifier>,
    tracker: Tracker,
    settings: Settings,
    length: Duration,
    /// By the start of the window.
    seen: BTreeMap<Timestamp, Seen>,
    /// Latest arrival: what the watermark runs by.
    latest: Timestamp,
    /// Start of the latest window that was judged.
    judged: Option<Timestamp>,
    /// Rows of a window whose inputs are handed over.
    sampled: usize,
}

impl Pipeline {
    /// # Panics
    /// Where there is no classifier.
    pub fn new(
        classifiers: Vec<Classifier>,
        tracker: Tracker,
        settings: Settings,
        label: Option<Label>,
    ) -> Self {
        let length = classifiers[0].window();
        let engine = Engine::new(Config {
            window: length,
            // A recording's events arrive as they did live, so that its windows hold the same rows.
            closing: Closing::Live { lateness: settings.lateness },
            max_flows: settings.max_flows,
            label,
        });
        let (seen, latest) = (BTreeMap::new(), Timestamp::MIN);
        Self { engine, classifiers, tracker, settings, length, seen, latest, judged: None, sampled: 0 }
    }

    pub fn classifiers(&self) -> &[Classifier] {
        &self.classifiers
    }

    /// Hands over the inputs of at most so many rows of each window, evenly chosen.
    pub const fn sample(&mut self, rows: usize) {
        self.sampled = rows;
    }

    /// Length of the windows.
    pub const fn window(&self) -> Duration {
        self.length
    }

    /// How long after its end a window is kept open.
    pub const fn lateness(&self) -> Duration {
        self.settings.lateness
    }

    /// What the engine counted.
    pub fn counts(&self) -> features::Counts {
        self.engine.counts()
    }

    pub const fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    pub const fn tracker_mut(&mut self) -> &mut Tracker {
        &mut self.tracker
    }

    /// Takes note that it is `now`, where no event says so: a quiet node's windows end too.
    pub fn tick<E>(
        &mut self,
        now: Timestamp,
        take: &mut impl FnMut(Judgement, &Tracker) -> Result<(), E>,
    ) -> Result<(), E> {
        self.push(&Event::Mark(Mark { time: now, arrival: now, label: None, note: String::new() }), take)
    }

    /// Takes packets, and hands every window that they close to `take`.
    pub fn push_packets<E>(
        &mut self,
        packets: &[Packet],
        take: &mut impl FnMut(Judgement, &Tracker) -> Result<(), E>,
    ) -> Result<(), E> {
        for packet in packets {
            self.seen.entry(packet.time.window_start(self.length)).or_default().packets += 1;
            self.latest = self.latest.max(packet.arrival);
        }
        self.engine.push_packets(packets);
        self.drain(take)
    }

    /// Takes an event, and hands every window that it closes to `take`.
    pub fn push<E>(
        &mut self,
        event: &Event,
        take: &mut impl FnMut(Judgement, &Tracker) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Event::Packet(packet) = event {
            return self.push_packets(std::slice::from_ref(packet), take);
        }
        if let Event::Loss(loss) = event
            && loss.source == Source::Packets
        {
            // Where in its range the loss fell is not known: each window that it touches may be missing it all.
            let mut window = loss.first.window_start(self.length);
            while window <= loss.last {
                self.seen.entry(window).or_default().lost += loss.count;
                window += self.length;
            }
        }
        self.latest = self.latest.max(event.arrival());
        self.engine.push(event);
        self.drain(take)
    }

    /// Closes every window: no event will follow.
    pub fn finish<E>(
        &mut self,
        take: &mut impl FnMut(Judgement, &Tracker) -> Result<(), E>,
    ) -> Result<(), E> {
        self.engine.finish();
        self.drain_closed(take)
    }

    fn drain<E>(&mut self, take: &mut impl FnMut(Judgement, &Tracker) -> Result<(), E>) -> Result<(), E> {
        self.drain_closed(take)?;
        // A window that is over and had no row is news too: its incidents have no data.
        let due = (self.latest - self.settings.lateness).window_start(self.length) - self.length;
        if due > *self.judged.get_or_insert(due) {
            self.judged = Some(due);
            let (events, loss) = self.track(&mut Tally::new(due));
            let (verdicts, sample) = (Vec::new(), Vec::new());
            let coverage = self.coverage();
            let judgement = Judgement { window: due, verdicts, events, sample, loss, label: None, coverage };
            take(judgement, &self.tracker)?;
        }
        Ok(())
    }

    fn drain_closed<E>(
        &mut self,
        take: &mut impl FnMut(Judgement, &Tracker) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(closed) = self.engine.next_closed() {
            let judgement = self.judge(&closed);
            take(judgement, &self.tracker)?;
        }
        Ok(())
    }

    fn judge(&mut self, closed: &ClosedWindow) -> Judgement {
        let window = closed.start();
        let classifiers = &self.classifiers;
        let mut judged: Vec<(usize, Verdict)> = (0..closed.len().div_ceil(BLOCK))
            .into_par_iter()
            .flat_map_iter(|block| {
                let rows = block * BLOCK..closed.len().min((block + 1) * BLOCK);
                first_answers(classifiers, &rows.map(|place| closed.row(place)).collect::<Vec<Row>>())
            })
            .collect();
        let mut tally = Tally::new(window);
        for (place, (_, verdict)) in judged.iter().enumerate() {
            tally.add(place, verdict);
        }
        self.explain(closed, &mut judged, &mut tally);
        let (events, loss) = self.track(&mut tally);
        self.judged = self.judged.max(Some(window));
        let verdicts = judged.into_iter().map(|(_, verdict)| verdict).collect();
        let (sample, label) = (self.sample_of(closed), closed.row(0).label);
        let coverage = self.coverage();
        Judgement { window, verdicts, events, sample, loss, label, coverage }
    }

    fn coverage(&mut self) -> Coverage {
        let mut sum = Coverage::default();
        for (_, coverage) in self.engine.take_coverage() {
            sum.add(&coverage);
        }
        sum
    }

    fn sample_of(&self, closed: &ClosedWindow) -> Vec<f32> {
        let mut sample = Vec::new();
        if self.sampled > 0 {
            let step = closed.len().div_ceil(self.sampled).max(1);
            for place in (0..closed.len()).step_by(step) {
                self.classifiers[0].encode(&closed.row(place), &mut sample);
            }
        }
        sample
    }

    /// Explains the strongest row of each target and fault, as many as are allowed, then the rows of faults in
    /// their order. The bound is a number of rows and not a time, so that a run can be repeated.
    fn explain(&self, closed: &ClosedWindow, judged: &mut [(usize, Verdict)], tally: &mut Tally) {
        let mut strongest: Vec<usize> = tally
            .targets
            .values()
            .flat_map(|target| target.faults.values().map(|fault| fault.place))
            .collect();
        let in_doubt = |place: &usize| judged[*place].1.confidence;
        strongest.sort_by(|a, b| in_doubt(b).total_cmp(&in_doubt(a)).then(a.cmp(b)));
        let others = (0..judged.len())
            .filter(|place| judged[*place].1.answer == Answer::Fault && !strongest.contains(place));
        let places: Vec<usize> =
            strongest.iter().copied().chain(others).take(self.settings.explained).collect();
        let evidence: Vec<_> = places
            .par_iter()
            .map(|place| {
                let (who, verdict) = &judged[*place];
                self.classifiers[*who].explain(verdict, &closed.row(*place))
            })
            .collect();
        for (place, evidence) in places.into_iter().zip(evidence) {
            judged[place].1.evidence = evidence;
        }
        for fault in tally.targets.values_mut().flat_map(|target| target.faults.values_mut()) {
            if let Some(finding) = &mut fault.strongest {
                finding.features.clone_from(&judged[fault.place].1.evidence);
            }
        }
    }

    fn track(&mut self, tally: &mut Tally) -> (Vec<incident::Event>, f64) {
        let later = self.seen.split_off(&(tally.window + self.length));
        let seen = std::mem::replace(&mut self.seen, later).remove(&tally.window).unwrap_or_default();
        (tally.packets, tally.lost) = (seen.packets, seen.lost);
        let loss = seen.lost as f64 / (seen.lost + seen.packets).max(1) as f64;
        (self.tracker.window(tally), loss)
    }
}

/// For each row the verdict of the first model that knows an answer, and which model that is; the first one's doubt
/// where none does.
fn first_answers(classifiers: &[Classifier], rows: &[Row]) -> Vec<(usize, Verdict)> {
    let width = classifiers[0].width();
    let mut inputs = Vec::with_capacity(rows.len() * width);
    for row in rows {
        classifiers[0].encode(row, &mut inputs);
    }
    let all: Vec<&Row> = rows.iter().collect();
    let first = classifiers[0].judge_rows(&all, &inputs);
    let mut verdicts: Vec<(usize, Verdict)> = first.into_iter().map(|verdict| (0, verdict)).collect();
    for (who, classifier) in classifiers.iter().enumerate().skip(1) {
        let in_doubt = |place: &usize| matches!(verdicts[*place].1.answer, Answer::Unknown(_));
        let open: Vec<usize> = (0..rows.len()).filter(in_doubt).collect();
        let of_open: Vec<f32> =
            open.iter().flat_map(|place| &inputs[place * width..(place + 1) * width]).copied().collect();
        let open_rows: Vec<&Row> = open.iter().map(|place| &rows[*place]).collect();
        for (place, verdict) in open.into_iter().zip(classifier.judge_rows(&open_rows, &of_open)) {
            if !matches!(verdict.answer, Answer::Unknown(_)) {
                verdicts[place] = (who, verdict);
            }
        }
    }
    verdicts
}
