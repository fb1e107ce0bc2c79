//! A file that is still being written, as a stream that waits at its end for more.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;
use std::time::Duration;

use cli::Interrupt;

use super::MCAP_MAGIC;

/// How often the file's end is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Reads a file as it grows; ends where a recording has its end, or where the user says so.
pub struct Follow {
    file: File,
    interrupt: Interrupt,
    /// The last bytes read, and how many were read.
    last: [u8; MCAP_MAGIC.len()],
    read: u64,
}

impl Follow {
    pub fn open(path: &Path, interrupt: Interrupt) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, interrupt, last: [0; MCAP_MAGIC.len()], read: 0 })
    }

    /// Whether the writer of a recording has finished: the file ends as it began.
    fn is_finished(&self) -> bool {
        self.last == MCAP_MAGIC && self.read > MCAP_MAGIC.len() as u64
    }

    fn note(&mut self, bytes: &[u8]) {
        self.read += bytes.len() as u64;
        let kept = bytes.len().min(self.last.len());
        self.last.rotate_left(kept);
        let start = self.last.len() - kept;
        self.last[start..].copy_from_slice(&bytes[bytes.len() - kept..]);
    }

    fn was_cut(&mut self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() < self.file.stream_position()?)
    }
}

impl Read for Follow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.file.read(buffer)?;
            self.note(&buffer[..read]);
            if read > 0 || buffer.is_empty() || self.is_finished() || self.interrupt.is_raised() {
                return Ok(read);
            }
            if self.was_cut()? {
                return Err(io::Error::other("the file that is followed became shorter"));
            }
            std::thread::sleep(POLL);
        }
    }
}
