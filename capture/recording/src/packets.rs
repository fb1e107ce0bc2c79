//! A batch of packets, column by column: the message that nearly all of a recording consists of.
//!
//! What the packets of one direction of a flow share stands once per batch (a *lane*), so do combinations of
//! header properties (a *shape*); the rest is stored as the difference to what the packets before foretell,
//! which is 0 for most packets of a healthy connection. FORMAT.md defines the columns.

mod columns;
mod decode;
mod encode;
mod foretell;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

/// Most packets that a batch may hold: bounds what one message can unfold to (about 7 MB).
pub(crate) const MAX_BATCH: usize = 65_536;
