//! Lanes, or flows, that were used lately.

/// The last one first: what an event is of is most often near the front.
#[derive(Default)]
pub(crate) struct Recent {
    numbers: Vec<u32>,
}

impl Recent {
    /// Bounds the search for a number and the move to the front.
    pub const MOST: usize = 64;

    pub fn clear(&mut self) {
        self.numbers.clear();
    }

    /// How many other numbers were used since this one.
    pub fn rank(&self, number: u32) -> Option<usize> {
        self.numbers.iter().position(|other| *other == number)
    }

    pub fn at(&self, rank: usize) -> Option<u32> {
        self.numbers.get(rank).copied()
    }

    /// Moves the number of this rank to the front.
    #[inline]
    pub fn promote(&mut self, rank: usize) {
        if rank > 0 {
            self.numbers[..=rank].rotate_right(1);
        }
    }

    /// Puts a number that has no rank to the front.
    pub fn insert(&mut self, number: u32) {
        self.numbers.truncate(Self::MOST - 1);
        self.numbers.insert(0, number);
    }
}
