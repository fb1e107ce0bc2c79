//! Whether the lengths inside an MCAP record fit the record. The `mcap` crate allocates what a length says
//! before it looks for the bytes, so a damaged length of four gigabytes must be turned away before it.

use mcap::records::op;

/// Bytes that the record has not explained yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// A length of four bytes, and so many bytes after it.
    fn prefixed(&mut self) -> Option<()> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..)?;
        Some(())
    }

    /// A map of texts: its length in bytes, then key and value in turn, to exactly its end.
    fn map(&mut self) -> Option<()> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (map, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        let mut map = Rest(map);
        while !map.0.is_empty() {
            map.prefixed()?;
            map.prefixed()?;
        }
        Some(())
    }
}

/// Whether every length inside the record's body ends within it. Records without lengths fit.
pub fn fit(opcode: u8, body: &[u8]) -> bool {
    let mut rest = Rest(body);
    let walked = match opcode {
        op::HEADER => rest.prefixed().and_then(|()| rest.prefixed()),
        // id, name, encoding, data
        op::SCHEMA => rest
            .skip(2)
            .and_then(|()| rest.prefixed())
            .and_then(|()| rest.prefixed())
            .and_then(|()| rest.prefixed()),
        // id, schema, topic, encoding, metadata
        op::CHANNEL => rest
            .skip(4)
            .and_then(|()| rest.prefixed())
            .and_then(|()| rest.prefixed())
            .and_then(|()| rest.map()),
        // first and last time, size, checksum, compression; the data's length is checked where it is sliced
        op::CHUNK => rest.skip(28).and_then(|()| rest.prefixed()),
        // channel, pairs of time and offset
        op::MESSAGE_INDEX => rest.skip(2).and_then(|()| rest.prefixed()),
        // log time, creation time, name, media type; the data's length is checked where it is sliced
        op::ATTACHMENT => rest.skip(16).and_then(|()| rest.prefixed()).and_then(|()| rest.prefixed()),
        op::METADATA => rest.prefixed().and_then(|()| rest.map()),
        _ => Some(()),
    };
    walked.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn a_length_beyond_the_record_does_not_fit() {
        let map = [text("key"), text("value")].concat();
        let body = [text("name"), u32::try_from(map.len()).unwrap().to_le_bytes().to_vec(), map].concat();
        assert!(fit(op::METADATA, &body));
        for end in 0..body.len() {
            assert!(!fit(op::METADATA, &body[..end]), "cut at {end}");
        }
        // The length of the key: as long as the file of a decompression bomb.
        let mut damaged = body.clone();
        damaged[12..16].copy_from_slice(&0xc323_0000_u32.to_le_bytes());
        assert!(!fit(op::METADATA, &damaged));
    }
}
