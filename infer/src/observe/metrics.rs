//! Prometheus metrics of the daemon.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use event::Timestamp;
use features::Coverage;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::drift::Drift;
use crate::classify::Classifier;
use crate::incident::{Change, State, Tracker};
use crate::pipeline::Judgement;
use crate::receivers::Receivers;
use crate::time;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReceiver {
    receiver: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAnswer {
    receiver: String,
    /// Status of the answer; 0 where there was none.
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByModel {
    model: String,
    hash: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByInput {
    model: String,
    feature: String,
}

/// A model that judges, as the metrics see it.
struct Watched {
    label: ByModel,
    inputs: Vec<String>,
    drift: Drift,
    /// When its file was written; unknown where the file system does not tell.
    made: Option<SystemTime>,
}

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    incidents: Family<Named, Gauge>,
    changes: Family<Named, Counter>,
    suppressions: Family<Named, Counter>,
    verdicts: Family<Named, Counter>,
    windows: Counter,
    lag: Gauge<f64, AtomicU64>,
    judging: Histogram,
    rate: Gauge<f64, AtomicU64>,
    drift: Family<ByInput, Gauge<f64, AtomicU64>>,
    age: Family<ByModel, Gauge<f64, AtomicU64>>,
    watched: Mutex<Vec<Watched>>,
    loss: Gauge<f64, AtomicU64>,
    messages: Family<Named, Counter>,
    audit_failures: Counter,
    queue: Family<ByReceiver, Gauge>,
    dead: Family<ByReceiver, Counter>,
    turned_away: Family<ByReceiver, Counter>,
    answers: Family<ByAnswer, Counter>,
    breaker: Family<ByReceiver, Gauge>,
}

fn watched((classifier, made): (&Classifier, &Option<SystemTime>)) -> Watched {
    let (judge, model) = (classifier.judge(), classifier.model());
    Watched {
        label: ByModel { model: judge.name.clone(), hash: judge.hash.clone() },
        inputs: model.inputs().iter().map(|input| input.name.clone()).collect(),
        drift: Drift::new(model.profile(), |input| model.forest().uses(input)),
        made: *made,
    }
}

impl Metrics {
    /// `made` is when each model's file was written.
    pub fn new(classifiers: &[Classifier], made: &[Option<SystemTime>]) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("faultline_infer")),
            incidents: Family::default(),
            changes: Family::default(),
            suppressions: Family::default(),
            verdicts: Family::default(),
            windows: Counter::default(),
            lag: Gauge::default(),
            // From 1 ms to 8 s.
            judging: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            rate: Gauge::default(),
            drift: Family::default(),
            age: Family::default(),
            watched: Mutex::new(classifiers.iter().zip(made).map(watched).collect()),
            loss: Gauge::default(),
            messages: Family::default(),
            audit_failures: Counter::default(),
            queue: Family::default(),
            dead: Family::default(),
            turned_away: Family::default(),
            answers: Family::default(),
            breaker: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register("incidents", "Incidents by state", self.incidents.clone());
        registry.register("changes", "Changes of incidents", self.changes.clone());
        registry.register(
            "suppressions",
            "Incidents suppressed and actions refused, by reason",
            self.suppressions.clone(),
        );
        registry.register("verdicts", "Verdicts on rows", self.verdicts.clone());
        registry.register("windows", "Windows judged", self.windows.clone());
        registry.register(
            "lag_seconds",
            "From a window's end to its messages in their queues",
            self.lag.clone(),
        );
        registry.register(
            "loss_ratio",
            "Share of the last window's packets that were lost",
            self.loss.clone(),
        );
        registry.register(
            "application_messages",
            "Application messages: joined to a flow, without packets in their window, told again by another observer",
            self.messages.clone(),
        );
        registry.register(
            "audit_failures",
            "Lines that could not be written to the audit log",
            self.audit_failures.clone(),
        );
        registry.register("queue_messages", "Messages that wait", self.queue.clone());
        registry.register("dead_letters", "Messages given up", self.dead.clone());
        registry.register("turned_away", "Messages that found their queue full", self.turned_away.clone());
        registry.register("attempts", "Attempts to deliver, by the answer's status", self.answers.clone());
        registry.register("breaker_open", "1 while a failing receiver is left alone", self.breaker.clone());
        registry.register(
            "judging_seconds",
            "From the poll that closed a window to its messages in their queues",
            self.judging.clone(),
        );
        registry.register("rows_per_second", "Rows of the last window by its length", self.rate.clone());
        registry.register(
            "drift_psi",
            "Population stability index of an input against the model's training data, over the last 1,000 rows or \
             more",
            self.drift.clone(),
        );
        registry.register(
            "model_age_seconds",
            "Since the model's file was written (of the built-in one, the program's file)",
            self.age.clone(),
        );
        for watched in self.watched.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let ByModel { model, hash } = watched.label.clone();
            let info = Info::new(vec![("name", model), ("hash", hash)]);
            registry.register("model", "Model that judges", info);
        }
    }

    pub fn changed(&self, change: Change) {
        self.changes.get_or_create(&Named { name: change.name() }).inc();
    }

    pub fn suppressed(&self, reason: &'static str) {
        self.suppressions.get_or_create(&Named { name: reason }).inc();
    }

    pub fn audit_failed(&self) {
        self.audit_failures.inc();
    }

    /// A window that a poll at `polled` closed has its messages in their queues.
    pub fn judged(&self, polled: Instant) {
        self.judging.observe(polled.elapsed().as_secs_f64());
    }

    /// `length` is the windows', in seconds.
    pub fn window(
        &self,
        judgement: &Judgement,
        (at, length): (Timestamp, f64),
        tracker: &Tracker,
        receivers: &Receivers,
    ) {
        self.windows.inc();
        #[allow(clippy::cast_precision_loss, reason = "rows of one window")]
        self.rate.set(judgement.verdicts.len() as f64 / length);
        self.models(&judgement.sample);
        self.loss.set(judgement.loss);
        let Coverage { unjoined, repeated, .. } = judgement.coverage;
        for (name, count) in
            [("joined", judgement.coverage.joined()), ("unjoined", unjoined), ("repeated", repeated)]
        {
            self.messages.get_or_create(&Named { name }).inc_by(count);
        }
        let lag_ms = time::now_ms() - at.as_nanos() / 1_000_000;
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of a delay")]
        self.lag.set(lag_ms as f64 / 1e3);
        for verdict in &judgement.verdicts {
            self.verdicts.get_or_create(&Named { name: verdict.answer.name() }).inc();
        }
        for state in State::ALL {
            let count = tracker.current().filter(|(_, _, now, _)| *now == state).count();
            self.incidents
                .get_or_create(&Named { name: state.name() })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.receivers(receivers);
    }

    /// Age and drift of the models.
    fn models(&self, sample: &[f32]) {
        for watched in self.watched.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if let Some(age) = watched.made.and_then(|made| made.elapsed().ok()) {
                self.age.get_or_create(&watched.label).set(age.as_secs_f64());
            }
            for (input, index) in watched.drift.add(sample).unwrap_or_default() {
                let (model, feature) = (watched.label.model.clone(), watched.inputs[input].clone());
                self.drift.get_or_create(&ByInput { model, feature }).set(index);
            }
        }
    }

    /// The receivers' own counts, as they are now.
    fn receivers(&self, receivers: &Receivers) {
        for (name, outbox) in receivers.outboxes() {
            let label = ByReceiver { receiver: name.to_owned() };
            let counters = &outbox.counters;
            let copy = |from: &AtomicU64, to: &Family<ByReceiver, Counter>| {
                to.get_or_create(&label).inner().store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            };
            copy(&counters.dead, &self.dead);
            copy(&counters.turned_away, &self.turned_away);
            let open = counters.breaker_open.load(Ordering::Relaxed);
            self.breaker.get_or_create(&label).set(i64::from(open > 0));
            let waiting = receivers.store().waiting(name).unwrap_or_default();
            self.queue.get_or_create(&label).set(i64::try_from(waiting).unwrap_or(i64::MAX));
            let answers = counters.answers.lock().unwrap_or_else(PoisonError::into_inner);
            for (status, count) in answers.iter() {
                let label = ByAnswer { receiver: name.to_owned(), status: *status };
                self.answers.get_or_create(&label).inner().store(*count, Ordering::Relaxed);
            }
        }
    }

    /// OpenMetrics text.
    pub fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut encoded = String::new();
        // Writing into a string does not fail.
        let _ = text::encode(&mut encoded, &registry);
        encoded
    }
}
