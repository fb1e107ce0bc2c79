//! Several inputs as one, by time.

use anyhow::Result;
use event::Timestamp;

use super::{BATCH, Batch, Input, Item, Report};

/// An input and what was read of it ahead.
struct Ahead {
    input: Input,
    batch: Batch,
    next: usize,
    /// An item other than packets, and its time.
    single: Option<(Timestamp, Item<'static>)>,
    has_ended: bool,
}

impl Ahead {
    fn fill(&mut self) -> Result<()> {
        if self.has_ended || self.single.is_some() || self.next < self.batch.packets.len() {
            return Ok(());
        }
        self.batch.clear();
        self.next = 0;
        match self.input.next()? {
            Some(Item::Packets(packets)) => self.batch.copy_from(packets),
            Some(Item::Taken(batch)) => self.batch = batch,
            Some(Item::Event(event)) => self.single = Some((event.time(), Item::Event(event))),
            Some(Item::Label(time, label)) => self.single = Some((time, Item::Label(time, label))),
            Some(Item::Affected(time, affected)) => {
                self.single = Some((time, Item::Affected(time, affected)));
            }
            None => self.has_ended = true,
        }
        Ok(())
    }

    fn time(&self) -> Option<Timestamp> {
        match &self.single {
            Some((time, _)) => Some(*time),
            None => self.batch.packets.get(self.next).map(|packet| packet.time),
        }
    }
}

/// Inputs merged by time; each keeps its own order, and of equal times the first input's comes first.
pub struct Merge {
    inputs: Vec<Ahead>,
    merged: Batch,
}

impl Merge {
    pub fn new(inputs: Vec<Input>) -> Self {
        let ahead = |input| Ahead { input, batch: Batch::default(), next: 0, single: None, has_ended: false };
        Self { inputs: inputs.into_iter().map(ahead).collect(), merged: Batch::default() }
    }

    /// The next packets or event; nothing at the end of all inputs.
    pub fn next(&mut self) -> Result<Option<Item<'_>>> {
        if self.inputs.len() == 1 {
            return self.inputs[0].input.next();
        }
        self.merged.clear();
        while self.merged.packets.len() < BATCH {
            for input in &mut self.inputs {
                input.fill()?;
            }
            let timed = self.inputs.iter_mut().filter_map(|input| input.time().map(|time| (time, input)));
            let Some((_, first)) = timed.min_by_key(|(time, _)| *time) else { break };
            if first.single.is_some() {
                if self.merged.packets.is_empty() {
                    return Ok(first.single.take().map(|(_, item)| item));
                }
                break;
            }
            let packets = first.batch.lend();
            self.merged.push(&packets.packets[first.next], packets.payload(first.next));
            first.next += 1;
        }
        Ok((!self.merged.packets.is_empty()).then(|| Item::Packets(self.merged.lend())))
    }

    /// The same, given away; `room` is an emptied batch whose memory may be used again.
    pub fn next_taken(&mut self, room: &mut Batch) -> Result<Option<Item<'static>>> {
        if let [only] = self.inputs.as_mut_slice() {
            return only.input.next_taken(room);
        }
        Ok(self.next()?.map(|item| item.taken(room)))
    }

    pub fn reports(&self) -> Vec<Report> {
        self.inputs.iter().flat_map(|input| input.input.reports()).collect()
    }
}
