//! Where the members of a kernel structure stand, by the kernel's own description of its types (BTF).
//!
//! Read here because aya gives no access to it, and the one crate that does is under the LGPL, which a statically
//! linked program cannot be.

use std::collections::BTreeMap;

/// Where Linux describes itself, with `CONFIG_DEBUG_INFO_BTF`.
pub const KERNEL: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

/// Structures without a name that are looked into, one inside the other. `sk_buff` has three.
const MAX_DEPTH: usize = 16;

/// Kinds of type, by their numbers.
mod kind {
    pub const INT: u32 = 1;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const ENUM64: u32 = 19;
    pub const LAST: u32 = ENUM64;
}

/// Bytes of a type before what its kind adds.
const HEAD: usize = 12;
/// Bytes of a structure's member: name, type, offset in bits.
const MEMBER: usize = 12;

/// The types of a kernel.
pub struct Btf<'a> {
    bytes: &'a [u8],
    texts: &'a [u8],
    /// Where each type starts. The first has the number 1.
    types: Vec<usize>,
}

/// A type's head.
struct Type {
    name: u32,
    kind: u32,
    /// Members, or whatever the kind has many of.
    count: usize,
    /// Member offsets hold the size of a bit field in their highest byte.
    has_bit_fields: bool,
}

impl<'a> Btf<'a> {
    /// Reads where types and names are; `None` where the bytes are not that, or have a kind of type that is newer.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.first_chunk().map(|magic| u16::from_ne_bytes(*magic)) != Some(MAGIC) {
            return None;
        }
        let part = |at| {
            let start = usize::try_from(word(bytes, 4)?.checked_add(word(bytes, at)?)?).ok()?;
            let length = usize::try_from(word(bytes, at + 4)?).ok()?;
            bytes.get(start..start.checked_add(length)?)
        };
        let mut btf = Self { bytes: part(8)?, texts: part(16)?, types: Vec::new() };
        let mut at = 0;
        while at < btf.bytes.len() {
            btf.types.push(at);
            at += btf.length(at)?;
        }
        Some(btf)
    }

    /// Offsets in bytes of the members of a structure, those of unnamed structures in it included; bit fields are
    /// left out.
    pub fn members(&self, structure: &str) -> Option<BTreeMap<&'a str, u32>> {
        let is_it = |at: &&usize| {
            let found = self.head(**at);
            found.is_some_and(|head| {
                head.kind == kind::STRUCT && head.count > 0 && self.text(head.name) == Some(structure)
            })
        };
        let mut members = BTreeMap::new();
        self.collect(*self.types.iter().find(is_it)?, 0, MAX_DEPTH, &mut members)?;
        Some(members)
    }

    fn collect(
        &self,
        at: usize,
        base: u32,
        depth: usize,
        members: &mut BTreeMap<&'a str, u32>,
    ) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let head = self.head(at)?;
        for member in 0..head.count {
            let member = at + HEAD + member * MEMBER;
            let (name, inner, offset) =
                (word(self.bytes, member)?, word(self.bytes, member + 4)?, word(self.bytes, member + 8)?);
            let (bits, is_bit_field) =
                if head.has_bit_fields { (offset & 0xff_ffff, offset >> 24 != 0) } else { (offset, false) };
            let offset = base.checked_add(bits / 8)?;
            match self.text(name)? {
                "" => {
                    let Some(at) = self.structure(inner) else { continue };
                    self.collect(at, offset, depth, members)?;
                }
                name if !is_bit_field => drop(members.insert(name, offset)),
                _ => {}
            }
        }
        Some(())
    }

    /// Where a structure or union stands.
    fn structure(&self, number: u32) -> Option<usize> {
        let at = *self.types.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
        matches!(self.head(at)?.kind, kind::STRUCT | kind::UNION).then_some(at)
    }

    fn head(&self, at: usize) -> Option<Type> {
        let information = word(self.bytes, at + 4)?;
        Some(Type {
            name: word(self.bytes, at)?,
            kind: information >> 24 & 0x1f,
            count: usize::try_from(information & 0xffff).ok()?,
            has_bit_fields: information >> 31 != 0,
        })
    }

    /// Bytes of a type with what belongs to it.
    fn length(&self, at: usize) -> Option<usize> {
        let head = self.head(at)?;
        let more = match head.kind {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => head.count * MEMBER,
            kind::ENUM | kind::FUNC_PROTO => head.count * 8,
            1..=kind::LAST => 0,
            _ => return None,
        };
        Some(HEAD + more)
    }

    fn text(&self, offset: u32) -> Option<&'a str> {
        let rest = self.texts.get(usize::try_from(offset).ok()?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `struct s { int a; union { struct { int b; }; int c; }; }`, with the int last.
    fn made() -> Vec<u8> {
        let texts = b"\0s\0a\0b\0c\0";
        let kind = |kind: u32, count: u32| kind << 24 | count;
        let types: [u32; 3 * 4 + 3 * 5 + 1] = [
            [1, kind(kind::STRUCT, 2), 8].as_slice(),
            &[3, 4, 0, 0, 2, 32],
            &[0, kind(kind::UNION, 2), 4],
            &[0, 3, 0, 7, 4, 0],
            &[0, kind(kind::STRUCT, 1), 4],
            &[5, 4, 0],
            &[0, kind(kind::INT, 0), 4, 32],
        ]
        .concat()
        .try_into()
        .unwrap();
        let length = u32::try_from(size_of_val(&types)).unwrap();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, length, length, u32::try_from(texts.len()).unwrap()].iter().chain(&types) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(texts);
        bytes
    }

    #[test]
    fn members_of_unnamed_structures_are_found() {
        let bytes = made();
        let members = Btf::parse(&bytes).unwrap().members("s").unwrap();
        assert_eq!(members, BTreeMap::from([("a", 0), ("b", 4), ("c", 4)]));
        assert!(Btf::parse(&bytes).unwrap().members("t").is_none());
    }

    #[test]
    fn the_running_kernel_describes_its_packets() {
        let Ok(bytes) = std::fs::read(KERNEL) else {
            return eprintln!("skipped: the_running_kernel_describes_its_packets: no {KERNEL}");
        };
        let members = Btf::parse(&bytes).unwrap().members("sk_buff").unwrap();
        // Two pointers stand first, and the packet's memory is described behind its control block of 48 bytes.
        assert_eq!((members["next"], members["prev"]), (0, 8));
        assert_eq!((members["cb"], members["tail"] + 8), (40, members["head"]));
        assert!(members["network_header"] > 88);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(at in 0..200_usize, with in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = made();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            let _ = Btf::parse(&bytes).and_then(|btf| btf.members("s").map(|members| members.len()));
            let _ = Btf::parse(&rest);
        }
    }
}
