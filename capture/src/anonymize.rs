//! Addresses replaced by others before anything is written: two that share a prefix still share it (Crypto-PAn).
//!
//! The scheme of Xu, Fan, Ammar and Moon (ICNP 2002): bit n of the new address is bit n of the old one, turned over
//! where AES-128 of the n bits before it, filled up with a secret pad, starts with a one. The same key gives the same
//! addresses in every recording, and who has the key can find the old ones.

mod text;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use event::{Event, FiveTuple, KernelEventKind, L7Flow, L7Message, SystemSnapshot, Workload};
use foldhash::fast::RandomState;
use recording::Header;

/// Bytes of a key: 16 for AES, and 16 that give the pad.
pub const KEY: usize = 32;

/// Addresses that are remembered: 128 blocks of AES for each of IPv6 are too many for every packet.
const REMEMBERED: usize = 1 << 16;

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{}: cannot be read", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{}: a key is 32 bytes, or 64 hexadecimal digits; `head -c 32 /dev/urandom > FILE` makes one",
        .path.display()
    )]
    Length { path: PathBuf },
}

/// A secret key. What it shows of itself is nothing.
pub struct Key {
    bytes: [u8; KEY],
    /// Others than its owner may read its file.
    pub is_exposed: bool,
}

impl Key {
    /// Reads a file of 32 bytes, or of 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let error = |source| KeyError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(error)?;
        let mode = file.metadata().map_err(error)?.permissions().mode();
        let mut content = Vec::new();
        // A character more than digits and a line's end: longer is wrong.
        file.take(2 * KEY as u64 + 3).read_to_end(&mut content).map_err(error)?;
        let bytes = parse(&content).ok_or_else(|| KeyError::Length { path: path.to_owned() })?;
        Ok(Self { bytes, is_exposed: mode & 0o077 != 0 })
    }
}

