//! Which application protocols to read from payload, as flags name them.

use clap::ValueEnum;
use dissect::L7Options;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Dns,
    /// HTTP/1, HTTP/2 and gRPC
    Http,
    Kafka,
    /// The hellos: server name and version
    Tls,
    /// None at all
    None,
}

/// What to look for in payload.
pub fn options(protocols: &[Protocol], redact: bool) -> L7Options {
    let has = |protocol| protocols.contains(&protocol);
    L7Options {
        dns: has(Protocol::Dns),
        http: has(Protocol::Http),
        kafka: has(Protocol::Kafka),
        tls: has(Protocol::Tls),
        redact,
    }
}
