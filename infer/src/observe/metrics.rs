//! Prometheus metrics of the daemon.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use event::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::incident::{Change, State, Tracker};
use crate::pipeline::Judgement;
use crate::receivers::Receivers;
use crate::time;
use crate::verdict::Judge;

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

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    incidents: Family<Named, Gauge>,
    changes: Family<Named, Counter>,
    suppressions: Family<Named, Counter>,
    verdicts: Family<Named, Counter>,
    windows: Counter,
    lag: Gauge<f64, AtomicU64>,
    loss: Gauge<f64, AtomicU64>,
    audit_failures: Counter,
    queue: Family<ByReceiver, Gauge>,
    dead: Family<ByReceiver, Counter>,
    turned_away: Family<ByReceiver, Counter>,
    answers: Family<ByAnswer, Counter>,
    breaker: Family<ByReceiver, Gauge>,
}

impl Metrics {
    pub fn new(judges: &[Judge]) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("faultline_infer")),
            incidents: Family::default(),
            changes: Family::default(),
            suppressions: Family::default(),
            verdicts: Family::default(),
            windows: Counter::default(),
            lag: Gauge::default(),
            loss: Gauge::default(),
            audit_failures: Counter::default(),
            queue: Family::default(),
            dead: Family::default(),
            turned_away: Family::default(),
            answers: Family::default(),
            breaker: Family::default(),
        };
        metrics.register(judges);
        metrics
    }

    fn register(&self, judges: &[Judge]) {
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
            "audit_failures",
            "Lines that could not be written to the audit log",
            self.audit_failures.clone(),
        );
        registry.register("queue_messages", "Messages that wait", self.queue.clone());
        registry.register("dead_letters", "Messages given up", self.dead.clone());
        registry.register("turned_away", "Messages that found their queue full", self.turned_away.clone());
        registry.register("attempts", "Attempts to deliver, by the answer's status", self.answers.clone());
        registry.register("breaker_open", "1 while a failing receiver is left alone", self.breaker.clone());
        for judge in judges {
            let info = Info::new(vec![("name", judge.name.clone()), ("hash", judge.hash.clone())]);
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

    pub fn window(&self, judgement: &Judgement, at: Timestamp, tracker: &Tracker, receivers: &Receivers) {
        self.windows.inc();
        self.loss.set(judgement.loss);
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