fn parse(content: &[u8]) -> Option<[u8; KEY]> {
    if let Ok(bytes) = content.try_into() {
        return Some(bytes);
    }
    let digits: &[u8; 2 * KEY] = content.trim_ascii().try_into().ok()?;
    let mut bytes = [0; KEY];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Replaces addresses.
pub struct Anonymizer {
    cipher: Aes128,
    pad: u128,
    known: HashMap<IpAddr, IpAddr, RandomState>,
}

impl Anonymizer {
    /// By the key of a file; says where others can read it.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn of_key_file(path: &Path) -> Result<Self, KeyError> {
        let key = Key::read(path)?;
        if key.is_exposed {
            let path = path.display();
            tracing::warn!("{path}: others can read this key, and so undo what it hides: chmod 600 {path}");
        }
        Ok(Self::new(&key))
    }

    pub fn new(key: &Key) -> Self {
        let (cipher_key, pad): (&[u8; 16], &[u8; 16]) = match key.bytes.as_chunks::<16>() {
            ([cipher_key, pad], _) => (cipher_key, pad),
            _ => unreachable!("the key has two halves"),
        };
        let cipher = Aes128::new(cipher_key.into());
        let pad = encrypt(&cipher, u128::from_be_bytes(*pad));
        Self { cipher, pad, known: HashMap::default() }
    }

    /// The address that stands for this one.
    pub fn address(&mut self, address: IpAddr) -> IpAddr {
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let new = match address {
            IpAddr::V4(old) => {
                let turned = self.turned(u128::from(old.to_bits()) << 96, 32) >> 96;
                Ipv4Addr::from_bits(old.to_bits() ^ turned as u32).into()
            }
            IpAddr::V6(old) => Ipv6Addr::from_bits(old.to_bits() ^ self.turned(old.to_bits(), 128)).into(),
        };
        self.known.insert(address, new);
        new
    }

    /// Which of the first `length` bits of an address are turned over.
    fn turned(&self, address: u128, length: u32) -> u128 {
        (0..length).fold(0, |turned, bit| {
            // The bits before this one; none before the first.
            let before = !(u128::MAX >> bit);
            let block = address & before | self.pad & !before;
            turned | (encrypt(&self.cipher, block) >> 127) << (127 - bit)
        })
    }

    fn five_tuple(&mut self, five_tuple: &mut FiveTuple) {
        for end in [&mut five_tuple.source, &mut five_tuple.destination] {
            end.address = self.address(end.address);
        }
    }

    /// Replaces every address in an event, in its texts too: names of pods and hosts are often made of them.
    pub fn event(&mut self, event: &mut Event) {
        match event {
            Event::Packet(packet) => self.five_tuple(&mut packet.five_tuple),
            Event::Kernel(event) => {
                event.five_tuple.iter_mut().for_each(|five_tuple| self.five_tuple(five_tuple));
                if let KernelEventKind::OomKill { process, .. } = &mut event.kind {
                    self.text(process);
                }
            }
            Event::L7(flow) => self.l7(flow),
            Event::System(snapshot) => self.system(snapshot),
            Event::Mark(mark) => self.text(&mut mark.note),
            Event::Loss(_) => {}
            Event::Naming(naming) => {
                naming.address = self.address(naming.address);
                self.workload(&mut naming.workload);
            }
        }
    }

    fn workload(&mut self, workload: &mut Workload) {
        let Workload { namespace, pod, service, .. } = workload;
        [namespace, pod, service].into_iter().for_each(|name| self.text(name));
    }

    fn l7(&mut self, flow: &mut L7Flow) {
        self.five_tuple(&mut flow.five_tuple);
        flow.source_translated.iter_mut().for_each(|five_tuple| self.five_tuple(five_tuple));
        let mut texts: Vec<&mut String> = vec![&mut flow.node];
        texts.extend(&mut flow.drop_reason);
        match &mut flow.message {
            L7Message::None => {}
            L7Message::Dns(dns) => texts.push(&mut dns.query),
            L7Message::Http(http) => texts.push(&mut http.path),
            L7Message::Kafka(kafka) => texts.push(&mut kafka.topic),
            L7Message::Tls(tls) => texts.push(&mut tls.server_name),
        }
        texts.into_iter().for_each(|text| self.text(text));
        self.workload(&mut flow.source);
        self.workload(&mut flow.destination);
    }

    fn system(&mut self, snapshot: &mut SystemSnapshot) {
        snapshot.node.processes.iter_mut().for_each(|process| self.text(&mut process.name));
    }

    /// Replaces what a recording says of itself, and has it say that it is anonymized.
    pub fn header(&mut self, header: &mut Header) {
        self.text(&mut header.node);
        self.text(&mut header.command);
        header.metadata.values_mut().for_each(|value| self.text(value));
        header.anonymized = true;
    }

    /// Replaces every address in a text.
    pub fn text(&mut self, text: &mut String) {
        if let Some(new) = text::replace(text, &mut |address| self.address(address)) {
            *text = new;
        }
    }
}

