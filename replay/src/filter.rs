//! Filter expressions on five-tuples, in the words of pcap-filter(7).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use event::{Endpoint, FiveTuple, Protocol};

/// Which end of a packet a primitive looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
    Either,
}

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Protocol(Protocol),
    Version6(bool),
    Net(End, IpAddr, u32),
    Ports(End, u16, u16),
}

/// A filter on five-tuples. A flow passes whole: the expression holds for one of its directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Expression);

/// What cannot be understood, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; known are: tcp, udp, sctp, icmp, icmp6, ip, ip6, proto N, [src|dst] host ADDRESS, \
             [src|dst] net ADDRESS/LENGTH, [src|dst] port N, [src|dst] portrange N-M, and, or, not, ( )",
            self.0
        )
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Whether the flow of this five-tuple passes.
    pub fn passes(&self, tuple: &FiveTuple) -> bool {
        self.0.holds(tuple) || self.0.holds(&tuple.reversed())
    }
}

impl Expression {
    fn holds(&self, tuple: &FiveTuple) -> bool {
        match self {
            Self::Not(inner) => !inner.holds(tuple),
            Self::And(a, b) => a.holds(tuple) && b.holds(tuple),
            Self::Or(a, b) => a.holds(tuple) || b.holds(tuple),
            Self::Protocol(protocol) => tuple.protocol == *protocol,
            Self::Version6(is_v6) => tuple.source.address.is_ipv6() == *is_v6,
            Self::Net(end, net, length) => end.any(tuple, |at| is_in(at.address, *net, *length)),
            Self::Ports(end, low, high) => end.any(tuple, |at| (*low..=*high).contains(&at.port)),
        }
    }
}

impl End {
    fn any(self, tuple: &FiveTuple, test: impl Fn(&Endpoint) -> bool) -> bool {
        match self {
            Self::Source => test(&tuple.source),
            Self::Destination => test(&tuple.destination),
            Self::Either => test(&tuple.source) || test(&tuple.destination),
        }
    }
}

fn is_in(address: IpAddr, net: IpAddr, length: u32) -> bool {
    match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - length).unwrap_or(0) == 0
        }
        _ => false,
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('!', " ! ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut parser = Parser { words: &words, depth: 0 };
        let expression = parser.either()?;
        match parser.words.first() {
            None => Ok(Self(expression)),
            Some(word) => Err(FilterError(format!("`{word}` is unexpected"))),
        }
    }
}

/// Parentheses and negations inside each other; more are no filter that a person wrote.
const MAX_DEPTH: u32 = 64;

struct Parser<'a> {
    words: &'a [&'a str],
    depth: u32,
}

impl<'a> Parser<'a> {
    fn take_if(&mut self, wanted: &[&str]) -> bool {
        let found = self.words.first().is_some_and(|word| wanted.contains(word));
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn word(&mut self, what: &str) -> Result<&'a str, FilterError> {
        let (word, rest) =
            self.words.split_first().ok_or_else(|| FilterError(format!("{what} is missing at the end")))?;
        self.words = rest;
        Ok(word)
    }

