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
pub struct FilterError {
    what: String,
    /// The expression, and the place in it: a number of characters.
    text: String,
    place: usize,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at character {}\n\n  {}\n  {:place$}^\n\nknown are: tcp, udp, sctp, icmp, icmp6, ip, ip6, proto N, [src|dst] host ADDRESS, \
             [src|dst] net ADDRESS/LENGTH, [src|dst] port N, [src|dst] portrange N-M, and, or, not, ( )",
            self.what,
            self.place + 1,
            self.text,
            "",
            place = self.place
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
        let words = words(text);
        let mut parser = Parser { words: &words, depth: 0, place: 0, is_short: false };
        let end = text.trim_end().chars().count();
        let parsed = parser.either().and_then(|expression| match parser.words.first() {
            None => Ok(Self(expression)),
            Some((place, word)) => {
                parser.place = *place;
                Err(format!("`{word}` is unexpected"))
            }
        });
        // A word that is missing is missing behind the last one.
        let place = if parser.words.is_empty() && parser.is_short { end } else { parser.place };
        parsed.map_err(|what| FilterError { what, text: text.to_owned(), place })
    }
}

/// The words of an expression and where they stand; parentheses and `!` are words of their own.
fn words(text: &str) -> Vec<(usize, &str)> {
    let (mut words, mut begun) = (Vec::new(), None);
    for (place, (at, letter)) in text.char_indices().enumerate() {
        let is_mark = matches!(letter, '(' | ')' | '!');
        if (is_mark || letter.is_whitespace())
            && let Some((place, from)) = begun.take()
        {
            words.push((place, &text[from..at]));
        }
        if is_mark {
            words.push((place, &text[at..=at]));
        } else if !letter.is_whitespace() && begun.is_none() {
            begun = Some((place, at));
        }
    }
    words.extend(begun.map(|(place, from)| (place, &text[from..])));
    words
}

/// Parentheses and negations inside each other; more are no filter that a person wrote.
const MAX_DEPTH: u32 = 64;

struct Parser<'a> {
    words: &'a [(usize, &'a str)],
    depth: u32,
    /// Where the word that was taken last stands.
    place: usize,
    /// Whether another word was wanted than there were.
    is_short: bool,
}

impl<'a> Parser<'a> {
    fn take_if(&mut self, wanted: &[&str]) -> bool {
        let found = self.words.first().filter(|(_, word)| wanted.contains(word));
        if let Some((place, _)) = found {
            (self.place, self.words) = (*place, &self.words[1..]);
        }
        found.is_some()
    }

    fn word(&mut self, what: &str) -> Result<&'a str, String> {
        let Some(((place, word), rest)) = self.words.split_first() else {
            self.is_short = true;
            return Err(format!("{what} is missing"));
        };
        (self.place, self.words) = (*place, rest);
        Ok(word)
    }

    fn either(&mut self) -> Result<Expression, String> {
        let mut left = self.both()?;
        while self.take_if(&["or", "||"]) {
            left = Expression::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Expression, String> {
        let mut left = self.one()?;
        while self.take_if(&["and", "&&"]) {
            left = Expression::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels"));
        }
        let expression = if self.take_if(&["not", "!"]) {
            Expression::Not(Box::new(self.one()?))
        } else if self.take_if(&["("]) {
            let inner = self.either()?;
            if !self.take_if(&[")"]) {
                self.is_short = self.words.is_empty();
                self.place = self.words.first().map_or(self.place, |(place, _)| *place);
                return Err("`)` is missing".to_owned());
            }
            inner
        } else {
            self.primitive()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn primitive(&mut self) -> Result<Expression, String> {
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
                let (low, high) = text.split_once('-').ok_or_else(|| format!("`{text}` is no range N-M"))?;
                Ok(Expression::Ports(end, parse(low, "a port")?, parse(high, "a port")?))
            }
            _ if end != End::Either => Err(format!("`{word}` cannot follow src or dst")),
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
            _ => Err(format!("`{word}` is not known")),
        }
    }
}

fn net(end: End, text: &str) -> Result<Expression, String> {
    let (address, length) =
        text.split_once('/').ok_or_else(|| format!("`{text}` is no net ADDRESS/LENGTH"))?;
    let address: IpAddr = parse(address, "an address")?;
    let length: u32 = parse(length, "a prefix length")?;
    if length > if address.is_ipv4() { 32 } else { 128 } {
        return Err(format!("`{text}` has a prefix that is too long"));
    }
    Ok(Expression::Net(end, address, length))
}

fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not {what}"))
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
        for (text, part, place) in [
            ("", "missing", 1),
            ("prot 443", "`prot`", 1),
            ("port http", "`http`", 6),
            ("tcp port 443", "`port` is unexpected", 5),
            ("(tcp", "`)`", 5),
            ("(tcp udp)", "`)`", 6),
            ("tcp and ", "missing", 8),
            ("not(net 10.0.0.0/33)", "too long", 9),
            ("src tcp", "`tcp`", 5),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("portrange"), "{error}");
            assert!(error.contains(&format!("at character {place}\n")), "{error}");
        }
        assert!("not ".repeat(100_000).parse::<Filter>().is_err());
    }
}