fn encrypt(cipher: &Aes128, block: u128) -> u128 {
    let mut block = block.to_be_bytes().into();
    cipher.encrypt_block(&mut block);
    u128::from_be_bytes(block.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The key of the sample trace that was published with the reference implementation.
    const REFERENCE: [u8; KEY] = [
        21, 34, 23, 141, 51, 164, 207, 128, 19, 10, 91, 22, 73, 144, 125, 16, 216, 152, 143, 131, 121, 121,
        101, 39, 98, 87, 76, 45, 42, 132, 34, 2,
    ];

    fn anonymizer(bytes: [u8; KEY]) -> Anonymizer {
        Anonymizer::new(&Key { bytes, is_exposed: false })
    }

    #[test]
    fn the_published_sample_trace_is_met() {
        const TRACE: [(&str, &str); 24] = [
            ("128.11.68.132", "135.242.180.132"),
            ("129.118.74.4", "134.136.186.123"),
            ("130.132.252.244", "133.68.164.234"),
            ("141.223.7.43", "141.167.8.160"),
            ("141.233.145.108", "141.129.237.235"),
            ("152.163.225.39", "151.140.114.167"),
            ("156.29.3.236", "147.225.12.42"),
            ("165.247.96.84", "162.9.99.234"),
            ("166.107.77.190", "160.132.178.185"),
            ("192.102.249.13", "252.138.62.131"),
            ("192.215.32.125", "252.43.47.189"),
            ("192.233.80.103", "252.25.108.8"),
            ("192.41.57.43", "252.222.221.184"),
            ("193.150.244.223", "253.169.52.216"),
            ("195.205.63.100", "255.186.223.5"),
            ("198.200.171.101", "249.199.68.213"),
            ("198.26.132.101", "249.36.123.202"),
            ("198.36.213.5", "249.7.21.132"),
            ("198.51.77.238", "249.18.186.254"),
            ("199.217.79.101", "248.38.184.213"),
            ("202.49.198.20", "245.206.7.234"),
            ("203.12.160.252", "244.248.163.4"),
            ("204.184.162.189", "243.192.77.90"),
            ("204.202.136.230", "243.178.4.198"),
        ];
        let mut anonymizer = anonymizer(REFERENCE);
        let found = TRACE.map(|(raw, _)| anonymizer.address(raw.parse().unwrap()).to_string());
        assert_eq!(found, TRACE.map(|(_, sanitized)| sanitized));
    }

    #[test]
    fn other_implementations_agree_on_ipv6_and_another_key() {
        const TRACE: [(&str, &str); 5] = [
            ("::1", "78ff:f001:9fc0:20df:8380:b1f1:704:ed"),
            ("::2", "78ff:f001:9fc0:20df:8380:b1f1:704:ef"),
            ("::ffff", "78ff:f001:9fc0:20df:8380:b1f1:704:f838"),
            ("2001:db8::1", "4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1e"),
            ("2001:db8::2", "4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1c"),
        ];
        let mut reference = anonymizer(REFERENCE);
        let found = TRACE.map(|(raw, _)| reference.address(raw.parse().unwrap()).to_string());
        assert_eq!(found, TRACE.map(|(_, sanitized)| sanitized));
        let mut other = anonymizer(*b"32-char-str-for-AES-key-and-pad.");
        assert_eq!(other.address("192.0.2.1".parse().unwrap()).to_string(), "192.0.125.244");
    }

    #[test]
    fn keys_are_bytes_or_digits() {
        let digits: String = REFERENCE.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(parse(&REFERENCE), Some(REFERENCE));
        assert_eq!(parse(digits.as_bytes()), Some(REFERENCE));
        assert_eq!(parse(format!("{}\r\n", digits.to_uppercase()).as_bytes()), Some(REFERENCE));
        for bad in [&REFERENCE[..31], &[0; 33], b"", digits.replace('f', "g").as_bytes()] {
            assert_eq!(parse(bad), None);
        }
    }

    fn common(a: u128, b: u128) -> u32 {
        (a ^ b).leading_zeros()
    }

    proptest! {
        #[test]
        fn prefixes_are_preserved(key: [u8; KEY], address: u128, length in 0..=128_u32, other: u128) {
            let mut anonymizer = anonymizer(key);
            // As long a prefix in common as the length says, at least.
            let kept = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let other = address & kept | other & !kept;
            let mut six = |bits: u128| match anonymizer.address(Ipv6Addr::from_bits(bits).into()) {
                IpAddr::V6(new) => new.to_bits(),
                IpAddr::V4(new) => panic!("{new}"),
            };
            prop_assert_eq!(common(six(address), six(other)), common(address, other));
            let mut four = |bits: u128| match anonymizer.address(Ipv4Addr::from_bits((bits >> 96) as u32).into()) {
                IpAddr::V4(new) => u128::from(new.to_bits()) << 96,
                IpAddr::V6(new) => panic!("{new}"),
            };
            prop_assert_eq!(common(four(address), four(other)).min(32), common(address, other).min(32));
        }
    }
}
