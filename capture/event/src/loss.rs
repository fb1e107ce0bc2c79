//! What was not seen: loss is data, per source and cause, with the time range it fell in.

use std::fmt;

use crate::Timestamp;

/// The sources of events, in the order in which events of equal time are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Marks,
    System,
    Kernel,
    L7,
    Packets,
    Loss,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Marks => "marks",
            Self::System => "system",
            Self::Kernel => "kernel",
            Self::L7 => "l7",
            Self::Packets => "packets",
            Self::Loss => "loss",
        })
    }
}

/// Why events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossCause {
    /// The kernel's ring buffer had no room.
    RingFull,
    /// A queue between source and writer was full.
    QueueFull,
    /// The packet could not be read as IP by the kernel program.
    Unreadable,
    /// The interface went away.
    InterfaceGone,
    /// The reporter itself lost events before we could read them, and does not say where.
    Upstream,
    /// The reporter's kernel ring had no room.
    UpstreamKernel,
    /// The reporter's queue was full.
    UpstreamQueue,
    /// The reporter's own ring was overwritten before we read it: we were too slow, or away.
    UpstreamRing,
    /// The reporter was away: what it would have told is not known.
    Disconnected,
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RingFull => "ring full",
            Self::QueueFull => "queue full",
            Self::Unreadable => "unreadable",
            Self::InterfaceGone => "interface gone",
            Self::Upstream => "lost by the reporter",
            Self::UpstreamKernel => "lost in the reporter's kernel ring",
            Self::UpstreamQueue => "lost in the reporter's queue",
            Self::UpstreamRing => "overwritten in the reporter's ring",
            Self::Disconnected => "reporter away",
        })
    }
}

/// Events that happened between `first` and `last` and are not in the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub first: Timestamp,
    pub last: Timestamp,
    pub arrival: Timestamp,
    pub source: Source,
    pub cause: LossCause,
    /// Index into the interface table, where the loss belongs to one.
    pub interface: Option<u32>,
    /// Events lost since the last such report, not in total; 0 where their number is not known.
    pub count: u64,
}
