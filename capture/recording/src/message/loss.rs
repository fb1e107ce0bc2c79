//! Losses.

use event::{Loss, LossCause, Source, Timestamp};

use super::proto::{self, loss};
use super::{BadMessage, times};

impl From<&Loss> for proto::Loss {
    fn from(loss: &Loss) -> Self {
        let source = match loss.source {
            Source::Marks => loss::Source::Marks,
            Source::System => loss::Source::System,
            Source::Kernel => loss::Source::Kernel,
            Source::L7 => loss::Source::L7,
            Source::Packets => loss::Source::Packets,
            Source::Loss => loss::Source::Loss,
        };
        let cause = match loss.cause {
            LossCause::RingFull => loss::Cause::RingFull,
            LossCause::QueueFull => loss::Cause::QueueFull,
            LossCause::Unreadable => loss::Cause::Unreadable,
            LossCause::InterfaceGone => loss::Cause::InterfaceGone,
            LossCause::Upstream => loss::Cause::Upstream,
            LossCause::UpstreamKernel => loss::Cause::UpstreamKernel,
            LossCause::UpstreamQueue => loss::Cause::UpstreamQueue,
            LossCause::UpstreamRing => loss::Cause::UpstreamRing,
            LossCause::Disconnected => loss::Cause::Disconnected,
        };
        Self {
            stamp: None,
            first: loss.first.as_nanos(),
            source: source.into(),
            cause: cause.into(),
            interface: loss.interface,
            count: loss.count,
        }
    }
}

/// `None` for a source or cause that this version does not know.
pub(super) fn decode(message: proto::Loss) -> Result<Option<Loss>, BadMessage> {
    let (last, arrival) = times(message.stamp)?;
    let source = match message.source() {
        loss::Source::Unspecified => return Ok(None),
        loss::Source::Marks => Source::Marks,
        loss::Source::System => Source::System,
        loss::Source::Kernel => Source::Kernel,
        loss::Source::L7 => Source::L7,
        loss::Source::Packets => Source::Packets,
        loss::Source::Loss => Source::Loss,
    };
    let cause = match message.cause() {
        loss::Cause::Unspecified => return Ok(None),
        loss::Cause::RingFull => LossCause::RingFull,
        loss::Cause::QueueFull => LossCause::QueueFull,
        loss::Cause::Unreadable => LossCause::Unreadable,
        loss::Cause::InterfaceGone => LossCause::InterfaceGone,
        loss::Cause::Upstream => LossCause::Upstream,
        loss::Cause::UpstreamKernel => LossCause::UpstreamKernel,
        loss::Cause::UpstreamQueue => LossCause::UpstreamQueue,
        loss::Cause::UpstreamRing => LossCause::UpstreamRing,
        loss::Cause::Disconnected => LossCause::Disconnected,
    };
    let first = Timestamp::from_nanos(message.first);
    Ok(Some(Loss { first, last, arrival, source, cause, interface: message.interface, count: message.count }))
}