    fn either(&mut self) -> Result<Expression, FilterError> {
        let mut left = self.both()?;
        while self.take_if(&["or", "||"]) {
            left = Expression::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Expression, FilterError> {
        let mut left = self.one()?;
        while self.take_if(&["and", "&&"]) {
            left = Expression::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Expression, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(FilterError(format!("more than {MAX_DEPTH} levels")));
        }
        let expression = if self.take_if(&["not", "!"]) {
            Expression::Not(Box::new(self.one()?))
        } else if self.take_if(&["("]) {
            let inner = self.either()?;
            if !self.take_if(&[")"]) {
                return Err(FilterError("`)` is missing".to_owned()));
            }
            inner
        } else {
            self.primitive()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn primitive(&mut self) -> Result<Expression, FilterError> {
        let mut word = self.word("an expression")?;
        let end = match word {
            "src" => End::Source,
            "dst" => End::Destination,
            _ => End::Either,
        };
        if end != End::Either {
            word = self.word("host, net, port or portrange")?;
        }
        match word {
            "host" => {
                let address = parse(self.word("an address")?, "an address")?;
                Ok(Expression::Net(end, address, if address.is_ipv4() { 32 } else { 128 }))
            }
            "net" => net(end, self.word("a net")?),
            "port" => {
                let port = parse(self.word("a port")?, "a port")?;
                Ok(Expression::Ports(end, port, port))
            }
            "portrange" => {
                let text = self.word("a range of ports")?;
                let (low, high) =
                    text.split_once('-').ok_or_else(|| FilterError(format!("`{text}` is no range N-M")))?;
                Ok(Expression::Ports(end, parse(low, "a port")?, parse(high, "a port")?))
            }
            _ if end != End::Either => Err(FilterError(format!("`{word}` cannot follow src or dst"))),
            "tcp" => Ok(Expression::Protocol(Protocol::TCP)),
            "udp" => Ok(Expression::Protocol(Protocol::UDP)),
            "sctp" => Ok(Expression::Protocol(Protocol::SCTP)),
            "icmp" => Ok(Expression::Protocol(Protocol::ICMP)),
            "icmp6" => Ok(Expression::Protocol(Protocol::ICMPV6)),
            "proto" => {
                Ok(Expression::Protocol(Protocol(parse(self.word("a number")?, "a protocol number")?)))
            }
            "ip" => Ok(Expression::Version6(false)),
            "ip6" => Ok(Expression::Version6(true)),
            _ => Err(FilterError(format!("`{word}` is not known"))),
        }
    }
}

fn net(end: End, text: &str) -> Result<Expression, FilterError> {
    let (address, length) =
        text.split_once('/').ok_or_else(|| FilterError(format!("`{text}` is no net ADDRESS/LENGTH")))?;
    let address: IpAddr = parse(address, "an address")?;
    let length: u32 = parse(length, "a prefix length")?;
    if length > if address.is_ipv4() { 32 } else { 128 } {
        return Err(FilterError(format!("`{text}` has a prefix that is too long")));
    }
    Ok(Expression::Net(end, address, length))
}

fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, FilterError> {
    text.parse().map_err(|_| FilterError(format!("`{text}` is not {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(filter: &str) -> bool {
        let source = Endpoint::new("198.18.0.2".parse().unwrap(), 40_000);
        let destination = Endpoint::new("198.19.7.1".parse().unwrap(), 443);
        filter.parse::<Filter>().unwrap().passes(&FiveTuple::new(source, destination, Protocol::TCP))
    }

    #[test]
    fn expressions_hold_as_in_tcpdump() {
        for filter in [
            "tcp",
            "port 443",
            "host 198.18.0.2 and port 443",
            "net 198.18.0.0/15",
            "net 0.0.0.0/0",
            "not udp",
            "!(udp or icmp)",
            "udp or tcp and port 443",
            "src host 198.18.0.2 and dst port 443",
            "dst host 198.18.0.2 and src port 443",
            "portrange 400-500 && ip",
            "proto 6",
        ] {
            assert!(passes(filter), "{filter}");
        }
        for filter in [
            "udp",
            "port 80",
            "src host 198.18.0.2 and src port 443",
            "net 198.18.0.0/24 and net 10.0.0.0/8",
            "(udp or tcp) and port 80",
            "ip6",
            "net ::/0",
        ] {
            assert!(!passes(filter), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for (text, part) in [
            ("", "missing"),
            ("prot 443", "`prot`"),
            ("port http", "`http`"),
            ("tcp port 443", "`port` is unexpected"),
            ("(tcp", "`)`"),
            ("net 10.0.0.0/33", "too long"),
            ("src tcp", "`tcp`"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("portrange"), "{error}");
        }
        assert!("not ".repeat(100_000).parse::<Filter>().is_err());
    }
}
