//! Captured bytes to packets and application messages: pcap and pcapng files, link layers, tunnels, IP, TCP,
//! DNS, HTTP, gRPC, Kafka and TLS hellos. No sockets.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut capture = dissect::Capture::open("trace.pcapng".as_ref(), dissect::Tunnel::Inner)?;
//! while let Some(seen) = capture.next()? {
//!     println!("{} {} {}", seen.number, seen.packet.five_tuple, seen.payload.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The readers are our own because no crate reads what Wireshark reads. `pcap-file` 2.0 takes a packet longer
//! than the header's snap length for an error (and so gives none of the packets of such a capture), a read
//! error or a damaged record without the byte it stands at, and no modified pcap; `etherparse` refuses TCP
//! headers that the snap length cut, and takes a total length of 0 for an error. Tests build their packets
//! with etherparse, so that two implementations must agree.

mod capture;
mod file;
mod fragment;
mod ip;
mod l7;
mod layer;
mod link;
mod packet;
mod skip;
mod transport;
mod tunnel;

pub use capture::{Capture, Counts, Seen};
pub use file::{Compression, Damage, DamageKind, Interface, OpenError, Reader, Record};
pub use fragment::{FragmentKey, Fragments};
pub use l7::{FlowNumber, L7, L7Counts, L7Options};
pub use link::LinkType;
pub use packet::{Dissected, Dissector, Frame, Imperfect};
pub use skip::{Skip, Skipped};
pub use tunnel::Tunnel;
