//! What a node sees, as events: the sources behind `capture record`, for programs that watch a node live.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use capture::{Clock, Selection, source::{Source as _, tc}};
//!
//! let clock = Clock::start()?;
//! let interfaces = Selection::parse(&["eth0"])?;
//! let mut packets = tc::Tc::open(&interfaces, clock, tc::Options::default())?;
//! let mut pace = packets.pace();
//! loop {
//!     let count = packets.poll(&mut |event| println!("{event:?}"))?;
//!     std::thread::sleep(pace.after(count));
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
mod pace;
pub mod protocols;
pub mod rights;
mod sample;
mod selection;
pub mod source;
pub mod watch;

pub use decode::Clock;
pub use link::{Interface, LinkLayer};
pub use object::{OBJECT, missing_capabilities};
pub use pace::Pace;
pub use sample::{ParseSampleError, Sample};
pub use selection::{ParseSelectionError, Selection};
