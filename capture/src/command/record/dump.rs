//! The black box, frozen into files of their own while recording goes on.

use std::path::PathBuf;
use std::thread::JoinHandle;

use anyhow::Context as _;
use capture::combine::{Instant, Part, combine};
use capture::control::Request;
use capture::output::Output;
use event::{Duration, Timestamp};
use recording::Reader;

/// The threads that write dumps.
pub(super) struct Dumps {
    /// How far back a dump goes; without it, as far as there are files.
    keep: Option<Duration>,
    /// Whether they could.
    threads: Vec<JoinHandle<bool>>,
}

impl Dumps {
    pub const fn new(keep: Option<Duration>) -> Self {
        Self { keep, threads: Vec::new() }
    }

    /// Writes the black box of `output` into a file, by a thread: the packets do not wait.
    pub fn start(
        &mut self,
        output: &mut Output,
        now: Timestamp,
        path: PathBuf,
        request: Option<Request>,
    ) -> anyhow::Result<()> {
        if !output.has_pieces() {
            tracing::warn!("asked for a dump, but there is no black box: start the recorder with --keep");
            if let Some(request) = request {
                request.answer(Err("it has no black box: start it with --keep".to_owned()));
            }
            return Ok(());
        }
        // Opened here, so that a piece that goes meanwhile can still be read.
        let readers: Result<Vec<Reader>, _> =
            output.pieces_until(now)?.iter().map(|piece| Reader::open(&piece.path)).collect();
        let back = |keep: Duration| Timestamp::from_nanos(now.as_nanos() - keep.as_nanos());
        let part = Part { from: self.keep.map(|keep| Instant::At(back(keep))), ..Part::default() };
        let write = move || {
            let combined = readers.and_then(|mut readers| combine(&mut readers, &path, &part));
            let answer = match &combined {
                Ok(combined) => Ok(format!("{}: {}", path.display(), combined.summary.counts)),
                Err(error) => Err(error.to_string()),
            };
            match &answer {
                Ok(done) => tracing::info!("dumped {done}"),
                Err(error) => tracing::error!("the dump failed: {error}"),
            }
            let is_done = answer.is_ok();
            if let Some(request) = request {
                request.answer(answer);
            }
            is_done
        };
        let thread = std::thread::Builder::new().name("dump".to_owned()).spawn(write);
        self.threads.push(thread.context("cannot start a thread")?);
        Ok(())
    }

    /// Waits for all of them; whether each could write its file.
    pub fn join(self) -> bool {
        self.threads.into_iter().map(|thread| thread.join().unwrap_or(false)).fold(true, |all, one| all & one)
    }
}
