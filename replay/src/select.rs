//! Which part of the input is used: `--from`, `--to` and `--filter`.

use event::{FiveTuple, L7Flow, Packet, Timestamp};

use crate::args::Args;
use crate::filter::Filter;
use crate::input::Item;

/// The part of the input that is used.
pub struct Select {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    filter: Option<Filter>,
    /// Packets left out.
    pub packets: u64,
    /// Other events left out.
    pub events: u64,
}

impl Select {
    pub fn new(args: &Args) -> Self {
        Self { from: args.from, to: args.to, filter: args.filter.clone(), packets: 0, events: 0 }
    }

    /// The part of an item that is used.
    pub fn apply<'a>(&mut self, item: Item<'a>) -> Item<'a> {
        if self.from.is_none() && self.to.is_none() && self.filter.is_none() {
            return item;
        }
        match item {
            Item::Packets(packets) => Item::TakenPackets(self.packets(packets.to_vec())),
            Item::TakenPackets(packets) => Item::TakenPackets(self.packets(packets)),
            Item::Flows(flows) => Item::Flows(self.flows(flows)),
            // What concerns the node as a whole holds for every part of it; the rest finds no flow.
            other => other,
        }
    }

    fn packets(&mut self, mut packets: Vec<Packet>) -> Vec<Packet> {
        let before = packets.len();
        packets.retain(|packet| self.takes(packet.time, &packet.five_tuple));
        self.packets += (before - packets.len()) as u64;
        packets
    }

    fn flows(&mut self, mut flows: Vec<L7Flow>) -> Vec<L7Flow> {
        let before = flows.len();
        flows.retain(|flow| self.takes(flow.time, &flow.five_tuple));
        self.events += (before - flows.len()) as u64;
        flows
    }

    fn takes(&self, time: Timestamp, tuple: &FiveTuple) -> bool {
        self.from.is_none_or(|from| from <= time)
            && self.to.is_none_or(|to| time < to)
            && self.filter.as_ref().is_none_or(|filter| filter.passes(tuple))
    }
}
