//! What the daemon tells of itself: metrics, health, incidents and verdicts over HTTP, and its state to systemd.

mod drift;
mod http;
mod metrics;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use event::Timestamp;
use sd_notify::NotifyState;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, oneshot};
use tracing::{info, warn};

use crate::args::Run;
use crate::classify::Classifier;
use crate::incident::{Change, Incident, Tracker};
use crate::pipeline::Judgement;
use crate::policy::Proposal;
use crate::receivers::Receivers;
use crate::verdict::Judge;
use metrics::Metrics;

/// Verdict lines that a listener may lag behind before it misses some, which it is told.
const BACKLOG: usize = 4096;

/// What somebody asked for over HTTP.
#[derive(Debug)]
pub enum Command {
    /// Carry out a proposed action; answered with what became of it, or nothing where there is no such proposal.
    Approve { key: String, answer: oneshot::Sender<Option<String>> },
    /// End the quarantine of a target; answered with whether there was one.
    Clear { target: String, answer: oneshot::Sender<bool> },
}

/// What the HTTP server shares with the pipeline.
pub(crate) struct Shared {
    metrics: Metrics,
    ready: AtomicBool,
    /// Incidents, proposals and storm as JSON.
    state: RwLock<Arc<str>>,
    verdicts: broadcast::Sender<Arc<str>>,
    commands: Mutex<mpsc::Sender<Command>>,
    token: Option<String>,
}

/// The pipeline's side.
pub struct Observed {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    judges: Vec<Judge>,
}

impl Observed {
    /// Begins to serve, where that is asked for.
    ///
    /// # Errors
    /// Where the address or the token cannot be used.
    pub fn start(args: &Run, runtime: &Runtime, classifiers: &[Classifier]) -> anyhow::Result<Self> {
        let judges: Vec<Judge> = classifiers.iter().map(|classifier| classifier.judge().clone()).collect();
        let (sender, commands) = mpsc::channel();
        let shared = Arc::new(Shared {
            metrics: Metrics::new(classifiers, &made(args, classifiers.len())),
            ready: AtomicBool::new(false),
            state: RwLock::new(Arc::from("{\"incidents\":[],\"proposals\":[],\"storm\":false}")),
            verdicts: broadcast::Sender::new(BACKLOG),
            commands: Mutex::new(sender),
            token: args.token_file.as_deref().map(read_token).transpose()?,
        });
        if let Some(address) = args.listen {
            let listener = runtime
                .block_on(tokio::net::TcpListener::bind(address))
                .with_context(|| format!("cannot listen on {address}"))?;
            let bound = listener.local_addr().context("cannot tell the address")?;
            if !bound.ip().is_loopback() {
                warn!("{bound} is reachable from other hosts: what a node sees is shown there to anybody");
            }
            info!("listening on http://{bound}");
            runtime.spawn(http::serve(listener, Arc::clone(&shared)));
        }
        Ok(Self { shared, commands, judges })
    }

    pub fn judges(&self) -> &[Judge] {
        &self.judges
    }

    /// Everything is attached.
    pub fn ready(&self) {
        self.shared.ready.store(true, Ordering::Relaxed);
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
    }

    pub fn stopping(&self) {
        self.shared.ready.store(false, Ordering::Relaxed);
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    }

    pub fn has_listeners(&self) -> bool {
        self.shared.verdicts.receiver_count() > 0
    }

    /// Shows a verdict line to whoever listens.
    pub fn verdict(&self, line: String) {
        if self.has_listeners() {
            // Nobody listens any more: nothing is lost.
            let _ = self.shared.verdicts.send(Arc::from(line));
        }
    }

    pub fn refused(&self, reason: &'static str) {
        self.shared.metrics.suppressed(reason);
    }

    pub fn audit_failed(&self) {
        self.shared.metrics.audit_failed();
    }

    pub fn changed(&self, change: Change, incident: &Incident) {
        self.shared.metrics.changed(change);
        if let Some(suppression) = incident.suppression {
            self.shared.metrics.suppressed(suppression.name());
        }
    }

    /// A window that a poll at `polled` closed has its messages in their queues.
    pub fn judged(&self, polled: Instant) {
        self.shared.metrics.judged(polled);
    }

    /// Takes note of a window that was dealt with: when it ended, and its length in seconds.
    pub fn window(
        &self,
        judgement: &Judgement,
        at: (Timestamp, f64),
        tracker: &Tracker,
        proposals: &BTreeMap<String, Proposal>,
        receivers: &Receivers,
    ) {
        self.shared.metrics.window(judgement, at, tracker, receivers);
        let state = Arc::from(state(tracker, proposals).to_string());
        *self.shared.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }

    pub fn next_command(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }
}

/// When the models' files were written; that of the built-in model is this program's.
fn made(args: &Run, models: usize) -> Vec<Option<SystemTime>> {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    if args.model.model.is_empty() {
        return vec![std::env::current_exe().ok().and_then(|path| modified(&path)); models];
    }
    args.model.model.iter().map(|path| modified(path)).collect()
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let token = text.trim();
    anyhow::ensure!(token.len() >= 16, "the token in {} is shorter than 16 characters", path.display());
    Ok(token.to_owned())
}

fn state(tracker: &Tracker, proposals: &BTreeMap<String, Proposal>) -> Value {
    let incidents: Vec<Value> = tracker
        .current()
        .map(|(target, label, state, incident)| {
            json!({
                "target": target.to_string(), "fault": label.to_string(), "state": state, "incident": incident,
            })
        })
        .collect();
    json!({"incidents": incidents, "proposals": proposals, "storm": tracker.storm().is_active()})
}
