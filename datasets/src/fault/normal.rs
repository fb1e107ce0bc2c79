//! No fault: the background load alone, and proof that nothing went wrong.

use anyhow::Result;
use event::Fault;

use super::{Dose, Injection, Recipe};
use crate::counters::Counters;
use crate::disk::Disk;
use crate::evidence::Evidence;
use crate::scene::Scene;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::Normal,
    mechanisms: &["none"],
    optional: &[],
    affected: &[],
    shows: &[],
    own_drops: &[],
    inject,
};

/// Hundredths of a request: what other work on the machine may add before the node is no normal one.
const MOST_QUEUE: u64 = 5_00;

struct Normal {
    before: Counters,
    disk: Disk,
}

fn inject(scene: &mut Scene, _: Dose) -> Result<Box<dyn Injection>> {
    Ok(Box::new(Normal {
        before: Counters::read(&scene.topology.server)?,
        disk: Disk::of(scene.directory())?,
    }))
}

impl Injection for Normal {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let after = Counters::read(&scene.topology.server)?;
        let since = |name| after.since(&self.before, name);
        let mut evidence = Evidence::default();
        let sent = since("Tcp.OutSegs");
        evidence.at_least("segments_sent", sent, 1);
        // A busy host retransmits a few segments even over a clean link.
        evidence.at_most("retransmitted", since("Tcp.RetransSegs"), sent / 100);
        // An idle one lets uploads go as fast as their reader, whose window is then full for microseconds at a time:
        // up to 2 % of the segments say so.
        evidence.at_most("zero_windows", since("TcpExt.TCPToZeroWindowAdv"), sent / 33);
        evidence.at_most("listen_drops", since("TcpExt.ListenDrops"), 0);
        evidence.at_most("syncookies_sent", since("TcpExt.SyncookiesSent"), 0);
        let queue = Disk::of(scene.directory())?.mean_queue_since(&self.disk);
        evidence.at_most("queue_depth_hundredths", queue, MOST_QUEUE);
        Ok(evidence)
    }
}
