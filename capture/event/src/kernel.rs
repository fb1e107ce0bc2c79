//! What the kernel did to connections and processes, from tracepoints.

use crate::{Duration, FiveTuple, Timestamp};

/// One kernel event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelEvent {
    pub time: Timestamp,
    pub arrival: Timestamp,
    /// The connection it concerns, where there is one.
    pub five_tuple: Option<FiveTuple>,
    pub kind: KernelEventKind,
    /// How often it happened: what follows in quick succession in a flow is told together, at the time of the last.
    pub count: u32,
}

/// What happened. State numbers are the kernel's (`TCP_ESTABLISHED` = 1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KernelEventKind {
    /// tcp:tcp_retransmit_skb
    Retransmit { state: u8 },
    /// tcp:tcp_send_reset; the reason's name where the kernel tells one.
    ResetSent { reason: Option<String> },
    /// tcp:tcp_receive_reset
    ResetReceived,
    /// skb:kfree_skb with a drop reason, by name (`TCP_LISTEN_OVERFLOW`, `NETFILTER_DROP`).
    Drop { reason: String },
    /// sock:inet_sock_set_state
    SocketState { old: u8, new: u8 },
    /// A connection that found its listener's queue full.
    ListenOverflow,
    /// oom:mark_victim
    OomKill { pid: u32, process: String },
    /// tcp:tcp_probe's smoothed round-trip time.
    SmoothedRtt { rtt: Duration },
}
