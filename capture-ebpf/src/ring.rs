//! Where packet records wait for the reader: a ring for each processor, in memory that the reader maps.
//!
//! The kernel's own ring buffer takes a lock that all processors share, once for every record. A TC program is
//! neither moved to another processor nor interrupted by another packet, so that a processor's ring has one writer,
//! and needs no lock.

use core::arch::asm;
use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::{
    Global, bindings::BPF_F_MMAPABLE, helpers::bpf_get_smp_processor_id, macros::map, maps::Array,
};
use wire::{PacketRecord, Ring};

/// One for each processor; the loader sets how many.
#[map]
static RINGS: Array<Ring> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The slots of all rings, one ring after the other; the loader sets how many.
#[map]
static SLOTS: Array<PacketRecord> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Slots of a ring, a power of two; one of them is always free.
#[unsafe(no_mangle)]
static CAPACITY: Global<u32> = Global::new(1);

/// Whether this machine lets another processor see what was written in the order in which it was written, as x86
/// does: then the record needs no barrier behind it.
#[unsafe(no_mangle)]
static IN_ORDER: Global<u32> = Global::new(0);

/// The ring of the processor that this runs on.
#[derive(Clone, Copy)]
pub struct Own {
    ring: *mut Ring,
    processor: u32,
}

impl Own {
    #[inline(always)]
    pub fn get() -> Option<Self> {
        // SAFETY: the helper takes nothing.
        let processor = unsafe { bpf_get_smp_processor_id() };
        Some(Self { ring: RINGS.get_ptr_mut(processor)?, processor })
    }

    /// Counts a packet.
    #[inline(always)]
    pub fn see<const DIRECTION: usize>(self) {
        // SAFETY: this processor alone writes it.
        unsafe { (*self.ring).seen[DIRECTION] += 1 };
    }

    /// Counts a packet of a flow that the sample leaves out.
    #[inline(always)]
    pub fn leave_out(self) {
        // SAFETY: this processor alone writes it.
        unsafe { (*self.ring).not_sampled += 1 };
    }

    /// Where what was found of the packet at hand is kept.
    #[inline(always)]
    pub fn scratch<T>(self) -> *mut T {
        const { assert!(size_of::<T>() <= 32 && align_of::<T>() <= 8) };
        // SAFETY: a field of the ring.
        unsafe { (&raw mut (*self.ring).scratch).cast() }
    }

    /// The slot of the next record. It is free whatever the reader does: one slot of a ring always is.
    #[inline(always)]
    pub fn slot(self) -> Option<*mut PacketRecord> {
        let capacity = CAPACITY.load();
        // SAFETY: an aligned word of the ring, which this processor alone writes.
        let head = unsafe { (*self.ring).head };
        SLOTS.get_ptr_mut(self.processor * capacity + (head as u32 & (capacity - 1)))
    }

    /// Whether the slot may be handed over and another one is free for the next record.
    #[inline(always)]
    pub fn has_room(self) -> bool {
        // SAFETY: aligned words of the ring; the tail is read once, whatever the reader does meanwhile.
        let (head, tail) = unsafe { ((*self.ring).head, (&raw const (*self.ring).tail).read_volatile()) };
        head.wrapping_sub(tail) + 1 < u64::from(CAPACITY.load())
    }

    /// Hands the record in the slot over.
    #[inline(always)]
    pub fn submit(self) {
        // SAFETY: this processor alone writes it, and the reader reads it as a whole.
        unsafe {
            let head = &raw mut (*self.ring).head;
            let next = head.read() + 1;
            if IN_ORDER.load() != 0 {
                compiler_fence(Ordering::Release);
                head.write_volatile(next);
            } else {
                // The store that is a barrier on every machine (Linux 5.12).
                asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) next => _, in(reg) head, options(nostack));
            }
        }
    }
}
