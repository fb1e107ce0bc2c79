//! Which flows of a labelled recording the fault affects: all others are normal rows of a faulty node.
//!
//! `PROTOCOL/ADDRESS:PORT`, the server's side of the flow, `*` for any; after a `?` a condition on a feature of
//! the row, as in `tcp/198.18.1.2:80?http_status_code>=500`. An empty cell fulfils no condition. Several are
//! separated by spaces: one that matches is enough.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use event::Protocol;

use crate::schema::METADATA;
use crate::{Feature, Row, Value, schema};

/// The key of a recording's metadata that holds the selectors.
pub const METADATA_KEY: &str = "lab.affected";

/// One way to be affected.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Selector {
    protocol: Option<Protocol>,
    address: Option<IpAddr>,
    port: Option<u16>,
    at_least: Option<(Feature, f64)>,
}

/// The flows that a fault affects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affected(Vec<Selector>);

/// A selector that is not as the module's documentation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAffectedError(String);

impl fmt::Display for ParseAffectedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(
            f,
            "`{text}` selects no flows: write PROTOCOL/ADDRESS:PORT, or PROTOCOL/ADDRESS:PORT?FEATURE>=NUMBER"
        )
    }
}

impl std::error::Error for ParseAffectedError {}

impl FromStr for Affected {
    type Err = ParseAffectedError;

    fn from_str(text: &str) -> Result<Self, ParseAffectedError> {
        let selectors =
            text.split_whitespace().map(|one| parse(one).ok_or_else(|| ParseAffectedError(one.to_owned())));
        selectors.collect::<Result<_, _>>().map(Self)
    }
}

fn parse(text: &str) -> Option<Selector> {
    let (flow, condition) = text.split_once('?').map_or((text, None), |(flow, rest)| (flow, Some(rest)));
    let (protocol, endpoint) = flow.split_once('/')?;
    let (address, port) = endpoint.rsplit_once(':')?;
    let protocol = match protocol {
        "*" => None,
        "tcp" => Some(Protocol::TCP),
        "udp" => Some(Protocol::UDP),
        number => Some(Protocol(number.parse().ok()?)),
    };
    let address = if address == "*" { None } else { Some(address.trim_matches(['[', ']']).parse().ok()?) };
    let port = if port == "*" { None } else { Some(port.parse().ok()?) };
    let at_least = match condition {
        None => None,
        Some(condition) => {
            let (feature, number) = condition.split_once(">=")?;
            let place = schema::position(feature)?.checked_sub(METADATA)?;
            Some((*Feature::ALL.get(place)?, number.parse().ok()?))
        }
    };
    Some(Selector { protocol, address, port, at_least })
}

impl Affected {
    pub fn matches(&self, row: &Row) -> bool {
        self.0.iter().any(|selector| selector.matches(row))
    }
}

impl Selector {
    fn matches(&self, row: &Row) -> bool {
        let tuple = &row.five_tuple;
        let is_side = |side: &event::Endpoint| {
            self.address.is_none_or(|address| address == side.address)
                && self.port.is_none_or(|port| port == side.port)
        };
        self.protocol.is_none_or(|protocol| protocol == tuple.protocol)
            // The initiator of a flow that was seen from its middle on is a guess: look at both sides.
            && (is_side(&tuple.destination) || is_side(&tuple.source))
            && self.at_least.is_none_or(|(feature, least)| number(&row[feature]).is_some_and(|value| value >= least))
    }
}

/// What a cell measures; nothing for empty cells and texts.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Unsigned(number) => Some(*number as f64),
        Value::Signed(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Empty | Value::Name(_) | Value::Text(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use event::{Endpoint, FiveTuple, Timestamp};

    use super::*;
    use crate::schema::FEATURES;

    fn row(source: &str, destination: &str, protocol: Protocol) -> Row {
        let end = |text: &str| {
            let address: std::net::SocketAddr = text.parse().unwrap();
            Endpoint::new(address.ip(), address.port())
        };
        Row {
            window: Timestamp::UNIX_EPOCH,
            five_tuple: FiveTuple::new(end(source), end(destination), protocol),
            flow_id: *b"00000000",
            l7_protocol: 0,
            features: [const { Value::Empty }; FEATURES],
            label: None,
        }
    }

    #[test]
    fn flows_are_told_by_protocol_address_port_and_feature() {
        let web = row("198.18.0.2:40000", "198.18.1.2:80", Protocol::TCP);
        let dns = row("198.18.0.2:40000", "198.18.1.2:53", Protocol::UDP);
        let matches = |text: &str, row: &Row| text.parse::<Affected>().unwrap().matches(row);
        assert!(matches("tcp/198.18.1.2:80", &web) && !matches("tcp/198.18.1.2:80", &dns));
        assert!(matches("*/198.18.1.2:*", &web) && matches("*/198.18.1.2:*", &dns));
        assert!(matches("udp/*:53 tcp/*:443", &dns) && !matches("udp/*:53 tcp/*:443", &web));
        assert!(!matches("", &web));
        assert!(matches("tcp/198.18.1.2:80", &row("198.18.1.2:80", "198.18.0.2:40000", Protocol::TCP)));

        let failing = "tcp/198.18.1.2:80?http_status_code>=500";
        assert!(!matches(failing, &web), "not measured");
        let mut served = web.clone();
        served[Feature::HttpStatusCode] = Value::Unsigned(200);
        assert!(!matches(failing, &served));
        served[Feature::HttpStatusCode] = Value::Unsigned(503);
        assert!(matches(failing, &served));
    }

    #[test]
    fn a_selector_that_is_none_is_refused() {
        for text in
            ["tcp", "tcp/80", "tcp/1.2.3:80", "tcp/*:80?", "tcp/*:80?no_such>=1", "tcp/*:80?src_ip>=1"]
        {
            assert_eq!(text.parse::<Affected>(), Err(ParseAffectedError(text.to_owned())), "{text}");
        }
        assert!("udp/[fd00::1]:53".parse::<Affected>().is_ok());
    }
}
