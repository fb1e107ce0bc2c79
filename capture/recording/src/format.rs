//! Constants and versions of the file format. FORMAT.md holds the version history.

use std::fmt;
use std::str::FromStr;

/// The version of the format, independent of the tool's. Another major cannot be read; a higher minor has
/// fields or kinds of event that are passed over and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u16,
    pub minor: u16,
}

/// What this crate writes.
pub const VERSION: Version = Version { major: 1, minor: 2 };

/// `profile` of the MCAP header record.
pub(crate) const PROFILE: &str = "faultline";

/// `library` of the MCAP header record.
pub(crate) const LIBRARY: &str = concat!("faultline-recording/", env!("CARGO_PKG_VERSION"));

/// Largest chunk, compressed or not, and largest other record that is read: bounds what a damaged or hostile
/// file can make a reader allocate. The writer ends chunks at a small fraction of it.
pub const MAX_CHUNK: u64 = 32 << 20;

/// Names of the MCAP metadata records.
pub(crate) mod metadata {
    pub const HEADER: &str = "faultline";
    pub const INTERFACE: &str = "faultline.interface";
    pub const CLOCK: &str = "faultline.clock";
    pub const EXTRA: &str = "faultline.metadata";
    pub const END: &str = "faultline.end";
    /// Key of the CRC-32 over a record's name, keys and values: MCAP itself checks metadata only by the data
    /// section's checksum, which a cut file does not have.
    pub const CHECKSUM: &str = "#crc32";
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Text that is no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseVersionError;

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let (major, minor) = text.split_once('.').ok_or(ParseVersionError)?;
        let number = |text: &str| text.parse().map_err(|_| ParseVersionError);
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}
