//! pcap and pcapng files as batches of packets.

use std::io::Read;

use anyhow::Result;
use dissect::{Capture, Damage, DamageKind};
use event::Direction;

use super::{BATCH, Batch, Item, Report};

/// A capture file.
pub struct CaptureInput {
    capture: Capture,
    batch: Batch,
    /// Whether payload is wanted.
    with_payload: bool,
    /// That it ends in mid-packet is no damage: it is still being written.
    is_unfinished: bool,
    damage: Option<Damage>,
}

impl CaptureInput {
    pub fn open(
        source: Box<dyn Read + Send>,
        name: &str,
        tunnel: dissect::Tunnel,
        with_payload: bool,
        is_unfinished: bool,
    ) -> Result<Self> {
        let capture = Capture::new(source, name, tunnel)?;
        Ok(Self { capture, batch: Batch::default(), with_payload, is_unfinished, damage: None })
    }

    /// The next packets; nothing at the end, or where the file is damaged.
    pub fn next(&mut self) -> Option<Item<'_>> {
        self.fill();
        (!self.batch.packets.is_empty()).then(|| Item::Packets(self.batch.lend()))
    }

    /// The same, given away in exchange for an emptied batch.
    pub fn next_taken(&mut self, room: &mut Batch) -> Option<Item<'static>> {
        std::mem::swap(&mut self.batch, room);
        self.fill();
        (!self.batch.packets.is_empty()).then(|| Item::Taken(std::mem::take(&mut self.batch)))
    }

    fn fill(&mut self) {
        self.batch.begin(BATCH);
        while let Some(packet) = self.batch.place() {
            match self.capture.next_into(packet) {
                Ok(Some(payload)) => {
                    // A capture holds what its maker chose to capture: every packet of it counts, whichever
                    // interfaces and directions it was seen at.
                    packet.direction = Direction::Unknown;
                    self.batch.keep(self.with_payload.then_some(payload));
                }
                Ok(None) => break,
                Err(damage) => {
                    self.damage = Some(damage);
                    break;
                }
            }
        }
        self.batch.end();
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
        let mut damage = self.damage.as_ref();
        if let Some(Damage { offset, kind: DamageKind::Cut { .. }, .. }) = damage
            && self.is_unfinished
        {
            remarks.push(format!("followed up to byte {offset}"));
            damage = None;
        }
        Report {
            name: self.capture.name().to_owned(),
            read: counts.read,
            used: counts.used,
            skipped: counts.skipped.iter().map(|(reason, count)| (reason.to_string(), count)).collect(),
            remarks,
            damage: damage.iter().map(ToString::to_string).collect(),
        }
    }
}
