//! Kernel events: what kind they are, and those of recordings before 1.2, which have a message each.

use event::{Duration, KernelEvent, KernelEventKind};

use super::proto::{self, kernel::Kind};
use super::{BadMessage, narrow, times};

impl From<&KernelEventKind> for Kind {
    fn from(kind: &KernelEventKind) -> Self {
        match kind.clone() {
            KernelEventKind::Retransmit { state } => {
                Self::Retransmit(proto::kernel::Retransmit { state: state.into() })
            }
            KernelEventKind::ResetSent { reason } => Self::ResetSent(proto::kernel::ResetSent { reason }),
            KernelEventKind::ResetReceived => Self::ResetReceived(proto::kernel::ResetReceived {}),
            KernelEventKind::Drop { reason } => Self::Drop(proto::kernel::Drop { reason }),
            KernelEventKind::SocketState { old, new } => {
                Self::SocketState(proto::kernel::SocketState { old: old.into(), new: new.into() })
            }
            KernelEventKind::ListenOverflow => Self::ListenOverflow(proto::kernel::ListenOverflow {}),
            KernelEventKind::OomKill { pid, process } => {
                Self::OomKill(proto::kernel::OomKill { pid, process })
            }
            KernelEventKind::SmoothedRtt { rtt } => {
                Self::SmoothedRtt(proto::kernel::SmoothedRtt { rtt: rtt.as_nanos() })
            }
        }
    }
}

/// `None` for a kind that this version does not know.
pub(crate) fn kind(message: &proto::Kernel) -> Result<Option<KernelEventKind>, BadMessage> {
    let Some(kind) = &message.kind else { return Ok(None) };
    Ok(Some(match kind.clone() {
        Kind::Retransmit(event) => KernelEventKind::Retransmit { state: narrow(event.state, "state")? },
        Kind::ResetSent(event) => KernelEventKind::ResetSent { reason: event.reason },
        Kind::ResetReceived(_) => KernelEventKind::ResetReceived,
        Kind::Drop(event) => KernelEventKind::Drop { reason: event.reason },
        Kind::SocketState(event) => {
            KernelEventKind::SocketState { old: narrow(event.old, "old")?, new: narrow(event.new, "new")? }
        }
        Kind::ListenOverflow(_) => KernelEventKind::ListenOverflow,
        Kind::OomKill(event) => KernelEventKind::OomKill { pid: event.pid, process: event.process },
        Kind::SmoothedRtt(event) => KernelEventKind::SmoothedRtt { rtt: Duration::from_nanos(event.rtt) },
    }))
}

/// The one event of a message that is no batch.
pub(super) fn decode(message: proto::Kernel) -> Result<Option<KernelEvent>, BadMessage> {
    let (time, arrival) = times(message.stamp)?;
    let Some(kind) = kind(&message)? else { return Ok(None) };
    let five_tuple = message.five_tuple.map(TryInto::try_into).transpose()?;
    Ok(Some(KernelEvent { time, arrival, five_tuple, kind, count: 1 }))
}
