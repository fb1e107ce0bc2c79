//! Why a captured packet gives no [`event::Packet`], and how many did not.

use std::fmt;

macro_rules! skips {
    ($($(#[$doc:meta])* $variant:ident $text:literal),+ $(,)?) => {
        /// Why a packet of the input was not used. Nothing is skipped without one of these being counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Skip { $($(#[$doc])* $variant),+ }

        impl Skip {
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];
        }

        impl fmt::Display for Skip {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

skips! {
    /// The interface's link type is not one that is read here.
    LinkType "link type not supported",
    /// ARP, LLDP, spanning tree, PPP control and the like.
    NotIp "not IP",
    /// The snap length ends before the IP header does.
    CutInLink "cut before the end of the IP header",
    /// A header length or version that cannot be.
    MalformedIp "malformed IP header",
    /// The snap length ends before the ports.
    CutInPorts "cut before the ports",
    /// The wire itself carried too few bytes for a transport header.
    ShortTransport "too short for a transport header",
    /// A pcapng packet block that names an interface without a description.
    UnknownInterface "interface not described",
}

/// Packets not used, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped([u64; Skip::ALL.len()]);

impl Skipped {
    pub(crate) fn count(&mut self, reason: Skip) {
        self.0[reason as usize] += 1;
    }

    pub fn get(&self, reason: Skip) -> u64 {
        self.0[reason as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (Skip, u64)> + '_ {
        Skip::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}
