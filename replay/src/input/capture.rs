//! pcap and pcapng files as batches of packets.

use std::io::Read;

use anyhow::Result;
use dissect::{Capture, Damage};
use event::Direction;

use super::{BATCH, Batch, Item, Report};

/// A capture file.
pub struct CaptureInput {
    capture: Capture,
    batch: Batch,
    /// Whether payload is wanted.
    with_payload: bool,
    damage: Option<Damage>,
}

impl CaptureInput {
    pub fn open(
        source: Box<dyn Read + Send>,
        name: &str,
        tunnel: dissect::Tunnel,
        with_payload: bool,
    ) -> Result<Self> {
        let capture = Capture::new(source, name, tunnel)?;
        Ok(Self { capture, batch: Batch::default(), with_payload, damage: None })
    }

    /// The next packets; nothing at the end, or where the file is damaged.
    pub fn next(&mut self) -> Option<Item<'_>> {
        let (capture, batch) = (&mut self.capture, &mut self.batch);
        batch.clear();
        while batch.packets.len() < BATCH && self.damage.is_none() {
            match capture.next() {
                Ok(Some(mut seen)) => {
                    // A capture holds what its maker chose to capture: every packet of it counts, whichever
                    // interfaces and directions it was seen at.
                    seen.packet.direction = Direction::Unknown;
                    batch.push(&seen.packet, self.with_payload.then_some(seen.payload));
                }
                Ok(None) => break,
                Err(damage) => self.damage = Some(damage),
            }
        }
        (!batch.packets.is_empty()).then(|| Item::Packets(batch.lend()))
    }

    pub fn report(&self) -> Report {
        let counts = self.capture.counts();
        let mut remarks = Vec::new();
        let mut remark = |count: u64, text: &str| {
            if count > 0 {
                remarks.push(format!("{count} {text}"));
            }
        };
        remark(counts.clock_steps_back, "times the clock stepped back");
        remark(counts.untimed, "packets without a time of their own, taken at that of the packet before");
        Report {
            name: self.capture.name().to_owned(),
            read: counts.read,
            used: counts.used,
            skipped: counts.skipped.iter().map(|(reason, count)| (reason.to_string(), count)).collect(),
            remarks,
            damage: self.damage.iter().map(ToString::to_string).collect(),
        }
    }
}
