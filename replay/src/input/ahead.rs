//! Reads ahead in a thread of its own, so that reading and computing run side by side.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

use anyhow::{Result, anyhow};

use super::{BATCH, Batch, Item, Merge};

/// Packets, and items, that are handed over at once: each handing over may wake a thread.
const PACKETS: usize = 4 * BATCH;
const ITEMS: usize = 64;
/// Times so many that may be read ahead; bounds the memory.
const AHEAD: usize = 2;

/// The items of an input that another thread reads.
pub struct Ahead<'scope> {
    items: Receiver<Vec<Item<'static>>>,
    /// What was handed over and not taken.
    here: std::vec::IntoIter<Item<'static>>,
    /// Where emptied batches go back to be filled again.
    emptied: SyncSender<Batch>,
    reader: ScopedJoinHandle<'scope, (Merge, Result<()>)>,
}

impl<'scope> Ahead<'scope> {
    /// `is_live`: somebody waits for each item.
    pub fn start<'env>(
        scope: &'scope std::thread::Scope<'scope, 'env>,
        inputs: Merge,
        is_live: bool,
    ) -> Self {
        let (to, items) = sync_channel(AHEAD);
        let (emptied, back) = sync_channel(ITEMS);
        let items_at_once = if is_live { 1 } else { ITEMS };
        let reader = scope.spawn(move || read(inputs, items_at_once, &to, &back));
        Self { items, here: Vec::new().into_iter(), emptied, reader }
    }

    /// The next packets or event; nothing at the end, or where reading failed, of which [`Ahead::finish`] tells.
    pub fn next(&mut self) -> Option<Item<'static>> {
        if self.here.len() == 0 {
            self.here = self.items.recv().ok()?.into_iter();
        }
        self.here.next()
    }

    /// Gives a batch back.
    pub fn give_back(&mut self, batch: Batch) {
        // A full channel has batches enough.
        let _ = self.emptied.try_send(batch);
    }

    /// Stops reading.
    pub fn finish(self) -> Result<Merge> {
        drop(self.items);
        let (inputs, outcome) = self.reader.join().map_err(|_| anyhow!("the reading thread panicked"))?;
        outcome.map(|()| inputs)
    }
}

fn read(
    mut inputs: Merge,
    items_at_once: usize,
    to: &SyncSender<Vec<Item<'static>>>,
    back: &Receiver<Batch>,
) -> (Merge, Result<()>) {
    let mut room = Batch::default();
    loop {
        // Whether there is more.
        let mut outcome = Ok(true);
        let (mut items, mut packets) = (Vec::new(), 0);
        while items.len() < items_at_once && packets < PACKETS && matches!(outcome, Ok(true)) {
            if room.is_unused() {
                room = back.try_recv().unwrap_or_default();
            }
            outcome = match inputs.next_taken(&mut room) {
                Ok(Some(item)) => {
                    if let Item::Taken(batch) = &item {
                        packets += batch.packets.len();
                    }
                    items.push(item);
                    Ok(true)
                }
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
        }
        // Where nobody takes them, the other side has seen enough.
        let is_taken = to.send(items).is_ok();
        match outcome {
            Ok(true) if is_taken => {}
            outcome => return (inputs, outcome.map(drop)),
        }
    }
}
