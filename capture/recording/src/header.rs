//! What a recording says of itself: the node, its clocks and interfaces, and who recorded it.

use std::collections::BTreeMap;
use std::str::FromStr;

use event::{Duration, Label, Timestamp};

use crate::format::{VERSION, Version, metadata};

/// One reading of both clocks at the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockPair {
    /// `CLOCK_MONOTONIC` of the node, by which its events are timed.
    pub monotonic: Duration,
    pub wall: Timestamp,
}

/// An interface that packets were seen on. Its place in the header's table is what packets name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// The kernel's index at the time; absent for captures made elsewhere.
    pub index: Option<u32>,
    /// The LINKTYPE_ number of its link layer (1 is Ethernet, 101 raw IP).
    pub link_type: Option<u16>,
}

/// The header. Grows while a recording is read: interfaces that appeared later, clock pairs and metadata stand
/// where they were learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The writer always writes [`VERSION`].
    pub version: Version,
    /// Name of the node.
    pub node: String,
    /// `/proc/sys/kernel/random/boot_id`; empty where unknown.
    pub boot_id: String,
    /// Release of the kernel; empty where unknown.
    pub kernel: String,
    /// Name and version of the program that recorded.
    pub tool: String,
    /// Its command line.
    pub command: String,
    /// Label of the whole recording; marks change it from their time on.
    pub label: Option<Label>,
    /// The first is the one offset by which all times were made; later ones show drift.
    pub clocks: Vec<ClockPair>,
    pub interfaces: Vec<Interface>,
    /// N where packets of one in N flows alone were recorded, chosen by a hash; every other event of those flows, and
    /// events of no flow.
    pub sample: Option<u32>,
    /// Addresses are replaced by others, prefix by prefix (Crypto-PAn), also in texts.
    pub anonymized: bool,
    /// Free pairs of key and value.
    pub metadata: BTreeMap<String, String>,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            version: VERSION,
            node: String::new(),
            boot_id: String::new(),
            kernel: String::new(),
            tool: String::new(),
            command: String::new(),
            label: None,
            clocks: Vec::new(),
            interfaces: Vec::new(),
            sample: None,
            anonymized: false,
            metadata: BTreeMap::new(),
        }
    }
}

/// How addresses were replaced.
const ANONYMIZED: &str = "crypto-pan";

/// A metadata record's pairs.
pub(crate) type Pairs = BTreeMap<String, String>;

/// CRC-32 over name, keys and values, each followed by a zero byte.
fn checksum(name: &str, pairs: &Pairs) -> String {
    let mut hasher = crc32fast::Hasher::new();
    let texts = pairs.iter().filter(|(key, _)| key.as_str() != metadata::CHECKSUM);
    for text in std::iter::once(name).chain(texts.flat_map(|(key, value)| [key.as_str(), value.as_str()])) {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    }
    format!("{:08x}", hasher.finalize())
}

/// Puts the checksum in.
pub(crate) fn seal(name: &str, mut pairs: Pairs) -> mcap::records::Metadata {
    pairs.insert(metadata::CHECKSUM.to_owned(), checksum(name, &pairs));
    mcap::records::Metadata { name: name.to_owned(), metadata: pairs }
}

/// Whether the record is as it was sealed; takes the checksum out.
pub(crate) fn unseal(record: &mut mcap::records::Metadata) -> bool {
    let stated = record.metadata.remove(metadata::CHECKSUM);
    stated == Some(checksum(&record.name, &record.metadata))
}

/// Bytes of the record's body: every text stands behind its length, and so do the pairs.
pub(crate) fn length(record: &mcap::records::Metadata) -> usize {
    let texts = record.metadata.iter().flat_map(|(key, value)| [key, value]);
    8 + record.name.len() + texts.map(|text| 4 + text.len()).sum::<usize>()
}

fn pairs<const N: usize>(pairs: [(&str, String); N]) -> Pairs {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn parsed<T: FromStr>(pairs: &Pairs, key: &str) -> Option<T> {
    pairs.get(key)?.parse().ok()
}

impl ClockPair {
    pub(crate) fn to_pairs(self) -> Pairs {
        pairs([
            ("monotonic", self.monotonic.as_nanos().to_string()),
            ("wall", self.wall.as_nanos().to_string()),
        ])
    }

    pub(crate) fn from_pairs(pairs: &Pairs) -> Option<Self> {
        Some(Self {
            monotonic: Duration::from_nanos(parsed(pairs, "monotonic")?),
            wall: Timestamp::from_nanos(parsed(pairs, "wall")?),
        })
    }
}

impl Interface {
    pub(crate) fn to_pairs(&self, place: usize) -> Pairs {
        let mut pairs = pairs([("place", place.to_string()), ("name", self.name.clone())]);
        pairs.extend(self.index.map(|index| ("index".to_owned(), index.to_string())));
        pairs.extend(self.link_type.map(|link_type| ("link_type".to_owned(), link_type.to_string())));
        pairs
    }

    /// The place in the table, and the interface.
    pub(crate) fn from_pairs(pairs: &Pairs) -> Option<(usize, Self)> {
        let name = pairs.get("name")?.clone();
        let (index, link_type) = (parsed(pairs, "index"), parsed(pairs, "link_type"));
        Some((parsed(pairs, "place")?, Self { name, index, link_type }))
    }
}

impl Header {
    /// The pairs of the header record; clocks, interfaces and metadata have records of their own.
    pub(crate) fn to_pairs(&self) -> Pairs {
        let mut pairs = pairs([
            ("format_version", VERSION.to_string()),
            ("node", self.node.clone()),
            ("boot_id", self.boot_id.clone()),
            ("kernel", self.kernel.clone()),
            ("tool", self.tool.clone()),
            ("command", self.command.clone()),
        ]);
        pairs.extend(self.label.map(|label| ("label".to_owned(), label.0.to_string())));
        pairs.extend(self.sample.map(|sample| ("sample".to_owned(), sample.to_string())));
        pairs.extend(self.anonymized.then(|| ("anonymized".to_owned(), ANONYMIZED.to_owned())));
        pairs
    }

    /// Takes the header record in; `None` where it states no version.
    pub(crate) fn read_pairs(&mut self, pairs: &Pairs) -> Option<()> {
        self.version = parsed(pairs, "format_version")?;
        let text = |key: &str| pairs.get(key).cloned().unwrap_or_default();
        (self.node, self.boot_id, self.kernel) = (text("node"), text("boot_id"), text("kernel"));
        (self.tool, self.command) = (text("tool"), text("command"));
        self.label = parsed(pairs, "label").map(Label);
        self.sample = parsed(pairs, "sample");
        self.anonymized = pairs.contains_key("anonymized");
        Some(())
    }

    /// Takes an interface in at its place. Places between that are unknown stay without a name.
    pub(crate) fn set_interface(&mut self, place: usize, interface: Interface) {
        if place >= self.interfaces.len() {
            self.interfaces.resize_with(place + 1, Interface::default);
        }
        self.interfaces[place] = interface;
    }
}

/// Highest place that an interface may have in the table: bounds what a damaged record can allocate.
pub(crate) const MAX_INTERFACES: usize = 65_536;
