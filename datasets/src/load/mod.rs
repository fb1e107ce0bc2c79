//! The background load: the same mix of clients in every class, so that the fault and not the work tells the
//! classes apart. How many clients of each kind there are, and how busy, is drawn from the seed.

mod http;
mod lookup;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::draw::Draw;
use crate::node::Node;

pub use http::{call, connect};
pub use lookup::any_host;

/// Which mix of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Many small pages and look-ups, some downloads and uploads, idle connections
    Web,
    /// Few clients that move much, in bursts; kept for tests of a model trained on `web`
    Batch,
}

/// One client's habit; times are means.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    /// Small pages, `per_connection` of them before the connection is closed.
    Pages {
        think: Duration,
        per_connection: u32,
    },
    Downloads {
        think: Duration,
    },
    Uploads {
        think: Duration,
        kib: (u32, u32),
    },
    Lookups {
        think: Duration,
    },
    /// Requests to the application, with bodies from a form to a file.
    Calls {
        think: Duration,
        kib: (u32, u32),
    },
    /// A connection that is kept open and used now and then.
    Idle {
        think: Duration,
    },
}

/// No client makes more exchanges than this, whatever the clock says.
const EXCHANGE_LIMIT: u32 = 100_000;

/// When a client has to end: when it is told to, and at the latest at a fixed time.
#[derive(Clone)]
pub struct Session {
    stop: Arc<AtomicBool>,
    until: Instant,
}

impl Session {
    /// Ends by itself after `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { stop: Arc::default(), until: Instant::now() + limit }
    }

    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() >= self.until
    }

    /// Sleeps, in steps short enough to notice the end; false where the session is over.
    pub fn pause(&self, span: Duration) -> bool {
        let wake = Instant::now() + span;
        while !self.is_over() {
            let left = wake.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
        false
    }
}

/// What the clients did, all of them together.
#[derive(Default)]
pub struct Tally {
    pub completed: AtomicU64,
    pub failed: AtomicU64,
}

