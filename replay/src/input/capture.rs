//! pcap and pcapng files as batches of packets.

use std::io::Read;

use anyhow::Result;
use dissect::{Capture, Damage, L7, L7Options};
use event::{Direction, L7Flow, Packet};

use super::{BATCH, Item, Report};

/// A capture file.
pub struct CaptureInput {
    capture: Capture,
    packets: Vec<Packet>,
    /// Absent where application messages are not asked for.
    l7: Option<L7>,
    /// Messages of the packets given out last.
    found: Vec<L7Flow>,
    has_ended: bool,
    damage: Option<Damage>,
}

impl CaptureInput {
    pub fn open(
        source: Box<dyn Read + Send>,
        name: &str,
        tunnel: dissect::Tunnel,
        l7: Option<L7Options>,
    ) -> Result<Self> {
        Ok(Self {
            capture: Capture::new(source, name, tunnel)?,
            packets: Vec::with_capacity(BATCH),
            l7: l7.map(L7::new),
            found: Vec::new(),
            has_ended: false,
            damage: None,
        })
    }

    /// The next packets, or the application messages in the packets before; nothing at the end, or where the
    /// file is damaged.
    pub fn next(&mut self) -> Option<Item<'_>> {
        if !self.found.is_empty() {
            return Some(Item::Flows(std::mem::take(&mut self.found)));
        }
        self.read_packets();
        if !self.packets.is_empty() {
            return Some(Item::Packets(&self.packets));
        }
        if let Some(l7) = &mut self.l7
            && !std::mem::replace(&mut self.has_ended, true)
        {
            l7.finish(&mut self.found);
        }
        (!self.found.is_empty()).then(|| Item::Flows(std::mem::take(&mut self.found)))
    }

    fn read_packets(&mut self) {
        self.packets.clear();
        while self.packets.len() < BATCH && self.damage.is_none() {
            match self.capture.next() {
                // A capture holds what its maker chose to capture: every packet of it counts, whichever
                // interfaces and directions it was seen at.
                Ok(Some(seen)) => {
                    if let Some(l7) = &mut self.l7 {
                        l7.observe(&seen.packet, seen.payload, &mut self.found);
                    }
                    self.packets.push(Packet { direction: Direction::Unknown, ..seen.packet });
                }
                Ok(None) => break,
                Err(damage) => self.damage = Some(damage),
            }
        }
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
        if let Some(l7) = self.l7.as_ref().map(L7::counts) {
            remark(l7.requests, "application requests");
            remark(l7.responses, "application responses");
            remark(l7.malformed, "application messages not understood");
            remark(l7.places_lost, "times a connection's messages were lost from sight");
            remark(l7.connections_forgotten, "connections whose messages were no longer followed");
            remark(l7.requests_forgotten, "requests that waited too long for their response");
        }
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
