//! The records that cross from the kernel programs to user space, in the layout that both sides share.
//! It is never stored: kernel programs and decoder are built from the same source and loaded together.
#![no_std]

mod kernel;
mod packet;
mod payload;
mod ring;
mod sample;

pub use kernel::{COPIED, COPIED_PACKET, KernelRecord, MAX_REASONS, Probed, Traced, Tracepoint};
pub use packet::{
    Address, DIRECTIONS, EGRESS, INGRESS, NO_WINDOW_SCALE, PacketMarks, PacketRecord, Unrecorded,
};
pub use payload::{MAX_PAYLOAD, PayloadRecord, PayloadSelect};
pub use ring::Ring;
pub use sample::{flow_hash, sample_keeps};
