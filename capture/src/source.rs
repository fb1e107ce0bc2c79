//! The inputs of a recording: one file each, all of them polled by whoever records.

mod background;
pub mod hubble;
pub mod kernel;
pub mod kubernetes;
pub mod system;
pub mod tc;

use std::io;

use aya::programs::ProgramError;
use event::Event;

pub use crate::object::Lack;

/// One input. Nothing is waited for: the recorder polls its sources in turn.
pub trait Source {
    /// Hands over the events that are there, and what was lost since the last time. Returns how many it was.
    ///
    /// # Errors
    /// Where nothing more can come of it.
    fn poll(&mut self, take: &mut dyn FnMut(Event)) -> Result<usize, Error>;

    /// Stops observing, and hands over what was observed before.
    ///
    /// # Errors
    /// As [`Source::poll`].
    fn stop(&mut self, take: &mut dyn FnMut(Event)) -> Result<(), Error>;
}

/// Why a source cannot be opened, or gives no more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Lack(#[from] Lack),
    #[error("cannot ask the kernel for its network interfaces")]
    Links(#[source] io::Error),
    #[error("cannot mount tracefs, where the kernel describes its tracepoints")]
    Tracefs(#[source] io::Error),
    #[error("there is no interface `{name}`; there are {}", .there.join(", "))]
    NoSuchInterface { name: String, there: Vec<String> },
    #[error("no interface fits `{selection}`; there are {}", .there.join(", "))]
    NoInterface { selection: String, there: Vec<String> },
    #[error("packets on {name} start with a header that cannot be read; Ethernet and raw IP can be")]
    LinkLayer { name: String },
    #[error("cannot attach to {name}")]
    Attach { name: String, source: ProgramError },
    #[error("the kernel program {name} cannot be loaded")]
    Program { name: &'static str, source: ProgramError },
    #[error("the kernel's verifier refuses the program {name}: {reason}")]
    Refused { name: &'static str, reason: String, source: io::Error },
    #[error("the kernel object has no {name}: it was built from other sources than this program")]
    Object { name: &'static str },
    #[error("cannot tell how many processors there are")]
    Processors(#[source] io::Error),
    #[error("cannot map the memory that packets come through")]
    Rings(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("cannot use the kernel's map {name}")]
    Map { name: &'static str, source: aya::maps::MapError },
    #[error(transparent)]
    Environment(#[from] hubble::EnvironmentError),
    #[error(transparent)]
    Record(#[from] decode::RecordError),
}
