//! Where a recording is written to: whole chunks at a time, so that a file never ends inside one by our doing.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// A file, which can take back a half-written chunk, or a stream, which cannot.
pub(crate) enum Target {
    File(File),
    Stream(Box<dyn Write + Send>),
}

impl Target {
    /// Appends `bytes` at `offset`, the end of what was written before. On failure a file is cut back to
    /// `offset`: half a chunk helps nobody, and its space lets others write on.
    pub fn append(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Self::File(file) => {
                let result = file.write_all(bytes);
                if result.is_err() {
                    // The error that led here is the one to tell.
                    let _ = file.set_len(offset);
                }
                result
            }
        }
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
