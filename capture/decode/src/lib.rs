//! What the kernel hands over, as events: packet records, records of tracepoints, rtnetlink's messages on interfaces.
//! Bytes alone: who loads the programs and asks for the messages is `capture`.

mod clock;
pub mod link;
pub mod packet;
pub mod payload;
pub mod tracepoint;

pub use clock::Clock;

/// A record of the kernel programs that is not as long as theirs, or says that more is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of {length} bytes came from the kernel, not {expected}")]
pub struct RecordError {
    pub length: usize,
    pub expected: usize,
}
