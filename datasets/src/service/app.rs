//! An application server of our own on port 8080, with what real ones have when they misbehave: a short
//! accept queue, a small receive buffer, and knobs for how slowly it accepts and reads. It is there in every
//! class; only the faults turn the knobs.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, SockAddr, Socket, Type};

use super::await_start;
use crate::cgroup::Groups;
use crate::load::Session;
use crate::node::Node;
use crate::process::Process;
use crate::topology::SERVER;

pub const PORT: u16 = 8080;
/// Connections that wait to be accepted; an application that never set it has 5 to 128.
const BACKLOG: i32 = 8;
/// Bytes; the kernel doubles it. Small, but it holds what the clients of `web` send: a full one is a fault.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Connections served at the same time; further ones wait in the queue.
const CONNECTION_LIMIT: u32 = 256;
/// Bytes that one read takes.
const READ: usize = 16 * 1024;

/// How slow the application is.
#[derive(Default)]
struct Knobs {
    /// Pause after each accept and each read, in milliseconds.
    accept_pause: AtomicU32,
    read_pause: AtomicU32,
    open: AtomicU32,
}

/// One of the knobs, as the lab names it to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Knob {
    AcceptPause,
    ReadPause,
}

/// The application: a process of the pod like its other servers, in its namespaces and its control groups.
pub struct App {
    process: Process,
    orders: ChildStdin,
}

impl App {
    pub fn start(node: &Node, groups: &Groups, limit: Duration) -> Result<Self> {
        let mut lab = Command::new(std::env::current_exe().context("cannot find this program's own path")?);
        lab.args(["application", &limit.as_secs().to_string()]);
        let mut command = groups.joined(&lab);
        command.stdin(Stdio::piped());
        let mut process = node.spawn("application", command)?;
        let orders = process.take_stdin().context("the application has no stdin")?;
        await_start("application", || {
            process.expect_running()?;
            // 1F90 is port 8080, 0A is LISTEN.
            Ok(node.proc_net("tcp")?.lines().any(|line| line.contains(":1F90 ") && line.contains(" 0A ")))
        })?;
        Ok(Self { process, orders })
    }

    /// Turns a knob: from now on the application pauses so many milliseconds.
    pub fn turn(&mut self, knob: Knob, milliseconds: u32) -> Result<()> {
        self.process.expect_running()?;
        writeln!(self.orders, "{} {milliseconds}", crate::proof::name(knob))
            .context("the application does not listen to its lab")
    }
}

/// What the process does: serves until its stdin ends, or for `limit`, and obeys what it reads there.
pub fn serve_until_told(limit: Duration) -> Result<()> {
    let (knobs, session) = (Arc::<Knobs>::default(), Session::new(limit));
    let listener = listen().context("cannot listen on port 8080")?;
    let (knobs_there, session_there) = (Arc::clone(&knobs), session.clone());
    let acceptor = thread::spawn(move || accept(&listener, &knobs_there, &session_there));
    for line in io::stdin().lines() {
        obey(&knobs, &line.context("cannot read orders")?)?;
    }
    session.end();
    acceptor.join().ok().context("the application panicked")
}

fn obey(knobs: &Knobs, order: &str) -> Result<()> {
    let parsed = order.split_once(' ').and_then(|(name, value)| {
        Some((<Knob as clap::ValueEnum>::from_str(name, false).ok()?, value.parse().ok()?))
    });
    let (knob, value) = parsed.with_context(|| format!("`{order}` is no order"))?;
    match knob {
        Knob::AcceptPause => &knobs.accept_pause,
        Knob::ReadPause => &knobs.read_pause,
    }
    .store(value, Ordering::Relaxed);
    Ok(())
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Before listen: accepted sockets inherit it, and the window scale follows from it.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(SERVER, PORT)))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener, knobs: &Arc<Knobs>, session: &Session) {
    while !session.is_over() {
        if knobs.open.load(Ordering::Relaxed) >= CONNECTION_LIMIT {
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                let (knobs, session) = (Arc::clone(knobs), session.clone());
                let pause = Duration::from_millis(knobs.accept_pause.load(Ordering::Relaxed).into());
                knobs.open.fetch_add(1, Ordering::Relaxed);
                let until = session.clone();
                thread::spawn(move || {
                    // A client that went away is no failure of the server.
                    let _ = serve(stream, &knobs, &session);
                    knobs.open.fetch_sub(1, Ordering::Relaxed);
                });
                if !pause.is_zero() {
                    until.pause(pause);
                }
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Answers requests on one connection until the client closes it.
fn serve(mut stream: TcpStream, knobs: &Knobs, session: &Session) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while !session.is_over() {
        let Some((head, body)) = request(&buffer)? else {
            if !read_more(&mut stream, &mut buffer, knobs, session)? {
                return Ok(());
            }
            continue;
        };
        let mut seen = buffer.len() - head;
        buffer.clear();
        while seen < body {
            if !read_more(&mut stream, &mut buffer, knobs, session)? {
                return Ok(());
            }
            seen += buffer.len();
            buffer.clear();
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\ndone\n")?;
    }
    Ok(())
}

/// One read at the application's pace; false at the end of the stream or of the session.
fn read_more(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    knobs: &Knobs,
    session: &Session,
) -> io::Result<bool> {
    let pause = Duration::from_millis(knobs.read_pause.load(Ordering::Relaxed).into());
    if !pause.is_zero() && !session.pause(pause) {
        return Ok(false);
    }
    let mut block = [0; READ];
    while !session.is_over() {
        match stream.read(&mut block) {
            Ok(0) => return Ok(false),
            Ok(read) => {
                buffer.extend(&block[..read]);
                return Ok(true);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Lengths of head and body of a request; none where the head is not complete.
fn request(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body =
        length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).unwrap_or_default();
    Ok(Some((head, body)))
}
