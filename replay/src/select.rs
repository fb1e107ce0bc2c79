//! Which part of the input is used: `--from`, `--to` and `--filter`.

use event::{Event, FiveTuple, L7Flow, Timestamp};

use crate::args::Args;
use crate::filter::Filter;
use crate::input::{Batch, Item, Packets};

/// The part of the input that is used.
pub struct Select {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    filter: Option<Filter>,
    /// Packets left out.
    pub packets: u64,
    /// Application events left out.
    pub flows: u64,
}

impl Select {
    pub fn new(args: &Args) -> Self {
        Self { from: args.from, to: args.to, filter: args.filter.clone(), packets: 0, flows: 0 }
    }

    /// The part of an item that is used.
    pub fn apply<'a>(&mut self, item: Item<'a>) -> Item<'a> {
        if self.from.is_none() && self.to.is_none() && self.filter.is_none() {
            return item;
        }
        match item {
            Item::Packets(packets) => Item::Taken(self.packets(packets)),
            Item::Taken(batch) => Item::Taken(self.packets(batch.lend())),
            Item::Event(Event::L7(flow)) if !self.takes_flow(&flow) => {
                self.flows += 1;
                Item::Taken(Batch::default())
            }
            // What concerns the node as a whole holds for every part of it; the rest finds no flow.
            other => other,
        }
    }

    fn packets(&mut self, packets: Packets<'_>) -> Batch {
        let kept = packets.only(|packet| self.takes(packet.time, &packet.five_tuple));
        self.packets += (packets.packets.len() - kept.packets.len()) as u64;
        kept
    }

    fn takes_flow(&self, flow: &L7Flow) -> bool {
        let mut tuples = [Some(flow.five_tuple), flow.source_translated].into_iter().flatten();
        tuples.any(|tuple| self.takes(flow.time, &tuple))
    }

    fn takes(&self, time: Timestamp, tuple: &FiveTuple) -> bool {
        self.from.is_none_or(|from| from <= time)
            && self.to.is_none_or(|to| time < to)
            && self.filter.as_ref().is_none_or(|filter| filter.passes(tuple))
    }
}
