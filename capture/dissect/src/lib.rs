//! Captured bytes to packets: pcap and pcapng files, link layers, tunnels, IP and TCP. No sockets.
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
//! The readers are our own. The `pcap-file` crate neither tells at which byte a file is damaged nor reads
//! captures longer than the snap length of their header, the modified pcap format, or a packet block
//! without options, and etherparse refuses headers that the snap length cut; both copy what is borrowed here.

mod capture;
mod file;
mod fragment;
mod ip;
mod layer;
mod link;
mod packet;
mod skip;
mod transport;
mod tunnel;

pub use capture::{Capture, Counts, Seen};
pub use file::{Compression, Damage, DamageKind, Interface, OpenError, Reader, Record};
pub use link::LinkType;
pub use packet::{Dissected, Dissector, Frame, Imperfect};
pub use skip::{Skip, Skipped};
pub use tunnel::Tunnel;
