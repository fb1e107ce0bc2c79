//! A batch of kernel events, column by column, for the reasons of [`crate::packets`]: a message of its own would cost
//! each of them ten times as much. FORMAT.md defines the columns.

mod columns;
mod decode;
mod encode;

pub(crate) use columns::Columns;
pub(crate) use decode::{Placed, decode};
pub(crate) use encode::Encoder;

/// Most events that a batch may hold: bounds what one message can unfold to (about 10 MB).
const MAX_BATCH: usize = 65_536;

/// Flows in the order of their use: how `flow` tells one.
mod code {
    use crate::recent::Recent;

    /// The event is of no flow.
    pub const NONE: u64 = 0;
    /// The next flow that is new.
    pub const NEW: u64 = 1;
    /// The flow used last; those used before follow.
    pub const RECENT: u64 = 2;
    /// The first flow of all; the others follow.
    pub const NUMBERED: u64 = RECENT + Recent::MOST as u64;
}
