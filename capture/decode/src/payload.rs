//! Records of the TC programs with the start of a packet's payload.

use wire::{PacketRecord, PayloadRecord};

use crate::RecordError;

/// The packet of a record and its payload.
///
/// # Errors
/// Where the bytes are not as long as a record, or the record says of more payload than one can hold.
#[expect(unsafe_code, reason = "the kernel program and this one share the record's layout")]
pub fn split(bytes: &[u8]) -> Result<(PacketRecord, &[u8]), RecordError> {
    const EXPECTED: usize = size_of::<PayloadRecord>();
    const PACKET: usize = size_of::<PacketRecord>();
    const LENGTH: usize = size_of::<u64>();
    let error = RecordError { length: bytes.len(), expected: EXPECTED };
    if bytes.len() != EXPECTED {
        return Err(error);
    }
    let (packet, rest) = bytes.split_at(PACKET);
    let (length, payload) = rest.split_at(LENGTH);
    let length = length.try_into().map(u64::from_ne_bytes).unwrap_or_default();
    let payload = usize::try_from(length).ok().and_then(|length| payload.get(..length)).ok_or(error)?;
    // SAFETY: as long as the record, which is `repr(C)`, without padding, and valid for any bytes.
    let packet = unsafe { packet.as_ptr().cast::<PacketRecord>().read_unaligned() };
    Ok((packet, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_it_says_or_refused() {
        let mut bytes = vec![0; size_of::<PayloadRecord>()];
        bytes[88..96].copy_from_slice(&3_u64.to_ne_bytes());
        bytes[96..99].copy_from_slice(b"GET");
        assert_eq!(split(&bytes).unwrap().1, b"GET");
        bytes[88..96].copy_from_slice(&513_u64.to_ne_bytes());
        assert!(split(&bytes).is_err());
        assert!(split(&bytes[1..]).is_err());
    }
}
