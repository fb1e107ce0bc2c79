//! Backlog overflow: the application accepts too slowly for its short queue.
//!
//! `silent`: the kernel ignores what does not fit and clients try again. `abort`: it answers with a reset
//! (tcp_abort_on_overflow).

use anyhow::Result;
use event::Fault;
use features::Feature;

use super::{Crowd, Dose, Injection, Recipe};
use crate::counters::Counters;
use crate::evidence::Evidence;
use crate::load;
use crate::scene::Scene;
use crate::service::Knob;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::BacklogOverflow,
    mechanisms: &["silent", "abort"],
    optional: &[],
    affected: &["tcp/198.18.1.2:8080"],
    shows: &[(Feature::TcpListenOverflows, 1.0)],
    own_drops: &[],
    inject,
};

/// Milliseconds between two accepts.
const ACCEPT_PAUSE: [(u32, u32); 3] = [(80, 140), (200, 400), (600, 1200)];
const CLIENTS: [(u32, u32); 3] = [(20, 30), (40, 60), (80, 120)];

struct BacklogOverflow {
    before: Counters,
    clients: Crowd,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let server = &scene.topology.server;
    server.sysctl("ipv4/tcp_abort_on_overflow", if dose.mechanism == "abort" { "1" } else { "0" })?;
    let (low, high) = dose.severity.of(ACCEPT_PAUSE);
    scene.app.turn(Knob::AcceptPause, dose.draw.integer(low, high))?;
    let before = Counters::read(server)?;
    let (low, high) = dose.severity.of(CLIENTS);
    let count = dose.draw.integer(low, high);
    let clients = Crowd::start(&scene.topology.client, count, &mut dose, |draw, session| {
        session.pause(draw.pause(std::time::Duration::from_millis(100)));
        load::call(draw.integer(0, 2000), session)
    })?;
    Ok(Box::new(BacklogOverflow { before, clients }))
}

impl Injection for BacklogOverflow {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let server = &scene.topology.server;
        let after = Counters::read(server)?;
        server.sysctl("ipv4/tcp_abort_on_overflow", "0")?;
        scene.app.turn(Knob::AcceptPause, 0)?;
        let mut evidence = Evidence::default();
        evidence.note("clients", self.clients.len());
        self.clients.finish()?;
        evidence.at_least("listen_overflows", after.since(&self.before, "TcpExt.ListenOverflows"), 10);
        evidence.at_least("listen_drops", after.since(&self.before, "TcpExt.ListenDrops"), 10);
        evidence.note("syncookies_sent", after.since(&self.before, "TcpExt.SyncookiesSent"));
        Ok(evidence)
    }
}
