//! The recording: what a node saw, in an MCAP file of protobuf messages.
//!
//! [`Writer`] puts events in, at most a second behind; [`Reader`] brings back the same events in the same
//! order, from files and from pipes, and says exactly what it could not read. FORMAT.md defines every byte.
//!
//! Invariants:
//! - A chunk needs no other chunk to be decoded: a cut or damage costs the chunks it touches.
//! - Every message carries how many events its channel held before it, so what is missing is counted.
//! - The same header, events, ticks and options make the same bytes.

// Columns cross many widths; each narrowing is checked where it reads, and wraps by design where it predicts.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod addresses;
mod channel;
mod column;
mod error;
mod format;
mod header;
mod kernel;
mod lengths;
mod message;
mod packets;
mod reader;
mod recent;
mod scan;
mod target;
mod writer;

pub use channel::Counts;
pub use column::Malformed;
pub use error::{Damage, Error, Fault};
pub use format::{MAX_CHUNK, VERSION, Version};
pub use header::{ClockPair, Header, Interface};
pub use message::BadMessage;

pub use reader::{End, Events, Item, Reader, Report};
pub use writer::{Options, Summary, Writer};
