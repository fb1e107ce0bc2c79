//! What a node saw, as values: every source produces these events, the recording stores them, and the
//! feature engine consumes them. No input or output happens here.
//!
//! Every event carries two times: `time`, when it happened, and `arrival`, when the process that observed
//! it learned of it. Windows are cut by `time`; a live run closes them by `arrival`, which is why the
//! arrival is data and is recorded.

mod fault;
mod flow;
mod kernel;
mod l7;
mod loss;
mod mark;
mod names;
mod packet;
mod system;
mod text;
mod time;

pub use fault::{Fault, Label, ParseLabelError};
pub use flow::{Endpoint, FiveTuple, Protocol};
pub use kernel::{KernelEvent, KernelEventKind};
pub use l7::{
    DnsMessage, HttpMessage, KafkaMessage, L7Flow, L7Message, L7Origin, L7Type, NameOrigin, TlsMessage,
    Verdict, Workload,
};
pub use loss::{Loss, LossCause, Source};
pub use mark::Mark;
pub use names::{NAMES_KEY, NameMap, Naming, ParseNamesError};
pub use packet::{Direction, Fragment, Packet, Tap, Tcp, TcpFlags};
pub use system::{
    CgroupCpu, CgroupMemory, CpuTimes, Disk, ListenQueue, Memory, Node, Pod, Pressure, Process,
    SystemSnapshot,
};
pub use text::{bounded_text, url_path};
pub use time::{Duration, Timestamp};

/// One thing that a node saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Packet(Packet),
    Kernel(KernelEvent),
    L7(Box<L7Flow>),
    System(Box<SystemSnapshot>),
    Mark(Mark),
    Loss(Loss),
    Naming(Box<Naming>),
}

impl Event {
    /// When it happened.
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Packet(e) => e.time,
            Self::Kernel(e) => e.time,
            Self::L7(e) => e.time,
            Self::System(e) => e.time,
            Self::Mark(e) => e.time,
            Self::Loss(e) => e.last,
            Self::Naming(e) => e.time,
        }
    }

    /// When the observer learned of it; equal to [`Event::time`] where a source has no clock of its own.
    pub fn arrival(&self) -> Timestamp {
        match self {
            Self::Packet(e) => e.arrival,
            Self::Kernel(e) => e.arrival,
            Self::L7(e) => e.arrival,
            Self::System(e) => e.arrival,
            Self::Mark(e) => e.arrival,
            Self::Loss(e) => e.arrival,
            Self::Naming(e) => e.arrival,
        }
    }

    /// Lets it arrive no earlier than `at`: whoever hands events on learned of them by then.
    pub fn arrive_after(&mut self, at: Timestamp) {
        let arrival = match self {
            Self::Packet(e) => &mut e.arrival,
            Self::Kernel(e) => &mut e.arrival,
            Self::L7(e) => &mut e.arrival,
            Self::System(e) => &mut e.arrival,
            Self::Mark(e) => &mut e.arrival,
            Self::Loss(e) => &mut e.arrival,
            Self::Naming(e) => &mut e.arrival,
        };
        *arrival = at.max(*arrival);
    }

    /// Where it came from. Events order by (time, source, order of arrival within the source).
    pub fn source(&self) -> Source {
        match self {
            Self::Packet(_) => Source::Packets,
            Self::Kernel(_) => Source::Kernel,
            // Names are what Hubble tells with each flow, told by somebody else.
            Self::L7(_) | Self::Naming(_) => Source::L7,
            Self::System(_) => Source::System,
            Self::Mark(_) => Source::Marks,
            Self::Loss(_) => Source::Loss,
        }
    }
}
