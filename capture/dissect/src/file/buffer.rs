//! Bytes of a stream, read in large blocks, that know their offset.

use std::io::{self, Read};

/// Large enough that system calls do not count, small enough for the second-level cache.
const BLOCK: usize = 128 * 1024;

pub(super) struct Buffer {
    input: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    /// What is read and not consumed.
    start: usize,
    end: usize,
    /// Of `start` in the stream.
    offset: u64,
}

impl Buffer {
    pub fn new(input: Box<dyn Read + Send>) -> Self {
        Self { input, bytes: vec![0; BLOCK], start: 0, end: 0, offset: 0 }
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What has been read and not consumed.
    #[inline]
    pub fn ready(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The next `wanted` bytes, fewer only at the stream's end.
    #[inline]
    pub fn up_to(&mut self, wanted: usize) -> io::Result<&[u8]> {
        if self.end - self.start < wanted {
            self.fill(wanted)?;
        }
        Ok(&self.bytes[self.start..self.end.min(self.start + wanted)])
    }

    /// Passes over `count` bytes that are ready.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start, "only what was read can be consumed");
        self.start += count;
        self.offset += count as u64;
    }

    #[cold]
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted + BLOCK, 0);
        }
        while self.end < wanted {
            let room = &mut self.bytes[self.end..];
            match self.input.read(room) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Only a read that needed more than was ready comes here: what was ready has been used.
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
