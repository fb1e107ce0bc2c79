//! DNS look-ups of A records over UDP, each from a socket of its own as resolvers do.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::Session;
use crate::draw::Draw;
use crate::service::{HOSTS, ZONE};
use crate::topology::SERVER;

/// As resolv.conf(5): two tries; shorter than its 5 s, for runs are short.
const TRIES: u32 = 2;
const TIMEOUT: Duration = Duration::from_secs(1);

/// The response code for one of the names that the zone has, or had.
pub fn any_host(draw: &mut Draw, session: &Session) -> io::Result<u8> {
    let name = format!("service-{}.{ZONE}", draw.integer(0, HOSTS - 1));
    let id = u16::try_from(draw.integer(0, 0xffff)).unwrap_or_default();
    lookup(&name, id, session)
}

/// The response code of the answer.
fn lookup(name: &str, id: u16, session: &Session) -> io::Result<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((SERVER, 53))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let query = query(name, id);
    let mut answer = [0; 512];
    for _ in 0..TRIES {
        socket.send(&query)?;
        match socket.recv(&mut answer) {
            // The fourth byte of the header ends with the response code (RFC 1035, 4.1.1).
            Ok(length) if length >= 12 && answer[..2] == id.to_be_bytes() => return Ok(answer[3] & 0x0f),
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(_) if session.is_over() => break,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// A query for the A record of `name` (RFC 1035, 4.1): one question, recursion desired.
fn query(name: &str, id: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(63).min(63));
        message.extend(label.bytes().take(63));
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_the_name_it_was_given() {
        let message = query("a.bc", 0x1234);
        assert_eq!(message[..6], [0x12, 0x34, 1, 0, 0, 1]);
        assert_eq!(message[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
    }
}
