//! Application messages out of the starts of payload that the programs send. Payload goes no further than this.

use std::collections::BTreeMap;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::{Ebpf, EbpfLoader};
use decode::packet::Decoder;
use decode::payload::split;
use dissect::{L7, L7Counts, L7Options};
use event::{Event, L7Flow, Loss, LossCause, Tap, Timestamp};
use wire::{MAX_PAYLOAD, PayloadSelect};

use super::taps::Taps;
use super::{MAX_BATCH, map_error};
use crate::object;
use crate::source::Error;

/// Which messages to read from payload.
#[derive(Clone, Copy, Debug)]
pub struct PayloadOptions {
    /// Bytes of each packet's payload, from 1 to [`PayloadOptions::LONGEST`].
    pub length: u32,
    pub messages: L7Options,
    /// Bytes of the ring buffer between kernel and reader; a power of two, at least a page.
    pub ring_size: u32,
}

impl PayloadOptions {
    /// Most bytes that the programs send of a packet.
    pub const LONGEST: u32 = 512;

    pub fn new(length: u32, messages: L7Options) -> Self {
        // 13,700 packets with payload between two polls.
        Self { length, messages, ring_size: 8 << 20 }
    }

    fn select(&self) -> u32 {
        let L7Options { dns, http, kafka, tls, .. } = self.messages;
        let bits =
            [(dns, PayloadSelect::DNS), (http || kafka, PayloadSelect::TCP), (tls, PayloadSelect::TLS)];
        bits.into_iter().filter(|(is_asked, _)| *is_asked).fold(0, |all, (_, bit)| all | bit)
    }
}

/// The globals and the ring's size as these options need them; the loader keeps them by reference.
pub struct Globals {
    length: u32,
    select: u32,
    ring_size: u32,
}

impl Globals {
    /// Without options the programs send nothing.
    pub fn new(options: Option<&PayloadOptions>) -> Self {
        let most = PayloadOptions::LONGEST;
        options.map_or(Self { length: 0, select: 0, ring_size: 4096 }, |options| Self {
            length: options.length.clamp(1, most),
            select: options.select(),
            ring_size: options.ring_size,
        })
    }

    pub fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader
            .override_global("PAYLOAD_LENGTH", &self.length, true)
            .override_global("PAYLOAD_SELECT", &self.select, true)
            .map_max_entries("PAYLOADS", self.ring_size);
    }
}

const _: () = assert!(PayloadOptions::LONGEST as usize == MAX_PAYLOAD);

/// What became of payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadCounters {
    /// Starts of payload that were read.
    pub snapshots: u64,
    /// The ring buffer had no room.
    pub lost: u64,
    pub messages: L7Counts,
}

/// Reads payload and finds messages in it.
pub struct Payloads {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    messages: L7,
    found: Vec<L7Flow>,
    snapshots: u64,
    told_lost: u64,
}

impl Payloads {
    pub fn new(ebpf: &mut Ebpf, options: &PayloadOptions) -> Result<Self, Error> {
        Ok(Self {
            ring: object::map(ebpf, "PAYLOADS", RingBuf::try_from)?,
            lost: object::map(ebpf, "PAYLOADS_LOST", PerCpuArray::try_from)?,
            messages: L7::new(options.messages),
            found: Vec::new(),
            snapshots: 0,
            told_lost: 0,
        })
    }

    pub fn counters(&self) -> Result<PayloadCounters, Error> {
        let values = self.lost.get(&0, 0).map_err(map_error("PAYLOADS_LOST"))?;
        let (lost, messages) = (values.iter().sum(), self.messages.counts());
        Ok(PayloadCounters { snapshots: self.snapshots, lost, messages })
    }

    /// Hands over the messages that the waiting payload completes; how much payload it was. Packets are counted as
    /// they were handed over, so that a message is told from one tap alone.
    pub fn hand_over(
        &mut self,
        decoder: &mut Decoder,
        taps: &mut Option<Taps>,
        places: &BTreeMap<u32, u32>,
        arrival: Timestamp,
        take: &mut dyn FnMut(Event),
    ) -> Result<usize, Error> {
        let mut count = 0;
        while count < MAX_BATCH {
            let Some(bytes) = self.ring.next() else { break };
            count += 1;
            let (record, payload) = split(&bytes)?;
            let place = places.get(&record.interface).copied().unwrap_or(u32::MAX);
            let packet = decoder.packet(&record, place, arrival);
            let tap = taps.as_mut().map_or(Tap::Unknown, |taps| taps.judge(&packet));
            if tap != Tap::Secondary {
                self.messages.observe(&packet, payload, &mut self.found);
            }
        }
        self.snapshots += count as u64;
        self.tell(arrival, take);
        Ok(count)
    }

    /// The messages that wait for what will not come any more.
    pub fn finish(&mut self, arrival: Timestamp, take: &mut dyn FnMut(Event)) {
        self.messages.finish(&mut self.found);
        self.tell(arrival, take);
    }

    fn tell(&mut self, arrival: Timestamp, take: &mut dyn FnMut(Event)) {
        for mut flow in self.found.drain(..) {
            flow.arrival = arrival.max(flow.time);
            take(Event::L7(Box::new(flow)));
        }
    }

    /// Hands over what was lost since the last time.
    pub fn tell_loss(
        &mut self,
        first: Timestamp,
        now: Timestamp,
        take: &mut dyn FnMut(Event),
    ) -> Result<(), Error> {
        let lost = self.counters()?.lost;
        if lost > self.told_lost {
            take(Event::Loss(Loss {
                first,
                last: now,
                arrival: now,
                source: event::Source::L7,
                cause: LossCause::RingFull,
                interface: None,
                count: lost - self.told_lost,
            }));
        }
        self.told_lost = lost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_bits() {
        let none = L7Options { dns: false, http: false, kafka: false, tls: false, redact: false };
        let select = |messages| PayloadOptions::new(192, messages).select();
        assert_eq!(select(none), 0);
        assert_eq!(select(L7Options { dns: true, ..none }), PayloadSelect::DNS);
        assert_eq!(select(L7Options { kafka: true, ..none }), PayloadSelect::TCP);
        assert_eq!(
            select(L7Options::default()),
            PayloadSelect::DNS | PayloadSelect::TCP | PayloadSelect::TLS
        );
    }
}
