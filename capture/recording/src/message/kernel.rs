//! Kernel events.

use event::{Duration, KernelEvent, KernelEventKind};

use super::proto::{self, kernel::Kind};
use super::{BadMessage, narrow, times};

impl From<&KernelEvent> for proto::Kernel {
    fn from(event: &KernelEvent) -> Self {
        let kind = match event.kind.clone() {
            KernelEventKind::Retransmit { state } => {
                Kind::Retransmit(proto::kernel::Retransmit { state: state.into() })
            }
            KernelEventKind::ResetSent { reason } => Kind::ResetSent(proto::kernel::ResetSent { reason }),
            KernelEventKind::ResetReceived => Kind::ResetReceived(proto::kernel::ResetReceived {}),
            KernelEventKind::Drop { reason } => Kind::Drop(proto::kernel::Drop { reason }),
            KernelEventKind::SocketState { old, new } => {
                Kind::SocketState(proto::kernel::SocketState { old: old.into(), new: new.into() })
            }
            KernelEventKind::ListenOverflow => Kind::ListenOverflow(proto::kernel::ListenOverflow {}),
            KernelEventKind::OomKill { pid, process } => {
                Kind::OomKill(proto::kernel::OomKill { pid, process })
            }
            KernelEventKind::SmoothedRtt { rtt } => {
                Kind::SmoothedRtt(proto::kernel::SmoothedRtt { rtt: rtt.as_nanos() })
            }
        };
        Self { stamp: None, five_tuple: event.five_tuple.map(Into::into), kind: Some(kind) }
    }
}

/// `None` for a kind that this version does not know.
pub(super) fn decode(message: proto::Kernel) -> Result<Option<KernelEvent>, BadMessage> {
    let (time, arrival) = times(message.stamp)?;
    let Some(kind) = message.kind else { return Ok(None) };
    let kind = match kind {
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
    };
    let five_tuple = message.five_tuple.map(TryInto::try_into).transpose()?;
    Ok(Some(KernelEvent { time, arrival, five_tuple, kind }))
}
