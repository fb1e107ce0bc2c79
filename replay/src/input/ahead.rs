//! Reads ahead in a thread of its own, so that reading and computing run side by side.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

use anyhow::{Result, anyhow};

use super::{Batch, Item, Merge};

/// Batches that may be read ahead; bounds the memory.
const AHEAD: usize = 4;

/// The items of an input that another thread reads.
pub struct Ahead<'scope> {
    items: Receiver<Item<'static>>,
    /// Where emptied batches go back to be filled again.
    emptied: SyncSender<Batch>,
    reader: ScopedJoinHandle<'scope, (Merge, Result<()>)>,
}

impl<'scope> Ahead<'scope> {
    pub fn start<'env>(scope: &'scope std::thread::Scope<'scope, 'env>, inputs: Merge) -> Self {
        let (to, items) = sync_channel(AHEAD);
        let (emptied, back) = sync_channel(2 * AHEAD);
        let reader = scope.spawn(move || read(inputs, &to, &back));
        Self { items, emptied, reader }
    }

    /// The next packets or event; nothing at the end, or where reading failed, of which [`Ahead::finish`] tells.
    pub fn next(&mut self) -> Option<Item<'static>> {
        self.items.recv().ok()
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

fn read(mut inputs: Merge, to: &SyncSender<Item<'static>>, back: &Receiver<Batch>) -> (Merge, Result<()>) {
    loop {
        let item = match inputs.next() {
            Ok(None) => return (inputs, Ok(())),
            Err(error) => return (inputs, Err(error)),
            Ok(Some(Item::Packets(packets))) => {
                let mut taken = back.try_recv().unwrap_or_default();
                taken.copy_from(packets);
                Item::Taken(taken)
            }
            Ok(Some(Item::Taken(batch))) => Item::Taken(batch),
            Ok(Some(Item::Event(event))) => Item::Event(event),
            Ok(Some(Item::Label(time, label))) => Item::Label(time, label),
            Ok(Some(Item::Affected(time, affected))) => Item::Affected(time, affected),
        };
        if to.send(item).is_err() {
            // The other side has seen enough.
            return (inputs, Ok(()));
        }
    }
}
