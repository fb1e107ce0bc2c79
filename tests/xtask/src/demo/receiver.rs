//! A webhook receiver for the demo: takes POSTs on loopback and hands their bodies on.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// A client that says nothing for this long is let go.
const PATIENCE: Duration = Duration::from_secs(5);
/// No request of the demo's comes near this size.
const LIMIT: usize = 1 << 20;

/// Listens from its creation until the process ends.
pub struct Receiver {
    pub address: SocketAddr,
    pub bodies: mpsc::Receiver<String>,
}

impl Receiver {
    /// Listens on an address; port 0 takes a free one.
    pub fn listen(address: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr().context("a listener has an address")?;
        let (sender, bodies) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                match receive(stream) {
                    Ok(body) => {
                        if sender.send(body).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let _ = writeln!(io::stderr(), "receiver: {error:#}");
                    }
                }
            }
        });
        Ok(Self { address, bodies })
    }
}

/// Reads one request, answers it, and returns its body.
fn receive(mut stream: TcpStream) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(PATIENCE)).context("cannot set a time-out")?;
    let mut bytes = Vec::new();
    let mut block = [0; 8192];
    loop {
        let read = stream.read(&mut block).context("the client stopped in mid-request")?;
        bytes.extend_from_slice(&block[..read]);
        if let Some(body) = body(&bytes)? {
            let body = String::from_utf8_lossy(body).into_owned();
            let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).context("the client left before its answer")?;
            return Ok(body);
        }
        if read == 0 || bytes.len() > LIMIT {
            bail!("a request of {} bytes without an end", bytes.len());
        }
    }
}

/// The body, once all of it is there.
fn body(bytes: &[u8]) -> anyhow::Result<Option<&[u8]>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = request.parse(bytes).context("not an HTTP request")? else {
        return Ok(None);
    };
    let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.context("a POST without Content-Length")?.value;
    let length: usize =
        std::str::from_utf8(length)?.trim().parse().context("a Content-Length that is no number")?;
    Ok(bytes.get(start..start.saturating_add(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_complete_when_its_length_says_so() {
        let request = b"POST / HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\n{}";
        for end in 0..request.len() {
            assert_eq!(body(&request[..end]).unwrap(), None);
        }
        assert_eq!(body(request).unwrap(), Some(&b"{}"[..]));
        assert!(body(b"POST / HTTP/1.1\r\n\r\n").is_err());
    }

    #[test]
    fn what_a_client_posts_arrives() {
        let receiver = Receiver::listen("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(receiver.address).unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"a\":1}").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"));
        assert_eq!(receiver.bodies.recv_timeout(PATIENCE).unwrap(), "{\"a\":1}");
    }
}
