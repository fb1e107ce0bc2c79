//! Marks.

use event::{Label, Mark};

use super::{BadMessage, narrow_option, proto, times};

impl From<&Mark> for proto::Mark {
    fn from(mark: &Mark) -> Self {
        Self { stamp: None, label: mark.label.map(|label| label.0.into()), note: mark.note.clone() }
    }
}

pub(super) fn decode(message: proto::Mark) -> Result<Mark, BadMessage> {
    let (time, arrival) = times(message.stamp)?;
    let label = narrow_option(message.label, "label")?.map(Label);
    Ok(Mark { time, arrival, label, note: message.note })
}
