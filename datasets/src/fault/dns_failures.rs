//! DNS failures: the name server no longer knows its zone.
//!
//! `nxdomain`: it says that the names do not exist. `refused`: it no longer is an authority for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use event::Fault;
use features::Feature;

use super::{Crowd, Dose, Injection, Recipe};
use crate::evidence::Evidence;
use crate::load;
use crate::scene::Scene;
use crate::service::Zone;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::DnsFailures,
    mechanisms: &["nxdomain", "refused"],
    optional: &[],
    affected: &["udp/198.18.1.2:53"],
    shows: &[(Feature::DnsResponseCode, 1.0)],
    own_drops: &[],
    inject,
};

/// Clients that look up again and again, as applications do that cannot start without their database.
const RETRYING: [(u32, u32); 3] = [(1, 3), (5, 8), (12, 20)];

struct DnsFailures {
    failures: Arc<[AtomicU64; 16]>,
    clients: Crowd,
    expected: usize,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    // Response codes: 3 is NXDOMAIN, 5 REFUSED (RFC 1035, 4.1.1).
    let (zone, expected) = if dose.mechanism == "refused" { (Zone::Disowned, 5) } else { (Zone::Empty, 3) };
    scene.change_zone(zone)?;
    let (low, high) = dose.severity.of(RETRYING);
    let count = dose.draw.integer(low, high);
    let failures = Arc::<[AtomicU64; 16]>::default();
    let counted = Arc::clone(&failures);
    let clients = Crowd::start(&scene.topology.client, count, &mut dose, move |draw, session| {
        session.pause(draw.pause(std::time::Duration::from_millis(300)));
        let code = load::any_host(draw, session)?;
        counted[usize::from(code)].fetch_add(1, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(Box::new(DnsFailures { failures, clients, expected }))
}

impl Injection for DnsFailures {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        self.clients.finish()?;
        scene.change_zone(Zone::Complete)?;
        let of = |code: usize| self.failures[code].load(Ordering::Relaxed);
        let mut evidence = Evidence::default();
        evidence.at_least(if self.expected == 3 { "nxdomain" } else { "refused" }, of(self.expected), 5);
        evidence.at_most("noerror", of(0), 0);
        Ok(evidence)
    }
}
