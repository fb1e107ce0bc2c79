//! The kernel's description of a tracepoint's record: `events/GROUP/NAME/format` in tracefs.

use std::collections::BTreeMap;
use std::mem::offset_of;

use wire::Probed;

/// Where the fields of a record stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Offset and size in bytes, by name.
    fields: BTreeMap<String, (usize, usize)>,
    /// What the print format calls the values of the field `reason`.
    reasons: BTreeMap<u32, String>,
}

impl Format {
    /// Reads a format file; lines that are not understood describe nothing.
    pub fn parse(text: &str) -> Self {
        let mut format = Self::default();
        for line in text.lines() {
            if let Some(field) = line.trim_start().strip_prefix("field:") {
                format.fields.extend(parse_field(field));
            } else if let Some(print) = line.strip_prefix("print fmt:") {
                format.reasons = symbols(print, "REC->reason");
            }
        }
        format
    }

    /// Of a round-trip time that our own program made of the socket.
    pub fn probed() -> Self {
        let fields = [
            ("srtt", offset_of!(Probed, srtt), 4),
            ("family", offset_of!(Probed, family), 2),
            ("sport", offset_of!(Probed, sport), 2),
            ("dport", offset_of!(Probed, dport), 2),
            ("saddr", offset_of!(Probed, saddr), 4),
            ("daddr", offset_of!(Probed, daddr), 4),
            ("saddr_v6", offset_of!(Probed, saddr_v6), 16),
            ("daddr_v6", offset_of!(Probed, daddr_v6), 16),
        ];
        let fields = fields.map(|(name, offset, size)| (name.to_owned(), (offset, size)));
        Self { fields: fields.into(), ..Self::default() }
    }

    pub fn offset(&self, name: &str) -> Option<usize> {
        self.fields.get(name).map(|(offset, _)| *offset)
    }

    /// The number of a drop or reset reason, by its name.
    pub fn reason_number(&self, name: &str) -> Option<u32> {
        self.reasons.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }

    /// The name of a drop or reset reason.
    pub fn reason_name(&self, number: u32) -> Option<&str> {
        self.reasons.get(&number).map(String::as_str)
    }

    /// A field's bytes in a record; `None` where the kernel has no such field or the record was not copied so far.
    pub fn bytes<'a>(&self, record: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let (offset, size) = *self.fields.get(name)?;
        record.get(offset..offset.checked_add(size)?)
    }

    /// A field of up to 8 bytes as a number in the host's byte order; the sign is not extended.
    pub fn number(&self, record: &[u8], name: &str) -> Option<u64> {
        let bytes = self.bytes(record, name)?;
        let mut number = [0; 8];
        number.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(number))
    }

    /// A text behind the record's fixed part: its field holds offset and length in 16 bits each.
    pub fn text(&self, record: &[u8], name: &str) -> Option<String> {
        let place = self.number(record, name)?;
        let (offset, length) =
            (usize::try_from(place & 0xffff).ok()?, usize::try_from(place >> 16 & 0xffff).ok()?);
        let bytes = record.get(offset..offset + length)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

/// `__u8 saddr[4]; offset:34; size:4; signed:0;`
fn parse_field(text: &str) -> Option<(String, (usize, usize))> {
    let mut parts = text.split(';').map(str::trim);
    let declaration = parts.next()?;
    let (mut offset, mut size) = (None, None);
    for part in parts {
        match part.split_once(':') {
            Some(("offset", number)) => offset = number.parse().ok(),
            Some(("size", number)) => size = number.parse().ok(),
            _ => {}
        }
    }
    let name = declaration.rsplit([' ', '*']).next()?.split('[').next()?;
    Some((name.to_owned(), (offset?, size?)))
}

/// The pairs of `__print_symbolic(FIELD, { 2, "NOT_SPECIFIED" }, { 3, "NO_SOCKET" })`.
fn symbols(print: &str, field: &str) -> BTreeMap<u32, String> {
    let start = format!("__print_symbolic({field},");
    let Some((_, list)) = print.split_once(&start) else { return BTreeMap::new() };
    let list = list.split_once(')').map_or(list, |(list, _)| list);
    list.split('{')
        .skip(1)
        .filter_map(|pair| {
            let (number, name) = pair.split_once(',')?;
            let name = name.split('"').nth(1)?;
            Some((number.trim().parse().ok()?, name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KFREE_SKB: &str = "name: kfree_skb
ID: 1543
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned short protocol;\toffset:24;\tsize:2;\tsigned:0;
\tfield:enum skb_drop_reason reason;\toffset:28;\tsize:4;\tsigned:0;
\tfield:__data_loc char[] comm;\toffset:32;\tsize:4;\tsigned:0;
\tfield:__u8 saddr[4];\toffset:36;\tsize:4;\tsigned:0;

print fmt: \"reason: %s\", REC->skbaddr, __print_symbolic(REC->reason, { 2, \"NOT_SPECIFIED\" }, { 3, \"NO_SOCKET\" })
";

    #[test]
    fn fields_and_reasons_are_found() {
        let format = Format::parse(KFREE_SKB);
        assert_eq!(format.offset("reason"), Some(28));
        assert_eq!(format.offset("skbaddr"), Some(8));
        assert_eq!(format.offset("nothing"), None);
        assert_eq!(format.reason_name(3), Some("NO_SOCKET"));
        assert_eq!(format.reason_number("NOT_SPECIFIED"), Some(2));
        let mut record = [0; 48];
        record[28] = 3;
        record[36..40].copy_from_slice(&[198, 18, 0, 1]);
        record[32..36].copy_from_slice(&[40, 0, 6, 0]);
        record[40..46].copy_from_slice(b"hog\0xx");
        assert_eq!(format.number(&record, "reason"), Some(3));
        assert_eq!(format.bytes(&record, "saddr"), Some(&[198, 18, 0, 1][..]));
        assert_eq!(format.text(&record, "comm").as_deref(), Some("hog"));
        assert_eq!(format.number(&record[..30], "reason"), None);
    }

    proptest! {
        #[test]
        fn no_text_and_no_record_is_too_odd(text in ".{0,200}", record in proptest::collection::vec(any::<u8>(), 0..64)) {
            let odd = Format::parse(&format!("{KFREE_SKB}\n\tfield:{text}"));
            for name in ["skbaddr", "reason", "comm", "saddr"] {
                let _ = (odd.number(&record, name), odd.text(&record, name), odd.bytes(&record, name));
            }
        }
    }
}
