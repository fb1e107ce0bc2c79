//! Orders to a running recorder, by a socket beside its recording: marks, and dumps of its black box.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use event::Label;
use serde::{Deserialize, Serialize};

/// How long either side waits for the other. A dump of many minutes takes its time; a client that connects and says
/// nothing must not hold the recorder up.
const CLIENT_PATIENCE: Duration = Duration::from_secs(600);
const RECORDER_PATIENCE: Duration = Duration::from_millis(50);

/// Longest order: a note of a few pages.
const LONGEST: u64 = 64 << 10;

/// What a recorder can be told to do. One line of JSON each way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// From now on this label, where there is one; and a note.
    Mark { label: Option<u16>, note: String },
    /// The events that the black box still has, into this file.
    Dump { path: PathBuf },
}

impl Order {
    pub fn mark(label: Option<Label>, note: String) -> Self {
        Self::Mark { label: label.map(|label| label.0), note }
    }
}

/// `trace.mcap` is controlled by `trace.mcap.sock`.
pub fn socket_of(recording: &Path) -> PathBuf {
    let mut name = recording.as_os_str().to_owned();
    name.push(".sock");
    name.into()
}

/// Gives an order to the recorder at this socket, and returns its answer.
///
/// # Errors
/// Where there is no recorder, or it refuses: the text says why.
pub fn send(socket: &Path, order: &Order) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    serde_json::to_writer(&stream, order)?;
    stream.write_all(b"\n")?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    match serde_json::from_str::<Result<String, String>>(&answer)? {
        Ok(done) => Ok(done),
        Err(refused) => Err(io::Error::other(refused)),
    }
}

/// The recorder's side.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// An order, and who waits for the answer.
#[derive(Debug)]
pub struct Request {
    pub order: Order,
    stream: UnixStream,
}

impl Request {
    /// Tells the client what was done, or why not. A client that has gone is no failure of ours.
    pub fn answer(mut self, answer: Result<String, String>) {
        if let Ok(mut line) = serde_json::to_vec(&answer) {
            line.push(b'\n');
            let _ = self.stream.write_all(&line);
        }
    }
}

impl Control {
    /// Listens. A socket that nobody listens to any more is what a crash left, and is replaced.
    ///
    /// # Errors
    /// Where the socket cannot be made, or another recorder listens there.
    pub fn listen(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).is_err() {
            let _ = fs::remove_file(path);
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The next order, where there is one.
    pub fn poll(&self) -> Option<Request> {
        let (stream, _) = self.listener.accept().ok()?;
        match read(&stream) {
            Ok(order) => Some(Request { order, stream }),
            Err(error) => {
                tracing::warn!("{}: an order could not be read: {error}", self.path.display());
                None
            }
        }
    }
}

fn read(stream: &UnixStream) -> io::Result<Order> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(RECORDER_PATIENCE))?;
    stream.set_write_timeout(Some(RECORDER_PATIENCE))?;
    let mut line = String::new();
    BufReader::new(io::Read::take(stream, LONGEST)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_and_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = socket_of(&folder.path().join("a.mcap"));
        assert!(send(&path, &Order::mark(None, String::new())).is_err());
        let control = Control::listen(&path).unwrap();
        assert!(control.poll().is_none());
        let order = Order::mark(Some(Label(2)), "half of it\nlost".to_owned());
        let client = std::thread::spawn({
            let (path, order) = (path.clone(), order.clone());
            move || [send(&path, &order), send(&path, &order)]
        });
        for answer in [Ok("done".to_owned()), Err("no".to_owned())] {
            let request = loop {
                if let Some(request) = control.poll() {
                    break request;
                }
            };
            assert_eq!(request.order, order);
            request.answer(answer);
        }
        let [done, refused] = client.join().unwrap();
        assert_eq!(done.unwrap(), "done");
        assert_eq!(refused.unwrap_err().to_string(), "no");
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn a_client_that_says_nonsense_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let control = Control::listen(&path).unwrap();
        UnixStream::connect(&path).unwrap().write_all(b"mark please\n").unwrap();
        assert!(control.poll().is_none());
        let silent = UnixStream::connect(&path).unwrap();
        assert!(control.poll().is_none());
        drop(silent);
    }
}