impl Tally {
    fn count(&self, result: &io::Result<()>) {
        let counter = if result.is_ok() { &self.completed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The running clients; they end when this is dropped.
pub struct Load {
    session: Session,
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<io::Result<()>>>,
}

impl Load {
    pub fn start(node: &Node, workload: Workload, seed: u64, limit: Duration) -> Result<Self> {
        let session = Session::new(limit);
        let mut load = Self { session, tally: Arc::default(), clients: Vec::new() };
        for (index, habit) in clients(workload, &mut Draw::new(seed, "workload")).into_iter().enumerate() {
            let (session, tally) = (load.session.clone(), Arc::clone(&load.tally));
            let name = format!("client-{index}");
            let draw = Draw::new(seed, &name);
            load.clients.push(node.thread(&name, move || act(habit, draw, &session, &tally))?);
        }
        Ok(load)
    }

    /// Exchanges completed and failed until now.
    pub fn counts(&self) -> (u64, u64) {
        (self.tally.completed.load(Ordering::Relaxed), self.tally.failed.load(Ordering::Relaxed))
    }

    /// Tells the clients to end and waits for them.
    pub fn finish(mut self) -> Result<()> {
        self.session.end();
        for client in self.clients.drain(..) {
            client.join().ok().context("a client panicked")?.context("a client cannot enter its network")?;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.session.end();
    }
}

fn clients(workload: Workload, draw: &mut Draw) -> Vec<Habit> {
    let mut habits = Vec::new();
    let ms = |draw: &mut Draw, low: f64, high: f64| Duration::from_secs_f64(draw.between(low, high) / 1e3);
    let mut many = |draw: &mut Draw, count: (u32, u32), habit: &dyn Fn(&mut Draw) -> Habit| {
        for _ in 0..draw.integer(count.0, count.1) {
            let drawn = habit(draw);
            habits.push(drawn);
        }
    };
    match workload {
        Workload::Web => {
            many(draw, (4, 8), &|d| Habit::Pages {
                think: ms(d, 80.0, 400.0),
                per_connection: d.integer(1, 30),
            });
            many(draw, (1, 3), &|d| Habit::Downloads { think: ms(d, 800.0, 2500.0) });
            many(draw, (1, 3), &|d| Habit::Uploads { think: ms(d, 800.0, 2500.0), kib: (30, 400) });
            many(draw, (2, 4), &|d| Habit::Lookups { think: ms(d, 150.0, 600.0) });
            many(draw, (2, 4), &|d| Habit::Calls { think: ms(d, 150.0, 700.0), kib: (0, 48) });
            many(draw, (3, 6), &|d| Habit::Idle { think: ms(d, 2_000.0, 9_000.0) });
        }
        Workload::Batch => {
            many(draw, (1, 3), &|d| Habit::Pages {
                think: ms(d, 300.0, 900.0),
                per_connection: d.integer(1, 5),
            });
            many(draw, (2, 4), &|d| Habit::Downloads { think: ms(d, 500.0, 4_000.0) });
            many(draw, (2, 4), &|d| Habit::Uploads { think: ms(d, 500.0, 4_000.0), kib: (200, 1_500) });
            many(draw, (1, 2), &|d| Habit::Lookups { think: ms(d, 500.0, 1_500.0) });
            many(draw, (1, 3), &|d| Habit::Calls { think: ms(d, 500.0, 2_000.0), kib: (10, 90) });
            many(draw, (1, 3), &|d| Habit::Idle { think: ms(d, 1_000.0, 3_000.0) });
        }
    }
    habits
}

/// One client, until its session is over. A failed exchange is counted and the next one tried: that is what
/// clients of a faulty server do.
fn act(habit: Habit, mut draw: Draw, session: &Session, tally: &Tally) {
    let (think, mut kept, mut used) = (habit.think(), None, 0);
    for _ in 0..EXCHANGE_LIMIT {
        if !session.pause(draw.pause(think)) {
            return;
        }
        let result = match habit {
            Habit::Pages { per_connection, .. } => {
                used += 1;
                let close = used % per_connection == 0;
                http::page(&mut kept, &mut draw, close, session)
            }
            Habit::Idle { .. } => http::page(&mut kept, &mut draw, false, session),
            Habit::Downloads { .. } => http::download(&mut draw, session),
            Habit::Uploads { kib, .. } => {
                let bytes = draw.integer(kib.0, kib.1) * 1024;
                http::upload(&mut draw, bytes, session)
            }
            Habit::Calls { kib, .. } => call(draw.integer(kib.0, kib.1) * 1024, session),
            Habit::Lookups { .. } => any_host(&mut draw, session).map(drop),
        };
        // What the end of the session cut short has neither completed nor failed.
        if result.is_ok() || !session.is_over() {
            tally.count(&result);
        }
    }
}

impl Habit {
    fn think(self) -> Duration {
        match self {
            Self::Pages { think, .. }
            | Self::Downloads { think }
            | Self::Uploads { think, .. }
            | Self::Calls { think, .. }
            | Self::Lookups { think }
            | Self::Idle { think } => think,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_mix_and_every_mix_has_all_kinds() {
        for workload in [Workload::Web, Workload::Batch] {
            for seed in 0..50 {
                let mix = clients(workload, &mut Draw::new(seed, "workload"));
                assert_eq!(mix, clients(workload, &mut Draw::new(seed, "workload")));
                let kinds = [
                    mix.iter().any(|h| matches!(h, Habit::Pages { .. })),
                    mix.iter().any(|h| matches!(h, Habit::Downloads { .. })),
                    mix.iter().any(|h| matches!(h, Habit::Uploads { .. })),
                    mix.iter().any(|h| matches!(h, Habit::Lookups { .. })),
                    mix.iter().any(|h| matches!(h, Habit::Calls { .. })),
                    mix.iter().any(|h| matches!(h, Habit::Idle { .. })),
                ];
                assert_eq!(kinds, [true; 6]);
            }
        }
    }
}
