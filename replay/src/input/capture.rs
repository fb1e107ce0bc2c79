//! pcap and pcapng files as batches of packets.

use std::io::Read;

use anyhow::Result;
use dissect::{Capture, Damage};
use event::{Direction, Packet};

use super::{BATCH, Report};

/// A capture file.
pub struct CaptureInput {
    capture: Capture,
    packets: Vec<Packet>,
    damage: Option<Damage>,
}

impl CaptureInput {
    pub fn open(source: Box<dyn Read + Send>, name: &str, tunnel: dissect::Tunnel) -> Result<Self> {
        let capture = Capture::new(source, name, tunnel)?;
        Ok(Self { capture, packets: Vec::with_capacity(BATCH), damage: None })
    }

    /// The next packets; nothing at the end, or where the file is damaged.
    pub fn next_packets(&mut self) -> Option<&[Packet]> {
        self.packets.clear();
        while self.packets.len() < BATCH && self.damage.is_none() {
            match self.capture.next() {
                // A capture holds what its maker chose to capture: every packet of it counts, whichever
                // interfaces and directions it was seen at.
                Ok(Some(seen)) => {
                    self.packets.push(Packet { direction: Direction::Unknown, ..seen.packet });
                }
                Ok(None) => break,
                Err(damage) => self.damage = Some(damage),
            }
        }
        (!self.packets.is_empty()).then_some(&self.packets)
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
