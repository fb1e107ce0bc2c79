//! The rings in which the TC programs leave packet records: one for each processor, in memory that kernel and
//! reader share. Nothing is copied on the way, and the reader asks for nothing: it looks.
#![expect(unsafe_code, reason = "memory is shared with the kernel programs")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use wire::{PacketRecord, Ring};

use crate::object;
use crate::source::Error;

/// How large the rings are.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// One for each processor that the kernel can have.
    rings: u32,
    /// Slots of a ring, a power of two; one of them is always free.
    capacity: u32,
}

/// Slots that a ring has at least: 10 ms of 400,000 packets a second.
const LEAST: u32 = 4096;
/// Bytes of a record.
const RECORD: u32 = 88;
const _: () = assert!(size_of::<PacketRecord>() == RECORD as usize);
/// Records read before their room is given back.
const STRIDE: u64 = 64;

impl Layout {
    /// Shares `bytes` among the processors.
    ///
    /// # Errors
    /// [`Error::Processors`].
    pub fn of(bytes: u32) -> Result<Self, Error> {
        let rings = aya::util::nr_cpus().map_err(|(_, error)| Error::Processors(error))?;
        let rings = u32::try_from(rings).unwrap_or(u32::MAX);
        let fit = bytes / rings.max(1) / RECORD;
        // Downwards, to what is allowed.
        let capacity = (fit.max(LEAST) / 2 + 1).next_power_of_two();
        Ok(Self { rings, capacity })
    }

    pub const fn rings(self) -> u32 {
        self.rings
    }

    pub const fn capacity(self) -> u32 {
        self.capacity
    }

    pub const fn slots(self) -> u32 {
        self.rings * self.capacity
    }
}

/// The reader's side of all rings.
pub struct Rings {
    layout: Layout,
    rings: Mapping<Ring>,
    slots: Mapping<PacketRecord>,
    /// Records written and read, by ring, as the reader knows.
    heads: Vec<u64>,
    tails: Vec<u64>,
    /// The time of the next record of each ring that has one, and the ring.
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Rings {
    /// Maps the rings of programs that were loaded with this layout.
    ///
    /// # Errors
    /// [`Error::Object`], [`Error::Map`], [`Error::Rings`].
    pub fn map(ebpf: &mut Ebpf, layout: Layout) -> Result<Self, Error> {
        let count = layout.rings as usize;
        Ok(Self {
            layout,
            rings: Mapping::of(ebpf, "RINGS", count)?,
            slots: Mapping::of(ebpf, "SLOTS", layout.slots() as usize)?,
            heads: vec![0; count],
            tails: vec![0; count],
            next: BinaryHeap::new(),
        })
    }

    /// Records that a ring holds.
    pub const fn capacity(&self) -> u32 {
        self.layout.capacity
    }

    /// Packets that the programs saw until now.
    pub fn seen(&self) -> u64 {
        (0..self.tails.len())
            // SAFETY: aligned words of the mapping, which the kernel writes as a whole.
            .map(|ring| unsafe { (&raw const (*self.rings.at(ring)).seen).read_volatile() })
            .map(|seen| seen.iter().sum::<u64>())
            .sum()
    }

    /// Of them, those of flows that the sample leaves out.
    pub fn not_sampled(&self) -> u64 {
        (0..self.tails.len())
            // SAFETY: as above.
            .map(|ring| unsafe { (&raw const (*self.rings.at(ring)).not_sampled).read_volatile() })
            .sum()
    }

    /// Hands over what is there now, at most so many records, in the order of their times; how many it was.
    pub fn read(&mut self, most: usize, mut take: impl FnMut(&PacketRecord)) -> usize {
        for ring in 0..self.heads.len() {
            self.heads[ring] = self.head(ring).load(Ordering::Acquire);
        }
        self.next.clear();
        for ring in 0..self.heads.len() {
            self.line_up(ring);
        }
        let mut left = most;
        while left > 0
            && let Some(Reverse((_, ring))) = self.next.pop()
        {
            let until = self.next.peek().map_or(u64::MAX, |Reverse((time, _))| *time);
            while left > 0 && self.tails[ring] != self.heads[ring] {
                let record = self.record(ring);
                if record.time > until {
                    break;
                }
                self.tails[ring] += 1;
                left -= 1;
                if self.tails[ring].is_multiple_of(STRIDE) {
                    self.give_back(ring);
                }
                take(&record);
            }
            self.give_back(ring);
            self.line_up(ring);
        }
        most - left
    }

    /// Puts a ring that has a record in line with the others.
    fn line_up(&mut self, ring: usize) {
        if self.tails[ring] != self.heads[ring] {
            self.next.push(Reverse((self.record(ring).time, ring)));
        }
    }

    /// A copy of a ring's next record.
    fn record(&self, ring: usize) -> PacketRecord {
        let capacity = self.layout.capacity as usize;
        #[expect(clippy::cast_possible_truncation, reason = "less than the capacity")]
        let slot = ring * capacity + (self.tails[ring] % capacity as u64) as usize;
        // SAFETY: a slot of the mapping; it was written before the head that was read, and the program leaves it
        // alone until the tail is past it.
        unsafe { self.slots.at(slot).read() }
    }

    fn head(&self, ring: usize) -> &AtomicU64 {
        // SAFETY: an aligned word of the mapping, which lives as long as `self`.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.rings.at(ring)).head) }
    }

    fn give_back(&self, ring: usize) {
        // SAFETY: as in `head`.
        let tail = unsafe { AtomicU64::from_ptr(&raw mut (*self.rings.at(ring)).tail) };
        tail.store(self.tails[ring], Ordering::Release);
    }
}

/// The values of an array map, mapped into this process.
struct Mapping<T> {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    count: usize,
    values: std::marker::PhantomData<T>,
}

// SAFETY: the memory belongs to nobody's thread.
unsafe impl<T> Send for Mapping<T> {}

impl<T> Mapping<T> {
    fn of(ebpf: &mut Ebpf, name: &'static str, count: usize) -> Result<Self, Error> {
        let map: MapData = object::map(ebpf, name, |map| match map {
            Map::Array(data) => Ok(data),
            _ => Err(MapError::InvalidMapType { map_type: 0 }),
        })?;
        let no_room = || Error::Rings(io::ErrorKind::OutOfMemory.into());
        let bytes = count.checked_mul(size_of::<T>()).and_then(NonZeroUsize::new).ok_or_else(no_room)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: new memory, which nothing else in this process knows of.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) };
        let start = start.map_err(|error| Error::Rings(error.into()))?;
        Ok(Self { start, bytes, count, values: std::marker::PhantomData })
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.count);
        // SAFETY: inside the mapping by the line before; the kernel maps from the start of a page.
        unsafe { self.start.cast::<T>().add(index).as_ptr() }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `of`, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_shared_and_never_rounded_up() {
        for bytes in [1 << 12, 8 << 20, 9 << 20, 64 << 20] {
            let layout = Layout::of(bytes).unwrap();
            assert!(layout.capacity().is_power_of_two() && layout.capacity() >= LEAST);
            let used = layout.slots() as usize * size_of::<PacketRecord>();
            assert!(used <= bytes as usize || layout.capacity() == LEAST, "{layout:?}");
            assert!(used * 2 > bytes as usize, "{layout:?}");
        }
    }
}
