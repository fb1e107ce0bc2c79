//! What a node sees, as events: the sources behind `capture record`, for programs that watch a node live.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use capture::{Clock, Selection, source::{Source as _, tc}};
//!
//! let clock = Clock::start()?;
//! let interfaces = Selection::parse(&["eth0"])?;
//! let mut packets = tc::Tc::open(&interfaces, clock, tc::Options::default())?;
//! loop {
//!     packets.poll(&mut |event| println!("{event:?}"))?;
//!     std::thread::sleep(capture::POLL_INTERVAL);
//! }
//! # }
//! ```
//!
//! Everything happens in the network namespace of the calling thread.

pub mod anonymize;
pub mod combine;
pub mod control;
mod in_force;
mod link;
mod object;
pub mod output;
pub mod protocols;
pub mod rights;
mod sample;
mod selection;
pub mod source;
pub mod watch;

pub use decode::Clock;
pub use link::{Interface, LinkLayer};
pub use object::{OBJECT, missing_capabilities};
pub use sample::{ParseSampleError, Sample};
pub use selection::{ParseSelectionError, Selection};

/// How long a reader may sleep between two polls. The kernel programs wake nobody: a wake-up costs more than
/// the record. At the default ring size this leaves room for 6 million packets a second on two processors.
pub const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(10);

/// Events of one poll that say that more have come meanwhile. After fewer it pays to sleep: a round of polls costs as
/// much as some dozens of packets.
pub const MANY_EVENTS: usize = 1000;
