//! Numbers in the byte order of the machine that wrote a file.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ByteOrder {
    #[default]
    Little,
    Big,
}

impl ByteOrder {
    /// # Panics
    /// As slicing does, where `bytes` ends before the number: callers have checked the length.
    #[inline]
    pub fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let raw = *bytes[at..].first_chunk().expect("two bytes");
        if self == Self::Little { u16::from_le_bytes(raw) } else { u16::from_be_bytes(raw) }
    }

    #[inline]
    pub fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let raw = *bytes[at..].first_chunk().expect("four bytes");
        if self == Self::Little { u32::from_le_bytes(raw) } else { u32::from_be_bytes(raw) }
    }

    #[inline]
    pub fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let raw = *bytes[at..].first_chunk().expect("eight bytes");
        if self == Self::Little { u64::from_le_bytes(raw) } else { u64::from_be_bytes(raw) }
    }
}
