//! Connection churn: clients that connect, ask once and slam the connection shut with a reset, and some that
//! knock on a port where nobody listens.

use std::time::Duration;

use anyhow::Result;
use event::Fault;
use features::Feature;

use super::{Crowd, Dose, Injection, Recipe};
use crate::counters::Counters;
use crate::evidence::Evidence;
use crate::load::{self, Session};
use crate::scene::Scene;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::ConnectionChurn,
    mechanisms: &["reset"],
    optional: &[],
    affected: &["tcp/198.18.1.2:80", "tcp/198.18.1.2:8081"],
    shows: &[(Feature::TcpResets, 5.0)],
    own_drops: &[],
    inject,
};

/// Connections a second, all clients together.
const PER_SECOND: [(f64, f64); 3] = [(30.0, 60.0), (100.0, 180.0), (300.0, 450.0)];
const CLIENTS: u32 = 12;
/// Where nobody listens.
const REFUSED_PORT: u16 = 8081;
/// Share of the connections that go there.
const REFUSED: f64 = 0.2;

struct ConnectionChurn {
    before: (Counters, Counters),
    clients: Crowd,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let (low, high) = dose.severity.of(PER_SECOND);
    let gap = Duration::from_secs_f64(f64::from(CLIENTS) / dose.draw.between(low, high));
    let before = (Counters::read(&scene.topology.client)?, Counters::read(&scene.topology.server)?);
    let clients = Crowd::start(&scene.topology.client, CLIENTS, &mut dose, move |draw, session| {
        session.pause(draw.pause(gap));
        if draw.chance(REFUSED) { load::connect(REFUSED_PORT, session).map(drop) } else { slam(session) }
    })?;
    Ok(Box::new(ConnectionChurn { before, clients }))
}

/// One page, and a close that sends RST instead of FIN.
fn slam(session: &Session) -> std::io::Result<()> {
    let mut connection = load::connect(80, session)?;
    connection.exchange("GET", "/page-900", 0, false)?;
    socket2::SockRef::from(&connection.into_stream()).set_linger(Some(Duration::ZERO))
}

impl Injection for ConnectionChurn {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let (client, server) = (&scene.topology.client, &scene.topology.server);
        let slammed = Counters::read(client)?.since(&self.before.0, "Tcp.OutRsts");
        let refused = Counters::read(server)?.since(&self.before.1, "Tcp.OutRsts");
        self.clients.finish()?;
        let mut evidence = Evidence::default();
        evidence.at_least("resets_by_clients", slammed, 50);
        evidence.at_least("resets_by_server", refused, 10);
        Ok(evidence)
    }
}
