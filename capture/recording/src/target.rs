//! Where a recording is written to: whole chunks at a time, so that a file never ends inside one by our doing,
//! and with space reserved ahead, so that a full disk still takes the index and the footer.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// Bytes reserved behind the end of a file: several chunks, and the index of a day of them.
const RESERVE: u64 = 8 << 20;

/// A file, which can take back a half-written chunk and reserve space, or a stream, which cannot.
pub(crate) enum Target {
    File {
        file: File,
        /// End of the space that the file has for sure.
        reserved: u64,
    },
    Stream(Box<dyn Write + Send>),
}

/// Whether the disk has space for more than the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    Short,
}

impl Target {
    pub const fn file(file: File) -> Self {
        Self::File { file, reserved: 0 }
    }

    /// Appends `bytes` at `offset`, the end of what was written before. On failure a file is cut back to
    /// `offset`: half a chunk helps nobody, and its space lets others write on.
    pub fn append(&mut self, offset: u64, bytes: &[u8]) -> io::Result<Room> {
        match self {
            Self::Stream(stream) => {
                stream.write_all(bytes)?;
                stream.flush()?;
                Ok(Room::Enough)
            }
            Self::File { file, reserved } => {
                let room = reserve(file, reserved, offset + bytes.len() as u64);
                let result = file.write_all(bytes);
                if result.is_err() {
                    // The error that led here is the one to tell.
                    let _ = file.set_len(offset);
                }
                result.map(|()| room)
            }
        }
    }

    /// Gives back what was reserved and not used.
    pub fn finish(&mut self, length: u64) {
        if let Self::File { file, .. } = self {
            // Without it the file takes more of the disk than its length says, and nothing worse.
            let _ = file.set_len(length);
        }
    }
}

/// Reserves space behind `end`, half a reserve at a time.
fn reserve(file: &File, reserved: &mut u64, end: u64) -> Room {
    if end + RESERVE / 2 <= *reserved {
        return Room::Enough;
    }
    let (start, upto) = (*reserved, end + RESERVE);
    let (Ok(offset), Ok(length)) = (i64::try_from(start), i64::try_from(upto.saturating_sub(start))) else {
        return Room::Enough;
    };
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length) {
        Ok(()) => {
            *reserved = upto;
            Room::Enough
        }
        Err(Errno::ENOSPC | Errno::EDQUOT) => Room::Short,
        // A file system that cannot reserve: it tells by a failing write.
        Err(_) => Room::Enough,
    }
}

/// Collects what the MCAP writer makes, until a whole number of chunks is there to be appended.
#[derive(Clone, Default)]
pub(crate) struct Pending(Arc<Mutex<Vec<u8>>>);

impl Pending {
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives the memory of a taken buffer back.
    pub fn recycle(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = buffer;
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
