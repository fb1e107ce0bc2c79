//! A small HTTP/1.1 client that notices the end of its session, whatever the server does.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use super::Session;
use crate::draw::Draw;
use crate::service::{APP_PORT, DOWNLOADS, PAGES};
use crate::topology::SERVER;

/// How long a blocked read or write waits before it looks whether the session is over.
const SLICE: Duration = Duration::from_millis(200);
/// A client gives an exchange up after this; common defaults lie between 5 and 60 s.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of a hundred pages one is not there (404), as on any real site.
const MISSING: f64 = 0.01;

/// What a server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    body: u64,
    /// The server will close the connection.
    closes: bool,
}

/// A connection to the server, and until when the exchange on it may last.
pub struct Connection<'a> {
    stream: TcpStream,
    session: &'a Session,
    deadline: Instant,
}

pub fn connect(port: u16, session: &Session) -> io::Result<Connection<'_>> {
    let address = SocketAddr::V4(SocketAddrV4::new(SERVER, port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE / 3)?;
    Connection::over(stream, session)
}

impl<'a> Connection<'a> {
    pub fn over(stream: TcpStream, session: &'a Session) -> io::Result<Self> {
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(SLICE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, session, deadline: Instant::now() + PATIENCE })
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// One request with a body of that many bytes, and its answer, read to the end.
    pub fn exchange(&mut self, method: &str, path: &str, body: u32, close: bool) -> io::Result<Reply> {
        let connection = if close { "close" } else { "keep-alive" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {SERVER}\r\nUser-Agent: lab\r\n\
             Content-Length: {body}\r\nConnection: {connection}\r\n\r\n"
        );
        self.write(head.as_bytes())?;
        let block = [b'.'; 16 * 1024];
        let mut left = body as usize;
        while left > 0 {
            let part = left.min(block.len());
            self.write(&block[..part])?;
            left -= part;
        }
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut buffer = vec![0; 64 * 1024];
        let mut filled = 0;
        let (reply, head) = loop {
            filled += self.read(&mut buffer[filled..])?;
            if let Some(parsed) = parse(&buffer[..filled])? {
                break parsed;
            }
        };
        let mut seen = (filled - head) as u64;
        while seen < reply.body {
            seen += self.read(&mut buffer)? as u64;
        }
        Ok(reply)
    }

    /// At least one byte; the end of the stream is an error, for an answer is still due.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if is_slice(&error) => self.check()?,
                other => return other,
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_slice(&error) => self.check()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.session.is_over() || Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

fn is_slice(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// The answer and the length of its head; none where the head is not complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Reply, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let status = response.code.unwrap_or_default();
    let body = value("content-length").and_then(|text| text.parse().ok()).unwrap_or_default();
    let closes = value("connection").is_some_and(|text| text.eq_ignore_ascii_case("close"));
    Ok(Some((Reply { status, body, closes }, head)))
}

/// One small page, over the kept connection where there is one.
pub fn page(kept: &mut Option<TcpStream>, draw: &mut Draw, close: bool, session: &Session) -> io::Result<()> {
    let path =
        if draw.chance(MISSING) { "/missing".to_owned() } else { format!("/page-{}", draw.choice(&PAGES)) };
    let mut connection = match kept.take() {
        Some(stream) => Connection::over(stream, session)?,
        None => connect(80, session)?,
    };
    let reply = connection.exchange("GET", &path, 0, close)?;
    if !close && !reply.closes {
        *kept = Some(connection.into_stream());
    }
    Ok(())
}

pub fn download(draw: &mut Draw, session: &Session) -> io::Result<()> {
    let path = format!("/download-{}", draw.choice(&DOWNLOADS));
    connect(80, session)?.exchange("GET", &path, 0, true).map(drop)
}

pub fn upload(draw: &mut Draw, bytes: u32, session: &Session) -> io::Result<()> {
    let path = format!("/upload/{}", draw.integer(0, 9));
    connect(80, session)?.exchange("PUT", &path, bytes, true).map(drop)
}

/// One request to the application, over a connection of its own.
pub fn call(bytes: u32, session: &Session) -> io::Result<()> {
    connect(APP_PORT, session)?.exchange("POST", "/call", bytes, true).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_waited_for() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let (reply, head) = parse(text).unwrap().unwrap();
        assert_eq!(reply, Reply { status: 503, body: 5, closes: true });
        assert_eq!(&text[head..], b"hello");
        assert_eq!(parse(&text[..40]).unwrap(), None);
        assert!(parse(b"SSH-2.0-OpenSSH\r\n").is_err());
    }
}
