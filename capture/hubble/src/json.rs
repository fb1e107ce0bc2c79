//! JSON lines, as `hubble observe -o json` and the agent's export write them.

use std::io::{self, BufRead, Read as _};

use crate::proto::{Flow, GetFlowsResponse};

/// A line at most: flows are a few kilobytes, and a file without line breaks must not fill the memory.
const MAX_LINE: u64 = 4 * 1024 * 1024;

/// A line that looked like a message and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub number: u64,
    pub reason: String,
}

/// A message as a line held it.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonMessage {
    pub message: GetFlowsResponse,
    /// The drop reason's name, where it is in no table here: its text is all that is known of it.
    pub drop_reason: Option<String>,
}

/// Reads messages line by line, wrapped or bare; lines of the agent's log between them are passed over.
pub struct JsonReader<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    other_lines: u64,
}

impl<R: BufRead> JsonReader<R> {
    pub fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0, other_lines: 0 }
    }

    /// Lines read so far.
    pub fn lines(&self) -> u64 {
        self.number
    }

    /// Lines that are no flow, loss or node status: the agent's log, server status, agent and debug events.
    pub fn other_lines(&self) -> u64 {
        self.other_lines
    }

    /// The next message; a bad line does not stop those behind it. Nothing at the end.
    ///
    /// # Errors
    /// Where the input cannot be read.
    #[expect(clippy::should_implement_trait, reason = "reads until a line of interest comes")]
    pub fn next(&mut self) -> io::Result<Option<Result<JsonMessage, BadLine>>> {
        loop {
            self.line.clear();
            if (&mut self.input).take(MAX_LINE).read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.line.len() as u64 == MAX_LINE && !self.line.ends_with(b"\n") {
                self.input.skip_until(b'\n')?;
                return Ok(Some(Err(self.bad(format!("longer than {MAX_LINE} bytes")))));
            }
            let text = self.line.trim_ascii();
            if text.starts_with(b"[") {
                return Ok(Some(Err(self.bad("an array, where one object a line is expected".to_owned()))));
            }
            if !text.starts_with(b"{") {
                self.other_lines += u64::from(!text.is_empty());
                continue;
            }
            match message(text) {
                Ok(Some(message)) => {
                    let drop_reason = unknown_drop_reason(&message, text);
                    return Ok(Some(Ok(JsonMessage { message, drop_reason })));
                }
                Ok(None) => self.other_lines += 1,
                Err(error) => {
                    let reason = error.to_string();
                    return Ok(Some(Err(self.bad(reason))));
                }
            }
        }
    }

    fn bad(&self, reason: String) -> BadLine {
        BadLine { number: self.number, reason }
    }
}

/// A message, wrapped or a bare flow as old command lines wrote it; nothing where it is another object.
fn message(text: &[u8]) -> Result<Option<GetFlowsResponse>, serde_json::Error> {
    let wrapped: GetFlowsResponse = serde_json::from_slice(text)?;
    if wrapped.flow.is_some() || wrapped.node_status.is_some() || wrapped.lost_events.is_some() {
        return Ok(Some(wrapped));
    }
    let bare: Flow = serde_json::from_slice(text)?;
    let is_flow = bare.ip.is_some() || bare.l4.is_some() || bare.l7.is_some();
    let (time, node_name) = (bare.time, bare.node_name.clone());
    let wrap = || GetFlowsResponse { flow: Some(Box::new(bare)), time, node_name, ..wrapped };
    Ok(is_flow.then(wrap))
}

/// The text of a drop reason that the tables do not know, by reading the line once more.
fn unknown_drop_reason(message: &GetFlowsResponse, text: &[u8]) -> Option<String> {
    let flow = message.flow.as_ref().filter(|flow| flow.drop_reason_desc == fields::UNKNOWN_NAME)?;
    debug_assert!(flow.drop_reason_desc < 0, "no number of Hubble's");
    let line: serde_json::Value = serde_json::from_slice(text).ok()?;
    let flow = line.get("flow").unwrap_or(&line);
    flow.get("drop_reason_desc")?.as_str().map(str::to_owned)
}

/// How fields stand in JSON: enumerations as names or numbers, large numbers as text, times as text.
pub(crate) mod fields {
    use serde::{Deserialize, Deserializer, de::Error};

    use crate::names::{self, Table};
    use crate::proto::{BoolValue, Timestamp};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOr<T> {
        Other(T),
        Text(String),
    }

    /// A name that is in no table, from a server newer than it; negative numbers are none of Hubble's.
    pub(crate) const UNKNOWN_NAME: i32 = -1;

    fn enumeration<'de, D: Deserializer<'de>>(deserializer: D, table: Table) -> Result<i32, D::Error> {
        Ok(match Option::<TextOr<i32>>::deserialize(deserializer)? {
            None => 0,
            Some(TextOr::Other(number)) => number,
            Some(TextOr::Text(name)) => names::number_of(table, &name).unwrap_or(UNKNOWN_NAME),
        })
    }

    macro_rules! enumerations {
        ($($name:ident $table:ident),+ $(,)?) => {
            $(pub(crate) fn $name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
                enumeration(deserializer, names::$table)
            })+
        };
    }

    enumerations! {
        verdict VERDICT,
        flow_type FLOW_TYPE,
        l7_type L7_TYPE,
        drop_reason DROP_REASON,
        lost_source LOST_SOURCE,
        node_state NODE_STATE,
    }

    pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        match Option::<TextOr<u64>>::deserialize(deserializer)? {
            None => Ok(0),
            Some(TextOr::Other(number)) => Ok(number),
            Some(TextOr::Text(text)) => text.parse().map_err(D::Error::custom),
        }
    }

    pub(crate) fn number32<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        number(deserializer).and_then(|number| u32::try_from(number).map_err(D::Error::custom))
    }

    pub(crate) fn wrapped_bool<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<BoolValue>, D::Error> {
        Ok(Option::<bool>::deserialize(deserializer)?.map(|value| BoolValue { value }))
    }

    /// RFC 3339 with up to nine digits of a fraction.
    pub(crate) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok(Some(Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }))
    }
}
