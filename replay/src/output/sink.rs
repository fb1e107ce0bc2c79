//! Hands closed windows to an output: at once, or through a thread of its own that writes while the next are computed.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use features::ClosedWindow;

use super::Output;
use crate::stats::Stats;

/// Windows that may wait for the writer; bounds the memory.
const WAITING: usize = 4;

/// Where closed windows go.
pub enum Sink {
    Here {
        output: Output,
        is_live: bool,
    },
    Apart {
        windows: SyncSender<ClosedWindow>,
        writer: JoinHandle<Result<Output>>,
        is_live: bool,
    },
    /// The writer has ended before its time, and its error was told.
    Failed,
}

impl Sink {
    /// Writes in the calling thread. Where somebody waits for each row, each window is handed on as it is written.
    pub fn here(output: Output, is_live: bool) -> Self {
        Self::Here { output, is_live }
    }

    /// Writes in a thread that makes rows with so many.
    pub fn apart(mut output: Output, is_live: bool, threads: usize) -> Result<Self> {
        let (windows, waiting) = sync_channel(WAITING);
        let writer = std::thread::Builder::new().name("rows".to_owned()).spawn(move || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build()?;
            pool.install(|| write_all(&mut output, is_live, waiting))?;
            Ok(output)
        });
        Ok(Self::Apart { windows, writer: writer.context("cannot start a thread")?, is_live })
    }

    /// Waits until the thread has written what it was given, and writes in the calling thread from here on.
    pub fn come_here(&mut self) -> Result<()> {
        if let Self::Apart { is_live, .. } = *self {
            let output = std::mem::replace(self, Self::Failed).finish()?;
            *self = Self::Here { output, is_live };
        }
        Ok(())
    }

    pub fn write(&mut self, window: ClosedWindow) -> Result<()> {
        match self {
            Self::Here { output, is_live } => write(output, *is_live, &window),
            Self::Apart { windows, .. } if windows.send(window).is_ok() => Ok(()),
            // The writer hung up.
            Self::Apart { .. } | Self::Failed => std::mem::replace(self, Self::Failed).finish().map(drop),
        }
    }

    /// The summary, where the output is one.
    pub fn stats(&mut self) -> Option<&mut Stats> {
        match self {
            Self::Here { output: Output::Stats(stats), .. } => Some(stats),
            _ => None,
        }
    }

    /// Waits until everything is written.
    pub fn finish(self) -> Result<Output> {
        match self {
            Self::Here { output, .. } => Ok(output),
            Self::Apart { windows, writer, .. } => {
                drop(windows);
                writer.join().map_err(|_| anyhow!("the writing thread panicked"))?
            }
            Self::Failed => Err(anyhow!("the output failed before")),
        }
    }
}

fn write_all(output: &mut Output, is_live: bool, windows: Receiver<ClosedWindow>) -> Result<()> {
    windows.into_iter().try_for_each(|window| write(output, is_live, &window))
}

fn write(output: &mut Output, is_live: bool, window: &ClosedWindow) -> Result<()> {
    output.write(window)?;
    if is_live { output.flush() } else { Ok(()) }
}
