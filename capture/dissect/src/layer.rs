//! One protocol layer of a packet: the bytes that were captured of it and the length it had on the wire.

/// The bytes from some header on. `length` is what the wire carried, `captured` what the snap length left;
/// lengths are computed from the first, and headers are read from the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    pub captured: &'a [u8],
    /// Bytes on the wire; never less than `captured.len()`.
    pub length: usize,
}

impl<'a> Layer<'a> {
    pub fn new(captured: &'a [u8], length: usize) -> Self {
        Self { captured, length: length.max(captured.len()) }
    }

    /// What follows the first `bytes`; nothing where they were not captured.
    #[inline]
    pub fn skip(self, bytes: usize) -> Option<Self> {
        let captured = self.captured.get(bytes..)?;
        Some(Self { captured, length: self.length - bytes })
    }

    /// What follows the first `bytes` on the wire, captured or not; `length` is 0 where the wire had fewer.
    #[inline]
    pub fn skip_on_wire(self, bytes: usize) -> Self {
        let captured = self.captured.get(bytes..).unwrap_or_default();
        Self { captured, length: self.length.saturating_sub(bytes) }
    }

    /// At most the first `length` bytes: cuts the padding of short Ethernet frames and trailers.
    #[inline]
    pub fn limit(self, length: usize) -> Self {
        let length = length.min(self.length);
        Self { captured: &self.captured[..self.captured.len().min(length)], length }
    }

    #[inline]
    pub fn u8(self, at: usize) -> Option<u8> {
        self.captured.get(at).copied()
    }

    /// Big-endian, as all of the Internet's headers.
    #[inline]
    pub fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.array(at)?))
    }

    #[inline]
    pub fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.array(at)?))
    }

    #[inline]
    pub fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.captured.get(at..)?.first_chunk().copied()
    }
}
