//! A thread that follows a server, with a runtime of its own, until it is stopped.

use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::Error;

/// Stops with the value.
pub struct Background {
    /// What it is, as its failure is told.
    what: &'static str,
    /// Dropped to stop the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts it. `follow` has to end when the other end of what it gets is dropped. What it says goes where its
    /// starter's words go.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn start<F: Future<Output = ()>>(
        name: &str,
        what: &'static str,
        follow: impl FnOnce(oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::Thread)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let log = tracing::dispatcher::get_default(Clone::clone);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || tracing::dispatcher::with_default(&log, || runtime.block_on(follow(stopped))))
            .map_err(Error::Thread)?;
        Ok(Self { what, stop: Some(stop), thread: Some(thread) })
    }

    /// Stops it, and waits for its end.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("{} failed", self.what);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}
