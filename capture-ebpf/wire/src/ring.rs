//! The rings in which packet records wait for the reader: one for each processor, of as many slots each.

/// Both ends of a processor's ring. Record number n is in slot n modulo the slots; those from `tail` up to `head`
/// wait to be read, and the slot behind them is free whatever happens: the program fills it before it asks whether there
/// is room. Writers of the two ends are on different processors, so each end has a cache line of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct Ring {
    /// Records written since the start. The program's alone to write.
    pub head: u64,
    /// Packets seen, by direction.
    pub seen: [u64; crate::DIRECTIONS],
    /// Of them, those of flows that the sample leaves out.
    pub not_sampled: u64,
    /// The program's own, from one of its steps to the next.
    pub scratch: [u64; 4],
    /// Records read since the start. The reader's alone to write.
    pub tail: u64,
    reserved: [u64; 7],
}

const _: () = assert!(size_of::<Ring>() == 128);
